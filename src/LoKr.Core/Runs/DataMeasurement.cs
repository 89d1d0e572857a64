using System.Globalization;
using LoKr.Core.Data;
using LoKr.Core.Errors;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Core.Training;

namespace LoKr.Core.Runs;

/// <summary>References that data are compared with, and limits for the findings.</summary>
public sealed record DataMeasureOptions
{
    /// <summary>Rows of an earlier time, whose labels and lengths are those to expect; null for none.</summary>
    public IReadOnlyList<DataRow>? Reference { get; init; }

    /// <summary>Rows that a model is evaluated on, which must not be among those it is trained on; null for none.</summary>
    public IReadOnlyList<DataRow>? Validation { get; init; }

    /// <summary>A text classifier or language model, whose tokenizer and limit count tokens; its weights are not used. Null for lengths in characters.</summary>
    public LoKrModel? Model { get; init; }

    /// <summary>Longest sequence, special tokens included; null for the model's limit.</summary>
    public int? MaxLength { get; init; }

    /// <summary>Which tokens carry loss, and the day that chat templates write; null for the defaults.</summary>
    public DataReading? Reading { get; init; }

    /// <summary>The most that is allowed of each finding; what is not named is allowed.</summary>
    public IReadOnlyDictionary<DataFindingKind, double> Thresholds { get; init; } = new Dictionary<DataFindingKind, double>();
}

/// <summary>Measures rows of text data before a model is trained on them: what is wrong with them, and what changed.</summary>
public static class DataMeasurement
{
    /// <summary>From here on a population stability index is worth a word: below it is called stable.</summary>
    private const double NotableShift = 0.1;

    private const int LengthBins = 10;

    /// <summary>
    /// Measures rows with <c>text</c>, or <c>prompt</c> and <c>completion</c>, or a <see cref="Conversation"/>, and perhaps <c>label</c>, or with words and their tags. Rows are the same when their texts are, but
    /// for spaces around them.
    /// </summary>
    /// <param name="rows">The rows.</param>
    /// <param name="options">What they are compared with; null for nothing.</param>
    /// <param name="onProgress">Called now and then with the share of the rows that are tokenized, on any thread.</param>
    /// <param name="cancellation">Stops tokenizing.</param>
    /// <exception cref="LoKrException">
    /// <see cref="ErrorIds.DataEmpty"/>, <see cref="ErrorIds.DataColumnMissing"/>, <see cref="ErrorIds.DataValueInvalid"/>;
    /// <see cref="ErrorIds.TaskUnknown"/>, <see cref="ErrorIds.TokenizerMissing"/> or <see cref="ErrorIds.MaxLengthTooLarge"/> about the model.
    /// </exception>
    public static LoKrDataSummary Measure(
        IReadOnlyList<DataRow> rows, DataMeasureOptions? options = null, Action<double>? onProgress = null, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(rows);
        options ??= new();
        TextRow[] own = Read(rows);
        TextRow[]? reference = options.Reference is null ? null : Read(options.Reference);
        TextRow[]? validation = options.Validation is null ? null : Read(options.Validation);
        TokenCounter? counter = options.Model is null ? null : new(options.Model, options.MaxLength, options.Reading ?? new());
        TokenCount[]? tokens = counter?.Count(own, onProgress, cancellation);
        int[] lengths = Lengths(own, tokens);
        (string[] texts, Dictionary<string, HashSet<string>> labelsOfText) = Index(own);
        HashSet<(string, string?)> seen = [];
        HashSet<(string, string?)>? known = reference is null ? null : [.. reference.Select(static row => (row.Key, row.Label))];
        LoKrLabelCount[] labels = [.. Labels(own, reference, validation)];
        LoKrDataSummary summary = new()
        {
            RowCount = own.Length,
            EmptyCount = own.Count(static row => row.IsEmpty),
            DuplicateCount = own.Count(row => !seen.Add((row.Key, row.Label))),
            ContradictionCount = texts.Count(text => labelsOfText.TryGetValue(text, out HashSet<string>? several) && several.Count > 1),
            UnlabeledCount = labels.Length == 0 ? 0 : own.Count(static row => row.Label is null),
            ReferenceRowCount = reference?.Length,
            KnownCount = known is null ? null : own.Count(row => known.Contains((row.Key, row.Label))),
            ValidationRowCount = validation?.Length,
            SharedCount = validation is null ? null : Shared(texts, validation),
            Labels = labels,
            NewLabels = [.. NewLabels(labels, reference is not null, counter?.Labels)],
            UnseenLabels = validation is null ? [] : [.. labels.Where(static label => label is { RowCount: 0, ValidationRowCount: > 0 }).Select(static label => label.Label)],
            LengthUnit = counter is null ? "characters" : "tokens",
            ShortestLength = lengths.Min(),
            MedianLength = Median(lengths),
            LongestLength = lengths.Max(),
            TokenCount = tokens?.Sum(static count => (long)count.Length),
            UnknownTokenShare = tokens is null || counter!.UnknownId is null ? null : tokens.Sum(static count => (double)count.Unknown) / Math.Max(1, tokens.Sum(static count => (long)count.Length)),
            MaxLength = counter?.MaxLength,
            CutCount = tokens?.Count(count => count.Length > counter!.MaxLength),
            ConversationCount = own.Count(static row => row.Conversation is not null),
            TurnCount = own.Sum(static row => row.Conversation?.Messages.Count ?? 0),
            AnswerCount = own.Sum(static row => row.Conversation?.AnswerCount ?? 0),
            CutAnswerCount = tokens?.Sum(static count => count.CutAnswers),
            JoinedAnswerCount = tokens?.Sum(static count => count.JoinedAnswers),
            UnplacedAnswerCount = tokens?.Sum(static count => count.UnplacedAnswers),
        };
        if (reference is not null)
        {
            int[] before = Lengths(reference, counter?.Count(reference, null, cancellation));
            Shift length = LengthShift(before, lengths);
            summary = summary with { LengthShift = length.StabilityIndex, LengthDivergence = length.Divergence };
            LoKrLabelCount[] compared = [.. labels.Where(static label => label.RowCount > 0 || label.ReferenceRowCount > 0)];
            if (compared.Length > 0)
            {
                Shift label = Shift.Of([.. compared.Select(static label => label.ReferenceRowCount!.Value)], [.. compared.Select(static label => label.RowCount)]);
                summary = summary with { LabelShift = label.StabilityIndex, LabelDivergence = label.Divergence };
            }
        }

        return summary with { Findings = [.. Findings(summary, options.Thresholds)] };
    }

