using LoKr.Benchmarks.Harness;
using LoKr.Core.Layers;
using LoKr.Core.Training;
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace LoKr.Benchmarks.Cases;

/// <summary>One optimizer step on the factors of a hundred layers, against TorchSharp's AdamW on the same tensors one by one.</summary>
internal sealed class OptimizerCase : IBenchmarkCase
{
    /// <inheritdoc/>
    public string Name => "optimizer";

    /// <inheritdoc/>
    public string Title => "AdamW step on 300 factors (100 layers of 768x768, factor 8, r 16)";

    /// <inheritdoc/>
    public void Run(BenchmarkContext context)
    {
        using DisposeScope scope = NewDisposeScope();
        long[][] shapes = [.. Enumerable.Range(0, 100).SelectMany(static _ => (long[][])[[8, 8], [96, 16], [16, 96]])];
        using FlatParameter flat = new(shapes, ScalarType.Float32, context.Device);
        flat.SetRequiresGrad(true);
        using FlatAdamW ours = new([flat], weightDecay: 0.01);

        Parameter[] parameters = [.. flat.Views.Select(static view => new Parameter(view.detach().clone()))];
        using (no_grad())
        {
            flat.Gradient.normal_();
            foreach ((Parameter parameter, Tensor gradient) in parameters.Zip(flat.GradientViews))
            {
                parameter.grad = gradient.clone();
            }
        }

        using AdamW theirs = optim.AdamW(parameters, weight_decay: 0.01);
        context.Compare(
            "300 tensors, 315k numbers",
            [new("LoKr's AdamW", () => ours.Step(1e-6)), new("TorchSharp's AdamW", () => Step(theirs))],
            [new("LoKr's AdamW", "TorchSharp's AdamW", 0.15)]);
    }

    private static void Step(AdamW optimizer)
    {
        using DisposeScope scope = NewDisposeScope();
        optimizer.step();
    }
}
