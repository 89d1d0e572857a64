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
    /// <summary>Whether the answer is right; null where the task has no answers.</summary>
    public bool? IsRight => Label is null ? null : Label == Answer;
}

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
        int done = 0;
        int batches = task.CountBatches(batchSize);
        using Prefetch<TrainingBatch> prefetch = new(task.Batches(new BatchOrder(batchSize)));
        foreach (TrainingBatch batch in prefetch.Items())
        {
            cancellation.ThrowIfCancellationRequested();
            using var scope = NewDisposeScope();
            scores.AddRange(task.ScoreRows(model, batch));
            onProgress?.Invoke((double)++done / batches);
        }

        return scores.All(static score => double.IsFinite(score.LossSum)) ? scores : throw Evaluator.NotFinite(model);
    }

    /// <summary>Values of a tensor of any element type and device.</summary>
    internal static double[] ToArray(Tensor values) => values.to(ScalarType.Float64).cpu().data<double>().ToArray();
}

/// <summary>A metric over rows: here the scores of single rows become a value.</summary>
public sealed class RowMetric
{
    private readonly RowScore[] _rows;
    private readonly int[] _all;
    private readonly int _labels;

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
        bool hasLabels = _rows[0].Label is not null;
        if (metric.IsOfLabels() ? !hasLabels : metric is EvaluationMetric.Perplexity && hasLabels)
        {
            throw new LoKrException(ErrorIds.MetricUnavailable, LoKrErrorKind.InvalidArgument,
                $"The rows have no {metric.ToText()}.", "Use the loss, or a metric of the task.") { Target = metric };
        }

        _labels = hasLabels ? _rows.Max(static row => Math.Max(row.Label!.Value, row.Answer!.Value)) + 1 : 0;
        _all = [.. Enumerable.Range(0, _rows.Length)];
    }

    /// <summary>The metric.</summary>
    public EvaluationMetric Metric { get; }

    /// <summary>Number of rows.</summary>
    public int RowCount => _rows.Length;

    /// <summary>The value over all rows.</summary>
    public double Value => ValueOf(_all);

    /// <summary>The value over some of the rows, each as often as its index occurs.</summary>
    /// <param name="sample">Indices of rows.</param>
    public double ValueOf(ReadOnlySpan<int> sample) => Metric switch
    {
        EvaluationMetric.Accuracy => Accuracy(sample),
        EvaluationMetric.Perplexity => LanguageMetrics.Perplexity(Loss(sample)),
        EvaluationMetric.Loss => Loss(sample),
        _ => Metric.ValueOf(Count(sample)),
    };

    /// <summary>The value for one label: over its rows, or its own precision, recall or F1.</summary>
    /// <param name="label">Index of a label that rows have.</param>
    internal double ValueOf(int label) => Metric switch
    {
        EvaluationMetric.Precision => Count(_all).Of(label).Precision,
        EvaluationMetric.Recall => Count(_all).Of(label).Recall,
        EvaluationMetric.F1 or EvaluationMetric.MicroF1 or EvaluationMetric.WeightedF1 or EvaluationMetric.MatthewsCorrelation => Count(_all).Of(label).F1,
        _ => ValueOf(_all.Where(row => _rows[row].Label == label).ToArray()),
    };

    private double Accuracy(ReadOnlySpan<int> sample)
    {
        int right = 0;
        foreach (int row in sample)
        {
            right += _rows[row].IsRight == true ? 1 : 0;
        }

        return (double)right / sample.Length;
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

    private LabelCounts Count(ReadOnlySpan<int> sample)
    {
        LabelCounts counts = new(_labels);
        foreach (int row in sample)
        {
            counts.Add(_rows[row].Label!.Value, _rows[row].Answer!.Value);
        }

        return counts;
    }
}
