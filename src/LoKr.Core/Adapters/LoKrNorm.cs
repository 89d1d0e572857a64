using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Adapters;

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

    internal LoKrNorm(NormBase target, LoKrConfig config) => (Target, _config) = (target, config);

    /// <summary>Full name of the norm.</summary>
    public string ModuleName => Target.Name;

    /// <summary>Change of the weight, in its shape.</summary>
    public Tensor Weight { get; internal set; } = null!;

    /// <summary>Change of the bias; null where the norm has none.</summary>
    public Tensor? Bias { get; internal set; }

    /// <summary>Strength, 1 as trained.</summary>
    public double Scale { get; internal set; } = 1;

    internal NormBase Target { get; }

    /// <summary>Tensors by suffix.</summary>
    internal IEnumerable<(string Suffix, Tensor Tensor)> Tensors => Bias is null ? [(WeightSuffix, Weight)] : [(WeightSuffix, Weight), (BiasSuffix, Bias)];

    /// <summary>Suffixes and shapes of the tensors.</summary>
    internal IEnumerable<(string Suffix, long[] Shape)> Shapes => Target.Bias is { } bias
        ? [(WeightSuffix, Target.Weight.shape), (BiasSuffix, bias.shape)]
        : [(WeightSuffix, Target.Weight.shape)];

    /// <summary>Adds the contribution to an output; the result is in the wider type of both.</summary>
    /// <param name="y">What to add to.</param>
    /// <param name="x">Input of the norm.</param>
    internal Tensor AddTo(Tensor y, Tensor x)
    {
        using DisposeScope scope = NewDisposeScope();
        bool training = Target.Module.training;
        if (training && _config.ModuleDropout > 0 && rand(1).ToDouble() < _config.ModuleDropout)
        {
            return y.alias().MoveToOuterDisposeScope();
        }

        // Normalised once: the change of a linear function of the weights is that function of their change.
        Tensor? mask = training && _config.RankDropout > 0 ? Mask(x.device) : null;
        Tensor Scaled(Tensor change) => mask is null ? Scale == 1 ? change : change * Scale : change * mask * Scale;
        Tensor change = Target.Normalise(x.to(Weight.dtype), Scaled(Weight), Bias is null ? null : Scaled(Bias));
        return (y + change).MoveToOuterDisposeScope();
    }

    private Tensor Mask(Device device)
    {
        Tensor mask = rand(Weight.shape).gt(_config.RankDropout).to(Weight.dtype);
        double mean = _config.RankDropoutScale ? mask.mean().ToDouble() : 1;
        return (mean > 0 ? mask / mean : mask).to(device);
    }
}
