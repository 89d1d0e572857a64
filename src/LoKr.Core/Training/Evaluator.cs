using System.Diagnostics;
using System.Globalization;
using System.Runtime.InteropServices;
using LoKr.Core.Distributed;
using LoKr.Core.Errors;
using LoKr.Core.Metrics;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using static TorchSharp.torch;

namespace LoKr.Core.Training;

/// <summary>Measures a model on data.</summary>
public static class Evaluator
{
    /// <summary>
    /// Computes the mean loss, and accuracy and F1, those of entities, or perplexity, in evaluation mode and without gradients; afterwards every module returns to the
    /// mode it was in. Runs on the calling thread.
    /// </summary>
    /// <param name="model">The model.</param>
    /// <param name="task">The data; all of it is used.</param>
    /// <param name="batchSize">Rows in a batch; affects only speed and memory.</param>
    /// <param name="cancellationToken">Checked before every batch.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.LogitsNotFinite"/>: the loss is NaN or infinite.</exception>
    /// <exception cref="OperationCanceledException">The token was canceled.</exception>
    public static LoKrEvaluation Evaluate(LoKrModel model, ITrainingTask task, int batchSize, CancellationToken cancellationToken = default) =>
        Evaluate([model], task, batchSize, null, null, cancellationToken);

    /// <inheritdoc cref="Evaluate(LoKrModel, ITrainingTask, int, CancellationToken)"/>
    /// <summary>Measures as the other overload does, and reports how far it is.</summary>
    /// <param name="model">The model.</param>
    /// <param name="task">The data; all of it is used.</param>
    /// <param name="batchSize">Rows in a batch; affects only speed and memory.</param>
    /// <param name="onProgress">Called after every batch with the share of the batches that are done, on this thread.</param>
    /// <param name="cancellationToken">Checked before every batch.</param>
    public static LoKrEvaluation Evaluate(LoKrModel model, ITrainingTask task, int batchSize, Action<double>? onProgress, CancellationToken cancellationToken) =>
        Evaluate([model], task, batchSize, null, onProgress, cancellationToken);

    /// <inheritdoc cref="Evaluate(LoKrModel, ITrainingTask, int, CancellationToken)"/>
    /// <summary>Measures together with other workers, of which each takes some of the batches: all get the numbers that one process would.</summary>
    /// <param name="model">The model.</param>
    /// <param name="task">The data; all of it is used.</param>
    /// <param name="batchSize">Rows in a batch; equal on all workers.</param>
    /// <param name="workers">The workers; null for one process.</param>
    /// <param name="onProgress">Called after every batch with the share of the batches that are done, on this thread.</param>
    /// <param name="cancellationToken">Checked before every batch.</param>
    /// <exception cref="LoKrException">Also <see cref="ErrorIds.WorkersDiffer"/>, <see cref="ErrorIds.WorkerFailed"/>, and what another worker throws.</exception>
    public static LoKrEvaluation Evaluate(
        LoKrModel model, ITrainingTask task, int batchSize, WorkerGroup? workers, Action<double>? onProgress, CancellationToken cancellationToken) =>
        Together(model, task, batchSize, workers, onProgress, cancellationToken).Evaluation;

