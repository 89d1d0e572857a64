using LoKr.Core.Adapters;
using LoKr.Core.Training.Data;
using TorchSharp;

namespace LoKr.Core.Training;

/// <summary>Texts with one label each; mean cross entropy.</summary>
public sealed class TextClassificationTask : ITrainingTask
{
    /// <summary>Tokenises rows with <c>text</c> and <c>label</c>.</summary>
    public TextClassificationTask(LoKrModel model, IReadOnlyList<DataRow> rows, int? maxLength = null) => throw new NotImplementedException();

    /// <inheritdoc/>
    public string Unit => "tokens";

    /// <inheritdoc/>
    public int RowCount => throw new NotImplementedException();

    /// <inheritdoc/>
    public TrainingMetric Metric => TrainingMetric.Accuracy;

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
