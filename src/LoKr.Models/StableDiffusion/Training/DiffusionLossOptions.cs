using LoKr.Core;

namespace LoKr.Models.StableDiffusion.Training;

/// <summary>The loss of a diffusion model.</summary>
public sealed record DiffusionLossOptions
{
    /// <summary>γ of min-SNR weighting (Hang et al., arXiv:2303.09556), 5 in the paper; null weighs every timestep alike.</summary>
    public double? MinSnrGamma { get; init; }

    /// <summary>Share of pictures that are trained without their caption, so that guidance keeps what it goes against (arXiv:2207.12598).</summary>
    public double CaptionDropout { get; init; }

    /// <summary>Throws for values that are out of range.</summary>
    /// <exception cref="LoKrException"><see cref="ErrorIds.TrainingOptionInvalid"/>.</exception>
    public void Validate()
    {
        Require(MinSnrGamma is null || (double.IsFinite(MinSnrGamma.Value) && MinSnrGamma > 0), nameof(MinSnrGamma), MinSnrGamma, "a number above 0");
        Require(CaptionDropout is >= 0 and <= 1, nameof(CaptionDropout), CaptionDropout, "from 0 to 1");
    }

    private static void Require(bool condition, string name, double? value, string allowed)
    {
        if (!condition)
        {
            throw new LoKrException(ErrorIds.TrainingOptionInvalid, LoKrErrorKind.InvalidArgument,
                string.Create(System.Globalization.CultureInfo.InvariantCulture, $"{name} is {value}."), $"It has to be {allowed}.") { Target = name };
        }
    }
}
