using LoKr.Benchmarks.Harness;
using LoKr.Benchmarks.References;
using LoKr.Core.Configuration;
using LoKr.Core.Model;
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace LoKr.Benchmarks.Cases;

/// <summary>A linear layer forward and backward: frozen, with LoKr, with LoRA of equal rank, and with LoKr as PEFT computes it.</summary>
internal sealed class LinearLayerCase : IBenchmarkCase
{
    private const int Rank = 16;

    /// <inheritdoc/>
    public string Name => "linear";

    /// <inheritdoc/>
    public string Title => "linear layer, forward and backward, rank 16";

    /// <inheritdoc/>
    public void Run(BenchmarkContext context)
    {
        Measure(context, 768, 64, 8, 1.35);
        Measure(context, 768, 512, 8, 1.35);
        Measure(context, 4096, 512, -1, 1.10);
        Measure(context, 4096, 512, 8, 1.10);
    }

    private static void Measure(BenchmarkContext context, long size, long tokens, int factor, double limit)
    {
        using DisposeScope scope = NewDisposeScope();
        using Tensor weight = randn([size, size], device: context.Device) / Math.Sqrt(size);
        using Tensor input = randn([tokens, size], device: context.Device);
        using Tensor gradient = randn([tokens, size], device: context.Device);

        using Linear frozenLayer = Layer(weight);
        using LayerStep frozen = new(frozenLayer, input, gradient);

        LoKrConfig config = new() { R = Rank, Alpha = 2 * Rank, DecomposeFactor = factor };
        Linear adaptedLayer = Layer(weight);
        using LoKrModel adapted = Adapters.Add(adaptedLayer, config);
        using LayerStep lokr = new(adaptedLayer, input, gradient);

        using Linear loraLayer = Layer(weight);
        using LoraReference loraFactors = new([loraLayer], Rank, 2);
        using LayerStep lora = new(loraLayer, input, gradient);

        using Linear denseLayer = Layer(weight);
        _ = new DenseReference(denseLayer, Adapters.CopyFactors(adapted), 2);
        using LayerStep dense = new(denseLayer, input, gradient);

        context.Compare(
            $"{size}x{size}, {tokens} tokens, factor {factor}, r {Rank}",
            [new("frozen", frozen.Run), new("LoKr", lokr.Run), new("LoRA", lora.Run), new("PEFT's dense way", dense.Run)],
            [new("LoKr", "frozen", limit), new("LoKr", "LoRA", 1.05), new("LoKr", "PEFT's dense way", 0.35), new("LoRA", "frozen")],
            weight: size > 1000 ? 3 : 1);
    }

    private static Linear Layer(Tensor weight)
    {
        Linear layer = nn.Linear(weight.shape[1], weight.shape[0], hasBias: false, device: META);
        layer.weight = new Parameter(weight.alias(), false);
        return layer;
    }
}
