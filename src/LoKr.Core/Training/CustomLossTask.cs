using LoKr.Core.Adapters;
using TorchSharp;

namespace LoKr.Core.Training;

/// <summary>Batches and a loss of the caller, for any module.</summary>
public sealed class CustomLossTask : ITrainingTask
{
    /// <summary>Takes batches, one object each, in the order they are given, and a function from the model and a batch to a mean loss.</summary>
    public CustomLossTask(IReadOnlyList<object> batches, Func<LoKrModel, object, torch.Tensor> loss) => throw new NotImplementedException();

    /// <inheritdoc/>
    public string Unit => "rows";

    /// <inheritdoc/>
    public int RowCount => throw new NotImplementedException();

    /// <inheritdoc/>
    public TrainingMetric Metric => TrainingMetric.None;

    /// <inheritdoc/>
    public IReadOnlyList<string> Warnings => throw new NotImplementedException();

    /// <inheritdoc/>
    public int CountBatches(int batchSize) => throw new NotImplementedException();

    /// <inheritdoc/>
    public long LargestBatch(int batchSize) => throw new NotImplementedException();

    /// <inheritdoc/>
    public IEnumerable<TrainingBatch> Batches(BatchOrder order) => throw new NotImplementedException();

    /// <inheritdoc/>
    public torch.Tensor Loss(LoKrModel model, TrainingBatch batch) => throw new NotImplementedException();

    /// <inheritdoc/>
    public BatchScore Score(LoKrModel model, TrainingBatch batch) => throw new NotImplementedException();

    /// <inheritdoc/>
    public void Dispose() => throw new NotImplementedException();
}
