using System.Globalization;
using LoKr.Core.Chat;
using LoKr.Core.Data;
using LoKr.Core.Errors;
using LoKr.Core.Model;
using LoKr.Core.Nn;

namespace LoKr.Core.Training;

/// <summary>A row for a language model: a conversation, or a text behind a prompt.</summary>
/// <param name="Row">The row.</param>
/// <param name="Prompt">Text without loss; empty when the whole text has loss.</param>
/// <param name="Completion">Text with loss; empty for a conversation.</param>
/// <param name="Conversation">The conversation; null for a text.</param>
internal sealed record LanguageRow(DataRow Row, string Prompt, string Completion, Conversation? Conversation = null)
{
    private const string Expected = "text, or prompt and completion, or messages";

    /// <summary>Reads a row.</summary>
    /// <exception cref="LoKrException"><see cref="ErrorIds.DataColumnMissing"/> or <see cref="ErrorIds.DataValueInvalid"/>.</exception>
    public static LanguageRow Of(DataRow row) =>
        Conversation.IsIn(row) ? new(row, "", "", Conversation.Of(row))
        : RowFields.Has(row, "prompt") || RowFields.Has(row, "completion") ? new(row, RowFields.AnyText(row, "prompt", Expected), RowFields.Text(row, "completion", Expected))
        : new(row, "", RowFields.Text(row, "text", Expected));
}

/// <summary>Tokens that carry loss.</summary>
/// <param name="Start">Index of the first one.</param>
/// <param name="End">Index behind the last one.</param>
internal readonly record struct LossSpan(int Start, int End);

/// <summary>Token ids of one row.</summary>
/// <param name="Ids">All ids, the end of text included.</param>
/// <param name="Loss">The tokens with loss, in order.</param>
internal sealed record EncodedText(int[] Ids, LossSpan[] Loss)
{
    /// <summary>Whether each span is an answer, which a model gives as a whole or not.</summary>
    public bool HasAnswers { get; init; }

    /// <summary>Why answers of a conversation have no place in its text, one reason for each of them.</summary>
    public IReadOnlyList<string> Unplaced { get; init; } = [];

    /// <summary>
    /// Answers whose first token begins in the text in front of them. It is trained, but in use the text of the prompt ends before the answer, so that
    /// its last tokens are others than those that the model was trained behind.
    /// </summary>
    public int JoinedCount { get; init; }

    /// <summary>The row up to a number of tokens; the spans are those that are left.</summary>
    public EncodedText Cut(int length) => Ids.Length <= length ? this : this with
    {
        Ids = Ids[..length],
        Loss = [.. Loss.Where(span => span.Start < length).Select(span => span with { End = Math.Min(span.End, length) })],
    };
}

/// <summary>Answers of conversations, and what becomes of them where rows are cut.</summary>
internal sealed class AnswerCounts
{
    private readonly List<string> _unplaced = [];

    /// <summary>Answers of all rows that have a place in their text.</summary>
    public int Count { get; private set; }

    /// <summary>Those whose end is cut.</summary>
    public int CutCount { get; private set; }

    /// <summary>Those that lie behind the limit.</summary>
    public int MissingCount { get; private set; }

    /// <summary>Those whose first token begins in the text in front of them.</summary>
    public int JoinedCount { get; private set; }

    /// <summary>Answers without a place in the text of their conversation.</summary>
    public int UnplacedCount => _unplaced.Count;

    /// <summary>Adds a row.</summary>
    /// <param name="row">The row.</param>
    /// <param name="whole">All its tokens.</param>
    /// <param name="longest">Number of tokens that are used.</param>
    public void Add(LanguageRow row, EncodedText whole, int longest)
    {
        if (row.Conversation is not null && whole.HasAnswers)
        {
            Count += whole.Loss.Length;
            CutCount += whole.Loss.Count(span => span.Start < longest && span.End > longest);
            MissingCount += whole.Loss.Count(span => span.Start >= longest);
            JoinedCount += whole.JoinedCount;
            _unplaced.AddRange(whole.Unplaced);
        }
    }

