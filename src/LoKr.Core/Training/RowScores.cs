using LoKr.Core.Errors;
using LoKr.Core.Metrics;
using LoKr.Core.Model;
using static TorchSharp.torch;

namespace LoKr.Core.Training;

/// <summary>How a model did on one row.</summary>
/// <param name="LossSum">Sum of the loss over the tokens of the row (or the loss of the row).</param>
/// <param name="LossCount">Number of tokens with loss, or 1.</param>
/// <param name="Label">Index of the right label, for classification.</param>
/// <param name="Answer">Index of the label that the model gave, for classification.</param>
public readonly record struct RowScore(double LossSum, long LossCount, int? Label = null, int? Answer = null)
{
    /// <summary>Where the relevant documents of a query ended up, for a search; its loss is over the rows of the query.</summary>
    public QueryRanks? Ranks { get; init; }

    /// <summary>The number of the row and that of the model, for pairs with scores.</summary>
    public (double Actual, double Predicted)? Numbers { get; init; }

    /// <summary>The tags of its words, for their classification.</summary>
    public TagScore? Tags { get; init; }

    /// <summary>Whether a language model gives the answers of the row as they are, by greedy decoding; null for a row without answers.</summary>
    public bool? IsExact { get; init; }

    /// <summary>Where a row may have several labels, a decision on each, in their order; null elsewhere.</summary>
    public IReadOnlyList<LabelDecision>? Decisions { get; init; }

    /// <summary>Where texts are ranked, the place of the row in that; null elsewhere.</summary>
    public RankedText? Ranked { get; init; }

    /// <summary>Whether the answer is right as a whole, of several labels every decision; null where the task has no answers.</summary>
    public bool? IsRight => Tags is not null ? Tags.RightWords == Tags.Words
        : Label is not null ? Label == Answer
        : Decisions is not null ? Decisions.All(static decision => decision.IsActual == decision.IsAnswer)
        : IsExact;

    /// <summary>Whether the row has a label, decisions or tags.</summary>
    internal bool HasLabels => Label is not null || Tags is not null || Decisions is not null;
}

/// <summary>How a model did on the words of one row.</summary>
/// <param name="Words">Words with a tag.</param>
/// <param name="RightWords">Those that have the right one.</param>
/// <param name="Entities">Entities by type, as seqeval counts them by default.</param>
/// <param name="StrictEntities">Entities by type, where only <c>B-</c> begins one.</param>
public sealed record TagScore(int Words, int RightWords, IReadOnlyList<EntityCount> Entities, IReadOnlyList<EntityCount> StrictEntities)
{
    /// <summary>Compares the tags of a row.</summary>
    /// <param name="actual">The right tags.</param>
    /// <param name="predicted">The tags that the model gave, as many.</param>
    public static TagScore Of(IReadOnlyList<string> actual, IReadOnlyList<string> predicted)
    {
        ArgumentNullException.ThrowIfNull(actual);
        ArgumentNullException.ThrowIfNull(predicted);
        return new(
            actual.Count,
            actual.Zip(predicted).Count(static pair => pair.First == pair.Second),
            [.. new EntityMetrics([actual], [predicted]).Counts],
            [.. new EntityMetrics([actual], [predicted], isStrict: true).Counts]);
    }

    /// <summary>The entities in the mode of a metric.</summary>
    /// <param name="metric">The metric.</param>
    internal IReadOnlyList<EntityCount> Of(EvaluationMetric metric) => metric.IsStrict() ? StrictEntities : Entities;

    /// <summary>Whether the entities of one type are all found, and no other of it.</summary>
    /// <param name="type">The type.</param>
    internal bool IsRightIn(string type) => Entities.All(count => count.Type != type || (count.Right == count.Answers && count.Right == count.Actual));
}

/// <summary>A decision on one label of a row.</summary>
/// <param name="IsActual">Whether the row has it.</param>
/// <param name="IsAnswer">Whether the model gave it.</param>
public readonly record struct LabelDecision(bool IsActual, bool IsAnswer);

