using LoKr.Core.Training;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Benchmarks.References;

/// <summary>A training step as the trainer makes it: gradients, their norm, clipping, AdamW.</summary>
internal static class TrainingStep
{
    /// <summary>Makes a step.</summary>
    /// <param name="optimizer">The optimizer of the trained parameters.</param>
    /// <param name="loss">Computes the loss, a scalar with its graph.</param>
    /// <param name="onBackward">Goes on with the backward pass; null for nothing.</param>
    public static void Run(FlatAdamW optimizer, Func<Tensor> loss, Action? onBackward = null)
    {
        using DisposeScope scope = NewDisposeScope();
        optimizer.ZeroGradients();
        loss().backward();
        onBackward?.Invoke();
        optimizer.Clip(1, optimizer.GradientNorm().ToDouble());
        optimizer.Step(1e-5);
    }
}
