using LoKr.Core.Data;
using LoKr.Core.Errors;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using TorchSharp;

namespace LoKr.Core.Training;

/// <summary>Data and a loss, to train or measure a model.</summary>
public interface ITrainingTask : IDisposable
{
    /// <summary>Unit of <see cref="TrainingBatch.UnitCount"/>: <c>tokens</c> or <c>rows</c>.</summary>
    string Unit { get; }

    /// <summary>Number of rows that are used.</summary>
    int RowCount { get; }

    /// <summary>Metric that an evaluation reports beside the loss.</summary>
    TrainingMetric Metric { get; }

    /// <summary>Kind of <see cref="BatchScore.Answers"/>.</summary>
    AnswerKind AnswerKind => AnswerKind.Labels;

    /// <summary>Warnings about the data for the user, for example rows that were cut or left out.</summary>
    IReadOnlyList<string> Warnings { get; }

    /// <summary>Choices that follow from the data, in sentences.</summary>
    IReadOnlyList<string> Notes => [];

    /// <summary>Whether measures compare all rows with each other, so that an evaluation collects numbers of every batch (<see cref="BatchScore.Collected"/>).</summary>
    bool Collects => false;

    /// <summary>
    /// SHA-256 of all that the task trains on, in order, as lower-case hexadecimal digits: equal for equal data. Null where it cannot be told.
    /// </summary>
    string? DataHash => null;

    /// <summary>The day that a chat template wrote into the rows, at midnight; null where none did.</summary>
    DateTime? Day => null;

    /// <summary>Number of lines that the rows are in, of which batches are made: fewer than rows where these are packed.</summary>
    int LineCount => RowCount;

    /// <summary>The same data with short rows packed into lines of the longest sequence, with the same losses; null where that cannot be done.</summary>
    ITrainingTask? Pack() => null;

    /// <summary>Number of batches in an epoch.</summary>
    int CountBatches(int batchSize);

    /// <summary>Largest number of units (tokens with padding, or rows) in a batch of a size, for a plan.</summary>
    long LargestBatch(int batchSize);

    /// <summary>Returns the batches of one epoch. It is enumerated on a background thread: plain data only, no tensors.</summary>
    IEnumerable<TrainingBatch> Batches(BatchOrder order);

    /// <summary>Number of batches of an evaluation.</summary>
    int CountEvaluationBatches(int batchSize) => CountBatches(batchSize);

    /// <summary>Returns the batches of an evaluation, as <see cref="Batches"/> does those of an epoch: others where something is measured beside the rows that are learned from.</summary>
    IEnumerable<TrainingBatch> EvaluationBatches(BatchOrder order) => Batches(order);

    /// <summary>Computes the mean loss of a batch, a scalar with its graph.</summary>
    torch.Tensor Loss(LoKrModel model, TrainingBatch batch);

    /// <summary>Computes the sums of a batch for an evaluation; gradients are off and the model is in evaluation mode.</summary>
    BatchScore Score(LoKrModel model, TrainingBatch batch);

    /// <summary>Scores every row of a batch, in its order, to compare models row by row; gradients are off and the model is in evaluation mode.</summary>
    /// <exception cref="LoKrException"><see cref="ErrorIds.MetricUnavailable"/>: rows of the task have no scores of their own.</exception>
    IReadOnlyList<RowScore> ScoreRows(LoKrModel model, TrainingBatch batch) => throw new LoKrException(
        ErrorIds.MetricUnavailable, LoKrErrorKind.NotSupported, "Rows of this task have no scores of their own.", "Compare evaluations of all rows instead.");

    /// <summary>Completes an evaluation by the measures of what was collected; called where the task <see cref="Collects"/>.</summary>
    /// <param name="evaluation">The evaluation.</param>
    /// <param name="model">The model.</param>
    /// <param name="collected">What was collected of each batch of <see cref="EvaluationBatches"/>, in their order.</param>
    /// <param name="batchSize">Rows in a batch of the evaluation.</param>
    LoKrEvaluation Complete(LoKrEvaluation evaluation, LoKrModel model, IReadOnlyList<float[]> collected, int batchSize) => evaluation;

