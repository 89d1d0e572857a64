using LoKr.Core.Errors;
using LoKr.Core.Metrics;
using LoKr.Core.Model;

namespace LoKr.Core.Training;

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