    /// <inheritdoc cref="Evaluate(LoKrModel, ITrainingTask, int, WorkerGroup, Action{double}, CancellationToken)"/>
    /// <summary>Measures a classifier with the figures of every label, or type of entities, and the confusion table.</summary>
    /// <param name="model">The model.</param>
    /// <param name="task">The data; all of it is used.</param>
    /// <param name="batchSize">Rows in a batch; equal on all workers.</param>
    /// <param name="workers">The workers; null for one process.</param>
    /// <param name="onProgress">Called after every batch with the share of the batches that are done, on this thread.</param>
    /// <param name="cancellationToken">Checked before every batch.</param>
    /// <exception cref="LoKrException">Also <see cref="ErrorIds.MetricUnavailable"/>: rows of the task have no labels.</exception>
    public static LabelReport EvaluateByLabel(
        LoKrModel model, ITrainingTask task, int batchSize, WorkerGroup? workers = null, Action<double>? onProgress = null, CancellationToken cancellationToken = default)
    {
        (LoKrEvaluation evaluation, BatchScores scores) = Together(model, task, batchSize, workers, onProgress, cancellationToken);
        IReadOnlyList<string> labels = LabelsOf(model);
        return scores.Entities(task.AnswerKind, labels) is EntityMetrics entities ? LabelReport.Of(evaluation, entities, scores.Pairs, labels)
            : scores.Count(task.AnswerKind, labels.Count) is LabelCounts counts ? LabelReport.Of(evaluation, counts, task.AnswerKind is AnswerKind.SeveralLabels ? [] : scores.Pairs, labels)
            : throw new LoKrException(ErrorIds.MetricUnavailable, LoKrErrorKind.InvalidArgument,
                $"The evaluation of {model.Name} has no labels.", "Use the loss, or a metric of the task.") { Target = model };
    }

    private static IReadOnlyList<string> LabelsOf(LoKrModel model) => (model.Pretrained as IClassifier)?.Labels ?? [];

    private static (LoKrEvaluation Evaluation, BatchScores Scores) Together(
        LoKrModel model, ITrainingTask task, int batchSize, WorkerGroup? workers, Action<double>? onProgress, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(task);
        return workers is null ? Measure([model], task, batchSize, null, onProgress, cancellationToken) : workers.Run(() =>
        {
            workers.Agree(("data", task.DataHash), ("model", ModelHash.OfUse(model)), ("batch size", batchSize.ToString(CultureInfo.InvariantCulture)), ("number of threads", get_num_threads().ToString(CultureInfo.InvariantCulture)));
            return Measure([model], task, batchSize, workers, onProgress, cancellationToken);
        });
    }

    /// <summary>Measures models that work together; the task receives the first one.</summary>
    internal static LoKrEvaluation Evaluate(
        IReadOnlyList<LoKrModel> models, ITrainingTask task, int batchSize, WorkerGroup? workers, Action<double>? onProgress, CancellationToken cancellationToken) =>
        Measure(models, task, batchSize, workers, onProgress, cancellationToken).Evaluation;

    private static (LoKrEvaluation Evaluation, BatchScores Scores) Measure(
        IReadOnlyList<LoKrModel> models, ITrainingTask task, int batchSize, WorkerGroup? workers, Action<double>? onProgress, CancellationToken cancellationToken)
    {
        LoKrModel model = models[0];
        ArgumentNullException.ThrowIfNull(model);
        ArgumentNullException.ThrowIfNull(task);
        ArgumentOutOfRangeException.ThrowIfLessThan(batchSize, 1);
        long started = Stopwatch.GetTimestamp();
        using EvaluationMode modes = new(models);
        using var noGrad = no_grad();
        using var scope = NewDisposeScope();
        List<Tensor> scores = [];
        List<Tensor> answers = [];
        List<float[]> collected = [];
        List<Tensor> ranked = [];
        long count = 0;
        long answerCount = 0;
        int done = 0;
        int batches = task.CountEvaluationBatches(batchSize);
        using Prefetch<TrainingBatch> prefetch = new(task.EvaluationBatches(new BatchOrder(batchSize)));
        foreach (TrainingBatch batch in prefetch.Items())
        {
            count += batch.LossCount;
            answerCount += batch.AnswerCount;
            int index = done++;
            if (workers is not null && index % workers.Size != workers.Rank)
            {
                continue;
            }

            cancellationToken.ThrowIfCancellationRequested();
            using var batchScope = NewDisposeScope();
            BatchScore score = task.Score(model, batch);
            Tensor loss = score.LossSum.to(ScalarType.Float64, model.Device);
            scores.Add(stack([loss, score.Correct?.to(ScalarType.Float64, model.Device) ?? zeros_like(loss)]).MoveToOuterDisposeScope());
            if (score.Answers is Tensor both)
            {
                answers.Add(both.MoveToOuterDisposeScope());
            }

            if (score.Ranked is Tensor texts)
            {
                ranked.Add(texts.MoveToOuterDisposeScope());
            }

            if (task.Collects)
            {
                collected.Add(score.Collected!.cpu().data<float>().ToArray());
            }

            onProgress?.Invoke((double)done / batches);
        }

        BatchScores all = BatchScores.Of(scores, answers, ranked);
        all = workers is null ? all : all.WithThoseOf(workers, done);
        LoKrEvaluation evaluation = Describe(model, task, all, count, answerCount, started);
        return (task.Collects ? task.Complete(evaluation, model, CollectedNumbers.WithThoseOf(collected, workers, done), batchSize) : evaluation, all);
    }

