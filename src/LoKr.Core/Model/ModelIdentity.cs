using LoKr.Core.Configuration;
using LoKr.Core.Safetensors;

namespace LoKr.Core.Model;

/// <summary>Tells a base model from others of its architecture. Files of its adapters carry it.</summary>
/// <param name="Fingerprint">The <see cref="CheckpointFingerprint"/> of its checkpoint; null for a model that was not loaded.</param>
/// <param name="Labels">Names of the labels that it classifies into, in the order of the logits; null where there are none.</param>
public sealed record ModelIdentity(string? Fingerprint, IReadOnlyList<string>? Labels)
{
    /// <summary>Meaning of the logits of its classifier, as the training of an adapter found it; null where nothing says it.</summary>
    public ClassificationProblem? Problem { get; init; }

    /// <summary>Whether nothing is known.</summary>
    public bool IsEmpty => Fingerprint is null && Labels is null && Problem is null;

    /// <summary>Whether the weights of the two are known to differ.</summary>
    /// <param name="other">The other model.</param>
    public bool HasOtherWeights(ModelIdentity other)
    {
        ArgumentNullException.ThrowIfNull(other);
        return Fingerprint is not null && other.Fingerprint is not null && Fingerprint != other.Fingerprint;
    }

    /// <inheritdoc/>
    public override string ToString() => Fingerprint ?? "";
}
