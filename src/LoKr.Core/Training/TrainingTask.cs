using LoKr.Core.Data;
using LoKr.Core.Errors;
using LoKr.Core.Model;
using LoKr.Core.Nn;
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

/// <summary>How rows are put into batches; the same values give the same batches.</summary>
/// <param name="BatchSize">Rows in a batch; the last one may have fewer.</param>
/// <param name="Shuffle">Whether the order is drawn from the seed and the epoch; otherwise rows keep their order, or go by length.</param>
/// <param name="Bucket">Whether rows of similar length share a batch.</param>
/// <param name="Seed">Seed of the order.</param>
/// <param name="Epoch">Number of the pass, from 0; each has its own order.</param>
public sealed record BatchOrder(int BatchSize, bool Shuffle = false, bool Bucket = true, long Seed = 0, int Epoch = 0);

/// <summary>What an evaluation adds up for one batch; stays on the device until the end.</summary>
/// <param name="LossSum">Sum (not mean) of the loss over <see cref="TrainingBatch.LossCount"/> items, a scalar.</param>
/// <param name="Correct">Number of right answers, a scalar; null where the task has none.</param>
public readonly record struct BatchScore(torch.Tensor LossSum, torch.Tensor? Correct = null);

/// <summary>Picks the task that fits a model.</summary>
public static class TrainingTaskFactory
{
    /// <summary>Classification for a sequence classifier, next-token prediction for a language model; tokenizes the rows.</summary>
    /// <param name="model">The model.</param>
    /// <param name="rows">Its data: see <see cref="TextClassificationTask"/> and <see cref="CausalLanguageTask"/>.</param>
    /// <param name="maxLength">Longest sequence, special tokens included; null for what the model allows.</param>
    /// <param name="cancellationToken">Stops tokenizing.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.TaskUnknown"/>, or what the task finds wrong with the rows.</exception>
    public static ITrainingTask Create(LoKrModel model, IReadOnlyList<DataRow> rows, int? maxLength = null, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(model);
        return model.Pretrained switch
        {
            ISequenceClassifier => new TextClassificationTask(model, rows, maxLength, cancellationToken),
            ICausalLanguageModel => new CausalLanguageTask(model, rows, maxLength, cancellationToken),
            _ => throw new LoKrException(
                ErrorIds.TaskUnknown,
                LoKrErrorKind.InvalidOperation,
                $"{model.Name} is neither a text classifier nor a causal language model, so its loss is not known.",
                "Give a loss of your own with -Loss and the batches it is for."),
        };
    }
}
