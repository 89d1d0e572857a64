using System.Globalization;
using LoKr.Core.Configuration;
using LoKr.Core.Data;
using LoKr.Core.Errors;
using LoKr.Core.Nn;
using static TorchSharp.torch;

namespace LoKr.Core.Training;

/// <summary>Targets of a classifier for rows (the index of a label, a number from 0 to 1 for each label, or numbers), and the loss of that.</summary>
internal sealed class ClassificationTargets
{
    /// <summary>The columns that rows must have, for messages.</summary>
    public const string Expected = "text and label";

    private const string Column = "label";

    private readonly IReadOnlyList<string> _labels;
    private readonly LabelIndex _index;

    /// <summary>Decides what the logits mean.</summary>
    /// <param name="classifier">The model; its configuration may say it.</param>
    /// <param name="rows">The rows, which tell it otherwise.</param>
    public ClassificationTargets(ISequenceClassifier classifier, IEnumerable<DataRow> rows)
    {
        _labels = classifier.Labels;
        _index = new LabelIndex(_labels);
        ClassificationProblem? given = ClassificationProblems.Find(classifier);
        Problem = given ?? Infer(_labels.Count, rows);
        IsInferred = given is null;
    }

    /// <summary>Meaning of the logits.</summary>
    public ClassificationProblem Problem { get; }

    /// <summary>Whether the data and the number of labels say so, because the configuration does not.</summary>
    public bool IsInferred { get; }

    /// <summary>A sentence for the user where the problem was inferred and is not the usual one.</summary>
    public IEnumerable<string> Warnings => !IsInferred ? [] : Problem switch
    {
        ClassificationProblem.SingleLabel => [],
        ClassificationProblem.Relevance => [$"{Unsaid} there is one label, and the rows are pairs with labels from 0 to 1, so the model learns to score pairs (a reranker, binary cross entropy)."],
        ClassificationProblem.Regression => [$"{Unsaid} there is one label, so numbers are learned ({Problem.ToName()})."],
        _ => [$"{Unsaid} labels are lists, so any number of them applies to a text ({Problem.ToName()})."],
    };

    /// <summary>Reads the label of a row.</summary>
    /// <exception cref="LoKrException"><see cref="ErrorIds.DataColumnMissing"/>, <see cref="ErrorIds.DataValueInvalid"/> or <see cref="ErrorIds.LabelUnknown"/>.</exception>
    public RowTarget Read(DataRow row) => Problem switch
    {
        ClassificationProblem.SingleLabel => new(_index.Find(row, RowFields.Label(row, Column, Expected)), null),
        ClassificationProblem.SeveralLabels => new(0, Several(row)),
        ClassificationProblem.Relevance => new(0, Share(row)),
        _ => new(0, Numbers(row)),
    };

    /// <summary>Mean loss of a batch.</summary>
    /// <param name="logits">[rows, labels].</param>
    /// <param name="targets">int64 [rows], or float32 [rows, labels].</param>
    public Tensor MeanLoss(Tensor logits, Tensor targets) => Problem switch
    {
        ClassificationProblem.SingleLabel => nn.functional.cross_entropy(logits, targets),
        ClassificationProblem.SeveralLabels or ClassificationProblem.Relevance => nn.functional.binary_cross_entropy_with_logits(logits, targets),
        _ => nn.functional.mse_loss(logits, targets),
    };

