namespace LoKr.Core.Training;

/// <summary>
/// One batch as plain arrays or objects of the caller, made ahead of time on another thread: it holds no tensors of ours.
/// Each task has its own kind.
/// </summary>
public abstract class TrainingBatch
{
    /// <summary>Rows in the batch.</summary>
    public abstract int RowCount { get; }

    /// <summary>What the speed counts: tokens without padding, or rows.</summary>
    public abstract long UnitCount { get; }

    /// <summary>What the mean loss is a mean over: tokens that carry loss, or rows. The weight of the batch among accumulated ones.</summary>
    public abstract long LossCount { get; }
}