    private static TextRow[] Read(IReadOnlyList<DataRow> rows) => rows.Count > 0 ? [.. rows.Select(TextRow.Of)] : throw DataReading.NoRows();

    private static (string[] Texts, Dictionary<string, HashSet<string>> Labels) Index(TextRow[] rows)
    {
        Dictionary<string, HashSet<string>> labels = new(StringComparer.Ordinal);
        foreach (TextRow row in rows.Where(static row => row.Label is not null))
        {
            if (!labels.TryGetValue(row.Key, out HashSet<string>? several))
            {
                labels.Add(row.Key, several = new(StringComparer.Ordinal));
            }

            several.Add(row.Label!);
        }

        return ([.. rows.Select(static row => row.Key)], labels);
    }

    private static int Shared(string[] texts, TextRow[] validation)
    {
        HashSet<string> own = new(texts, StringComparer.Ordinal);
        return validation.Count(row => !row.IsEmpty && own.Contains(row.Key));
    }

    private static IEnumerable<LoKrLabelCount> Labels(TextRow[] own, TextRow[]? reference, TextRow[]? validation)
    {
        Dictionary<string, int> now = Count(own);
        Dictionary<string, int>? before = reference is null ? null : Count(reference);
        Dictionary<string, int>? evaluated = validation is null ? null : Count(validation);
        int all = now.Values.Sum();
        int allBefore = before?.Values.Sum() ?? 0;
        foreach (string label in now.Keys.Union(before?.Keys ?? Enumerable.Empty<string>()).Union(evaluated?.Keys ?? Enumerable.Empty<string>()).Order(StringComparer.Ordinal))
        {
            int count = now.GetValueOrDefault(label);
            yield return new()
            {
                Label = label,
                RowCount = count,
                Share = all == 0 ? 0 : (double)count / all,
                ReferenceRowCount = before?.GetValueOrDefault(label),
                ReferenceShare = before is null ? null : allBefore == 0 ? 0 : (double)before.GetValueOrDefault(label) / allBefore,
                ValidationRowCount = evaluated?.GetValueOrDefault(label),
            };
        }

        static Dictionary<string, int> Count(TextRow[] rows) => rows.SelectMany(static row => row.Labels ?? [])
            .CountBy(static label => label, StringComparer.Ordinal).ToDictionary(StringComparer.Ordinal);
    }

    private static IEnumerable<string> NewLabels(LoKrLabelCount[] labels, bool hasReference, IReadOnlyList<string>? known) => labels
        .Where(label => label.RowCount > 0 && ((hasReference && label.ReferenceRowCount == 0) || known?.Contains(label.Label, StringComparer.Ordinal) == false))
        .Select(static label => label.Label);

