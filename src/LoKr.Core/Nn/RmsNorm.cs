using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Core.Nn;

/// <summary>
/// Root mean square norm over the last dimension (Zhang &amp; Sennrich, arXiv:1910.07467): normalized in float32, scaled by the weight in
/// the type of the input, as transformers does.
/// </summary>
internal sealed class RmsNorm : nn.Module<Tensor, Tensor>, IParameterOwner
{
    private readonly double _epsilon;

    [ComponentName(Name = "weight")]
    private Parameter _weight;

    /// <summary>Makes a norm whose weight is undefined until it is loaded.</summary>
    public RmsNorm(long width, double epsilon, Device device, ScalarType dtype)
        : base(nameof(RmsNorm))
    {
        _epsilon = epsilon;
        _weight = (Parameter)nn.Parameter(empty(width, device: device, dtype: dtype)).DetachFromDisposeScope();
        RegisterComponents();
    }

    /// <summary>The weight [width].</summary>
    public Parameter weight
    {
        get => _weight;
        set => SetParameter("weight", value);
    }

    /// <summary>[..., width] → [..., width] in the type of the input.</summary>
    public override Tensor forward(Tensor input)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor x = input.to(ScalarType.Float32);
        Tensor scale = x.square().mean([-1], keepdim: true).add_(_epsilon).rsqrt_();
        return ((x * scale).to(input.dtype) * _weight).MoveToOuterDisposeScope();
    }

    /// <inheritdoc/>
    public void SetParameter(string name, Parameter parameter)
    {
        ArgumentOutOfRangeException.ThrowIfNotEqual(name, "weight");
        if (!ReferenceEquals(parameter, _weight))
        {
            _weight.Dispose();
            _weight = (Parameter)parameter.DetachFromDisposeScope();
            ConditionallyRegisterParameter(name, _weight);
        }
    }
}
