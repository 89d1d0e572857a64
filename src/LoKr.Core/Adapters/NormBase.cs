using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace LoKr.Core.Adapters;

/// <summary>A normalisation with weights of its own: layer or group norm.</summary>
internal sealed class NormBase
{
    private readonly Func<Tensor, Tensor, Tensor?, Tensor> _normalise;
    private readonly Func<Parameter> _weight;
    private readonly Func<Parameter?> _bias;

    private NormBase(string name, nn.Module<Tensor, Tensor> module, Func<Parameter> weight, Func<Parameter?> bias, Func<Tensor, Tensor, Tensor?, Tensor> normalise) =>
        (Name, Module, _weight, _bias, _normalise) = (name, module, weight, bias, normalise);

    /// <summary>Full name.</summary>
    public string Name { get; }

    /// <summary>The norm itself.</summary>
    public nn.Module<Tensor, Tensor> Module { get; }

    /// <summary>Its weight; looked up each time, because moving a model replaces parameters.</summary>
    public Parameter Weight => _weight();

    /// <summary>Its bias, or null.</summary>
    public Parameter? Bias => _bias();

    /// <summary>Type of the changes, as for factors.</summary>
    public ScalarType ChangeType => Weight.dtype is ScalarType.Float64 ? ScalarType.Float64 : ScalarType.Float32;

    /// <summary>The module as a norm whose weights can be changed, or null.</summary>
    public static NormBase? TryCreate(string name, nn.Module module) => module switch
    {
        LayerNorm { weight: not null } norm => new(name, norm, () => norm.weight, () => norm.bias, (x, weight, bias) => nn.functional.layer_norm(x, norm.normalized_shape, weight, bias, norm.eps)),
        GroupNorm { weight: not null } norm => new(name, norm, () => norm.weight, () => norm.bias, (x, weight, bias) => nn.functional.group_norm(x, norm.num_groups, weight, bias, norm.eps)),
        _ => null,
    };

    /// <summary>The normalised input times other weights.</summary>
    public Tensor Normalise(Tensor x, Tensor weight, Tensor? bias) => _normalise(x, weight, bias);
}