    private static int[] Lengths(TextRow[] rows, TokenCount[]? tokens) =>
        tokens is null ? [.. rows.Select(static row => row.Conversation?.Length ?? (row.Prompt.Length + row.Completion.Length + (row.Pair?.Length ?? 0)))] : [.. tokens.Select(static count => count.Length)];

    private static double Median(int[] lengths)
    {
        int[] sorted = [.. lengths.Order()];
        return (sorted[(sorted.Length - 1) / 2] + sorted[sorted.Length / 2]) / 2.0;
    }

    // Ten bins that have about as many reference rows each; equal lengths are in one bin.
    private static Shift LengthShift(int[] before, int[] now)
    {
        int[] sorted = [.. before.Order()];
        int[] edges = [.. Enumerable.Range(1, LengthBins - 1).Select(bin => sorted[(int)((long)bin * sorted.Length / LengthBins)]).Distinct()];
        return Shift.Of(Histogram(before), Histogram(now));

        int[] Histogram(int[] lengths)
        {
            int[] counts = new int[edges.Length + 1];
            foreach (int length in lengths)
            {
                int bin = Array.BinarySearch(edges, length);
                counts[bin < 0 ? ~bin : bin + 1]++;
            }

            return counts;
        }
    }

    private static IEnumerable<LoKrDataFinding> Findings(LoKrDataSummary data, IReadOnlyDictionary<DataFindingKind, double> thresholds)
    {
        (DataFindingKind Kind, double? Value, double Notable, string Message)[] all =
        [
            (DataFindingKind.Empty, Share(data.EmptyCount), 0, $"{Rows(data.EmptyCount)} an empty text."),
            (DataFindingKind.Duplicates, Share(data.DuplicateCount), 0, $"{Rows(data.DuplicateCount)} the text and the label of an earlier one."),
            (DataFindingKind.Contradictions, Share(data.ContradictionCount), 0, $"{Rows(data.ContradictionCount)} a text that also has another label."),
            (DataFindingKind.Unlabeled, Share(data.UnlabeledCount), 0, $"{Rows(data.UnlabeledCount)} no label."),
            (DataFindingKind.Shared, (double?)data.SharedCount / data.ValidationRowCount, 0, Text($"{data.SharedCount} of {data.ValidationRowCount} validation rows are also in the data, so their evaluation says nothing.")),
            (DataFindingKind.NewLabels, data.NewLabels.Count, 0, $"Labels never seen before: {string.Join(", ", data.NewLabels)}."),
            (DataFindingKind.UnseenLabels, data.UnseenLabels.Count, 0, $"Labels that only the validation rows have: {string.Join(", ", data.UnseenLabels)}."),
            (DataFindingKind.LabelShift, data.LabelShift, NotableShift, Text($"The shares of the labels changed: population stability index {data.LabelShift:0.000}, Jensen–Shannon divergence {data.LabelDivergence:0.000}.")),
            (DataFindingKind.LengthShift, data.LengthShift, NotableShift, Text($"The lengths of the texts changed: population stability index {data.LengthShift:0.000}, Jensen–Shannon divergence {data.LengthDivergence:0.000}.")),
            (DataFindingKind.UnknownTokens, data.UnknownTokenShare, 0, Text($"{data.UnknownTokenShare:0.##%} of the tokens are unknown to the tokenizer.")),
            (DataFindingKind.Cut, Share(data.CutCount), 0, Text($"{data.CutCount} of {data.RowCount} rows are cut to {data.MaxLength} tokens; the longest has {data.LongestLength}.")),
            (DataFindingKind.CutAnswers, OfAnswers(data.CutAnswerCount), 0, Text($"{data.CutAnswerCount} of {data.AnswerCount} answers are cut or left out at {data.MaxLength} tokens.")),
            (DataFindingKind.JoinedAnswers, OfAnswers(data.JoinedAnswerCount), 0, Text($"{data.JoinedAnswerCount} of {data.AnswerCount} answers begin within a token of the text in front of them, so that prompts end in other tokens in use than in the training.")),
            (DataFindingKind.UnplacedAnswers, OfAnswers(data.UnplacedAnswerCount), 0, Text($"{data.UnplacedAnswerCount} of {data.AnswerCount} answers are not trained, because the template renders them otherwise later on.")),
        ];
        foreach ((DataFindingKind kind, double? value, double notable, string message) in all)
        {
            double? threshold = thresholds.TryGetValue(kind, out double most) ? most : null;
            if (value > notable || value > threshold)
            {
                yield return new() { Kind = kind, Value = value.Value, Threshold = threshold, IsExceeded = value > threshold, Message = message };
            }
        }

        double? Share(int? count) => (double?)count / data.RowCount;

        double? OfAnswers(int? count) => data.AnswerCount == 0 ? null : (double?)count / data.AnswerCount;

        string Rows(int count) => Text($"{count} of {data.RowCount} rows {(count == 1 ? "has" : "have")}");

        static string Text(FormattableString text) => text.ToString(CultureInfo.InvariantCulture);
    }
}

