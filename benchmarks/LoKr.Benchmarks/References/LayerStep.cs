using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Benchmarks.References;

/// <summary>One layer in the middle of a model: forward, then backward to its input and to whatever it trains.</summary>
internal sealed class LayerStep : IDisposable
{
    private readonly nn.Module<Tensor, Tensor> _layer;
    private readonly Tensor _input;
    private readonly Tensor _gradient;

    /// <summary>Takes an input and the gradient of the output; both stay the caller's.</summary>
    public LayerStep(nn.Module<Tensor, Tensor> layer, Tensor input, Tensor gradient)
    {
        (_layer, _gradient) = (layer, gradient);

        // A leaf of its own, which shares the numbers: the layers compared read the same memory.
        _input = input.detach().requires_grad_(true).DetachFromDisposeScope();
    }

    /// <summary>Forward and backward.</summary>
    public void Run()
    {
        using DisposeScope scope = NewDisposeScope();
        Backward(Forward());
    }

    /// <summary>The forward pass alone, in the caller's dispose scope.</summary>
    public Tensor Forward() => _layer.call(_input);

    /// <summary>The backward pass of an output.</summary>
    public void Backward(Tensor output)
    {
        output.backward([_gradient]);
        _input.grad = null;
    }

    /// <inheritdoc/>
    public void Dispose() => _input.Dispose();
}
