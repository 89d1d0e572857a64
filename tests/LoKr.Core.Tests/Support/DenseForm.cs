using LoKr.Core.Configuration;
using LoKr.Core.Factors;
using LoKr.Core.Nn;
using LoKr.Core.Safetensors;
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Support;

/// <summary>The dense form of PEFT and LyCORIS, written out a second time: what the factorized code is compared with.</summary>
internal static class DenseForm
{
    /// <summary>scale·kron(w1, w2) in the shape of a weight, by the programs' own recipe.</summary>
    public static Tensor Delta(Func<string, Tensor?> factor, long[] shape, double scale, Conv1dLayout layout = Conv1dLayout.Peft)
    {
        Tensor w1 = factor(FactorNames.W1) ?? factor(FactorNames.W1A)!.mm(factor(FactorNames.W1B)!);
        long[] kernel = shape[2..];
        Tensor w2;
        if (factor(FactorNames.W2) is Tensor full)
        {
            w2 = full;
            if (full.dim() == 3 && layout == Conv1dLayout.Peft)
            {
                // PEFT leaves w1 a matrix here, torch pads it in front, and a reshape follows.
                return (kron(w1, w2.contiguous()) * scale).reshape(shape);
            }
        }
        else if (factor(FactorNames.T2) is Tensor core)
        {
            w2 = einsum("ijx,ip,jr->prx", core.reshape(core.shape[0], core.shape[1], -1), factor(FactorNames.W2A)!, factor(FactorNames.W2B)!);
            w2 = w2.reshape([w2.shape[0], w2.shape[1], .. kernel]);
        }
        else
        {
            w2 = factor(FactorNames.W2A)!.mm(factor(FactorNames.W2B)!);
            w2 = w2.reshape([w2.shape[0], w2.shape[1] / kernel.Aggregate(1L, static (product, size) => product * size), .. kernel]);
        }

        foreach (long _ in kernel)
        {
            w1 = w1.unsqueeze(-1);
        }

        return (kron(w1, w2.contiguous()) * scale * (factor(FactorNames.Scalar) ?? tensor(1.0, dtype: w1.dtype))).reshape(shape);
    }

    /// <summary>A copy of a layer's computation with other parameters.</summary>
    public static Tensor Run(nn.Module layer, Tensor x, Tensor weight, Tensor? bias)
    {
        if (layer is Linear)
        {
            return nn.functional.linear(x, weight, bias!);
        }

        if (layer is TorchSharp.Modules.Embedding)
        {
            return weight[x];
        }

        Convolution convolution = (Convolution)layer;
        long[] padding = convolution.padding_type == TorchSharp.Padding.Same ? [] : convolution.padding ?? [0];
        int dimensions = (int)weight.dim() - 2;
        long At(long[] sizes, int i) => sizes.Length == dimensions ? sizes[i] : sizes[0];
        long[] amounts = [.. Enumerable.Range(0, dimensions).Reverse().SelectMany(i =>
        {
            long total = At(convolution.dilation, i) * (weight.shape[i + 2] - 1);
            return padding.Length == 0 ? (long[])[total / 2, total - (total / 2)] : [At(padding, i), At(padding, i)];
        })];
        Tensor padded = amounts.All(static amount => amount == 0)
            ? x
            : nn.functional.pad(x, amounts, convolution.padding_mode == PaddingModes.Zeros ? PaddingModes.Constant : convolution.padding_mode, 0);
        long[] Sizes(long[] sizes) => [.. Enumerable.Range(0, dimensions).Select(i => At(sizes, i))];
        return dimensions switch
        {
            1 => nn.functional.conv1d(padded, weight, bias, At(convolution.stride, 0), 0, At(convolution.dilation, 0), convolution.groups),
            2 => nn.functional.conv2d(padded, weight, bias, Sizes(convolution.stride), [0, 0], Sizes(convolution.dilation), convolution.groups),
            _ => nn.functional.conv3d(padded, weight, bias, Sizes(convolution.stride), [0, 0, 0], Sizes(convolution.dilation), convolution.groups),
        };
    }
}
