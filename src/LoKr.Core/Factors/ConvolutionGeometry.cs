using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Factors;

/// <summary>Kernel, stride, dilation, padding and groups of a convolution.</summary>
/// <param name="Kernel">Kernel size, one to three dimensions.</param>
/// <param name="Stride">Stride in each dimension.</param>
/// <param name="Dilation">Dilation in each dimension.</param>
/// <param name="Padding">Padding before and after, in each dimension.</param>
/// <param name="PaddingMode">Content of the padding.</param>
/// <param name="Groups">Groups of channels.</param>
internal sealed record ConvolutionGeometry(
    IReadOnlyList<long> Kernel,
    long[] Stride,
    long[] Dilation,
    IReadOnlyList<(long Before, long After)> Padding,
    PaddingModes PaddingMode,
    long Groups)
{
    /// <summary>Whether torch's convolution supports the padding: zeros, as many before as after.</summary>
    private bool PadsItself => PaddingMode is PaddingModes.Zeros or PaddingModes.Constant && Padding.All(static padding => padding.Before == padding.After);

    /// <summary>Output size in each spatial dimension.</summary>
    public long[] OutputSize(ReadOnlySpan<long> inputSize)
    {
        long[] size = new long[Kernel.Count];
        for (int i = 0; i < size.Length; i++)
        {
            size[i] = ((inputSize[i] + Padding[i].Before + Padding[i].After - (Dilation[i] * (Kernel[i] - 1)) - 1) / Stride[i]) + 1;
        }

        return size;
    }

    /// <summary>Pads an input where torch's convolution does not support the padding. Returns the input and the remaining geometry.</summary>
    public (Tensor Input, ConvolutionGeometry Geometry) Pad(Tensor x)
    {
        if (PadsItself)
        {
            return (x, this);
        }

        // The last dimension comes first.
        long[] amounts = [.. Padding.Reverse().SelectMany(static padding => (long[])[padding.Before, padding.After])];
        Tensor padded = nn.functional.pad(x, amounts, PaddingMode is PaddingModes.Zeros ? PaddingModes.Constant : PaddingMode, 0);
        return (padded, this with { Padding = [.. Padding.Select(static _ => (0L, 0L))], PaddingMode = PaddingModes.Zeros });
    }

    /// <summary>Convolves an input that <see cref="Pad"/> returned.</summary>
    public Tensor Convolve(Tensor x, Tensor weight, long groups)
    {
        long[] padding = [.. Padding.Select(static padding => padding.Before)];
        return Kernel.Count switch
        {
            1 => nn.functional.conv1d(x, weight, null, Stride[0], padding[0], Dilation[0], groups),
            2 => nn.functional.conv2d(x, weight, null, Stride, padding, Dilation, groups),
            _ => nn.functional.conv3d(x, weight, null, Stride, padding, Dilation, groups),
        };
    }
}
