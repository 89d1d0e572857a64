using LoKr.Core.Configuration;
using LoKr.Core.Data;
using LoKr.Core.Errors;
using LoKr.Core.Layouts;
using LoKr.Core.Model;
using LoKr.Core.Nn;

namespace LoKr.Core.Training;

/// <summary>Compares what a model answers with one adapter and with another.</summary>
public static class AnswerComparer
{
    private const string Expected = "text and label";

    /// <summary>
    /// Measures the model on data with each adapter alone. Adapters from files are loaded for it and removed again; afterwards the same
    /// adapters are active as before.
    /// </summary>
    /// <param name="model">A text classifier or a causal language model, without merged adapters.</param>
    /// <param name="reference">One adapter.</param>
    /// <param name="difference">The other one.</param>
    /// <param name="rows">Rows as for training.</param>
    /// <param name="batchSize">Rows in a batch; affects only speed and memory.</param>
    /// <param name="maxLength">Longest sequence, special tokens included; null for the model's limit.</param>
    /// <param name="reading">Treatment of rows that do not fit; null for an error.</param>
    /// <param name="cancellation">Checked before every batch.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.AdapterMerged"/>; the errors of loading an adapter, and of <see cref="Evaluator.Evaluate(LoKrModel, ITrainingTask, int, CancellationToken)"/>.</exception>
    public static AnswerComparison Compare(
        LoKrModel model, AdapterReference reference, AdapterReference difference, IReadOnlyList<DataRow> rows, int batchSize = 16, int? maxLength = null, DataReading? reading = null, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(model);
        ArgumentNullException.ThrowIfNull(reference);
        ArgumentNullException.ThrowIfNull(difference);
        using AdapterTrials trials = new(model);
        using ITrainingTask task = TrainingTaskFactory.Create(model, rows, new TrainingOptions { MaxLength = maxLength }, reading, onProgress: null, cancellation);
        string first = trials.Add(reference);
        string second = trials.Add(difference);
        (LoKrEvaluation a, double[][]? scoresA) = Run(first);
        (LoKrEvaluation b, double[][]? scoresB) = Run(second);
        IReadOnlyList<LoKrAnswerDifference> answers = scoresA is null || scoresB is null ? []
            : [.. scoresA.Select((scores, i) => Describe((TextClassificationTask)task, i, ((ISequenceClassifier)model.Pretrained!).Labels, scores, scoresB[i]))];
        return new(
            new()
            {
                Reference = reference.Name,
                Difference = difference.Name,
                RowCount = a.RowCount,
                ReferenceLoss = a.Loss,
                DifferenceLoss = b.Loss,
                ReferenceAccuracy = a.Accuracy,
                DifferenceAccuracy = b.Accuracy,
                ReferencePerplexity = a.Perplexity,
                DifferencePerplexity = b.Perplexity,
                SameCount = answers.Count == 0 ? null : answers.Count(static answer => answer.IsSame),
                CorrectedCount = answers.Count == 0 ? null : answers.Count(static answer => answer.ReferenceLabel != answer.Label && answer.DifferenceLabel == answer.Label),
                BrokenCount = answers.Count == 0 ? null : answers.Count(static answer => answer.ReferenceLabel == answer.Label && answer.DifferenceLabel != answer.Label),
                MeanDistance = answers.Count == 0 ? null : answers.Average(static answer => answer.Distance),
            },
            answers,
            task.Warnings);

        (LoKrEvaluation Evaluation, double[][]? Scores) Run(string name)
        {
            trials.Use(name);
            return (Evaluator.Evaluate(model, task, batchSize, cancellation), task is TextClassificationTask { Problem: ClassificationProblem.SingleLabel } classification ? classification.Probabilities(model, batchSize, cancellation) : null);
        }
    }

    private static LoKrAnswerDifference Describe(TextClassificationTask task, int row, IReadOnlyList<string> labels, double[] a, double[] b)
    {
        (int bestA, int bestB) = (Array.IndexOf(a, a.Max()), Array.IndexOf(b, b.Max()));
        return new()
        {
            Text = RowFields.Text(task.Row(row), "text", Expected),
            Label = labels[task.LabelOf(row)!.Value],
            ReferenceLabel = labels[bestA],
            ReferenceScore = a[bestA],
            DifferenceLabel = labels[bestB],
            DifferenceScore = b[bestB],
            Distance = a.Zip(b, static (x, y) => Math.Abs(x - y)).Sum() / 2,
        };
    }
}

/// <summary>The answers of two adapters compared.</summary>
/// <param name="Total">All rows together.</param>
/// <param name="Answers">The answer to each row, for a classifier; empty otherwise.</param>
/// <param name="Warnings">Warnings about the data.</param>
public sealed record AnswerComparison(LoKrAnswerComparison Total, IReadOnlyList<LoKrAnswerDifference> Answers, IReadOnlyList<string> Warnings);

/// <summary>The difference of answers between two adapters. Flat and serializable.</summary>
public sealed record LoKrAnswerComparison
{
    /// <summary>Name of the adapter that the other one is compared with.</summary>
    public required string Reference { get; init; }

    /// <summary>Name of the other one.</summary>
    public required string Difference { get; init; }

    /// <summary>Rows of data.</summary>
    public required int RowCount { get; init; }

    /// <summary>Mean loss with the reference.</summary>
    public required double ReferenceLoss { get; init; }

    /// <summary>Mean loss with the other one.</summary>
    public required double DifferenceLoss { get; init; }

    /// <summary>Share of right answers with the reference, for classification.</summary>
    public double? ReferenceAccuracy { get; init; }

    /// <summary>Share of right answers with the other one, for classification.</summary>
    public double? DifferenceAccuracy { get; init; }

    /// <summary>Perplexity with the reference, for language models.</summary>
    public double? ReferencePerplexity { get; init; }

    /// <summary>Perplexity with the other one, for language models.</summary>
    public double? DifferencePerplexity { get; init; }

    /// <summary>Rows with the same label, for classification; null otherwise, as below.</summary>
    public int? SameCount { get; init; }

    /// <summary>Rows that the reference gets wrong and the other one right.</summary>
    public int? CorrectedCount { get; init; }

    /// <summary>Rows that the reference gets right and the other one wrong.</summary>
    public int? BrokenCount { get; init; }

    /// <summary>Mean distance of the probabilities, half the sum of their differences: 0 for the same ones, 1 for answers that share nothing.</summary>
    public double? MeanDistance { get; init; }

    /// <inheritdoc/>
    public override string ToString() => FormattableString.Invariant($"loss {ReferenceLoss:F4} and {DifferenceLoss:F4} on {RowCount} rows");
}

/// <summary>The answers of two adapters to one text. Flat and serializable.</summary>
public sealed record LoKrAnswerDifference
{
    /// <summary>The text.</summary>
    public required string Text { get; init; }

    /// <summary>Its label in the data.</summary>
    public required string Label { get; init; }

    /// <summary>Label with the reference.</summary>
    public required string ReferenceLabel { get; init; }

    /// <summary>Its probability.</summary>
    public required double ReferenceScore { get; init; }

    /// <summary>Label with the other adapter.</summary>
    public required string DifferenceLabel { get; init; }

    /// <summary>Its probability.</summary>
    public required double DifferenceScore { get; init; }

    /// <summary>Half the sum of the differences of all probabilities.</summary>
    public required double Distance { get; init; }

    /// <summary>Whether both give the same label.</summary>
    public bool IsSame => ReferenceLabel == DifferenceLabel;

    /// <inheritdoc/>
    public override string ToString() => $"{ReferenceLabel}, {DifferenceLabel}: {Text}";
}
