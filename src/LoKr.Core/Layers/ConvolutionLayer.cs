using LoKr.Core.Factors;
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace LoKr.Core.Layers;

/// <summary>A convolution over one to three dimensions, with stride, any padding, dilation and groups.</summary>
internal sealed class ConvolutionBaseLayer(string name, Convolution convolution) : BaseLayer(name, convolution)
{
    private ConvolutionGeometry? _geometry;

    /// <inheritdoc/>
    public override Parameter Weight => convolution.weight;

    /// <inheritdoc/>
    public override long OutFeatures => Weight.shape[0];

    /// <inheritdoc/>
    public override long InFeatures => Weight.shape[1];

    /// <inheritdoc/>
    public override IReadOnlyList<long> Kernel => Weight.shape[2..];

    /// <inheritdoc/>
    public override string? LoraObstacle => convolution.groups == 1 ? null
        : $"it is a convolution with {convolution.groups} groups, whose output LoRA's first convolution would mix";

    private ConvolutionGeometry Geometry => _geometry ??= new(
        Kernel,
        PerDimension(convolution.stride),
        PerDimension(convolution.dilation),
        [.. Padding()],
        convolution.padding_mode,
        convolution.groups);

    /// <inheritdoc/>
    public override Tensor AddTo(Tensor y, Tensor x, KroneckerFactors factors, double scale) => Convolve(y, x, factors, scale);

    /// <inheritdoc/>
    public override Tensor Apply(Tensor x, KroneckerFactors factors, double scale) => Convolve(null, x, factors, scale);

    /// <inheritdoc/>
    public override Tensor ScaleRows(Tensor y, Tensor x, Tensor factors) => y * Channels(factors);

    /// <inheritdoc/>
    public override Tensor ApplyScaledColumns(Tensor x, Tensor y, KroneckerFactors factors, double scale, Tensor columns)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor scaled = x * Channels(columns.repeat(Geometry.Groups));
        bool single = x.dim() == Geometry.Kernel.Count + 1;
        (Tensor padded, ConvolutionGeometry rest) = Geometry.Pad(single ? scaled.unsqueeze(0) : scaled);
        Tensor convolved = rest.Convolve(padded, Weight.to(x.dtype), Geometry.Groups);
        return ((single ? convolved.squeeze(0) : convolved) - y + Apply(scaled, factors, scale)).MoveToOuterDisposeScope();
    }

    /// <inheritdoc/>
    public override Tensor WithoutBias(Tensor y, ScalarType type) =>
        convolution.bias is Tensor bias ? y.to(type) - Channels(bias.to(type)) : y.to(type);

    private Tensor Convolve(Tensor? y, Tensor x, KroneckerFactors factors, double scale)
    {
        using DisposeScope scope = NewDisposeScope();

        // One image without a batch dimension is a batch of one.
        bool single = x.dim() == Geometry.Kernel.Count + 1;
        Tensor result = single
            ? factors.Convolution.Apply(x.unsqueeze(0), Geometry, scale, y?.unsqueeze(0)).squeeze(0)
            : factors.Convolution.Apply(x, Geometry, scale, y);
        return result.MoveToOuterDisposeScope();
    }

    private Tensor Channels(Tensor values) => values.reshape([-1, .. Geometry.Kernel.Select(static _ => 1L)]);

    private IEnumerable<(long Before, long After)> Padding()
    {
        long[] dilation = PerDimension(convolution.dilation);
        for (int i = 0; i < Kernel.Count; i++)
        {
            if (convolution.padding_type == TorchSharp.Padding.Same)
            {
                long total = dilation[i] * (Kernel[i] - 1);
                yield return (total / 2, total - (total / 2));
            }
            else if (convolution.padding_type == TorchSharp.Padding.Valid)
            {
                yield return (0, 0);
            }
            else
            {
                long amount = PerDimension(convolution.padding ?? [0])[i];
                yield return (amount, amount);
            }
        }
    }

    private long[] PerDimension(long[] sizes) => sizes.Length == Kernel.Count ? sizes : [.. Enumerable.Repeat(sizes[0], Kernel.Count)];
}