    /// <summary>What the scores of all batches say.</summary>
    /// <param name="model">The model.</param>
    /// <param name="task">The task.</param>
    /// <param name="scores">The scores.</param>
    /// <param name="count">Rows or tokens with a loss.</param>
    /// <param name="answerCount">Rows that can be right as a whole.</param>
    /// <param name="started">Time stamp of the start.</param>
    private static LoKrEvaluation Describe(LoKrModel model, ITrainingTask task, BatchScores scores, long count, long answerCount, long started)
    {
        (double lossSum, double correct) = scores.Sum();
        if (!double.IsFinite(lossSum))
        {
            throw NotFinite(model);
        }

        // Data for a search only have no rows with a loss.
        double mean = count == 0 ? 0 : lossSum / count;
        AnswerKind kind = task.AnswerKind;
        LabelCounts? labels = scores.Count(kind);
        IReadOnlyList<RetrievalMetrics> rankings = Rankings.Of(scores.RankedTexts);
        EntityMetrics? entities = scores.Entities(kind, LabelsOf(model));
        EntityMetrics? strict = scores.Entities(kind, LabelsOf(model), isStrict: true);
        PrecisionRecall? macro = entities?.Macro ?? labels?.Macro(all: kind is AnswerKind.SeveralLabels);
        double? accuracy = task.Metric is TrainingMetric.Accuracy or TrainingMetric.EntityF1 ? correct / count : null;
        return new()
        {
            RowCount = task.RowCount,
            TokenCount = count,
            Loss = mean,
            Accuracy = accuracy,
            ExactMatch = answerCount > 0 ? correct / answerCount : entities is null ? accuracy : scores.ShareOfRightRows(),
            F1 = macro?.F1,
            MicroF1 = entities?.Micro.F1 ?? labels?.Micro().F1,
            WeightedF1 = entities?.Weighted.F1 ?? labels?.Weighted().F1,
            Precision = macro?.Precision,
            Recall = macro?.Recall,
            MatthewsCorrelation = kind is AnswerKind.Labels ? labels?.MatthewsCorrelation : null,
            EntityPrecision = entities?.Micro.Precision,
            EntityRecall = entities?.Micro.Recall,
            EntityF1 = entities?.Micro.F1,
            StrictEntityPrecision = strict?.Micro.Precision,
            StrictEntityRecall = strict?.Micro.Recall,
            StrictEntityF1 = strict?.Micro.F1,
            Perplexity = task.Metric == TrainingMetric.Perplexity ? LanguageMetrics.Perplexity(mean) : null,
            RecallAt1 = Rankings.MeanOf(EvaluationMetric.RecallAt1, rankings),
            RecallAt10 = Rankings.MeanOf(EvaluationMetric.RecallAt10, rankings),
            MrrAt10 = Rankings.MeanOf(EvaluationMetric.MrrAt10, rankings),
            NdcgAt10 = Rankings.MeanOf(EvaluationMetric.NdcgAt10, rankings),
            Elapsed = Stopwatch.GetElapsedTime(started),
        };
    }

    /// <summary>The error of a loss that is not a number.</summary>
    internal static LoKrException NotFinite(LoKrModel model) => ModelErrors.OutputNotFinite($"The outputs of {model.Name}, and so its loss on the data, are", model);
}

