using LoKr.Core.Errors;
using LoKr.Core.Metrics;
using LoKr.Core.IO;

namespace LoKr.Core.Model;

/// <summary>The outcome of a merge. Flat and serializable.</summary>
public sealed record LoKrMergeResult
{
    /// <summary>Adapters that were merged.</summary>
    public required IReadOnlyList<string> Adapters { get; init => field = ValueList.Of(value); }

    /// <summary>Number of base weights that changed.</summary>
    public required int ModuleCount { get; init; }

    /// <summary>Number of modules that were replaced by their trained copy (modules_to_save).</summary>
    public required int SavedModuleCount { get; init; }

    /// <summary>How long it took.</summary>
    public required TimeSpan Elapsed { get; init; }

    /// <summary>Folder or file that was written, or null for a merge in memory.</summary>
    public string? Destination { get; init; }

    /// <summary>Bytes of the files of weights that were written; 0 for a merge in memory.</summary>
    public long ByteCount { get; init; }

    /// <summary>Names of these files.</summary>
    public IReadOnlyList<string> Files { get; init => field = ValueList.Of(value); } = ValueList.Of<string>([]);

    /// <summary>How many of these files an interrupted run had finished before.</summary>
    public int ResumedFileCount { get; init; }

    /// <summary>Bytes that an interrupted run had written before: its finished files, and the verified pieces of an unfinished one.</summary>
    public long ResumedByteCount { get; init; }

    /// <summary>Share of the change of each weight that rounding left, the smallest first: of quantized weights, and of those in BF16 and F16.</summary>
    public IReadOnlyList<LoKrMergedWeight> Weights { get; init => field = ValueList.Of(value); } = ValueList.Of<LoKrMergedWeight>([]);

    /// <summary>Consequences of the merge for other adapters.</summary>
    public IReadOnlyList<string> Warnings { get; init => field = ValueList.Of(value); } = ValueList.Of<string>([]);

    /// <inheritdoc/>
    public override string ToString() => $"{string.Join(", ", Adapters)} in {ModuleCount} weights{(SavedModuleCount == 0 ? "" : $", {SavedModuleCount} modules replaced")}";
}

/// <summary>Share of the adapters' change of one weight that rounding to its type left. Flat and serializable.</summary>
public sealed record LoKrMergedWeight
{
    /// <summary>Name of the weight in the file.</summary>
    public required string Name { get; init; }

    /// <summary>Its type in the result.</summary>
    public required string Type { get; init; }

    /// <summary>How much of the change arrived: ⟨after − before, change⟩ / ⟨change, change⟩. 1 is all of it, 0 nothing.</summary>
    public required double Kept { get; init; }

    /// <summary>Norm of the rounding error over the norm of the change.</summary>
    public required double ErrorOverDelta { get; init; }

    /// <summary>Norm of the change (Frobenius).</summary>
    public required double DeltaNorm { get; init; }

    /// <summary>Share of the values that are stored as they were.</summary>
    public required double Unchanged { get; init; }

    /// <summary>Number of values beyond the largest one that the type and the scale hold; they became that one. 0 for types without such a limit.</summary>
    public required long AtLimit { get; init; }

    /// <inheritdoc/>
    public override string ToString() => FormattableString.Invariant($"{Name} ({Type}): {Kept:P1} kept, error {ErrorOverDelta:F3} of the change");
}

/// <summary>A finished or stopped training run.</summary>
public sealed record LoKrTrainingResult
{
    /// <summary>Name of the adapter that was trained.</summary>
    public required string AdapterName { get; init; }

    /// <summary>Every step.</summary>
    public required IReadOnlyList<LoKrTrainingStep> History { get; init => field = ValueList.Of(value); }

    /// <summary>
    /// <c>Completed</c>; <c>EarlyStopped</c> after evaluations without improvement; <c>TimeLimit</c>; <c>Canceled</c>; <c>Diverged</c> after a
    /// loss that was NaN or infinite; <c>Signal</c> after a signal of the operating system; <c>Stopped</c> from another process
    /// (<see cref="StopReasons"/>).
    /// </summary>
    public required string StopReason { get; init; }