/// <summary>A row as a text.</summary>
/// <param name="Prompt">The text without loss; empty where the whole text is one.</param>
/// <param name="Completion">The text.</param>
/// <param name="Labels">Its labels; null without any.</param>
/// <param name="Pair">The second text of a pair; null for one text.</param>
/// <param name="Words">The words of the text, whose tags are its labels; null for a text that is not split.</param>
internal readonly record struct TextRow(string Prompt, string Completion, IReadOnlyList<string>? Labels, string? Pair = null, IReadOnlyList<string>? Words = null)
{
    private const string Expected = "text, or prompt and completion, or messages";

    /// <summary>The row.</summary>
    public required DataRow Row { get; init; }

    /// <summary>The conversation; null for a text.</summary>
    public Conversation? Conversation { get; init; }

    /// <summary>All labels as one text; null where the row has no label.</summary>
    public string? Label => Labels is null ? null : string.Join(", ", Labels);

    /// <summary>Rows with the same key are the same text.</summary>
    public string Key => Conversation is not null ? Conversation.Key : Pair is not null ? $"{Completion.Trim()}\0\0{Pair.Trim()}" : Prompt.Length == 0 ? Completion.Trim() : $"{Prompt.Trim()}\0{Completion.Trim()}";

    /// <summary>Whether there is nothing to learn from.</summary>
    public bool IsEmpty => Conversation?.IsEmpty ?? string.IsNullOrWhiteSpace(Completion);

    /// <summary>The row for a language model.</summary>
    public LanguageRow Language => new(Row, Prompt, Completion, Conversation);

    /// <summary>Reads a row; a text or label without a value is an empty one.</summary>
    public static TextRow Of(DataRow row) =>
        TaggedWords.HasTags(row) || (TaggedWords.HasWords(row) && !RowFields.Has(row, "text")) ? OfWords(row)
        : Conversation.IsIn(row) ? new("", "", null) { Row = row, Conversation = Conversation.Of(row) }
        : RowFields.Has(row, "prompt") || RowFields.Has(row, "completion") ? new(Text(row, "prompt"), Text(row, "completion"), null) { Row = row }
        : !RowFields.Has(row, "text") && EmbeddingRow.Columns(row) is (string first, var second) ? new("", Text(row, first), null, second is null ? null : Text(row, second)) { Row = row }
        : new("", Text(row, "text"), RowFields.Has(row, "label") && !RowFields.IsNull(row, "label") ? RowFields.Labels(row, "label", Expected) : null, TextInput.PairOf(row, Expected)) { Row = row };

    private static TextRow OfWords(DataRow row)
    {
        IReadOnlyList<string> words = TaggedWords.Words(row);
        return new("", string.Join(' ', words), TaggedWords.HasTags(row) ? TaggedWords.Names(row) : null, Words: words) { Row = row };
    }

    private static string Text(DataRow row, string column) => RowFields.IsNull(row, column) ? "" : RowFields.AnyText(row, column, Expected);
}

/// <summary>Tokens of a row.</summary>
/// <param name="Length">All of them, special ones included.</param>
/// <param name="Unknown">Those that the tokenizer does not know.</param>
/// <param name="CutAnswers">Answers of a conversation that are not whole within the limit.</param>
/// <param name="JoinedAnswers">Answers that begin within a token of the text in front of them.</param>
/// <param name="UnplacedAnswers">Answers without a place in the text of their conversation.</param>
internal readonly record struct TokenCount(int Length, int Unknown, int CutAnswers, int JoinedAnswers, int UnplacedAnswers);

/// <summary>Counts the tokens that a model would be trained on.</summary>
internal sealed class TokenCounter
{
    private readonly ITextTokenizer _tokenizer;
    private readonly LanguageEncoder? _language;
    private readonly bool _isEncoder;

