using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Core.Nn;

/// <summary>
/// The linear layer of GPT-2, which transformers calls <c>Conv1D</c>: y = x·W + b with the weight transposed, [inputs, outputs].
/// Runs through <c>call</c>, so that hooks see it.
/// </summary>
public sealed class Conv1D : nn.Module<Tensor, Tensor>, IParameterOwner
{
    [ComponentName(Name = "weight")]
    private Parameter _weight;

    [ComponentName(Name = "bias")]
    private Parameter _bias;

    /// <summary>Makes a layer whose parameters are undefined until they are loaded.</summary>
    /// <param name="inputs">Input size.</param>
    /// <param name="outputs">Output size.</param>
    /// <param name="device">Device of the parameters; null for the CPU.</param>
    /// <param name="dtype">Type of the parameters.</param>
    public Conv1D(long inputs, long outputs, Device? device = null, ScalarType dtype = ScalarType.Float32)
        : base(nameof(Conv1D))
    {
        _weight = (Parameter)nn.Parameter(empty(inputs, outputs, device: device, dtype: dtype)).DetachFromDisposeScope();
        _bias = (Parameter)nn.Parameter(empty(outputs, device: device, dtype: dtype)).DetachFromDisposeScope();
        RegisterComponents();
    }

    /// <summary>The weight [inputs, outputs].</summary>
    public Parameter Weight
    {
        get => _weight;
        set => SetParameter("weight", value);
    }

    /// <summary>The bias [outputs].</summary>
    public Parameter Bias
    {
        get => _bias;
        set => SetParameter("bias", value);
    }

    /// <summary>Input size.</summary>
    public long InFeatures => _weight.shape[0];

    /// <summary>Output size.</summary>
    public long OutFeatures => _weight.shape[1];

    /// <summary>[..., inputs] → [..., outputs].</summary>
    public override Tensor forward(Tensor input)
    {
        ArgumentNullException.ThrowIfNull(input);
        using DisposeScope scope = NewDisposeScope();
        long[] shape = input.shape;
        shape[^1] = OutFeatures;
        return addmm(_bias, input.reshape(-1, InFeatures), _weight, 1, 1).view(shape).MoveToOuterDisposeScope();
    }

    /// <inheritdoc/>
    public void SetParameter(string name, Parameter parameter)
    {
        ArgumentNullException.ThrowIfNull(parameter);
        switch (name)
        {
            case "weight":
                Replace(ref _weight, name, parameter);
                break;
            case "bias":
                Replace(ref _bias, name, parameter);
                break;
            default:
                throw new ArgumentOutOfRangeException(nameof(name), name, "A Conv1D has a weight and a bias.");
        }
    }

    private void Replace(ref Parameter place, string name, Parameter parameter)
    {
        if (!ReferenceEquals(place, parameter))
        {
            place.Dispose();
            place = (Parameter)parameter.DetachFromDisposeScope();
            ConditionallyRegisterParameter(name, place);
        }
    }
}
