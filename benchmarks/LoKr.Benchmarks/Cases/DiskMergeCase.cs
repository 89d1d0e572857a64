using System.Globalization;
using LoKr.Benchmarks.Harness;
using LoKr.Benchmarks.References;
using LoKr.Core.Configuration;
using LoKr.Core.Layouts;
using LoKr.Core.Merging.Checkpoints;
using static TorchSharp.torch;

namespace LoKr.Benchmarks.Cases;

/// <summary>
/// An adapter on all linear layers merged from one folder into another, against a copy of the folder. The merge flushes what it wrote to the
/// disk, a copy does not; so there is a copy with a flush beside it. Files are in the page cache.
/// </summary>
internal sealed class DiskMergeCase : IBenchmarkCase
{
    private const long MemoryLimit = 400L << 20;

    // As many layers as Llama 3.1 8B has: 14 GiB, of which there are two.
    private const int AllLayers = 32;

    /// <inheritdoc/>
    public string Name => "disk-merge";

    /// <inheritdoc/>
    public string Title => "merge of a checkpoint on disk into another folder";

    /// <inheritdoc/>
    public void Run(BenchmarkContext context)
    {
        int layers = context.Options.Quick ? 3 : 7;
        string root = Path.Combine(context.Directory, Name);
        string from = LlamaFiles.WriteBase(Path.Combine(root, "base"), layers, ScalarType.BFloat16);
        string adapter = LlamaFiles.WriteAdapter(Path.Combine(root, "adapter"), layers, new LoKrConfig { R = 16, DecomposeFactor = 8 });
        string to = Path.Combine(root, "out");
        long bytes = System.IO.Directory.EnumerateFiles(from).Sum(static file => new FileInfo(file).Length);
        void Clear()
        {
            if (System.IO.Directory.Exists(to))
            {
                System.IO.Directory.Delete(to, recursive: true);
            }

            // What the variant before has left to write is not this one's.
            ShellProgram.Run("sync");
        }

        if (OperatingSystem.IsLinux())
        {
            long small = Peak(context, from, adapter, to, Clear);
            bool hasRoom = !context.Options.Quick && new DriveInfo(root).AvailableFreeSpace > 40L << 30;
            int most = hasRoom ? AllLayers : 4 * layers;
            string many = Path.Combine(root, "many");
            long large = Peak(
                context, LlamaFiles.WriteBase(many, most, ScalarType.BFloat16), LlamaFiles.WriteAdapter(Path.Combine(root, "adapter-many"), most, new LoKrConfig { R = 16, DecomposeFactor = 8 }), to, Clear);
            System.IO.Directory.Delete(many, recursive: true);
            double share = (double)large / MemoryLimit;
            double growth = (double)large / small;
            context.Report(new Ratio("disk merge, memory", new Target($"peak memory with {most} layers", "400 MiB", 1), share, share, share));
            context.Report(new Ratio("disk merge, memory", new Target($"peak memory with {most} layers", $"with {layers} layers", 1.15), growth, growth, growth));
        }

        if (OperatingSystem.IsWindows())
        {
            context.Note("There is no cp here to compare with.");
            return;
        }

        context.Compare(
            $"{PeakMemory.Format(bytes)} bfloat16, factor 8, r 16",
            [new("merge", () => Merge(from, adapter, to), Clear), new("cp -r", () => ShellProgram.Run("cp", "-r", from, to), Clear), new("cp -r and sync", () => { ShellProgram.Run("cp", "-r", from, to); ShellProgram.Run("sync"); }, Clear)],
            [new("merge", "cp -r", 1.25), new("merge", "cp -r and sync")]);
        System.IO.Directory.Delete(root, recursive: true);
    }

    /// <summary>Merges in a process of its own and prints the peak of its memory.</summary>
    public static void RunProbe(string from, string adapter, string to)
    {
        Merge(from, adapter, to);
        Console.WriteLine(PeakMemory.Peak.ToString(CultureInfo.InvariantCulture));
    }

    /// <summary>The peak memory of a process that merges and does nothing else.</summary>
    private static long Peak(BenchmarkContext context, string from, string adapter, string to, Action clear)
    {
        long peak = ProbeProcess.Run(new Dictionary<string, string>(), "disk-merge", from, adapter, to)[0];
        clear();
        long bytes = System.IO.Directory.EnumerateFiles(from).Sum(static file => new FileInfo(file).Length);
        context.Note($"{PeakMemory.Format(bytes)} bfloat16; peak memory of a process that does nothing else {PeakMemory.Format(peak)}");
        return peak;
    }

    private static void Merge(string from, string adapter, string to)
    {
        using CheckpointMerge merge = CheckpointMerge.Open(new CheckpointMergeOptions { Base = CheckpointBase.Read(from), Destination = to, Adapters = [new AdapterMergeSource(adapter)] });
        merge.Run();
    }
}