    /// <summary>Warnings about answers that are not trained as a whole.</summary>
    /// <param name="longest">Number of tokens that are used.</param>
    public IEnumerable<string> Describe(int longest)
    {
        if (CutCount + MissingCount > 0)
        {
            yield return string.Create(CultureInfo.InvariantCulture,
                $"{CutCount + MissingCount} of {Count} answers are not whole within {longest} tokens: {CutCount} {(CutCount == 1 ? "is" : "are")} cut, {MissingCount} left out.");
        }

        if (JoinedCount > 0)
        {
            yield return string.Create(CultureInfo.InvariantCulture,
                $"{JoinedCount} of {Count} answers begin within a token of the text in front of them, so that the prompt of an answer ends in other tokens in use than in the training. A prompt that ends with a line or a special token does not.");
        }

        if (_unplaced.Count > 0)
        {
            yield return string.Create(CultureInfo.InvariantCulture,
                $"{_unplaced.Count} of {Count + _unplaced.Count} answers are not trained, because their place in the text cannot be told: {string.Join("; ", _unplaced.Distinct(StringComparer.Ordinal))}.");
        }
    }
}

/// <summary>
/// Encodes texts, prompts with their completions, and conversations by the chat template of the model; texts and completions end with the end of
/// text, conversations with what the template writes. Used from several threads at once.
/// </summary>
internal sealed class LanguageEncoder
{
    private readonly LoKrModel _model;
    private readonly ITextTokenizer _tokenizer;
    private readonly LossOn _lossOn;
    private readonly DateTime _day;

    /// <param name="model">The model.</param>
    /// <param name="language">The same.</param>
    /// <param name="reading">Which tokens carry loss, and the day that templates write.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.TokenizerMissing"/>.</exception>
    public LanguageEncoder(LoKrModel model, ICausalLanguageModel language, DataReading reading)
    {
        (_model, _tokenizer, _lossOn, _day) = (model, TextEncoding.RequireTokenizer(model), reading.LossOn, reading.Day);
        EosId = _tokenizer.EosId ?? (language.EosIds.Count > 0 ? language.EosIds[0] : null);
    }

    /// <summary>Id that ends a text, or null.</summary>
    public int? EosId { get; }

    /// <summary>Encodes rows on all cores. Conversations that the template refuses are rows that do not fit.</summary>
    /// <param name="rows">The rows.</param>
    /// <param name="reading">Treatment of rows that do not fit.</param>
    /// <param name="onProgress">Called now and then with the share that is done, on any thread.</param>
    /// <param name="cancellationToken">Checked before every row.</param>
    /// <exception cref="LoKrException">
    /// <see cref="ErrorIds.ChatTemplateMissing"/>, or another error of the template; <see cref="ErrorIds.DataValueInvalid"/>.
    /// </exception>
    public IReadOnlyList<(LanguageRow Row, EncodedText Text)> EncodeAll(
        IReadOnlyList<LanguageRow> rows, DataReading reading, Action<double>? onProgress, CancellationToken cancellationToken)
    {
        if (rows.Any(static row => row.Conversation is not null))
        {
            ChatTemplates.Require(_model);
        }

        (LanguageRow Row, EncodedText? Text, LoKrException? Error)[] encoded = TextEncoding.EncodeAll(rows.Count, i => TryEncode(rows[i], reading.SkipInvalid), onProgress, cancellationToken);
        return reading.ReadFitting(encoded, static row => (row.Row, row.Text ?? throw row.Error!));
    }

    /// <summary>Encodes one row.</summary>
    /// <exception cref="LoKrException">As for <see cref="EncodeAll"/>.</exception>
    public EncodedText Encode(LanguageRow row) => row.Conversation is Conversation conversation ? Encode(conversation, row.Row.Origin) : Encode(row.Prompt, row.Completion);

