using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Core.Nn;

/// <summary>
/// A lookup table of vectors [count, width]. TorchSharp's own allocates and fills its weight on the CPU in float32 whatever device
/// and type were asked for, and makes a new wrapper each time the weight is read.
/// </summary>
internal sealed class Embedding : nn.Module<Tensor, Tensor>, IParameterOwner
{
    [ComponentName(Name = "weight")]
    private Parameter _weight;

    /// <summary>Makes a table whose values are undefined until they are loaded.</summary>
    public Embedding(long count, long width, Device device, ScalarType dtype)
        : base(nameof(Embedding))
    {
        _weight = (Parameter)nn.Parameter(empty(count, width, device: device, dtype: dtype)).DetachFromDisposeScope();
        RegisterComponents();
    }

    /// <summary>The table [count, width].</summary>
    public Parameter weight
    {
        get => _weight;
        set => SetParameter("weight", value);
    }

    /// <summary>Looks ids [...] up: [..., width].</summary>
    public override Tensor forward(Tensor input)
    {
        using DisposeScope scope = NewDisposeScope();
        return _weight.index_select(0, input.reshape(-1)).view([.. input.shape, _weight.shape[1]]).MoveToOuterDisposeScope();
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