/// <summary>The scores of batches, in their order.</summary>
/// <param name="Values">Sum of the loss and number of correct answers of each batch, one after the other.</param>
/// <param name="Answers">Right label and answer of each row that has them, one after the other, of tags of each word, with -1 twice behind a row; the order of the rows does not matter.</param>
/// <param name="Ranked">Row, query, relevance and score of each text that a query ranks, one after the other, in any order.</param>
internal sealed record BatchScores(double[] Values, long[] Answers, double[] Ranked)
{
    private const int RankedSize = 4;

    /// <summary>Reads what was computed on a device.</summary>
    /// <param name="scores">Two numbers of each batch, float64.</param>
    /// <param name="answers">Right labels and answers of batches, int64 [2, rows].</param>
    /// <param name="ranked">Ranked texts of batches, float64 [4, rows].</param>
    public static BatchScores Of(List<Tensor> scores, List<Tensor> answers, List<Tensor> ranked) => new(
        scores.Count == 0 ? [] : stack(scores).cpu().data<double>().ToArray(),
        answers.Count == 0 ? [] : cat(answers, 1).t().cpu().contiguous().data<long>().ToArray(),
        ranked.Count == 0 ? [] : cat(ranked, 1).t().cpu().contiguous().data<double>().ToArray());

    /// <summary>Adds the scores of the other workers, of which each has every batch whose index has its rank as remainder.</summary>
    /// <param name="workers">The workers.</param>
    /// <param name="batches">Number of all batches.</param>
    public BatchScores WithThoseOf(WorkerGroup workers, int batches)
    {
        WorkerMessages messages = workers.Exchange(WorkerCall.Evaluate,
            [.. BitConverter.GetBytes(Answers.Length), .. MemoryMarshal.AsBytes(Values.AsSpan()), .. MemoryMarshal.AsBytes(Answers.AsSpan()), .. MemoryMarshal.AsBytes(Ranked.AsSpan())]);
        double[] values = new double[2 * batches];
        List<long> answers = [];
        List<double> ranked = [];
        for (int rank = 0; rank < workers.Size; rank++)
        {
            int own = (batches - rank + workers.Size - 1) / workers.Size;
            ReadOnlySpan<byte> bytes = messages[rank].Span;
            int answered = BitConverter.ToInt32(bytes) * sizeof(long);
            bytes = bytes[sizeof(int)..];
            ReadOnlySpan<double> theirs = MemoryMarshal.Cast<byte, double>(bytes[..(own * 2 * sizeof(double))]);
            for (int i = 0; i < own; i++)
            {
                theirs.Slice(2 * i, 2).CopyTo(values.AsSpan(2 * ((i * workers.Size) + rank)));
            }

            bytes = bytes[(own * 2 * sizeof(double))..];
            answers.AddRange(MemoryMarshal.Cast<byte, long>(bytes[..answered]));
            ranked.AddRange(MemoryMarshal.Cast<byte, double>(bytes[answered..]));
        }

        return new(values, [.. answers], [.. ranked]);
    }

    /// <summary>The texts that queries rank, in the order of their rows.</summary>
    public IEnumerable<RankedText> RankedTexts => Ranked.Chunk(RankedSize).OrderBy(static text => text[0]).Select(static text => new RankedText((int)text[1], text[2] == 1, text[3]));

    /// <summary>The loss and the correct answers of all batches, added in their order.</summary>
    public (double Loss, double Correct) Sum()
    {
        (double loss, double correct) = (0, 0);
        for (int i = 0; i < Values.Length; i += 2)
        {
            (loss, correct) = (loss + Values[i], correct + Values[i + 1]);
        }

        return (loss, correct);
    }

    /// <summary>Right label and answer of every row or word that has them.</summary>
    public IReadOnlyList<(int Label, int Answer)> Pairs => [.. All.Where(static pair => pair.Label >= 0)];

    private IEnumerable<(int Label, int Answer)> All => Enumerable.Range(0, Answers.Length / 2).Select(row => ((int)Answers[2 * row], (int)Answers[(2 * row) + 1]));

