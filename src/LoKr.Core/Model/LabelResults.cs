using LoKr.Core.Metrics;

namespace LoKr.Core.Model;

/// <summary>How a classifier did on one label, or a tagger on one type of entities. Flat and serializable.</summary>
public sealed record LoKrLabelEvaluation
{
    /// <summary>Name of the label, or of the type.</summary>
    public required string Label { get; init; }

    /// <summary>Rows that have it, or entities of the type.</summary>
    public required long RowCount { get; init; }

    /// <summary>Answers that name it.</summary>
    public required long AnswerCount { get; init; }

    /// <summary>Share of these answers that are right; 0 where there are none.</summary>
    public required double Precision { get; init; }

    /// <summary>Share of these rows, or entities, that were answered right; 0 where there are none.</summary>
    public required double Recall { get; init; }

    /// <summary>2·TP / (2·TP + FP + FN).</summary>
    public required double F1 { get; init; }

    /// <inheritdoc/>
    public override string ToString() => FormattableString.Invariant($"{Label}: F1 {F1:F4}");
}

/// <summary>One field of a confusion table that is not 0: rows of a label, or words of a tag, that were answered with a label. Flat and serializable.</summary>
public sealed record LoKrConfusion
{
    /// <summary>The right label.</summary>
    public required string Label { get; init; }

    /// <summary>The label that the model gave.</summary>
    public required string Answer { get; init; }

    /// <summary>Whether both are the same.</summary>
    public bool IsRight => Label == Answer;

    /// <summary>Rows, or words, of this kind.</summary>
    public required int RowCount { get; init; }

    /// <summary>Their share of the rows that have the right label.</summary>
    public required double Share { get; init; }

    /// <inheritdoc/>
    public override string ToString() => FormattableString.Invariant($"{Label} -> {Answer}: {RowCount}");
}

/// <summary>An evaluation of a classifier with the figures of every label and the confusion table.</summary>
public sealed record LabelReport
{
    /// <summary>The evaluation over all labels.</summary>
    public required LoKrEvaluation Evaluation { get; init; }

    /// <summary>Every label of the model, in its order; of tags every type of entities that there is or that was given.</summary>
    public required IReadOnlyList<LoKrLabelEvaluation> Labels { get; init; }

    /// <summary>Every pair of right label and answer that occurs; for each label the most frequent answer first. None where rows have several labels.</summary>
    public required IReadOnlyList<LoKrConfusion> Confusion { get; init; }

    /// <summary>Describes answers.</summary>
    /// <param name="evaluation">The evaluation that they are of.</param>
    /// <param name="counts">Rows and answers by label.</param>
    /// <param name="answers">Right label and answer of every row, as indices; none where rows have several labels.</param>
    /// <param name="labels">Names of the labels; those beyond have their index.</param>
    internal static LabelReport Of(LoKrEvaluation evaluation, LabelCounts counts, IReadOnlyList<(int Label, int Answer)> answers, IReadOnlyList<string> labels) => new()
    {
        Evaluation = evaluation,
        Labels = [.. Enumerable.Range(0, counts.LabelCount).Select(label => Figures(NameOf(labels, label), counts.Support(label), counts.Answers(label), counts.Of(label)))],
        Confusion = Confuse(answers, labels),
    };

    /// <summary>Describes the tags of words.</summary>
    /// <param name="evaluation">The evaluation that they are of.</param>
    /// <param name="entities">Entities by type.</param>
    /// <param name="answers">Right tag and answer of every word, as indices.</param>
    /// <param name="labels">Names of the tags.</param>
    internal static LabelReport Of(LoKrEvaluation evaluation, EntityMetrics entities, IReadOnlyList<(int Label, int Answer)> answers, IReadOnlyList<string> labels) => new()
    {
        Evaluation = evaluation,
        Labels = [.. entities.Counts.Select(count => Figures(count.Type, count.Actual, count.Answers, entities.Of(count.Type)))],
        Confusion = Confuse(answers, labels),
    };

    private static LoKrLabelEvaluation Figures(string label, long rows, long answers, PrecisionRecall figures) =>
        new() { Label = label, RowCount = rows, AnswerCount = answers, Precision = figures.Precision, Recall = figures.Recall, F1 = figures.F1 };

    private static LoKrConfusion[] Confuse(IReadOnlyList<(int Label, int Answer)> answers, IReadOnlyList<string> labels)
    {
        Dictionary<int, int> rows = answers.CountBy(static pair => pair.Label).ToDictionary();
        return
        [
            .. answers.CountBy(static pair => pair)
                .OrderBy(static group => group.Key.Label)
                .ThenByDescending(static group => group.Value)
                .ThenBy(static group => group.Key.Answer)
                .Select(group => new LoKrConfusion
                {
                    Label = NameOf(labels, group.Key.Label),
                    Answer = NameOf(labels, group.Key.Answer),
                    RowCount = group.Value,
                    Share = (double)group.Value / rows[group.Key.Label],
                }),
        ];
    }

    private static string NameOf(IReadOnlyList<string> labels, int label) => label < labels.Count ? labels[label] : FormattableString.Invariant($"{label}");
}
