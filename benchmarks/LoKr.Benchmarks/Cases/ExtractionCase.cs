using LoKr.Benchmarks.Harness;
using LoKr.Benchmarks.References;
using LoKr.Core.Conversion;
using static TorchSharp.torch;

namespace LoKr.Benchmarks.Cases;

/// <summary>
/// An adapter extracted from a base model and its fine-tuning, against reading the bytes of both files into memory. The change is random, so
/// that no product is much nearer to it than others, which is the slowest case. Files are in the page cache.
/// </summary>
internal sealed class ExtractionCase : IBenchmarkCase
{
    /// <inheritdoc/>
    public string Name => "extraction";

    /// <inheritdoc/>
    public string Title => "extraction of an adapter from a pair of models";

    /// <inheritdoc/>
    public void Run(BenchmarkContext context)
    {
        int layers = context.Options.Quick ? 1 : 4;
        string root = Path.Combine(context.Directory, Name);
        string before = LlamaFiles.WriteBase(Path.Combine(root, "base"), layers, ScalarType.BFloat16);
        string after = LlamaFiles.WriteTuned(before, Path.Combine(root, "tuned"));
        string[] files = [.. new[] { before, after }.SelectMany(static folder => Directory.GetFiles(folder, "*.safetensors"))];
        long bytes = files.Sum(static file => new FileInfo(file).Length);
        string to = Path.Combine(root, "out");
        foreach (int factor in (int[])[8, -1])
        {
            context.Compare(
                $"{PeakMemory.Format(bytes)} bfloat16 in both, factor {factor}, r 16",
                [new("extract", () => Extract(before, after, to, factor)), new("read both", () => Array.ForEach(files, Read))],
                [new("extract", "read both", 10)]);
        }

        Directory.Delete(root, recursive: true);
    }

    private static void Extract(string before, string after, string to, int factor) => AdapterExtraction.Extract(
        new() { BasePath = before, FineTunedPath = after, Destination = to, Fit = new() { R = 16, DecomposeFactors = [factor], Force = true } }, out _);

    private static void Read(string file)
    {
        using FileStream stream = new(file, FileMode.Open, FileAccess.Read, FileShare.Read, bufferSize: 0);
        byte[] buffer = GC.AllocateUninitializedArray<byte>(checked((int)stream.Length));
        stream.ReadExactly(buffer);
    }
}