    public TokenCounter(LoKrModel model, int? maxLength, DataReading reading)
    {
        _tokenizer = TextEncoding.RequireTokenizer(model);
        int longest;
        switch (model.Pretrained)
        {
            case IClassifier classifier:
                (longest, Labels) = (classifier.MaxSequenceLength, Named(classifier.Labels));
                break;
            case ISentenceEncoder encoder:
                (longest, _isEncoder, maxLength) = (encoder.MaxSequenceLength, true, maxLength ?? SentenceEncoding.OwnLimit(encoder));
                break;
            case ICausalLanguageModel language:
                (longest, _language) = (language.MaxSequenceLength, new(model, language, reading));
                break;
            default:
                throw new LoKrException(ErrorIds.TaskUnknown, LoKrErrorKind.InvalidOperation,
                    $"{model.Name} is neither a classifier of texts or words nor a sentence encoder nor a causal language model.", "Measure the data with one of these, or without a model.");
        }

        MaxLength = TextEncoding.ResolveMaxLength(maxLength, longest, _tokenizer);
    }

    /// <summary>Most tokens that are used.</summary>
    public int MaxLength { get; }

    /// <summary>Labels of the model; null where it has none, or only <c>LABEL_0</c> and so on.</summary>
    public IReadOnlyList<string>? Labels { get; }

    /// <summary>Id of unknown text; null where there is none.</summary>
    public int? UnknownId => _tokenizer.UnknownId;

    /// <summary>Counts the tokens of rows on all cores.</summary>
    public TokenCount[] Count(TextRow[] rows, Action<double>? onProgress, CancellationToken cancellation) => TextEncoding.EncodeAll(rows.Length, i =>
    {
        if (_isEncoder)
        {
            // The texts of a row are read one by one.
            IReadOnlyList<int>[] texts = [.. new[] { rows[i].Completion, rows[i].Pair }.OfType<string>().Select(text => _tokenizer.Encode(text))];
            return new TokenCount(texts.Max(static text => text.Count), UnknownId is int missing ? texts.Sum(text => text.Count(id => id == missing)) : 0, 0, 0, 0);
        }

        EncodedText? text = rows[i].Words is null ? _language?.Encode(rows[i].Language) : null;
        AnswerCounts answers = new();
        if (text is not null)
        {
            answers.Add(rows[i].Language, text, MaxLength);
        }

        IReadOnlyList<int> ids = rows[i].Words is IReadOnlyList<string> words ? [.. _tokenizer.TokenizeWords(words).Select(static token => token.Id)]
            : text?.Ids ?? (rows[i].Pair is string pair ? [.. _tokenizer.Tokenize(rows[i].Completion, pair).Select(static token => token.Id)] : _tokenizer.Encode(rows[i].Prompt + rows[i].Completion));
        return new TokenCount(ids.Count, UnknownId is int unknown ? ids.Count(id => id == unknown) : 0, answers.CutCount + answers.MissingCount, answers.JoinedCount, answers.UnplacedCount);
    }, onProgress, cancellation);

    private static IReadOnlyList<string>? Named(IReadOnlyList<string> labels) =>
        labels.Index().All(static item => item.Item == "LABEL_" + item.Index.ToString(CultureInfo.InvariantCulture)) ? null : labels;
}

/// <summary>How far two distributions over the same bins are apart.</summary>
/// <param name="StabilityIndex">Population stability index, Σ (q − p)·ln(q / p): below 0.1 stable, above 0.25 another population.</param>
/// <param name="Divergence">Jensen–Shannon divergence in bits: 0 for the same distribution, 1 for two without a common bin.</param>
internal readonly record struct Shift(double StabilityIndex, double Divergence)
{
    /// <summary>Compares counts.</summary>
    /// <param name="before">Counts to expect.</param>
    /// <param name="now">Counts of now.</param>
    public static Shift Of(int[] before, int[] now)
    {
        // Half a row more in every bin: the index has no value where one of the two counts is 0.
        double allBefore = before.Sum() + (before.Length / 2.0);
        double allNow = now.Sum() + (now.Length / 2.0);
        double index = before.Zip(now, (p, q) => (P: (p + 0.5) / allBefore, Q: (q + 0.5) / allNow)).Sum(static bin => (bin.Q - bin.P) * Math.Log(bin.Q / bin.P));
        double sumBefore = Math.Max(1, before.Sum());
        double sumNow = Math.Max(1, now.Sum());
        double divergence = before.Zip(now, (p, q) => Half(p / sumBefore, q / sumNow) + Half(q / sumNow, p / sumBefore)).Sum();
        return new(index, Math.Clamp(divergence, 0, 1));
    }

    private static double Half(double p, double q) => p == 0 ? 0 : p / 2 * Math.Log2(2 * p / (p + q));
}