    /// <summary>Evaluation before the first step, if there is evaluation data and it was asked for.</summary>
    public LoKrEvaluation? Before { get; init; }

    /// <summary>Evaluation after the last step, if there is evaluation data.</summary>
    public LoKrEvaluation? After { get; init; }

    /// <summary>The step with the best evaluation, whose values the adapter has where the best ones are kept; null without evaluations.</summary>
    public int? BestStep { get; init; }

    /// <summary>Seed of the order of the rows: the one that was given, or the one that was drawn.</summary>
    public long Seed { get; init; }

    /// <summary>Highest learning rate of the head; null where it is that of all parameters.</summary>
    public double? HeadLearningRate { get; init; }

    /// <summary>Number of trainable parameters.</summary>
    public required long TrainableParameterCount { get; init; }

    /// <summary>The most memory that the process held during the run, in bytes; the memory of a GPU is not part of it.</summary>
    public long PeakMemoryBytes { get; init; }

    /// <summary>How long it took.</summary>
    public required TimeSpan Elapsed { get; init; }

    /// <inheritdoc/>
    public override string ToString() => $"{StopReason} after {History.Count} steps of adapter '{AdapterName}'{(After is null ? "" : $": {After}")}";
}

/// <summary>Why a training ended: the values of <see cref="LoKrTrainingResult.StopReason"/>.</summary>
public static class StopReasons
{
    /// <summary>All steps were made.</summary>
    public const string Completed = "Completed";

    /// <summary>Evaluations did not improve any more.</summary>
    public const string EarlyStopped = "EarlyStopped";

    /// <summary>The time for it was over.</summary>
    public const string TimeLimit = "TimeLimit";

    /// <summary>It was canceled in its own process.</summary>
    public const string Canceled = "Canceled";

    /// <summary>A loss was NaN or infinite.</summary>
    public const string Diverged = "Diverged";

    /// <summary>The operating system sent a signal.</summary>
    public const string Signal = "Signal";

    /// <summary>Another process asked for it.</summary>
    public const string Stopped = "Stopped";

    /// <summary>Whether nothing is left to train.</summary>
    /// <param name="reason">The reason.</param>
    public static bool IsComplete(string reason) => reason is Completed or EarlyStopped;
}

/// <summary>One optimizer step. Flat and serializable.</summary>
public sealed record LoKrTrainingStep
{
    /// <summary>Number of the step, from 1.</summary>
    public required int Step { get; init; }

    /// <summary>Number of steps in all.</summary>
    public required int TotalSteps { get; init; }

    /// <summary>Epoch as a fraction, for example 1.5.</summary>
    public required double Epoch { get; init; }

    /// <summary>Mean loss of the step's batches.</summary>
    public required double Loss { get; init; }

    /// <summary>Learning rate of the step.</summary>
    public required double LearningRate { get; init; }

    /// <summary>Learning rate of the head in the step; null where it is that of all parameters.</summary>
    public double? HeadLearningRate { get; init; }

    /// <summary>Norm of the gradient before clipping.</summary>
    public required double GradientNorm { get; init; }

    /// <summary>Tokens a second, padding not counted; rows a second for tasks without tokens.</summary>
    public required double TokensPerSecond { get; init; }

    /// <summary>Time since the start of training.</summary>
    public required TimeSpan Elapsed { get; init; }

    /// <summary>Loss on the evaluation data if this step ended with an evaluation.</summary>
    public double? EvaluationLoss { get; init; }

    /// <summary>Accuracy on the evaluation data, for classification.</summary>
    public double? Accuracy { get; init; }

    /// <summary>F1 of entities on the evaluation data, for tags of words.</summary>
    public double? EntityF1 { get; init; }

    /// <summary>Perplexity on the evaluation data, for language models.</summary>
    public double? Perplexity { get; init; }

    /// <summary>nDCG of the first ten results on the evaluation data, for sentence encoders that search.</summary>
    public double? NdcgAt10 { get; init; }