    /// <summary>Entities by type; null where the answers are no tags, or there are none.</summary>
    /// <param name="kind">What the answers are.</param>
    /// <param name="labels">Names of the tags.</param>
    /// <param name="isStrict">Whether only <c>B-</c> begins an entity.</param>
    public EntityMetrics? Entities(AnswerKind kind, IReadOnlyList<string> labels, bool isStrict = false)
    {
        if (kind is not AnswerKind.Tags || Answers.Length == 0)
        {
            return null;
        }

        (int Label, int Answer)[][] rows = [.. TagRows()];
        return new EntityMetrics([.. rows.Select(row => Names(row, static pair => pair.Label))], [.. rows.Select(row => Names(row, static pair => pair.Answer))], isStrict);

        string[] Names((int Label, int Answer)[] row, Func<(int Label, int Answer), int> choose) => [.. row.Select(pair => labels[choose(pair)])];
    }

    /// <summary>Share of the rows whose tags are all right.</summary>
    public double ShareOfRightRows() => TagRows().Average(static row => row.All(static pair => pair.Label == pair.Answer) ? 1.0 : 0);

    private IEnumerable<(int Label, int Answer)[]> TagRows()
    {
        List<(int Label, int Answer)> row = [];
        foreach ((int label, int answer) in All)
        {
            if (label >= 0)
            {
                row.Add((label, answer));
                continue;
            }

            yield return [.. row];
            row.Clear();
        }
    }

    /// <summary>Rows and answers by label; null without answers, and for tags, whose words are no rows.</summary>
    /// <param name="kind">What the answers are.</param>
    /// <param name="labels">Number of labels that are counted at least.</param>
    public LabelCounts? Count(AnswerKind kind, int labels = 0)
    {
        if (kind is AnswerKind.Tags || Answers.Length == 0)
        {
            return null;
        }

        bool hasSeveral = kind is AnswerKind.SeveralLabels;
        LabelCounts counts = new(Math.Max(labels, (int)(hasSeveral ? Answers.Max() / 2 : Answers.Max()) + 1));
        for (int i = 0; i < Answers.Length; i += 2)
        {
            if (hasSeveral)
            {
                counts.Add((int)Answers[i] / 2, Answers[i] % 2 == 1, Answers[i + 1] == 1);
            }
            else
            {
                counts.Add((int)Answers[i], (int)Answers[i + 1]);
            }
        }

        return counts;
    }
}

/// <summary>Numbers that were collected of batches.</summary>
internal static class CollectedNumbers
{
    /// <summary>Adds those of the other workers, of which each has every batch whose index has its rank as remainder.</summary>
    /// <param name="own">Those of the batches of this worker.</param>
    /// <param name="workers">The workers; null for one process.</param>
    /// <param name="batches">Number of all batches.</param>
    /// <returns>Those of all batches, in their order.</returns>
    public static IReadOnlyList<float[]> WithThoseOf(IReadOnlyList<float[]> own, WorkerGroup? workers, int batches)
    {
        if (workers is null)
        {
            return own;
        }

        // The number of numbers of each batch, then the numbers.
        int[] counts = [.. own.Select(static numbers => numbers.Length)];
        WorkerMessages messages = workers.Exchange(WorkerCall.Evaluate, [.. MemoryMarshal.AsBytes(counts.AsSpan()), .. own.SelectMany(static numbers => MemoryMarshal.AsBytes(numbers.AsSpan()).ToArray())]);
        float[][] all = new float[batches][];
        for (int rank = 0; rank < workers.Size; rank++)
        {
            int theirs = (batches - rank + workers.Size - 1) / workers.Size;
            ReadOnlySpan<byte> bytes = messages[rank].Span;
            ReadOnlySpan<int> lengths = MemoryMarshal.Cast<byte, int>(bytes[..(theirs * sizeof(int))]);
            ReadOnlySpan<float> numbers = MemoryMarshal.Cast<byte, float>(bytes[(theirs * sizeof(int))..]);
            for (int i = 0; i < theirs; i++)
            {
                all[(i * workers.Size) + rank] = numbers[..lengths[i]].ToArray();
                numbers = numbers[lengths[i]..];
            }
        }

        return all;
    }
}