/// <summary>Scores of all rows of a task.</summary>
public static class RowScores
{
    /// <summary>
    /// Scores every row, in evaluation mode and without gradients. The order depends only on the task and the batch size, so that the scores of
    /// two models are those of the same rows. Runs on the calling thread.
    /// </summary>
    /// <param name="model">The model.</param>
    /// <param name="task">The data; all of it is used.</param>
    /// <param name="batchSize">Rows in a batch; affects only speed and memory.</param>
    /// <param name="onProgress">Called after every batch with the share of the batches that are done.</param>
    /// <param name="cancellation">Checked before every batch.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.LogitsNotFinite"/>: a loss is NaN or infinite; <see cref="ErrorIds.MetricUnavailable"/>.</exception>
    public static IReadOnlyList<RowScore> Compute(LoKrModel model, ITrainingTask task, int batchSize, Action<double>? onProgress = null, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(model);
        ArgumentNullException.ThrowIfNull(task);
        ArgumentOutOfRangeException.ThrowIfLessThan(batchSize, 1);
        using EvaluationMode modes = new([model]);
        using var noGrad = no_grad();
        List<RowScore> scores = [];
        List<float[]> collected = [];
        int done = 0;
        int batches = task.CountEvaluationBatches(batchSize);
        using Prefetch<TrainingBatch> prefetch = new(task.EvaluationBatches(new BatchOrder(batchSize)));
        foreach (TrainingBatch batch in prefetch.Items())
        {
            cancellation.ThrowIfCancellationRequested();
            using var scope = NewDisposeScope();
            if (task.Collects)
            {
                collected.Add(task.Score(model, batch).Collected!.cpu().data<float>().ToArray());
            }
            else
            {
                scores.AddRange(task.ScoreRows(model, batch));
            }

            onProgress?.Invoke((double)++done / batches);
        }

        scores.AddRange(task.Collects ? task.ScoreRows(model, collected, batchSize) : []);

        return scores.All(static score => double.IsFinite(score.LossSum)) ? scores : throw Evaluator.NotFinite(model);
    }

    /// <summary>Values of a tensor of any element type and device.</summary>
    internal static double[] ToArray(Tensor values) => values.to(ScalarType.Float64).cpu().data<double>().ToArray();
}

/// <summary>A metric over rows: here the scores of single rows become a value.</summary>
public sealed class RowMetric
{
    private readonly RowScore[] _rows;
    private readonly double[]? _queries;
    private readonly int[] _all;
    private readonly int _labels;
    private readonly EntityTable? _entities;
    private readonly bool _hasSeveral;

    /// <summary>Takes the scores of the rows.</summary>
    /// <param name="metric">The metric.</param>
    /// <param name="rows">The scores, at least one.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.MetricUnavailable"/>: the rows have no such measure.</exception>
    public RowMetric(EvaluationMetric metric, IReadOnlyList<RowScore> rows)
    {
        ArgumentNullException.ThrowIfNull(rows);
        ArgumentOutOfRangeException.ThrowIfZero(rows.Count);
        Metric = metric;
        _rows = [.. rows];
        bool hasTags = _rows[0].Tags is not null;
        bool hasLabels = _rows[0].HasLabels;
        bool isPlain = _rows[0] is { Ranks: null, Numbers: null };
        _hasSeveral = _rows[0].Decisions is not null;
        _queries = metric.IsOfSearch() && _rows[0].Ranks is null
            ? [.. Rankings.Of(_rows.Select(static row => row.Ranked).OfType<RankedText>()).Select(ranking => metric.ValueOf(ranking))] : null;
        bool isThere = metric switch
        {
            EvaluationMetric.Loss => true,
            EvaluationMetric.Perplexity => !hasLabels && isPlain,
            EvaluationMetric.ExactMatch => _rows.Any(static row => row.IsRight is not null),
            EvaluationMetric.MatthewsCorrelation => _rows[0].Label is not null,
            EvaluationMetric.Spearman => _rows[0].Numbers is not null,
            _ when metric.IsOfSearch() => _queries is null or { Length: > 0 },
            _ when metric.IsOfEntities() => hasTags,
            _ => hasLabels,
        };
        if (!isThere)
        {
            throw new LoKrException(ErrorIds.MetricUnavailable, LoKrErrorKind.InvalidArgument,
                $"The rows have no {metric.ToText()}.", "Use the loss, or a metric of the task.") { Target = metric };
        }

        _entities = hasTags ? new EntityTable([.. _rows.Select(static row => row.Tags!)], metric) : null;
        _labels = _hasSeveral ? _rows[0].Decisions!.Count : _rows[0].Label is null ? 0 : _rows.Max(static row => Math.Max(row.Label!.Value, row.Answer!.Value)) + 1;
        _all = [.. Enumerable.Range(0, UnitCount)];
    }