    /// <summary>Loss of each row [rows], whose mean is that of the batch.</summary>
    /// <inheritdoc cref="MeanLoss"/>
    public Tensor RowLosses(Tensor logits, Tensor targets) => Problem switch
    {
        ClassificationProblem.SingleLabel => nn.functional.cross_entropy(logits, targets, reduction: nn.Reduction.None),
        ClassificationProblem.SeveralLabels or ClassificationProblem.Relevance => nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction: nn.Reduction.None).mean([1L]),
        _ => nn.functional.mse_loss(logits, targets, nn.Reduction.None).mean([1L]),
    };

    private static string Unsaid => $"config.json has no {ClassificationProblems.Key}:";

    // As transformers infers it: one label is a number to learn, labels that are lists may apply together. As sentence-transformers does,
    // one label for pairs is a score of the pair.
    private static ClassificationProblem Infer(int labels, IEnumerable<DataRow> rows) =>
        labels == 1 ? ScorePairs(rows) ? ClassificationProblem.Relevance : ClassificationProblem.Regression
        : rows.Any(static row => RowFields.HasList(row, Column)) ? ClassificationProblem.SeveralLabels
        : ClassificationProblem.SingleLabel;

    // Rows that cannot be read say nothing; they are errors later, or skipped.
    private static bool ScorePairs(IEnumerable<DataRow> rows)
    {
        (DataRow Row, double Label)[] read = [.. rows.Select(static row => (Row: row, Label: RowFields.FindNumber(row, Column))).Where(static item => item.Label is not null)
            .Select(static item => (item.Row, item.Label!.Value))];
        return read.Length > 0 && read.All(static item => item.Label is >= 0 and <= 1 && TextInput.IsPair(item.Row));
    }

    private float[] Share(DataRow row) => Numbers(row) is [>= 0 and <= 1] value ? value : throw RowFields.Wrong(row, Column, "a number from 0 to 1");

    // Names of labels, or one number from 0 to 1 for each label, as transformers has them.
    private float[] Several(DataRow row)
    {
        IReadOnlyList<object>? list = RowFields.List(row, Column, Expected);
        if (list is { Count: > 0 } && list.All(static item => item is not string))
        {
            float[] given = [.. list.Select(static item => item is bool flag ? flag ? 1f : 0f : (float)(double)item)];
            return given.Length == _labels.Count && given.All(static value => value is >= 0 and <= 1)
                ? given
                : throw RowFields.Wrong(row, Column, $"names of labels, or {_labels.Count} numbers from 0 to 1, one for each label");
        }

        float[] values = new float[_labels.Count];
        foreach (string label in RowFields.Labels(row, Column, Expected))
        {
            values[_index.Find(row, label)] = 1;
        }

        return values;
    }

    private float[] Numbers(DataRow row)
    {
        int count = _labels.Count;
        IReadOnlyList<object>? list = RowFields.List(row, Column, Expected);
        return list is null && count == 1 ? [(float)RowFields.Number(row, Column, Expected)]
            : list?.Count == count && list.All(static item => item is double) ? [.. list.Select(static item => (float)(double)item)]
            : throw RowFields.Wrong(row, Column, count == 1 ? "a number" : $"a list of {count} numbers");
    }
}

/// <summary>The labels of a model by name.</summary>
internal sealed class LabelIndex
{
    private readonly IReadOnlyList<string> _labels;
    private readonly Dictionary<string, long> _known = new(StringComparer.Ordinal);

    /// <summary>Indexes labels; where all are <c>LABEL_0</c>, <c>LABEL_1</c> and so on, their indices are names too.</summary>
    /// <param name="labels">The labels.</param>
    public LabelIndex(IReadOnlyList<string> labels)
    {
        _labels = labels;
        bool generic = true;
        for (int i = 0; i < labels.Count; i++)
        {
            _known.TryAdd(labels[i], i);
            generic &= labels[i] == "LABEL_" + i.ToString(CultureInfo.InvariantCulture);
        }

        for (int i = 0; generic && i < labels.Count; i++)
        {
            _known.Add(i.ToString(CultureInfo.InvariantCulture), i);
        }
    }

    /// <summary>The index of a label.</summary>
    /// <param name="row">The row that has it, for the error.</param>
    /// <param name="label">Its name.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.LabelUnknown"/>.</exception>
    public long Find(DataRow row, string label) => _known.TryGetValue(label, out long index) ? index : throw Unknown(row, label);

    /// <summary>The error of a label that the model does not have.</summary>
    /// <inheritdoc cref="Find"/>
    public LoKrException Unknown(DataRow row, string label) => new(
        ErrorIds.LabelUnknown,
        LoKrErrorKind.InvalidData,
        $"The label '{label}' of {row.Origin} is not one of the model's: {string.Join(", ", _labels)}.",
        "Correct the row, or load the model with every label of the data.") { Target = label };
}

/// <summary>Target of a classifier for one row.</summary>
/// <param name="Index">Index of the label; meaningless where there are numbers.</param>
/// <param name="Values">A number for each label; null where one label is right.</param>
internal readonly record struct RowTarget(long Index, float[]? Values)
{
    /// <summary>One number a row, for a hash: the indexes, or the bits of the numbers.</summary>
    public static long[] Hashed(IReadOnlyList<RowTarget> rows) =>
        [.. rows.SelectMany(static row => row.Values is null ? [row.Index] : row.Values.Select(static value => (long)BitConverter.SingleToInt32Bits(value)))];

    /// <summary>The targets of rows: int64 [rows], or float32 [rows, labels].</summary>
    /// <param name="rows">The rows, at least one.</param>
    /// <param name="device">Device of the tensor.</param>
    public static Tensor On(IReadOnlyList<RowTarget> rows, Device device)
    {
        if (rows[0].Values is not { } first)
        {
            long[] indexes = [.. rows.Select(static row => row.Index)];
            return tensor(indexes, device: device);
        }

        float[] values = [.. rows.SelectMany(static row => row.Values!)];
        return tensor(values, [rows.Count, first.Length], device: device);
    }
}
