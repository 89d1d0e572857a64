using LoKr.Core.Layers;
using LoKr.Core.Model;
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace LoKr.Benchmarks.References;

/// <summary>
/// LoRA (arXiv:2106.09685) on linear layers and convolutions of one pixel, as fast as a forward hook allows: the same hook and the same flat
/// buffer as LoKr's, the second product accumulates into the base output with the scale in it, and B of a linear layer is stored r×out, the
/// form in which its gradient is one fast product.
/// </summary>
internal sealed class LoraReference : IDisposable
{
    private readonly List<IDisposable> _hooks = [];

    /// <summary>Attaches to layers, freezes their weights and fills the factors with small numbers.</summary>
    /// <param name="layers">The layers.</param>
    /// <param name="rank">Rank of the factors.</param>
    /// <param name="scale">Factor of their product.</param>
    /// <param name="asPeft">Whether linear layers compute y + B(A(x))·scale as PEFT does, with operations of their own for product, scale and sum.</param>
    public LoraReference(IReadOnlyList<nn.Module<Tensor, Tensor>> layers, int rank, double scale, bool asPeft = false)
    {
        Parameters = new(
            [.. layers.SelectMany(layer => Shapes(layer, rank, asPeft))],
            ScalarType.Float32, layers[0].get_parameter("weight")!.device);
        using (no_grad())
        {
            Parameters.Value.normal_(0, 0.02);
        }

        Parameters.SetRequiresGrad(true);
        foreach ((int index, nn.Module<Tensor, Tensor> layer) in layers.Index())
        {
            foreach (Parameter parameter in layer.parameters())
            {
                parameter.requires_grad = false;
            }

            (Tensor a, Tensor b) = (Parameters.Views[2 * index], Parameters.Views[(2 * index) + 1]);
            float alpha = (float)scale;
            bool pixels = layer is Conv2d;
            var remover = layer.register_forward_hook((_, input, output) =>
                !IsEnabled ? output : pixels ? AddPixels(input, output, a, b, alpha)
                : asPeft ? AddAsPeft(input, output, a, b, alpha) : Add(input, output, a, b, alpha));
            _hooks.Add(new Remover(remover.remove));
        }
    }

    /// <summary>Attaches to the layers of a model that another adapter has.</summary>
    /// <param name="model">The model.</param>
    /// <param name="names">Full names of its layers.</param>
    /// <param name="rank">Rank of the factors.</param>
    /// <param name="scale">Factor of their product.</param>
    /// <param name="asPeft">As for the constructor.</param>
    public static LoraReference On(LoKrModel model, IEnumerable<string> names, int rank, double scale, bool asPeft = false)
    {
        Dictionary<string, nn.Module> modules = model.Module.named_modules().ToDictionary(static entry => entry.name, static entry => entry.module);
        return new([.. names.Select(name => (nn.Module<Tensor, Tensor>)modules[name])], rank, scale, asPeft);
    }

    /// <summary>Whether it takes part.</summary>
    public bool IsEnabled { get; set; } = true;

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

    /// <summary>Computes y + B(A(x))·scale as PEFT does, and releases y.</summary>
    /// <param name="x">Input of the layer.</param>
    /// <param name="y">Output of the base layer.</param>
    /// <param name="a">A, [rank, inputs].</param>
    /// <param name="b">B, [outputs, rank].</param>
    /// <param name="scale">Factor of the product.</param>
    public static Tensor AddAsPeft(Tensor x, Tensor y, Tensor a, Tensor b, double scale)
    {
        using DisposeScope scope = NewDisposeScope();
        using (y)
        {
            return (y + (nn.functional.linear(nn.functional.linear(x, a), b) * scale)).MoveToOuterDisposeScope();
        }
    }

    private static Tensor AddPixels(Tensor x, Tensor y, Tensor a, Tensor b, float scale)
    {
        using DisposeScope scope = NewDisposeScope();
        using (y)
        {
            long batch = x.shape[0];
            Tensor down = a.unsqueeze(0).expand(batch, -1, -1).bmm(x.flatten(2));
            return b.unsqueeze(0).expand(batch, -1, -1).baddbmm(down, y.flatten(2), 1f, scale).view(y.shape).MoveToOuterDisposeScope();
        }
    }

    private static long[][] Shapes(nn.Module layer, int rank, bool asPeft)
    {
        long[] weight = layer.get_parameter("weight")!.shape;
        (long inputs, long outputs) = layer is Core.Nn.Conv1D ? (weight[0], weight[1]) : (weight[1], weight[0]);
        return weight.Length == 2 ? [[rank, inputs], asPeft ? [outputs, rank] : [rank, outputs]]
            : weight[2..].All(static size => size == 1) ? [[rank, weight[1]], [weight[0], rank]]
            : throw new NotSupportedException("The reference has convolutions of one pixel only.");
    }

    private sealed class Remover(Action remove) : IDisposable
    {
        public void Dispose() => remove();
    }
}
