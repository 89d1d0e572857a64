using LoKr.Core.Adapters;
using LoKr.Core.Training.Data;
using TorchSharp;

namespace LoKr.Core.Training;

/// <summary>Texts, or prompts with completions; mean cross entropy of the next token.</summary>
public sealed class CausalLanguageTask : ITrainingTask
{
    /// <summary>Tokenises rows with <c>text</c>, or <c>prompt</c> and <c>completion</c>.</summary>
    public CausalLanguageTask(LoKrModel model, IReadOnlyList<DataRow> rows, int? maxLength = null) => throw new NotImplementedException();

    /// <inheritdoc/>
    public string Unit => "tokens";

    /// <inheritdoc/>
    public int RowCount => throw new NotImplementedException();

    /// <inheritdoc/>
    public TrainingMetric Metric => TrainingMetric.Perplexity;

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
