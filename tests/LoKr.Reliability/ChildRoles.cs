using System.Diagnostics;
using System.Globalization;
using LoKr.Core.Distributed;
using LoKr.Core.Errors;
using LoKr.Core.Runtime;

namespace LoKr.Reliability;

/// <summary>Roles of this program as another process.</summary>
internal static class ChildRoles
{
    /// <summary>Line that a process writes when it waits for the word to start.</summary>
    public const string Ready = "ready";

    public const string WriteForever = "write-forever";
    public const string WriteOnce = "write-once";
    public const string WriteBeside = "write-beside";
    public const string ReadBeside = "read-beside";
    public const string Fuzz = "fuzz";
    public const string Train = "train";
    public const string Share = "share";
    public const string ShareRun = "share-run";
    public const string NightOnce = "night-once";

    public static int Run(string[] role)
    {
        switch (role)
        {
            case [WriteForever, string name, string root]:
                Forever(Writer.Find(name), root);
                break;
            case [WriteOnce, string name, string root, string swap]:
                Once(Writer.Find(name), root, swap == "renames");
                break;
            case [WriteBeside, string name, string root, string seconds]:
                Beside(Writer.Find(name), root, int.Parse(seconds, CultureInfo.InvariantCulture));
                break;
            case [ReadBeside, string name, string root, string seconds]:
                VersionReader reader = new(Writer.Find(name), root);
                Console.WriteLine(Ready);
                Wait();
                Console.WriteLine(reader.ReadFor(TimeSpan.FromSeconds(int.Parse(seconds, CultureInfo.InvariantCulture))));
                break;
            case [Fuzz, string folder, string first, string cases, string seed]:
                Console.WriteLine(Ready);
                Wait();
                FuzzRun.RunHere(folder, long.Parse(first, CultureInfo.InvariantCulture), long.Parse(cases, CultureInfo.InvariantCulture), int.Parse(seed, CultureInfo.InvariantCulture));
                break;
            case [Train, string root, string run]:
                TorchRuntime.EnsureLoaded();
                KilledRun.Warm(root);
                Action<string> train = KilledRun.Open(root);
                Console.WriteLine(Ready);
                Wait();
                train(Path.Combine(root, run));
                break;
            case [Share, string root, string mode]:
                TorchRuntime.EnsureLoaded();
                SharedRuns.Train(root, Enum.Parse<DistributedMode>(mode));
                break;
            case [ShareRun, string root, string run]:
                TorchRuntime.EnsureLoaded();
                Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{Ready} {Launch.Current?.Rank ?? 0} {Environment.ProcessId}"));
                KilledRun.TrainTogether(root, Path.Combine(root, run));
                break;
            case [NightOnce, string root]:
                TorchRuntime.EnsureLoaded();
                KilledNight.RunOnce(root);
                break;
            default:
                Console.Error.WriteLine($"No such role: {string.Join(' ', role)}");
                return 2;
        }

        return 0;
    }

    // Until it is killed; each version replaces the other one.
    private static void Forever(Writer writer, string root)
    {
        Action<string, int> write = OpenWarm(writer, root);
        string destination = Workplace.DestinationIn(root, writer);
        Console.WriteLine(Ready);
        Wait();
        for (int version = 1; ; version = 1 - version)
        {
            write(destination, version);
        }
    }

    private static void Once(Writer writer, string root, bool withoutExchange)
    {
        Action<string, int> write = OpenWarm(writer, root);
        NativeCalls.StopAtChanges(withoutExchange);
        NativeCalls.Mark();
        write(Workplace.DestinationIn(root, writer), 1);
        NativeCalls.Mark();
    }

    private static void Beside(Writer writer, string root, int seconds)
    {
        Action<string, int> write = OpenWarm(writer, root);
        string destination = Workplace.DestinationIn(root, writer);
        Console.WriteLine(Ready);
        Wait();
        long start = Stopwatch.GetTimestamp();
        (int written, int busy) = (0, 0);
        while (Stopwatch.GetElapsedTime(start).TotalSeconds < seconds)
        {
            try
            {
                write(destination, (written + 1) % 2);
                written++;
            }
            catch (LoKrException exception) when (exception.ErrorId == ErrorIds.DestinationBusy)
            {
                busy++;
            }

            // Often, but a reader on a busy machine has to find the folder the same for as long as it opens its files.
            Thread.Sleep(20);
        }

        Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{written} written, {busy} busy"));
    }

    // Writes elsewhere first: the first time is mostly the compiler's.
    private static Action<string, int> OpenWarm(Writer writer, string root)
    {
        if (writer.NeedsTorch)
        {
            TorchRuntime.EnsureLoaded();
        }

        Action<string, int> write = writer.Open(Path.Combine(root, "inputs"));
        string warm = Path.Combine(root, $"warm-{Environment.ProcessId}", Path.GetFileName(Workplace.DestinationIn(root, writer)));
        Directory.CreateDirectory(Path.GetDirectoryName(warm)!);
        write(warm, 0);
        write(warm, 1);
        return write;
    }

    private static void Wait()
    {
        using Stream input = Console.OpenStandardInput();
        input.ReadByte();
    }
}