    /// <summary>Spearman's correlation on the evaluation data, for pairs with scores.</summary>
    public double? Spearman { get; init; }

    /// <inheritdoc/>
    public override string ToString() => FormattableString.Invariant($"step {Step}: loss {Loss:F4}");
}

/// <summary>Measures of a model on data. Flat and serializable.</summary>
public sealed record LoKrEvaluation
{
    /// <summary>Rows of data.</summary>
    public required int RowCount { get; init; }

    /// <summary>Tokens the loss was taken over (rows, for classification of texts).</summary>
    public required long TokenCount { get; init; }

    /// <summary>Mean loss.</summary>
    public required double Loss { get; init; }

    /// <summary>Share of right answers, for classification: of rows, or of words that are tagged.</summary>
    public double? Accuracy { get; init; }

    /// <summary>
    /// Share of rows that are right as a whole. Classification: every label, or the tag of every word. Language models: of the rows with answers
    /// (completions, or what the assistant says) those that greedy decoding would give as they are, because each of their tokens is the most likely
    /// one behind those before it.
    /// </summary>
    public double? ExactMatch { get; init; }

    /// <summary>
    /// Macro F1, for classification: the mean over the labels that rows or answers have, or over all where a row may have several, of
    /// 2·TP / (2·TP + FP + FN). For tags of words this and the averages below are those over types of entities.
    /// </summary>
    public double? F1 { get; init; }

    /// <summary>F1 of all labels together, for classification: of rows of one label the accuracy.</summary>
    public double? MicroF1 { get; init; }

    /// <summary>F1 as a mean over labels, each with the number of its rows, for classification.</summary>
    public double? WeightedF1 { get; init; }

    /// <summary>Macro precision, for classification: the mean over the labels that rows or answers have.</summary>
    public double? Precision { get; init; }

    /// <summary>Macro recall, for classification, over the same labels.</summary>
    public double? Recall { get; init; }

    /// <summary>The correlation of Matthews, for classification; 0 where all rows or all answers have one label.</summary>
    public double? MatthewsCorrelation { get; init; }

    /// <summary>Share of the entities that the model gave that are right, in type and both ends, for tags of words (seqeval's default).</summary>
    public double? EntityPrecision { get; init; }

    /// <summary>Share of the entities that were found, for tags of words.</summary>
    public double? EntityRecall { get; init; }

    /// <summary>F1 of entities, all types together, for tags of words.</summary>
    public double? EntityF1 { get; init; }

    /// <summary>As <see cref="EntityPrecision"/>, where only <c>B-</c> begins an entity (seqeval's strict mode with IOB2).</summary>
    public double? StrictEntityPrecision { get; init; }

    /// <summary>As <see cref="EntityRecall"/>, where only <c>B-</c> begins an entity.</summary>
    public double? StrictEntityRecall { get; init; }

    /// <summary>As <see cref="EntityF1"/>, where only <c>B-</c> begins an entity.</summary>
    public double? StrictEntityF1 { get; init; }

    /// <summary>exp(loss), for language models.</summary>
    public double? Perplexity { get; init; }

    /// <summary>Share of the right documents of a query that are found first, for searches and rankings: the mean over queries, as below.</summary>
    public double? RecallAt1 { get; init; }

    /// <summary>Share of the right documents of a query among the first ten, for searches and rankings.</summary>
    public double? RecallAt10 { get; init; }

    /// <summary>1 / rank of the first right document, 0 where it is not among the first ten, for searches and rankings (mean reciprocal rank).</summary>
    public double? MrrAt10 { get; init; }

    /// <summary>Normalized discounted cumulative gain of the first ten results, for searches and rankings.</summary>
    public double? NdcgAt10 { get; init; }

    /// <summary>Spearman's correlation of scores in the data and similarities, for pairs with scores; null where one side is constant.</summary>
    public double? Spearman { get; init; }

    /// <summary>How long it took.</summary>
    public required TimeSpan Elapsed { get; init; }