    /// <summary>Scores rows by what was collected; called in the place of the other overload where the task <see cref="Collects"/>.</summary>
    /// <param name="model">The model.</param>
    /// <param name="collected">What was collected of each batch of <see cref="EvaluationBatches"/>, in their order.</param>
    /// <param name="batchSize">Rows in a batch of the evaluation.</param>
    IReadOnlyList<RowScore> ScoreRows(LoKrModel model, IReadOnlyList<float[]> collected, int batchSize) => [];
}

/// <summary>
/// One batch as plain arrays or objects of the caller, prepared ahead of time on another thread, so without tensors of the task.
/// Each task has its own kind of batch.
/// </summary>
public abstract class TrainingBatch
{
    /// <summary>Rows in the batch.</summary>
    public abstract int RowCount { get; }

    /// <summary>Number of tokens without padding, or of rows, for the speed.</summary>
    public abstract long UnitCount { get; }

    /// <summary>Number of tokens with loss, or of rows, that the mean loss is taken over; the weight of the batch among accumulated ones.</summary>
    public abstract long LossCount { get; }

    /// <summary>Number of rows with answers of a language model, of which <see cref="BatchScore.Correct"/> counts those that are exact; 0 where there are none.</summary>
    public virtual long AnswerCount => 0;
}

/// <summary>Order in which rows are put into batches; equal values give equal batches.</summary>
/// <param name="BatchSize">Rows in a batch, or lines of packed rows; the last one may have fewer.</param>
/// <param name="Shuffle">Whether the order is drawn from the seed and the epoch; otherwise rows are in their own order, or sorted by length.</param>
/// <param name="Bucket">Whether rows of similar length share a batch.</param>
/// <param name="Seed">Seed of the order.</param>
/// <param name="Epoch">Index of the epoch, from 0; each has its own order.</param>
public sealed record BatchOrder(int BatchSize, bool Shuffle = false, bool Bucket = true, long Seed = 0, int Epoch = 0);

/// <summary>Seeds of what a run draws.</summary>
public static class TrainingSeeds
{
    /// <summary>A seed for one place of a run: neighboring seeds and places do not share numbers.</summary>
    /// <param name="seed">Seed of the run.</param>
    /// <param name="major">Index of the epoch or step, from 0.</param>
    /// <param name="minor">Index of the batch in it, from 0.</param>
    public static ulong Of(long seed, int major, int minor) => unchecked(
        ((ulong)seed * 0x9E3779B97F4A7C15) ^ ((ulong)(major + 1) * 0xBF58476D1CE4E5B9) ^ ((ulong)(minor + 1) * 0x94D049BB133111EB));
}

/// <summary>A generator whose numbers are the same on every .NET version, unlike <see cref="Random"/> with a seed.</summary>
internal struct SplitMix64(ulong state)
{
    private ulong _state = state;

    /// <summary>A number below a limit.</summary>
    public int Next(int limit) => (int)Math.BigMul(Next(), (ulong)limit, out _);

    /// <summary>Brings items into a random order.</summary>
    public void Shuffle<T>(T[] items)
    {
        for (int i = items.Length - 1; i > 0; i--)
        {
            int j = Next(i + 1);
            (items[i], items[j]) = (items[j], items[i]);
        }
    }

    private ulong Next()
    {
        ulong z = _state += 0x9E3779B97F4A7C15;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
        return z ^ (z >> 31);
    }
}

/// <summary>Kinds of answers of a task.</summary>
public enum AnswerKind
{
    /// <summary>One label a row.</summary>
    Labels,

    /// <summary>Any number of labels a row: a decision on each.</summary>
    SeveralLabels,

    /// <summary>A tag for each of the words of a row.</summary>
    Tags,
}

