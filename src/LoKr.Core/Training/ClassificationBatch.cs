namespace LoKr.Core.Training;

/// <summary>Texts and the index of the label of each.</summary>
public sealed class ClassificationBatch : TokenBatch
{
    internal ClassificationBatch(IReadOnlyList<int[]> rows, long[] labels, int padId)
        : base(rows, padId) => Labels = labels;

    /// <inheritdoc/>
    public override long LossCount => RowCount;

    internal long[] Labels { get; }
}