    /// <summary>The value of a metric.</summary>
    /// <exception cref="LoKrException"><c>LoKr.MetricUnavailable</c>: the task has no such measure.</exception>
    public double ValueOf(EvaluationMetric metric) => metric switch
    {
        EvaluationMetric.Loss => Loss,
        EvaluationMetric.Accuracy when Accuracy is double accuracy => accuracy,
        EvaluationMetric.MicroF1 when MicroF1 is double micro => micro,
        EvaluationMetric.F1 when F1 is double f1 => f1,
        EvaluationMetric.WeightedF1 when WeightedF1 is double weighted => weighted,
        EvaluationMetric.Precision when Precision is double precision => precision,
        EvaluationMetric.Recall when Recall is double recall => recall,
        EvaluationMetric.MatthewsCorrelation when MatthewsCorrelation is double correlation => correlation,
        EvaluationMetric.Perplexity when Perplexity is double perplexity => perplexity,
        EvaluationMetric.ExactMatch when ExactMatch is double exact => exact,
        EvaluationMetric.EntityF1 when EntityF1 is double f1 => f1,
        EvaluationMetric.EntityPrecision when EntityPrecision is double precision => precision,
        EvaluationMetric.EntityRecall when EntityRecall is double recall => recall,
        EvaluationMetric.StrictEntityF1 when StrictEntityF1 is double f1 => f1,
        EvaluationMetric.StrictEntityPrecision when StrictEntityPrecision is double precision => precision,
        EvaluationMetric.StrictEntityRecall when StrictEntityRecall is double recall => recall,
        EvaluationMetric.RecallAt1 when RecallAt1 is double recall => recall,
        EvaluationMetric.RecallAt10 when RecallAt10 is double recall => recall,
        EvaluationMetric.MrrAt10 when MrrAt10 is double rank => rank,
        EvaluationMetric.NdcgAt10 when NdcgAt10 is double gain => gain,
        EvaluationMetric.Spearman when Spearman is double correlation => correlation,
        _ => throw new LoKrException(ErrorIds.MetricUnavailable, LoKrErrorKind.InvalidArgument,
            $"The evaluation has no {metric.ToText()}.", "Use the loss, or a metric of the task.") { Target = metric },
    };

    /// <inheritdoc/>
    public override string ToString() => FormattableString.Invariant($"loss {Loss:F4}") + (EntityF1 is double entities
        ? FormattableString.Invariant($", entity F1 {entities:F4}")
        : Accuracy is double accuracy
        ? FormattableString.Invariant($", accuracy {accuracy:F4}")
        : Perplexity is double perplexity ? FormattableString.Invariant($", perplexity {perplexity:F2}")
        : NdcgAt10 is double gain ? FormattableString.Invariant($", nDCG@10 {gain:F4}")
        : Spearman is double correlation ? FormattableString.Invariant($", Spearman {correlation:F4}") : "");
}

/// <summary>The measure that an evaluation reports beside the mean loss.</summary>
public enum TrainingMetric
{
    /// <summary>Only the loss.</summary>
    None,

    /// <summary>Share of right answers.</summary>
    Accuracy,

    /// <summary>exp(loss).</summary>
    Perplexity,

    /// <summary>F1 of entities.</summary>
    EntityF1,

    /// <summary>nDCG of the first ten results of a search.</summary>
    NdcgAt10,

    /// <summary>Spearman's correlation of similarities with scores.</summary>
    Spearman,
}

/// <summary>A value of an evaluation that tells which of two is better.</summary>
public enum EvaluationMetric
{
    /// <summary>Mean loss; lower is better.</summary>
    Loss,

    /// <summary>Share of right answers; higher is better.</summary>
    Accuracy,

    /// <summary>exp(loss); lower is better.</summary>
    Perplexity,

    /// <summary>Macro F1, as <see cref="LoKrEvaluation.F1"/>; higher is better.</summary>
    F1,

    /// <summary>Micro F1: for rows of one label the accuracy; higher is better.</summary>
    MicroF1,

    /// <summary>F1 weighted by the rows of each label; higher is better.</summary>
    WeightedF1,

    /// <summary>Macro precision; higher is better.</summary>
    Precision,

