namespace LoKr.Core.Training;

/// <summary>Figures of a model on data (<c>Measure-LoKrModel</c>). Flat and serialisable.</summary>
public sealed record LoKrEvaluation
{
    /// <summary>Rows of data.</summary>
    public required int RowCount { get; init; }

    /// <summary>Tokens the loss was taken over (rows, for classification).</summary>
    public required long TokenCount { get; init; }

    /// <summary>Mean loss.</summary>
    public required double Loss { get; init; }

    /// <summary>Share of right answers, for classification.</summary>
    public double? Accuracy { get; init; }

    /// <summary>exp(loss), for language models.</summary>
    public double? Perplexity { get; init; }

    /// <summary>How long it took.</summary>
    public required TimeSpan Elapsed { get; init; }

    /// <inheritdoc/>
    public override string ToString() => FormattableString.Invariant($"loss {Loss:F4}") + (Accuracy is double accuracy
        ? FormattableString.Invariant($", accuracy {accuracy:F4}")
        : Perplexity is double perplexity ? FormattableString.Invariant($", perplexity {perplexity:F2}") : "");
}
