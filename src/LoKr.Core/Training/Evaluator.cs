using System.Diagnostics;
using System.Globalization;
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
        using EvaluationPass pass = new(models);
        List<Tensor> scores = [];
        List<Tensor> answers = [];
        List<Tensor> ranked = [];
        pass.Run(task, batchSize, workers, batch =>
        {
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
                pass.Collect(score);
            }
        }, onProgress, cancellationToken);
        BatchScores all = BatchScores.Of(scores, answers, ranked);
        all = workers is null ? all : all.WithThoseOf(workers, pass.BatchCount);
        LoKrEvaluation evaluation = Describe(model, task, all, pass.LossCount, pass.AnswerCount, started);
        return (task.Collects ? task.Complete(evaluation, model, CollectedNumbers.WithThoseOf(pass.Collected, workers, pass.BatchCount), batchSize) : evaluation, all);
    }

    /// <summary>Sums up the scores of all batches.</summary>
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
    internal static LoKrException NotFinite(LoKrModel model) => ModelOutputs.NotFinite($"The outputs of {model.Name}, and so its loss on the data, are", model);
}
