using LoKr.Benchmarks.Harness;
using LoKr.Benchmarks.References;
using LoKr.Core.Model;
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace LoKr.Benchmarks.Cases;

/// <summary>A 3×3 convolution forward and backward: frozen, with LoKr, and with LoKr as PEFT computes it.</summary>
internal sealed class ConvolutionCase : IBenchmarkCase
{
    private const int Rank = 8;

    /// <inheritdoc/>
    public string Name => "convolution";

    /// <inheritdoc/>
    public string Title => "3x3 convolution, forward and backward, rank 8, batch 2";

    /// <inheritdoc/>
    public void Run(BenchmarkContext context)
    {
        Measure(context, 320, 32, -1);
        Measure(context, 320, 32, 8);
        Measure(context, 1280, 16, -1);
        Measure(context, 1280, 16, 8);
    }

    private static void Measure(BenchmarkContext context, long channels, long side, int factor)
    {
        using DisposeScope scope = NewDisposeScope();
        using Tensor weight = randn([channels, channels, 3, 3], device: context.Device) / Math.Sqrt(9 * channels);
        using Tensor input = randn([2, channels, side, side], device: context.Device);
        using Tensor gradient = randn([2, channels, side, side], device: context.Device);

        using Conv2d frozenLayer = Layer(weight);
        using LayerStep frozen = new(frozenLayer, input, gradient);

        Conv2d adaptedLayer = Layer(weight);
        using LoKrModel adapted = Adapters.Add(adaptedLayer, new() { R = Rank, Alpha = 2 * Rank, DecomposeFactor = factor });
        using LayerStep lokr = new(adaptedLayer, input, gradient);

        using Conv2d denseLayer = Layer(weight);
        _ = new DenseReference(denseLayer, Adapters.CopyFactors(adapted), 2);
        using LayerStep dense = new(denseLayer, input, gradient);

        context.Compare(
            $"{channels}x{channels}, {side}x{side} positions, factor {factor}, r {Rank}",
            [new("frozen", frozen.Run), new("LoKr", lokr.Run), new("PEFT's dense way", dense.Run)],
            [new("LoKr", "frozen", 1.25), new("LoKr", "PEFT's dense way", 0.5)],
            weight: channels > 1000 ? 3 : 1);
    }

    private static Conv2d Layer(Tensor weight)
    {
        Conv2d layer = nn.Conv2d(weight.shape[1], weight.shape[0], (weight.shape[2], weight.shape[3]), padding: (1, 1), bias: false, device: META);
        layer.weight = new Parameter(weight.alias(), false);
        return layer;
    }
}