    /// <summary>The metric.</summary>
    public EvaluationMetric Metric { get; }

    /// <summary>Number of rows, or for a metric of rankings of queries: what a bootstrap draws.</summary>
    public int UnitCount => _queries?.Length ?? _rows.Length;

    /// <summary>The value over all rows.</summary>
    public double Value => ValueOf(_all);

    /// <summary>The value over some of the rows or queries, each as often as its index occurs.</summary>
    /// <param name="sample">Indices of rows, or of queries.</param>
    public double ValueOf(ReadOnlySpan<int> sample) => Metric switch
    {
        EvaluationMetric.ExactMatch => ExactMatch(sample),
        EvaluationMetric.Accuracy when _rows[0].Tags is null => ExactMatch(sample),
        EvaluationMetric.Perplexity => LanguageMetrics.Perplexity(Loss(sample)),
        EvaluationMetric.Loss => Loss(sample),
        EvaluationMetric.Spearman => Spearman(sample),
        _ when _queries is not null => OfQueries(sample),
        _ when Metric.IsOfSearch() => Metric.ValueOf(new RetrievalMetrics([.. Chosen(sample).Select(static row => row.Ranks!)])),
        _ when _rows[0].Tags is not null => Metric.ValueOf(CountEntities(sample)),
        _ => Metric.ValueOf(Count(sample), _hasSeveral),
    };

    /// <summary>The value for one type of entities: its own precision, recall or F1.</summary>
    /// <param name="type">A type that rows have.</param>
    internal double ValueOf(string type)
    {
        PrecisionRecall own = CountEntities(_all).Of(type);
        return Metric switch
        {
            EvaluationMetric.Precision or EvaluationMetric.EntityPrecision or EvaluationMetric.StrictEntityPrecision => own.Precision,
            EvaluationMetric.Recall or EvaluationMetric.EntityRecall or EvaluationMetric.StrictEntityRecall => own.Recall,
            _ => own.F1,
        };
    }

    /// <summary>Types of entities that the right tags have, with the number of entities of each.</summary>
    internal IEnumerable<(string Type, long Count)> Types => CountEntities(_all).Counts.Where(static count => count.Actual > 0).Select(static count => (count.Type, count.Actual));

    /// <summary>
    /// The value for one label: over its rows, or its own precision, recall or F1. Where a row may have several labels, the accuracy is that of
    /// the decisions on it.
    /// </summary>
    /// <param name="label">Index of a label that rows have.</param>
    internal double ValueOf(int label) => Metric switch
    {
        EvaluationMetric.Precision => Count(_all).Of(label).Precision,
        EvaluationMetric.Recall => Count(_all).Of(label).Recall,
        EvaluationMetric.F1 or EvaluationMetric.MicroF1 or EvaluationMetric.WeightedF1 or EvaluationMetric.MatthewsCorrelation => Count(_all).Of(label).F1,
        EvaluationMetric.Accuracy when _hasSeveral => (double)_rows.Count(row => row.Decisions![label] is var decision && decision.IsActual == decision.IsAnswer) / _rows.Length,
        _ => ValueOf(_all.Where(row => Has(_rows[row], label)).ToArray()),
    };

    /// <summary>Whether a row has a label.</summary>
    internal static bool Has(RowScore row, int label) => row.Decisions is { } decisions ? decisions[label].IsActual : row.Label == label;

    /// <summary>Whether a row that has a label is right in it; null where it does not have it.</summary>
    internal static bool? IsRightIn(RowScore row, int label) =>
        !Has(row, label) ? null : row.Decisions is { } decisions ? decisions[label].IsAnswer : row.IsRight;

