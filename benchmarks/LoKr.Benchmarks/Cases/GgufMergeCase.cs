using LoKr.Benchmarks.Harness;
using LoKr.Benchmarks.References;
using LoKr.Core.Configuration;
using LoKr.Core.Layouts;
using LoKr.Core.Merging.Checkpoints;

namespace LoKr.Benchmarks.Cases;

/// <summary>An adapter on all linear layers merged into a GGUF file, against a copy of the file with a flush. Files are in the page cache.</summary>
internal sealed class GgufMergeCase : IBenchmarkCase
{
    /// <inheritdoc/>
    public string Name => "gguf-merge";

    /// <inheritdoc/>
    public string Title => "merge into a GGUF file";

    /// <inheritdoc/>
    public void Run(BenchmarkContext context)
    {
        if (OperatingSystem.IsWindows())
        {
            context.Note("There is no cp here to compare with.");
            return;
        }

        int layers = context.Options.Quick ? 4 : 16;
        string root = Directory.CreateDirectory(Path.Combine(context.Directory, Name)).FullName;
        string adapter = GgufFiles.WriteAdapter(Path.Combine(root, "adapter"), layers, new LoKrConfig { R = 16, DecomposeFactor = 8 });
        Compare(context, root, adapter, "Q8_0", GgufFiles.WriteBase(Path.Combine(root, "q8.gguf"), layers, 8, (32, 34), 1), 2);
        Compare(context, root, adapter, "Q4_K", GgufFiles.WriteBase(Path.Combine(root, "q4.gguf"), layers, 12, (256, 144), 2), null);
        Directory.Delete(root, recursive: true);
    }

    private static void Compare(BenchmarkContext context, string root, string adapter, string type, string from, double? target)
    {
        string to = Path.Combine(root, "out.gguf");
        void Clear()
        {
            File.Delete(to);

            // What the variant before has left to write is not this one's.
            ShellProgram.Run("sync");
        }

        context.Compare(
            $"{PeakMemory.Format(new FileInfo(from).Length)} {type}, factor 8, r 16",
            [new("merge", () => Merge(from, adapter, to), Clear), new("cp and sync", () => { ShellProgram.Run("cp", from, to); ShellProgram.Run("sync"); }, Clear)],
            [target is double most ? new("merge", "cp and sync", most) : new("merge", "cp and sync")]);
    }

    private static void Merge(string from, string adapter, string to)
    {
        using GgufMerge merge = GgufMerge.Open(new GgufMergeOptions { Path = from, Destination = to, Adapters = [new AdapterMergeSource(adapter)] });
        merge.Run();
    }
}
