namespace LoKr.Core.Training;

/// <summary>A batch of the caller.</summary>
/// <param name="item">The batch as it was given.</param>
public sealed class CustomBatch(object item) : TrainingBatch
{
    /// <summary>The batch as it was given.</summary>
    public object Item { get; } = item;

    /// <inheritdoc/>
    public override int RowCount => 1;

    /// <inheritdoc/>
    public override long UnitCount => 1;

    /// <inheritdoc/>
    public override long LossCount => 1;
}