    /// <summary>Macro recall; higher is better.</summary>
    Recall,

    /// <summary>The correlation of Matthews; higher is better.</summary>
    MatthewsCorrelation,

    /// <summary>Share of rows that are right as a whole; higher is better.</summary>
    ExactMatch,

    /// <summary>F1 of entities, as <see cref="LoKrEvaluation.EntityF1"/>; higher is better.</summary>
    EntityF1,

    /// <summary>Precision of entities; higher is better.</summary>
    EntityPrecision,

    /// <summary>Recall of entities; higher is better.</summary>
    EntityRecall,

    /// <summary>F1 of entities that begin with <c>B-</c>; higher is better.</summary>
    StrictEntityF1,

    /// <summary>Precision of entities that begin with <c>B-</c>; higher is better.</summary>
    StrictEntityPrecision,

    /// <summary>Recall of entities that begin with <c>B-</c>; higher is better.</summary>
    StrictEntityRecall,

    /// <summary>Share of the right documents that a search finds first; higher is better.</summary>
    RecallAt1,

    /// <summary>Share of the right documents among the first ten of a search; higher is better.</summary>
    RecallAt10,

    /// <summary>Mean reciprocal rank of the first right document among the first ten; higher is better.</summary>
    MrrAt10,

    /// <summary>Normalized discounted cumulative gain of the first ten; higher is better.</summary>
    NdcgAt10,

    /// <summary>Spearman's correlation; higher is better.</summary>
    Spearman,
}

/// <summary>Comparison by a metric.</summary>
public static class EvaluationMetrics
{
    /// <summary>Whether higher values are better.</summary>
    public static bool IsHigherBetter(this EvaluationMetric metric) => metric is not (EvaluationMetric.Loss or EvaluationMetric.Perplexity);

    /// <summary>Whether the metric compares labels of rows.</summary>
    public static bool IsOfLabels(this EvaluationMetric metric) =>
        metric.IsHigherBetter() && metric is not EvaluationMetric.Spearman && !metric.IsOfSearch() && !metric.IsOfEntities();

    /// <summary>Whether the metric is one of a search.</summary>
    public static bool IsOfSearch(this EvaluationMetric metric) => metric is EvaluationMetric.RecallAt1 or EvaluationMetric.RecallAt10 or EvaluationMetric.MrrAt10 or EvaluationMetric.NdcgAt10;

    /// <summary>The value of a metric of a search.</summary>
    /// <param name="metric">The metric.</param>
    /// <param name="queries">Where the relevant documents of each query ended up.</param>
    internal static double ValueOf(this EvaluationMetric metric, RetrievalMetrics queries) => metric switch
    {
        EvaluationMetric.RecallAt1 => queries.Recall(1),
        EvaluationMetric.RecallAt10 => queries.Recall(10),
        EvaluationMetric.MrrAt10 => queries.MeanReciprocalRank(10),
        EvaluationMetric.NdcgAt10 => queries.NormalizedGain(10),
        _ => throw new ArgumentOutOfRangeException(nameof(metric)),
    };

    /// <summary>Whether the metric counts entities, so that only tags of words have it.</summary>
    public static bool IsOfEntities(this EvaluationMetric metric) => metric is EvaluationMetric.EntityF1 or EvaluationMetric.EntityPrecision or EvaluationMetric.EntityRecall || metric.IsStrict();

    /// <summary>Whether only <c>B-</c> begins an entity.</summary>
    public static bool IsStrict(this EvaluationMetric metric) => metric is EvaluationMetric.StrictEntityF1 or EvaluationMetric.StrictEntityPrecision or EvaluationMetric.StrictEntityRecall;

