using LoKr.Benchmarks.Harness;
using LoKr.Benchmarks.References;
using LoKr.Core.Configuration;
using LoKr.Core.Model;
using LoKr.Models.Families;
using LoKr.Models.Loading;
using static TorchSharp.torch;

namespace LoKr.Benchmarks.Cases;

/// <summary>
/// A model loaded from its folder, against reading the same bytes into fresh memory of one thread; and an adapter on a model of the shapes
/// of Llama 3.1 8B without weights. Files are in the page cache.
/// </summary>
internal sealed class LoadCase : IBenchmarkCase
{
    /// <inheritdoc/>
    public string Name => "load";

    /// <inheritdoc/>
    public string Title => "weights from a folder into a model";

    /// <inheritdoc/>
    public void Run(BenchmarkContext context)
    {
        string root = Path.Combine(context.Directory, Name);
        foreach (ScalarType type in (ScalarType[])[ScalarType.BFloat16, ScalarType.Float32])
        {
            string folder = LlamaFiles.WriteBase(Path.Combine(root, type.ToString()), layers: 1, type);
            string[] files = [.. System.IO.Directory.EnumerateFiles(folder, "*.safetensors")];
            context.Compare(
                $"{PeakMemory.Format(files.Sum(static file => new FileInfo(file).Length))} {type} to {type}",
                [
                    new("load", () => ModelLoader.Load(folder, new ModelLoadOptions { WithTokenizer = false, DType = type }).Dispose()),
                    new("read", () => Read(files)),
                ],
                [new("load", "read")],
                weight: 0.4);
        }

        string config = Path.Combine(root, nameof(ScalarType.BFloat16));
        File.WriteAllText(Path.Combine(config, "config.json"), LlamaFiles.Config(layers: 32));
        long before = PeakMemory.Current;
        PeakMemory.Reset();
        context.Compare(
            "an adapter on all linear layers of the shapes of Llama 3.1 8B, without weights",
            [new("build and adapt", () => Adapt(config)), new("build", () => ModelLoader.Build(ModelConfig.Load(config)).Dispose())],
            [new("build and adapt", "build")],
            weight: 0.4);
        context.Note($"peak memory {PeakMemory.Format(Math.Max(0, PeakMemory.Peak - before))} more than before");
        System.IO.Directory.Delete(root, recursive: true);
    }

    private static void Adapt(string folder)
    {
        using LoKrModel model = new(ModelLoader.Build(ModelConfig.Load(folder)));
        model.AddAdapter(new LoKrConfig { R = 16, DecomposeFactor = 8, TargetModules = ModuleSelector.FromPattern("all-linear") });
    }

    // What a loader cannot avoid: memory of that size, filled once.
    private static void Read(string[] files)
    {
        foreach (string file in files)
        {
            using FileStream stream = new(file, FileMode.Open, FileAccess.Read, FileShare.Read, 1);
            using Tensor memory = empty(stream.Length, ScalarType.Byte);
            stream.ReadExactly(memory.bytes);
        }
    }
}
