using System.Globalization;
using LoKr.Benchmarks.Harness;
using LoKr.Benchmarks.References;
using LoKr.Core.Layouts;
using LoKr.Core.Merging.Checkpoints;

namespace LoKr.Benchmarks.Cases;

/// <summary>
/// An adapter of kohya's scripts on all linear layers of a single file in Flux's shapes, with fused query, key and value, merged into another
/// file, against a copy of the file with a flush; weights as bfloat16, and as 8-bit floats with scales. Files are in the page cache.
/// </summary>
internal sealed class FileMergeCase : IBenchmarkCase
{
    private const long MemoryLimit = 400L << 20;

    // Those of Flux.1.
    private const int AllDoubles = 19;
    private const int AllSingles = 38;

    /// <inheritdoc/>
    public string Name => "file-merge";

    /// <inheritdoc/>
    public string Title => "merge into a single file in Flux's shapes";

    /// <inheritdoc/>
    public void Run(BenchmarkContext context)
    {
        if (OperatingSystem.IsWindows())
        {
            context.Note("There is no cp here to compare with.");
            return;
        }

        (int doubles, int singles) = context.Options.Quick ? (2, 4) : (AllDoubles / 2, AllSingles / 2);
        Compare(context, doubles, singles, isFloat8: false, 1.25);
        Compare(context, doubles, singles, isFloat8: true, 2);
    }

    /// <summary>Merges in a process of its own and prints the peak of its memory.</summary>
    public static void RunProbe(string from, string adapter, string to)
    {
        Merge(from, adapter, to);
        Console.WriteLine(PeakMemory.Peak.ToString(CultureInfo.InvariantCulture));
    }

    private void Compare(BenchmarkContext context, int doubles, int singles, bool isFloat8, double target)
    {
        string root = System.IO.Directory.CreateDirectory(Path.Combine(context.Directory, Name)).FullName;
        string from = FluxFiles.WriteBase(Path.Combine(root, "flux.safetensors"), doubles, singles, isFloat8);
        string adapter = FluxFiles.WriteAdapter(Path.Combine(root, "style.safetensors"), doubles, singles);
        string to = Path.Combine(root, "out.safetensors");
        void Clear()
        {
            File.Delete(to);

            // What the variant before has left to write is not this one's.
            ShellProgram.Run("sync");
        }

        string type = isFloat8 ? "8-bit floats with scales" : "bfloat16";
        if (OperatingSystem.IsLinux())
        {
            long small = Peak(context, from, adapter, to, type, Clear);
            (int manyDoubles, int manySingles) = context.Options.Quick ? (4 * doubles, 4 * singles) : isFloat8 ? (AllDoubles, AllSingles) : (doubles / 3, singles / 3);
            string many = FluxFiles.WriteBase(Path.Combine(root, "many.safetensors"), manyDoubles, manySingles, isFloat8);
            long other = Peak(context, many, FluxFiles.WriteAdapter(Path.Combine(root, "many-style.safetensors"), manyDoubles, manySingles), to, type, Clear);
            File.Delete(many);
            double share = (double)Math.Max(small, other) / MemoryLimit;
            double growth = (double)Math.Max(small, other) / Math.Min(small, other);
            context.Report(new Ratio($"single file, {type}, memory", new Target("peak memory", "400 MiB", 1), share, share, share));
            context.Report(new Ratio($"single file, {type}, memory", new Target("peak memory", "with another number of blocks", 1.15), growth, growth, growth));
        }

        context.Compare(
            $"{PeakMemory.Format(new FileInfo(from).Length)} {type}, factor 8, r 16",
            [new("merge", () => Merge(from, adapter, to), Clear), new("cp and sync", () => { ShellProgram.Run("cp", from, to); ShellProgram.Run("sync"); }, Clear)],
            [new("merge", "cp and sync", target)]);
        System.IO.Directory.Delete(root, recursive: true);
    }

    private static long Peak(BenchmarkContext context, string from, string adapter, string to, string type, Action clear)
    {
        long peak = ProbeProcess.Run(new Dictionary<string, string>(), "file-merge", from, adapter, to)[0];
        clear();
        context.Note($"{PeakMemory.Format(new FileInfo(from).Length)} {type}; peak memory of a process that does nothing else {PeakMemory.Format(peak)}");
        return peak;
    }

    private static void Merge(string from, string adapter, string to)
    {
        using CheckpointMerge merge = CheckpointMerge.Open(new CheckpointMergeOptions { Base = CheckpointBase.Read(from), Destination = to, Adapters = [new AdapterMergeSource(adapter)] });
        merge.Run();
    }
}