    private (LanguageRow Row, EncodedText? Text, LoKrException? Error) TryEncode(LanguageRow row, bool skipInvalid)
    {
        try
        {
            return (row, Encode(row), null);
        }
        catch (LoKrException exception) when (skipInvalid && exception.ErrorId is ErrorIds.DataValueInvalid)
        {
            return (row, null, exception);
        }
    }

    private EncodedText Encode(string prompt, string completion)
    {
        List<int> whole = WithoutEnd(_tokenizer.Encode(prompt + completion));
        int start = 0;
        if (prompt.Length > 0)
        {
            // In use the model sees the prompt alone, so the ids of the prompt alone must come first. Where the tokenizer would join the end
            // of the prompt with the completion, both are encoded separately.
            List<int> head = WithoutEnd(_tokenizer.Encode(prompt));
            start = head.Count;
            if (whole.Count < start || !whole.Take(start).SequenceEqual(head))
            {
                whole = [.. head, .. _tokenizer.Encode(completion, addSpecialTokens: false)];
            }
        }

        if (EosId is int end)
        {
            whole.Add(end);
        }

        return new EncodedText([.. whole], [new(_lossOn is LossOn.All ? 0 : start, whole.Count)]) { HasAnswers = start > 0 && _lossOn is LossOn.Answers };
    }

    private EncodedText Encode(Conversation conversation, string origin)
    {
        ChatTemplate template = ChatTemplates.Require(_model);
        try
        {
            if (_lossOn is LossOn.All)
            {
                int[] ids = [.. _tokenizer.Encode(template.Render(conversation.Messages, addGenerationPrompt: false, conversation.Variables, _day).Text, addSpecialTokens: false)];
                return new(ids, [new(0, ids.Length)]);
            }

            ChatAnswers answers = template.FindAnswers(conversation.Messages, conversation.Variables, _day);
            IReadOnlyList<TextToken> tokens = _tokenizer.Tokenize(answers.Text, addSpecialTokens: false);
            (LossSpan? Tokens, bool IsJoined)[] spans = [.. answers.Spans.Select(span => TokensOf(tokens, span.Start, span.End))];
            return new([.. tokens.Select(static token => token.Id)], [.. spans.Select(static span => span.Tokens).OfType<LossSpan>()])
            {
                HasAnswers = true,
                JoinedCount = spans.Count(static span => span.IsJoined),
                Unplaced = [.. answers.WithoutSpan.Select(static answer => answer.Why)],
            };
        }
        catch (LoKrException exception) when (exception.ErrorId is ErrorIds.ChatTemplateFailed)
        {
            throw new LoKrException(ErrorIds.DataValueInvalid, LoKrErrorKind.InvalidData, $"The conversation of {origin} cannot be rendered. {exception.Message}",
                "Change the conversation to what the template of the model expects.", exception) { Target = origin };
        }
    }

    // From the token of the first character to that of the last one, null where no token has any; and whether the first begins before.
    private static (LossSpan? Tokens, bool IsJoined) TokensOf(IReadOnlyList<TextToken> tokens, int start, int end)
    {
        int first = -1;
        int last = -1;
        for (int i = 0; i < tokens.Count && tokens[i].Start < end; i++)
        {
            if (tokens[i].End > start)
            {
                (first, last) = (first < 0 ? i : first, i);
            }
        }

        return first < 0 ? (null, false) : (new(first, last + 1), tokens[first].Start < start);
    }

    /// <summary>Removes an end-of-text id of the tokenizer's template; the id is added once, at the very end.</summary>
    private List<int> WithoutEnd(IReadOnlyList<int> ids)
    {
        List<int> kept = [.. ids];
        while (kept.Count > 0 && kept[^1] == EosId)
        {
            kept.RemoveAt(kept.Count - 1);
        }

        return kept;
    }
}
