using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Core.Nn;

/// <summary>
/// Root mean square norm over the last dimension (Zhang &amp; Sennrich, arXiv:1910.07467): normalized in float32, scaled by the weight in
/// the type of the input, as transformers does. In Gemma's form the weight is what differs from one, and scales in float32.
/// </summary>
public sealed class RmsNorm : nn.Module<Tensor, Tensor>, IParameterOwner
{
    [ComponentName(Name = "weight")]
    private Parameter _weight;

    /// <summary>Creates a norm whose weight is undefined until it is loaded.</summary>
    /// <param name="width">Size of the last dimension.</param>
    /// <param name="epsilon">Added to the mean square before the root.</param>
    /// <param name="device">Device of the weight; null for the CPU.</param>
    /// <param name="dtype">Type of the weight.</param>
    /// <param name="addsOne">Whether the factor is 1 + weight.</param>
    public RmsNorm(long width, double epsilon, Device? device = null, ScalarType dtype = ScalarType.Float32, bool addsOne = false)
        : base(nameof(RmsNorm))
    {
        (Epsilon, AddsOne) = (epsilon, addsOne);
        _weight = (Parameter)nn.Parameter(empty(width, device: device, dtype: dtype)).DetachFromDisposeScope();
        RegisterComponents();
    }

    /// <summary>Added to the mean square before the root.</summary>
    public double Epsilon { get; }

    /// <summary>Whether the factor is 1 + weight.</summary>
    public bool AddsOne { get; }

    /// <summary>The weight [width].</summary>
    public Parameter Weight
    {
        get => _weight;
        set => SetParameter("weight", value);
    }

    /// <summary>[..., width] → [..., width] in the type of the input.</summary>
    public override Tensor forward(Tensor input)
    {
        ArgumentNullException.ThrowIfNull(input);
        using DisposeScope scope = NewDisposeScope();
        Tensor normalized = Normalize(input);
        Tensor scaled = AddsOne ? normalized.mul_(_weight.to(ScalarType.Float32) + 1).to(input.dtype) : normalized.to(input.dtype).mul_(_weight);
        return scaled.MoveToOuterDisposeScope();
    }

    /// <summary>
    /// The input over its root mean square, in float32, without the weight; a new tensor. Intermediate tensors stay in the caller's dispose scope.
    /// </summary>
    internal Tensor Normalize(Tensor input)
    {
        Tensor x = input.to(ScalarType.Float32);

        // By the norm: one pass over the input and none of its size to keep, where a mean of squares takes three times as long in the backward pass.
        Tensor scale = linalg.vector_norm(x, 2, [-1], keepdim: true).square().mul_(1.0 / x.shape[^1]).add_(Epsilon).rsqrt_();
        return x * scale;
    }

    /// <inheritdoc/>
    public void SetParameter(string name, Parameter parameter)
    {
        ArgumentNullException.ThrowIfNull(parameter);
        ArgumentOutOfRangeException.ThrowIfNotEqual(name, "weight");
        if (!ReferenceEquals(parameter, _weight))
        {
            _weight.Dispose();
            _weight = (Parameter)parameter.DetachFromDisposeScope();
            ConditionallyRegisterParameter(name, _weight);
        }
    }
}
