using LoKr.Core.Configuration;
using LoKr.Core.Nn;
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace LoKr.Core.Layers;

/// <summary>
/// The changes that one adapter adds to the weight and the bias of a norm (LyCORIS <c>train_norm</c>). They start at zero, and are not scaled
/// by alpha.
/// </summary>
public sealed class LoKrNorm
{
    /// <summary>Suffix of the change of the weight in files.</summary>
    internal const string WeightSuffix = "w_norm";

    /// <summary>Suffix of the change of the bias in files.</summary>
    internal const string BiasSuffix = "b_norm";

    private readonly LoKrConfig _config;

    internal LoKrNorm(NormBase target, LoKrConfig config, Tensor weight, Tensor? bias) => (Target, _config, Weight, Bias) = (target, config, weight, bias);

    /// <summary>Full name of the norm.</summary>
    public string ModuleName => Target.Name;

    /// <inheritdoc/>
    public override string ToString() => ModuleName;

    /// <summary>Change of the weight, in its shape.</summary>
    public Tensor Weight { get; private set; }

    /// <summary>Change of the bias; null where the norm has none.</summary>
    public Tensor? Bias { get; private set; }

    /// <summary>Strength, 1 as trained.</summary>
    public double Scale { get; internal set; } = 1;

    internal NormBase Target { get; }

    /// <summary>Tensors by suffix.</summary>
    internal IEnumerable<(string Suffix, Tensor Tensor)> Tensors => Bias is null ? [(WeightSuffix, Weight)] : [(WeightSuffix, Weight), (BiasSuffix, Bias)];

    /// <summary>Replaces the changes by others of the same shapes, on another device or in another type.</summary>
    internal void Replace(Tensor weight, Tensor? bias) => (Weight, Bias) = (weight, bias);

    /// <summary>Adds the contribution to an output; the result is in the wider type of both.</summary>
    /// <param name="y">The output.</param>
    /// <param name="x">Input of the norm.</param>
    internal Tensor AddTo(Tensor y, Tensor x)
    {
        using DisposeScope scope = NewDisposeScope();
        bool training = Target.Module.training;
        if (training && _config.ModuleDropout > 0 && rand(1).ToDouble() < _config.ModuleDropout)
        {
            return y.alias().MoveToOuterDisposeScope();
        }

        // Normalized once: the change of a linear function of the weights is that function of their change.
        Tensor? mask = training && _config.RankDropout > 0 ? Mask(x.device) : null;
        Tensor Scaled(Tensor change) => mask is null ? Scale == 1 ? change : change * Scale : change * mask * Scale;
        Tensor change = Target.Normalize(x.to(Weight.dtype), Scaled(Weight), Bias is null ? null : Scaled(Bias));
        return (y + change).MoveToOuterDisposeScope();
    }

    private Tensor Mask(Device device)
    {
        Tensor mask = rand(Weight.shape).gt(_config.RankDropout).to(Weight.dtype);
        double mean = _config.RankDropoutScale ? mask.mean().ToDouble() : 1;
        return (mean > 0 ? mask / mean : mask).to(device);
    }
}

/// <summary>A normalization with weights of its own: layer, group or root mean square norm.</summary>
internal sealed class NormBase
{
    private readonly Func<Tensor, Tensor, Tensor?, Tensor> _normalize;
    private readonly Func<Parameter> _weight;
    private readonly Func<Parameter?> _bias;

    private NormBase(string name, nn.Module<Tensor, Tensor> module, Func<Parameter> weight, Func<Parameter?> bias, Func<Tensor, Tensor, Tensor?, Tensor> normalize) =>
        (Name, Module, _weight, _bias, _normalize) = (name, module, weight, bias, normalize);

    /// <summary>Full name.</summary>
    public string Name { get; }

    /// <summary>The norm itself.</summary>
    public nn.Module<Tensor, Tensor> Module { get; }

    /// <summary>The weight of the norm; looked up each time, because moving a model replaces parameters.</summary>
    public Parameter Weight => _weight();

    /// <summary>The bias of the norm, or null.</summary>
    public Parameter? Bias => _bias();

    /// <summary>Type of the changes, as for factors.</summary>
    public ScalarType ChangeType => Weight.dtype is ScalarType.Float64 ? ScalarType.Float64 : ScalarType.Float32;

    /// <summary>Suffixes and shapes of the changes.</summary>
    public IEnumerable<(string Suffix, long[] Shape)> Tensors => Bias is { } bias
        ? [(LoKrNorm.WeightSuffix, Weight.shape), (LoKrNorm.BiasSuffix, bias.shape)]
        : [(LoKrNorm.WeightSuffix, Weight.shape)];

    /// <summary>A place in a module tree as a norm whose weights can be changed, or null.</summary>
    public static NormBase? TryCreate(ModulePlace place) => place.Module switch
    {
        LayerNorm { weight: not null } norm => new(place.Name, norm, () => norm.weight, () => norm.bias, (x, weight, bias) => nn.functional.layer_norm(x, norm.normalized_shape, weight, bias, norm.eps)),
        GroupNorm { weight: not null } norm => new(place.Name, norm, () => norm.weight, () => norm.bias, (x, weight, bias) => nn.functional.group_norm(x, norm.num_groups, weight, bias, norm.eps)),
        RmsNorm norm => new(place.Name, norm, () => norm.Weight, static () => null, (x, weight, _) => norm.Normalize(x) * weight),
        _ => null,
    };

    /// <summary>The normalized input times other weights.</summary>
    public Tensor Normalize(Tensor x, Tensor weight, Tensor? bias) => _normalize(x, weight, bias);
}
