using LoKr.Core.Errors;
using LoKr.Core.Model;
using TorchSharp;

namespace LoKr.Core.Training;

/// <summary>Batches and a loss of the caller, for any module. Every epoch has the same order of batches, and all batches have the same weight.</summary>
public sealed class CustomLossTask : ITrainingTask
{
    private readonly IReadOnlyList<object> _batches;
    private readonly Func<LoKrModel, object, torch.Tensor> _loss;

    /// <summary>Creates a task from batches and a loss.</summary>
    /// <param name="batches">One object for each batch, in the order of training. The caller owns them and their tensors.</param>
    /// <param name="loss">
    /// Computes the mean loss, one number with its graph, from the model and a batch. It is called on the thread that trains, inside a dispose scope.
    /// </param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.DataEmpty"/>.</exception>
    public CustomLossTask(IReadOnlyList<object> batches, Func<LoKrModel, object, torch.Tensor> loss)
    {
        ArgumentNullException.ThrowIfNull(batches);
        ArgumentNullException.ThrowIfNull(loss);
        if (batches.Count == 0)
        {
            throw new LoKrException(ErrorIds.DataEmpty, LoKrErrorKind.InvalidData, "There are no batches.", "Give at least one.");
        }

        (_batches, _loss) = (batches, loss);
    }

    /// <inheritdoc/>
    public string Unit => "rows";

    /// <inheritdoc/>
    public int RowCount => _batches.Count;

    /// <inheritdoc/>
    public TrainingMetric Metric => TrainingMetric.None;

    /// <inheritdoc/>
    public IReadOnlyList<string> Warnings => [];

    /// <inheritdoc/>
    public int CountBatches(int batchSize) => _batches.Count;

    /// <inheritdoc/>
    public long LargestBatch(int batchSize) => 1;

    /// <inheritdoc/>
    public IEnumerable<TrainingBatch> Batches(BatchOrder order) => _batches.Select(batch => new CustomBatch(batch));

    /// <inheritdoc/>
    public torch.Tensor Loss(LoKrModel model, TrainingBatch batch)
    {
        ArgumentNullException.ThrowIfNull(batch);
        torch.Tensor loss = _loss(model, ((CustomBatch)batch).Item);
        return loss is not null && loss.numel() == 1
            ? loss.reshape([])
            : throw new LoKrException(
                ErrorIds.LossInvalid,
                LoKrErrorKind.InvalidData,
                loss is null ? "The loss function returned nothing." : $"The loss has the shape [{string.Join(", ", loss.shape)}].",
                "Return one number: end the function with .mean().");
    }

    /// <inheritdoc/>
    public BatchScore Score(LoKrModel model, TrainingBatch batch) => new(Loss(model, batch));

    /// <summary>Scores the batch as one row.</summary>
    /// <param name="model">The model.</param>
    /// <param name="batch">The batch.</param>
    public IReadOnlyList<RowScore> ScoreRows(LoKrModel model, TrainingBatch batch) => [new(RowScores.ToArray(Loss(model, batch))[0], 1)];

    /// <summary>Has nothing to release: the caller owns the batches.</summary>
    public void Dispose()
    {
    }
}

/// <summary>A batch of the caller.</summary>
/// <param name="item">The object of the caller.</param>
public sealed class CustomBatch(object item) : TrainingBatch
{
    /// <summary>The object of the caller.</summary>
    public object Item { get; } = item;

    /// <inheritdoc/>
    public override int RowCount => 1;

    /// <inheritdoc/>
    public override long UnitCount => 1;

    /// <inheritdoc/>
    public override long LossCount => 1;
}
