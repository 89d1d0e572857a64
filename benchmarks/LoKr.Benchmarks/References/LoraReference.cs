using LoKr.Core.Adapters;
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace LoKr.Benchmarks.References;

/// <summary>
/// LoRA (arXiv:2106.09685) on linear layers, as fast as a forward hook allows: the same hook and the same flat buffer as LoKr's,
/// the second product accumulates into the base output with the scale in it, and B is stored r×out, the form in which its gradient is one fast product.
/// </summary>
internal sealed class LoraReference : IDisposable
{
    private readonly List<IDisposable> _hooks = [];

    /// <summary>Attaches to layers, freezes their weights and fills the factors with small numbers.</summary>
    public LoraReference(IReadOnlyList<Linear> layers, int rank, double scale)
    {
        Parameters = new(
            [.. layers.SelectMany(layer => (long[][])[[rank, layer.weight.shape[1]], [rank, layer.weight.shape[0]]])],
            ScalarType.Float32, layers[0].weight.device);
        using (no_grad())
        {
            Parameters.Value.normal_(0, 0.02);
        }

        Parameters.SetRequiresGrad(true);
        foreach ((int index, Linear layer) in layers.Index())
        {
            layer.weight.requires_grad = false;
            layer.bias?.requires_grad = false;
            (Tensor a, Tensor b) = (Parameters.Views[2 * index], Parameters.Views[(2 * index) + 1]);
            float alpha = (float)scale;
            var remover = layer.register_forward_hook((_, input, output) => Add(input, output, a, b, alpha));
            _hooks.Add(new Remover(remover.remove));
        }
    }

    /// <summary>All factors.</summary>
    public FlatParameter Parameters { get; }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (IDisposable hook in _hooks)
        {
            hook.Dispose();
        }

        Parameters.Dispose();
    }

    private static Tensor Add(Tensor x, Tensor y, Tensor a, Tensor b, float scale)
    {
        using DisposeScope scope = NewDisposeScope();
        using (y)
        {
            if (x.dim() == 2)
            {
                return y.addmm(x.mm(a.t()), b, 1f, scale).MoveToOuterDisposeScope();
            }

            long[] shape = y.shape;
            Tensor flat = y.view(-1, shape[^1]);
            return flat.addmm(x.reshape(-1, x.shape[^1]).mm(a.t()), b, 1f, scale).view(shape).MoveToOuterDisposeScope();
        }
    }

    private sealed class Remover(Action remove) : IDisposable
    {
        public void Dispose() => remove();
    }
}
