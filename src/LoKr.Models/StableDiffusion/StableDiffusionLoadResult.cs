namespace LoKr.Models.StableDiffusion;

/// <summary>A loaded pipeline and what is worth knowing about how its folder was read.</summary>
/// <param name="Pipeline">The pipeline; the caller owns it.</param>
/// <param name="Warnings">What was skipped, left out or is slow, in sentences.</param>
public sealed record StableDiffusionLoadResult(StableDiffusionPipeline Pipeline, IReadOnlyList<string> Warnings);
