using System.Diagnostics;
using System.Globalization;
using System.Text;
using LoKr.Core.Errors;
using LoKr.Core.Runtime;

namespace LoKr.Reliability;

/// <summary>
/// A series of cases over all readers. Case i of a seed is always the same file, so that a case that ends or hangs its process can be made
/// again by another one. The process that reads says in a file where it is.
/// </summary>
internal static class FuzzRun
{
    /// <summary>Longest processor time of a case: a machine that is busy otherwise makes no failures.</summary>
    public static readonly TimeSpan TimeLimit = TimeSpan.FromSeconds(20);

    /// <summary>Longest time of a case, for one that waits.</summary>
    public static readonly TimeSpan WaitLimit = TimeSpan.FromMinutes(5);

    /// <summary>Largest heap of the process that reads; more is an error of the runtime, which is not typed.</summary>
    public const long HeapLimit = 1L << 30;

    /// <summary>Bytes that one case may allocate from the garbage collector.</summary>
    public const long AllocationLimit = 512L << 20;

    private const string Position = "position";
    private const string Failures = "failures";

    private static readonly int s_shares = FuzzReader.All.Sum(static reader => reader.Share);

    /// <summary>Reader and number of a case; readers take turns by their shares.</summary>
    public static (FuzzReader Reader, long Index) Case(long number)
    {
        long round = number / s_shares;
        int place = (int)(number % s_shares);
        foreach (FuzzReader reader in FuzzReader.All)
        {
            if (place < reader.Share)
            {
                return (reader, (round * reader.Share) + place);
            }

            place -= reader.Share;
        }

        throw new UnreachableException();
    }

    /// <summary>Runs cases in another process, which is started again behind every case that ends or hangs it.</summary>
    /// <returns>Counts, and the failures with the files that hold their inputs.</returns>
    public static async Task<FuzzResult> RunAsync(string folder, long cases, int seed, CancellationToken cancellation)
    {
        Directory.CreateDirectory(folder);
        FuzzResult result = new();
        long first = 0;
        while (first < cases && result.Failures.Count < 50)
        {
            File.WriteAllBytes(Path.Combine(folder, Position), BitConverter.GetBytes(first));
            using ChildProcess child = await ChildProcess.StartAsync(
                [ChildRoles.Fuzz, folder, first.ToString(CultureInfo.InvariantCulture), cases.ToString(CultureInfo.InvariantCulture), seed.ToString(CultureInfo.InvariantCulture)],
                cancellation, ("DOTNET_GCHeapHardLimit", HeapLimit.ToString("x", CultureInfo.InvariantCulture)));
            child.Go();
            bool hangs = await HangsAsync(child, folder, cancellation);
            string? report = await child.ReadLineAsync(cancellation);
            await child.WaitAsync(cancellation);
            if (!hangs && child.ExitCode == 0 && report is not null)
            {
                result.Add(report);
                break;
            }

            long at = ReadPosition(folder);
            (FuzzReader reader, long index) = Case(at);
            byte[] input = Mutator.Mutate(Valid(reader, folder), seed, reader.Name, index);
            result.Failures.Add($"{(hangs ? $"hangs for {TimeLimit.TotalSeconds} s" : "ends the process")}: {Save(folder, reader, at, input)}");
            result.Ended++;
            result.Cases += at - first + 1;
            first = at + 1;
        }

        string failures = Path.Combine(folder, Failures);
        if (File.Exists(failures))
        {
            result.Failures.AddRange(File.ReadAllLines(failures));
        }

        return result;
    }

    /// <summary>Runs cases in this process and writes a line with counts; failures go to a file, one of each kind.</summary>
    public static void RunHere(string folder, long first, long cases, int seed)
    {
        TorchRuntime.EnsureLoaded();
        HashSet<string> known = [];
        FuzzResult result = new();
        Dictionary<string, (string Folder, IReadOnlyList<byte[]> Valid)> prepared = [];
        using FileStream position = new(Path.Combine(folder, Position), FileMode.Open, FileAccess.Write, FileShare.ReadWrite, bufferSize: 0);
        for (long number = first; number < cases; number++)
        {
            (FuzzReader reader, long index) = Case(number);
            position.Position = 0;
            position.Write(BitConverter.GetBytes(number));
            if (!prepared.TryGetValue(reader.Name, out (string Folder, IReadOnlyList<byte[]> Valid) place))
            {
                IReadOnlyList<byte[]> valid = Valid(reader, folder);
                place = (FolderOf(reader, folder), valid);
                prepared.Add(reader.Name, place);
                foreach (byte[] file in valid)
                {
                    CheckValid(reader, place.Folder, file, folder);
                }
            }

            byte[] input = Mutator.Mutate(place.Valid, seed, reader.Name, index);
            File.WriteAllBytes(Path.Combine(place.Folder, reader.File), input);
            string? problem = Try(reader, place.Folder, result);
            result.Cases++;
            if (problem is not null && known.Add($"{reader.Name} {problem}"))
            {
                File.AppendAllText(Path.Combine(folder, Failures), $"{problem}: {Save(folder, reader, number, input)}\n");
            }
        }

        result.PeakBytes = PeakBytes();
        Console.WriteLine(result.ToLine());
    }