    /// <summary>The value of a metric of entities, or of one of labels over types of entities.</summary>
    /// <param name="metric">The metric.</param>
    /// <param name="entities">Entities, counted in the mode of the metric.</param>
    internal static double ValueOf(this EvaluationMetric metric, EntityMetrics entities) => metric switch
    {
        EvaluationMetric.EntityF1 or EvaluationMetric.StrictEntityF1 or EvaluationMetric.MicroF1 => entities.Micro.F1,
        EvaluationMetric.EntityPrecision or EvaluationMetric.StrictEntityPrecision => entities.Micro.Precision,
        EvaluationMetric.EntityRecall or EvaluationMetric.StrictEntityRecall => entities.Micro.Recall,
        EvaluationMetric.F1 => entities.Macro?.F1 ?? 0,
        EvaluationMetric.Precision => entities.Macro?.Precision ?? 0,
        EvaluationMetric.Recall => entities.Macro?.Recall ?? 0,
        EvaluationMetric.WeightedF1 => entities.Weighted.F1,
        EvaluationMetric.Accuracy => entities.Accuracy ?? 0,
        _ => throw new ArgumentOutOfRangeException(nameof(metric)),
    };

    /// <summary>The value of a metric of labels.</summary>
    /// <param name="metric">The metric.</param>
    /// <param name="counts">Rows and answers by label.</param>
    /// <param name="hasSeveral">Whether a row may have several labels, so that all count in the macro averages.</param>
    internal static double ValueOf(this EvaluationMetric metric, LabelCounts counts, bool hasSeveral = false) => metric switch
    {
        EvaluationMetric.Accuracy or EvaluationMetric.ExactMatch => counts.Accuracy,
        EvaluationMetric.MicroF1 => counts.Micro().F1,
        EvaluationMetric.F1 => counts.Macro(hasSeveral).F1,
        EvaluationMetric.WeightedF1 => counts.Weighted().F1,
        EvaluationMetric.Precision => counts.Macro(hasSeveral).Precision,
        EvaluationMetric.Recall => counts.Macro(hasSeveral).Recall,
        EvaluationMetric.MatthewsCorrelation => counts.MatthewsCorrelation,
        _ => throw new ArgumentOutOfRangeException(nameof(metric)),
    };

    /// <summary>The metric in a sentence: <c>accuracy</c>, <c>macro F1</c>.</summary>
    public static string ToText(this EvaluationMetric metric) => metric switch
    {
        EvaluationMetric.F1 => "macro F1",
        EvaluationMetric.MicroF1 => "micro F1",
        EvaluationMetric.WeightedF1 => "weighted F1",
        EvaluationMetric.Precision => "macro precision",
        EvaluationMetric.Recall => "macro recall",
        EvaluationMetric.MatthewsCorrelation => "correlation of Matthews",
        EvaluationMetric.ExactMatch => "exact match",
        EvaluationMetric.EntityF1 => "entity F1",
        EvaluationMetric.EntityPrecision => "entity precision",
        EvaluationMetric.EntityRecall => "entity recall",
        EvaluationMetric.StrictEntityF1 => "strict entity F1",
        EvaluationMetric.StrictEntityPrecision => "strict entity precision",
        EvaluationMetric.StrictEntityRecall => "strict entity recall",
        EvaluationMetric.RecallAt1 => "recall@1",
        EvaluationMetric.RecallAt10 => "recall@10",
        EvaluationMetric.MrrAt10 => "MRR@10",
        EvaluationMetric.NdcgAt10 => "nDCG@10",
        EvaluationMetric.Spearman => "correlation of Spearman",
        _ => metric.ToString().ToLowerInvariant(),
    };

    /// <summary>The metric that tells which of two is better where none was asked for.</summary>
    public static EvaluationMetric ToEvaluationMetric(this TrainingMetric metric) => metric switch
    {
        TrainingMetric.Accuracy => EvaluationMetric.Accuracy,
        TrainingMetric.Perplexity => EvaluationMetric.Perplexity,
        TrainingMetric.EntityF1 => EvaluationMetric.EntityF1,
        TrainingMetric.NdcgAt10 => EvaluationMetric.NdcgAt10,
        TrainingMetric.Spearman => EvaluationMetric.Spearman,
        _ => EvaluationMetric.Loss,
    };

    /// <summary>How much better a value is than another one; negative for a worse one.</summary>
    public static double Improvement(this EvaluationMetric metric, double value, double than) => metric.IsHigherBetter() ? value - than : than - value;
}
