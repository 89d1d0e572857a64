using System.Globalization;
using LoKr.Core.Errors;
using LoKr.Core.IO;

namespace LoKr.Core.Runs;

/// <summary>Sizes, labels and findings of rows of text data. Flat and serializable.</summary>
public sealed record LoKrDataSummary
{
    /// <summary>Rows.</summary>
    public required int RowCount { get; init; }

    /// <summary>Rows whose text is empty or blank.</summary>
    public required int EmptyCount { get; init; }

    /// <summary>Rows that have the text and the label of an earlier one.</summary>
    public required int DuplicateCount { get; init; }

    /// <summary>Rows whose text also occurs with another label.</summary>
    public required int ContradictionCount { get; init; }

    /// <summary>Rows without a label among rows with one.</summary>
    public required int UnlabeledCount { get; init; }

    /// <summary>Rows of the reference; null without one, as all that compares with it.</summary>
    public int? ReferenceRowCount { get; init; }

    /// <summary>Rows that the reference has too.</summary>
    public int? KnownCount { get; init; }

    /// <summary>Rows of the validation data; null without them.</summary>
    public int? ValidationRowCount { get; init; }

    /// <summary>Validation rows whose text is also in the data.</summary>
    public int? SharedCount { get; init; }

    /// <summary>The labels with their counts, by name; empty for data without labels.</summary>
    public IReadOnlyList<LoKrLabelCount> Labels { get; init => field = ValueList.Of(value); } = ValueList.Of<LoKrLabelCount>([]);

    /// <summary>Labels that the reference, or the model, does not have.</summary>
    public IReadOnlyList<string> NewLabels { get; init => field = ValueList.Of(value); } = ValueList.Of<string>([]);

    /// <summary>Labels that only the validation rows have.</summary>
    public IReadOnlyList<string> UnseenLabels { get; init => field = ValueList.Of(value); } = ValueList.Of<string>([]);

    /// <summary>Population stability index of the shares of the labels: below 0.1 stable, above 0.25 another population.</summary>
    public double? LabelShift { get; init; }

    /// <summary>Jensen–Shannon divergence of the same in bits: 0 for equal shares, 1 for no label in common.</summary>
    public double? LabelDivergence { get; init; }

    /// <summary><c>tokens</c>, special ones included, or <c>characters</c> without a tokenizer.</summary>
    public required string LengthUnit { get; init; }

    /// <summary>Length of the shortest text.</summary>
    public required int ShortestLength { get; init; }

    /// <summary>The median of the lengths.</summary>
    public required double MedianLength { get; init; }

    /// <summary>Length of the longest text.</summary>
    public required int LongestLength { get; init; }

    /// <summary>Population stability index of the lengths, over ten bins with about as many rows of the reference each.</summary>
    public double? LengthShift { get; init; }

    /// <summary>Jensen–Shannon divergence of the lengths in bits.</summary>
    public double? LengthDivergence { get; init; }

    /// <summary>Tokens of all rows; null without a tokenizer, as below.</summary>
    public long? TokenCount { get; init; }

    /// <summary>Share of tokens that the tokenizer does not know; null where it knows every text.</summary>
    public double? UnknownTokenShare { get; init; }

    /// <summary>Longest sequence in tokens.</summary>
    public int? MaxLength { get; init; }

    /// <summary>Rows that are longer and will be cut.</summary>
    public int? CutCount { get; init; }

    /// <summary>Rows that are conversations.</summary>
    public int ConversationCount { get; init; }

    /// <summary>Their messages.</summary>
    public int TurnCount { get; init; }

    /// <summary>The messages of the assistant.</summary>
    public int AnswerCount { get; init; }

    /// <summary>Answers that will be cut or left out because their row is too long; null without a tokenizer.</summary>
    public int? CutAnswerCount { get; init; }

    /// <summary>Answers that begin within a token of the text in front of them, so that prompts end in other tokens in use than in the training; null without a tokenizer.</summary>
    public int? JoinedAnswerCount { get; init; }

    /// <summary>Answers that are not trained, because the template renders them otherwise later on; null without a tokenizer.</summary>
    public int? UnplacedAnswerCount { get; init; }

    /// <summary>Findings that deserve attention, those above a threshold among them.</summary>
    public IReadOnlyList<LoKrDataFinding> Findings { get; init => field = ValueList.Of(value); } = ValueList.Of<LoKrDataFinding>([]);

    /// <inheritdoc/>
    public override string ToString() => string.Create(CultureInfo.InvariantCulture, $"{RowCount} rows, {Labels.Count} labels, {Findings.Count} findings");
}

