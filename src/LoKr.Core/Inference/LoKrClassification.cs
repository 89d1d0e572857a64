namespace LoKr.Core.Inference;

/// <summary>What a classifier says of one text (<c>Invoke-LoKrModel</c>). Flat and serialisable.</summary>
public sealed record LoKrClassification
{
    /// <summary>The text.</summary>
    public required string Text { get; init; }

    /// <summary>The most likely label.</summary>
    public required string Label { get; init; }

    /// <summary>Its probability.</summary>
    public required double Score { get; init; }

    /// <summary>Probability by label, in the order of the model's labels.</summary>
    public required IReadOnlyDictionary<string, double> Scores { get; init; }

    /// <inheritdoc/>
    public override string ToString() => FormattableString.Invariant($"{Label} ({Score:F4})");
}
