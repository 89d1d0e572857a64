using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Core.Nn;

/// <summary>
/// A lookup table of vectors [count, width], as <c>torch.nn.Embedding</c>. TorchSharp's own allocates and fills its weight on the CPU in
/// float32 whatever device and type were asked for, and creates a new wrapper each time the weight is read.
/// </summary>
public sealed class Embedding : nn.Module<Tensor, Tensor>, IParameterOwner
{
    [ComponentName(Name = "weight")]
    private Parameter _weight;

    /// <summary>Creates a table whose values are undefined until they are loaded.</summary>
    /// <param name="count">Number of vectors.</param>
    /// <param name="width">Size of a vector.</param>
    /// <param name="device">Device of the table; null for the CPU.</param>
    /// <param name="dtype">Type of the table.</param>
    public Embedding(long count, long width, Device? device = null, ScalarType dtype = ScalarType.Float32)
        : base(nameof(Embedding))
    {
        _weight = (Parameter)nn.Parameter(empty(count, width, device: device, dtype: dtype)).DetachFromDisposeScope();
        RegisterComponents();
    }

    /// <summary>The table [count, width].</summary>
    public Parameter Weight
    {
        get => _weight;
        set => SetParameter("weight", value);
    }

    /// <summary>Looks up ids, int64 [...] → [..., width].</summary>
    public override Tensor forward(Tensor input)
    {
        ArgumentNullException.ThrowIfNull(input);
        using DisposeScope scope = NewDisposeScope();
        return _weight.index_select(0, input.reshape(-1)).view([.. input.shape, _weight.shape[1]]).MoveToOuterDisposeScope();
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
