using LoKr.Core.Adapters;
using TorchSharp;

namespace LoKr.Core.Training;

/// <summary>Data and a loss: what a model is trained or measured on.</summary>
public interface ITrainingTask : IDisposable
{
    /// <summary>What the speed counts: <c>tokens</c> or <c>rows</c>.</summary>
    string Unit { get; }

    /// <summary>Rows of data that take part.</summary>
    int RowCount { get; }

    /// <summary>What an evaluation reports beside the loss.</summary>
    TrainingMetric Metric { get; }

    /// <summary>What the user should know of the data (rows cut or left out), in words; empty when there is nothing.</summary>
    IReadOnlyList<string> Warnings { get; }

    /// <summary>Number of batches in a pass.</summary>
    int CountBatches(int batchSize);

    /// <summary>The most units (tokens with padding, or rows) a batch of that size can hold, for a plan.</summary>
    long LargestBatch(int batchSize);

    /// <summary>The batches of one pass. Runs on a background thread: plain data only, no tensors.</summary>
    IEnumerable<TrainingBatch> Batches(BatchOrder order);

    /// <summary>Mean loss of a batch, a scalar with its graph.</summary>
    torch.Tensor Loss(LoKrModel model, TrainingBatch batch);

    /// <summary>Sums of a batch for an evaluation; gradients are off and the model is in evaluation mode.</summary>
    BatchScore Score(LoKrModel model, TrainingBatch batch);
}