/// <summary>Rows of a label, or words of a tag. Flat and serializable.</summary>
public sealed record LoKrLabelCount
{
    /// <summary>The label.</summary>
    public required string Label { get; init; }

    /// <summary>Rows that have it.</summary>
    public required int RowCount { get; init; }

    /// <summary>Their share among rows with a label.</summary>
    public required double Share { get; init; }

    /// <summary>Rows of the reference that have it; null without a reference.</summary>
    public int? ReferenceRowCount { get; init; }

    /// <summary>Their share.</summary>
    public double? ReferenceShare { get; init; }

    /// <summary>Validation rows that have it; null without validation data.</summary>
    public int? ValidationRowCount { get; init; }

    /// <inheritdoc/>
    public override string ToString() => string.Create(CultureInfo.InvariantCulture, $"{Label} {RowCount}");
}

/// <summary>Kinds of findings in data.</summary>
public enum DataFindingKind
{
    /// <summary>Rows with an empty text, as a share of the rows.</summary>
    Empty,

    /// <summary>Rows with the text and the label of an earlier one, as a share.</summary>
    Duplicates,

    /// <summary>Rows whose text also has another label, as a share.</summary>
    Contradictions,

    /// <summary>Rows without a label among rows with one, as a share.</summary>
    Unlabeled,

    /// <summary>Validation rows that are also in the data, as a share of the validation rows.</summary>
    Shared,

    /// <summary>Labels that the reference or the model does not have, as a count.</summary>
    NewLabels,

    /// <summary>Labels that only the validation rows have, as a count.</summary>
    UnseenLabels,

    /// <summary>Population stability index of the labels.</summary>
    LabelShift,

    /// <summary>Population stability index of the lengths.</summary>
    LengthShift,

    /// <summary>Share of unknown tokens.</summary>
    UnknownTokens,

    /// <summary>Rows that will be cut, as a share.</summary>
    Cut,

    /// <summary>Answers of conversations that will be cut or left out, as a share of the answers.</summary>
    CutAnswers,

    /// <summary>Answers of conversations that begin within a token of the text in front of them, as a share of the answers.</summary>
    JoinedAnswers,

    /// <summary>Answers of conversations that have no place in the text of their conversation, as a share of the answers.</summary>
    UnplacedAnswers,
}

/// <summary>Something found in data. Flat and serializable.</summary>
public sealed record LoKrDataFinding
{
    /// <summary>Kind of the finding.</summary>
    public required DataFindingKind Kind { get; init; }

    /// <summary>How much of it: a share, a count or an index, as <see cref="DataFindingKind"/> says.</summary>
    public required double Value { get; init; }

    /// <summary>The most that is allowed; null for no limit.</summary>
    public double? Threshold { get; init; }

    /// <summary>Whether it is more than is allowed.</summary>
    public required bool IsExceeded { get; init; }

    /// <summary>It in a sentence.</summary>
    public required string Message { get; init; }

    /// <summary>Id of the error that it is when it exceeds its threshold.</summary>
    public string ErrorId => Kind switch
    {
        DataFindingKind.Empty => ErrorIds.DataTextEmpty,
        DataFindingKind.Duplicates => ErrorIds.DataDuplicate,
        DataFindingKind.Contradictions => ErrorIds.DataContradiction,
        DataFindingKind.Unlabeled => ErrorIds.DataUnlabeled,
        DataFindingKind.Shared => ErrorIds.DataShared,
        DataFindingKind.NewLabels => ErrorIds.DataLabelNew,
        DataFindingKind.UnseenLabels => ErrorIds.DataLabelUnseen,
        DataFindingKind.LabelShift => ErrorIds.DataLabelShift,
        DataFindingKind.LengthShift => ErrorIds.DataLengthShift,
        DataFindingKind.UnknownTokens => ErrorIds.DataTokensUnknown,
        DataFindingKind.CutAnswers => ErrorIds.DataAnswersCut,
        DataFindingKind.JoinedAnswers => ErrorIds.DataAnswersJoined,
        DataFindingKind.UnplacedAnswers => ErrorIds.DataAnswersUnplaced,
        _ => ErrorIds.DataCut,
    };

    /// <summary>The error that it is when it exceeds its threshold.</summary>
    public LoKrException ToException() => new(ErrorId, LoKrErrorKind.InvalidData,
        string.Create(CultureInfo.InvariantCulture, $"{Message} That is {Value:0.####}, where {Threshold:0.####} is allowed."), "Correct the data, or allow more of it.") { Target = Kind };

    /// <inheritdoc/>
    public override string ToString() => Message;
}