    // A reader that refuses its valid file would test nothing.
    private static void CheckValid(FuzzReader reader, string own, byte[] file, string folder)
    {
        File.WriteAllBytes(Path.Combine(own, reader.File), file);
        try
        {
            reader.Read(own);
        }
        catch (LoKrException exception)
        {
            File.AppendAllText(Path.Combine(folder, Failures), $"{reader.Name} refuses its valid file: {exception.Message}\n");
        }
    }

    private static string? Try(FuzzReader reader, string folder, FuzzResult result)
    {
        long start = Stopwatch.GetTimestamp();
        long allocated = GC.GetTotalAllocatedBytes();
        string? problem = null;
        try
        {
            reader.Read(folder);
            result.Values++;
        }
        catch (LoKrException exception)
        {
            result.Refused++;
            problem = exception.ErrorId.StartsWith("LoKr.", StringComparison.Ordinal) && exception.Message.Length > 0 ? null : "an error without an id";
        }
        catch (Exception exception)
        {
            string place = new StackTrace(exception).GetFrames().Select(static frame => frame.GetMethod()).FirstOrDefault(static method => method?.DeclaringType?.Namespace?.StartsWith("LoKr.", StringComparison.Ordinal) == true) is { } method
                ? $"{method.DeclaringType!.Name}.{method.Name}" : "?";
            problem = $"{exception.GetType().Name} from {place} ({exception.Message.ReplaceLineEndings(" ")})";
        }

        TimeSpan time = Stopwatch.GetElapsedTime(start);
        result.Slowest = time > result.Slowest ? time : result.Slowest;
        allocated = GC.GetTotalAllocatedBytes() - allocated;
        result.MostAllocated = Math.Max(result.MostAllocated, allocated);
        return problem ?? (allocated > AllocationLimit ? $"allocates {allocated >> 20} MB" : null);
    }

    private static async Task<bool> HangsAsync(ChildProcess child, string folder, CancellationToken cancellation)
    {
        (long position, TimeSpan since, long start) = (-1, TimeSpan.Zero, 0);
        while (!child.HasExited)
        {
            await Task.Delay(100, cancellation);
            long now = ReadPosition(folder);
            if (now != position)
            {
                (position, since, start) = (now, child.ProcessorTime, Stopwatch.GetTimestamp());
            }
            else if (child.ProcessorTime - since > TimeLimit || Stopwatch.GetElapsedTime(start) > WaitLimit)
            {
                child.Kill();
                return true;
            }
        }

        return false;
    }

    private static long ReadPosition(string folder)
    {
        using FileStream stream = new(Path.Combine(folder, Position), FileMode.Open, FileAccess.Read, FileShare.ReadWrite);
        byte[] bytes = new byte[sizeof(long)];
        stream.ReadExactly(bytes);
        return BitConverter.ToInt64(bytes);
    }

    private static string FolderOf(FuzzReader reader, string folder) => Path.Combine(folder, "readers", FuzzReader.All.TakeWhile(other => other != reader).Count().ToString(CultureInfo.InvariantCulture));

    private static IReadOnlyList<byte[]> Valid(FuzzReader reader, string folder)
    {
        string own = FolderOf(reader, folder);
        if (Directory.Exists(own))
        {
            Directory.Delete(own, recursive: true);
        }

        Directory.CreateDirectory(own);
        torch_seed();
        return reader.Prepare(own);

        // Valid files with random weights are the same in every process.
        static void torch_seed() => TorchSharp.torch.random.manual_seed(1);
    }

    private static string Save(string folder, FuzzReader reader, long number, byte[] input)
    {
        string path = Path.Combine(folder, string.Create(CultureInfo.InvariantCulture, $"case-{number}-{reader.File}"));
        File.WriteAllBytes(path, input);
        string text = new([.. Encoding.UTF8.GetString(input).Take(100).Select(static letter => char.IsControl(letter) ? '.' : letter)]);
        return $"{reader.Name}, case {number}, {path}: {text}";
    }

    private static long PeakBytes()
    {
        using Process process = Process.GetCurrentProcess();
        return process.PeakWorkingSet64;
    }
}

/// <summary>Findings of a run of cases.</summary>
internal sealed class FuzzResult
{
    public long Cases { get; set; }

    public long Values { get; set; }

    public long Refused { get; set; }

    public int Ended { get; set; }

    public TimeSpan Slowest { get; set; }

    public long MostAllocated { get; set; }

    public long PeakBytes { get; set; }

    public List<string> Failures { get; } = [];

    public string ToLine() => string.Create(CultureInfo.InvariantCulture, $"{Cases} {Values} {Refused} {Slowest.TotalMilliseconds:F0} {MostAllocated} {PeakBytes}");

    /// <summary>Adds the counts of another process.</summary>
    public void Add(string line)
    {
        long[] numbers = [.. line.Split(' ').Select(static number => long.Parse(number, CultureInfo.InvariantCulture))];
        Cases += numbers[0];
        Values += numbers[1];
        Refused += numbers[2];
        Slowest = TimeSpan.FromMilliseconds(numbers[3]);
        MostAllocated = numbers[4];
        PeakBytes = numbers[5];
    }

    public override string ToString() => string.Create(CultureInfo.InvariantCulture,
        $"{Cases} cases: {Values} read, {Refused} refused with an id; slowest {Slowest.TotalMilliseconds:F0} ms, at most {MostAllocated >> 20} MB allocated for one, peak of the process {PeakBytes >> 20} MB; {Ended} ended or hung a process, {Failures.Count} failures");
}