/// <summary>Sums over one batch of an evaluation; they stay on the device until the end.</summary>
/// <param name="LossSum">Sum (not mean) of the loss over <see cref="TrainingBatch.LossCount"/> items, a scalar.</param>
/// <param name="Correct">Number of correct answers, of a language model the rows whose answers it would give as they are, a scalar; null where the task has no answers.</param>
/// <param name="Answers">
/// Right labels and answers as indices, int64 [2, rows]; where a row may have several labels a decision on each, int64 [2, rows·labels]: twice the
/// index of the label, plus one where the row has it, and whether the model gave it; of tags those of every word, int64 [2, words + rows], with -1
/// twice behind the words of a row. Null where the task has no labels.
/// </param>
public readonly record struct BatchScore(torch.Tensor LossSum, torch.Tensor? Correct = null, torch.Tensor? Answers = null)
{
    /// <summary>Numbers that the measures of a task which <see cref="ITrainingTask.Collects"/> are computed from, float32 [any number]; null otherwise.</summary>
    public torch.Tensor? Collected { get; init; }

    /// <summary>
    /// Where queries rank texts, index of the row, index of its query, 1 for a relevant text and 0 for another, and the score, float64 [4, rows]; null elsewhere.
    /// </summary>
    public torch.Tensor? Ranked { get; init; }
}

/// <summary>Creates the task that fits a model.</summary>
public static class TrainingTaskFactory
{
    /// <summary>Creates text classification for a sequence classifier, tags of words for a token classifier, next-token prediction for a language model; tokenizes the rows.</summary>
    /// <param name="model">The model.</param>
    /// <param name="rows">Its data: see <see cref="TextClassificationTask"/>, <see cref="TokenClassificationTask"/> and <see cref="CausalLanguageTask"/>.</param>
    /// <param name="maxLength">Longest sequence, special tokens included; null for the model's limit.</param>
    /// <param name="cancellationToken">Stops tokenizing.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.TaskUnknown"/>, or an error of the task about the rows.</exception>
    public static ITrainingTask Create(LoKrModel model, IReadOnlyList<DataRow> rows, int? maxLength = null, CancellationToken cancellationToken = default) =>
        Create(model, rows, new TrainingOptions { MaxLength = maxLength }, reading: null, onProgress: null, cancellationToken);

    /// <summary>Creates a task as the other overload does, with what the options of a training say about it (the longest sequence, the loss of a sentence encoder), and reports how far it is.</summary>
    /// <param name="model">The model.</param>
    /// <param name="rows">Its data: see <see cref="TextClassificationTask"/>, <see cref="TokenClassificationTask"/>, <see cref="CausalLanguageTask"/> and <see cref="EmbeddingTask"/>.</param>
    /// <param name="options">The options; null for the defaults.</param>
    /// <param name="reading">Treatment of rows that do not fit; null for an error.</param>
    /// <param name="onProgress">Called now and then with the share of the rows that are tokenized, on any thread.</param>
    /// <param name="cancellationToken">Stops tokenizing.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.TaskUnknown"/>, or an error of the task about the rows.</exception>
    public static ITrainingTask Create(
        LoKrModel model, IReadOnlyList<DataRow> rows, TrainingOptions? options, DataReading? reading, Action<double>? onProgress, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(model);
        int? maxLength = options?.MaxLength;
        return model.Pretrained switch
        {
            ISentenceEncoder => new EmbeddingTask(model, rows, options, reading, onProgress, cancellationToken),
            ISequenceClassifier => new TextClassificationTask(model, rows, maxLength, reading, onProgress, cancellationToken),
            ITokenClassifier => new TokenClassificationTask(model, rows, maxLength, reading, onProgress, cancellationToken),
            ICausalLanguageModel => new CausalLanguageTask(model, rows, maxLength, reading, onProgress, cancellationToken),
            _ => throw new LoKrException(
                ErrorIds.TaskUnknown,
                LoKrErrorKind.InvalidOperation,
                $"{model.Name} classifies neither texts nor words and is neither a sentence encoder nor a causal language model, so its loss is not known.",
                "Train it with a loss and batches of your own (CustomLossTask)."),
        };
    }
}
