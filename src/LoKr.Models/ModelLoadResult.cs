using LoKr.Core.Adapters;

namespace LoKr.Models;

/// <summary>A loaded model and what is worth knowing about how its checkpoint was read.</summary>
/// <param name="Model">The model; the caller owns it.</param>
/// <param name="FreshParameters">Parameters that the checkpoint lacks and that were initialised.</param>
/// <param name="SkippedKeys">Keys of the checkpoint that the model has no place for.</param>
/// <param name="Warnings">The same and more in sentences.</param>
public sealed record ModelLoadResult(
    LoKrModel Model,
    IReadOnlyList<string> FreshParameters,
    IReadOnlyList<string> SkippedKeys,
    IReadOnlyList<string> Warnings);