    private double OfQueries(ReadOnlySpan<int> sample)
    {
        double sum = 0;
        foreach (int query in sample)
        {
            sum += _queries![query];
        }

        return sum / sample.Length;
    }

    // Rows without an answer, texts among conversations, do not count.
    private double ExactMatch(ReadOnlySpan<int> sample)
    {
        int right = 0;
        int count = 0;
        foreach (int row in sample)
        {
            right += _rows[row].IsRight == true ? 1 : 0;
            count += _rows[row].IsRight is null ? 0 : 1;
        }

        return (double)right / count;
    }

    // A sample in which all numbers are equal has no correlation, and none is what that is worth.
    private double Spearman(ReadOnlySpan<int> sample)
    {
        RowScore[] rows = Chosen(sample);
        return NumberMetrics.Spearman([.. rows.Select(static row => row.Numbers!.Value.Actual)], [.. rows.Select(static row => row.Numbers!.Value.Predicted)]) ?? 0;
    }

    private RowScore[] Chosen(ReadOnlySpan<int> sample)
    {
        RowScore[] rows = new RowScore[sample.Length];
        for (int i = 0; i < rows.Length; i++)
        {
            rows[i] = _rows[sample[i]];
        }

        return rows;
    }

    private double Loss(ReadOnlySpan<int> sample)
    {
        double sum = 0;
        long count = 0;
        foreach (int row in sample)
        {
            sum += _rows[row].LossSum;
            count += _rows[row].LossCount;
        }

        return sum / count;
    }

    private EntityMetrics CountEntities(ReadOnlySpan<int> sample) => _entities!.Sum(sample);

    private LabelCounts Count(ReadOnlySpan<int> sample)
    {
        LabelCounts counts = new(_labels);
        foreach (int row in sample)
        {
            if (_rows[row].Decisions is not { } decisions)
            {
                counts.Add(_rows[row].Label!.Value, _rows[row].Answer!.Value);
                continue;
            }

            for (int label = 0; label < decisions.Count; label++)
            {
                counts.Add(label, decisions[label].IsActual, decisions[label].IsAnswer);
            }
        }

        return counts;
    }
}

/// <summary>Entities of rows, with types as numbers: a bootstrap adds them up thousands of times.</summary>
internal sealed class EntityTable
{
    private readonly TagScore[] _rows;
    private readonly string[] _types;
    private readonly (int Type, EntityCount Count)[][] _counts;

    /// <summary>Takes rows.</summary>
    /// <param name="rows">The rows.</param>
    /// <param name="metric">The metric, whose mode of counting applies.</param>
    public EntityTable(TagScore[] rows, EvaluationMetric metric)
    {
        _rows = rows;
        _types = [.. rows.SelectMany(row => row.Of(metric)).Select(static count => count.Type).Distinct(StringComparer.Ordinal)];
        Dictionary<string, int> indices = _types.Index().ToDictionary(static pair => pair.Item, static pair => pair.Index, StringComparer.Ordinal);
        _counts = [.. rows.Select(row => row.Of(metric).Select(count => (indices[count.Type], count)).ToArray())];
    }

    /// <summary>The metrics over rows, each as often as its index occurs.</summary>
    /// <param name="sample">Indices of rows.</param>
    public EntityMetrics Sum(ReadOnlySpan<int> sample)
    {
        var sums = new (long Right, long Answers, long Actual)[_types.Length];
        (long right, long words) = (0, 0);
        foreach (int row in sample)
        {
            (right, words) = (right + _rows[row].RightWords, words + _rows[row].Words);
            foreach ((int type, EntityCount count) in _counts[row])
            {
                ref (long Right, long Answers, long Actual) sum = ref sums[type];
                sum = (sum.Right + count.Right, sum.Answers + count.Answers, sum.Actual + count.Actual);
            }
        }

        // A type that no row of the sample has is not one of it.
        return new EntityMetrics(
            sums.Zip(_types).Where(static pair => pair.First.Answers + pair.First.Actual > 0).Select(static pair => new EntityCount(pair.Second, pair.First.Right, pair.First.Answers, pair.First.Actual)),
            right,
            words);
    }
}
