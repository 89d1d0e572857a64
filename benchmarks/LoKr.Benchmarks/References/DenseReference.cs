using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace LoKr.Benchmarks.References;

/// <summary>
/// LoKr as PEFT computes it: in every step w2 = w2_a·w2_b, kron(w1, w2), times the scale, and a second layer with that weight.
/// </summary>
internal sealed class DenseReference
{
    /// <summary>Attaches to a linear layer or a two-dimensional convolution.</summary>
    /// <param name="layer">The layer; its parameters are frozen.</param>
    /// <param name="factors">Factors by PEFT suffix, leaves that take gradients.</param>
    /// <param name="scale">Scale of the delta.</param>
    public DenseReference(nn.Module<Tensor, Tensor> layer, IReadOnlyDictionary<string, Tensor> factors, double scale)
    {
        foreach (Parameter parameter in layer.parameters())
        {
            parameter.requires_grad = false;
        }

        layer.register_forward_hook((_, input, output) =>
        {
            using DisposeScope scope = NewDisposeScope();
            using (output)
            {
                Tensor delta = Delta(factors, scale, layer is Conv2d convolution ? convolution.weight.shape : null);
                Tensor added = layer is Conv2d conv
                    ? nn.functional.conv2d(input, delta, null, conv.stride, conv.padding, conv.dilation, conv.groups)
                    : nn.functional.linear(input, delta);
                return (output + added).MoveToOuterDisposeScope();
            }
        });
    }

    private static Tensor Delta(IReadOnlyDictionary<string, Tensor> factors, double scale, long[]? convolution)
    {
        Tensor w1 = factors["lokr_w1"];
        Tensor w2 = factors.TryGetValue("lokr_w2", out Tensor? full) ? full : factors["lokr_w2_a"].mm(factors["lokr_w2_b"]);
        if (convolution is not null)
        {
            w1 = w1.unsqueeze(2).unsqueeze(2);
            w2 = w2.view(w2.shape[0], convolution[1] / w1.shape[1], convolution[2], convolution[3]);
        }

        Tensor delta = kron(w1, w2.contiguous());
        return scale == 1 ? delta : delta * scale;
    }
}
