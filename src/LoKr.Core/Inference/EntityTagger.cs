using LoKr.Core.Data;
using LoKr.Core.Errors;
using LoKr.Core.Metrics;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Core.Training;
using static TorchSharp.torch;

namespace LoKr.Core.Inference;

/// <summary>How the tokens of a word are one word, as the pipeline of transformers has it (<c>aggregation_strategy</c>).</summary>
public enum EntityAggregation
{
    /// <summary>The tag of a word is that of its first token, which is the one that training has labels for.</summary>
    First,

    /// <summary>Every token has a tag of its own.</summary>
    Simple,

    /// <summary>The tag with the highest mean probability over the tokens of a word.</summary>
    Average,

    /// <summary>The tag of the token of a word with the highest probability.</summary>
    Max,
}

/// <summary>Finds entities with a token classifier.</summary>
public static class EntityTagger
{
    /// <summary>
    /// Tags one batch in evaluation mode and without gradients; afterwards every module returns to the mode it was in. Neighboring words of one type
    /// are one entity unless the second begins with <c>B-</c>; labels without <c>B-</c> or <c>I-</c> are types themselves, and <c>O</c> is none.
    /// </summary>
    /// <param name="model">A token classifier with a tokenizer.</param>
    /// <param name="texts">
    /// The texts of the batch, split into words or not; longer ones are cut on the right. Without words those of the text are used: parts between
    /// spaces, or what a tokenizer that marks the inside of words (WordPiece) takes for one.
    /// </param>
    /// <param name="aggregation">How the tokens of a word are one word.</param>
    /// <param name="maxLength">Longest sequence, special tokens included; null for the model's limit.</param>
    /// <param name="onCut">Called for each text that is cut, with the numbers of its used and of all tokens.</param>
    /// <returns>The entities of each text, in the order of the texts.</returns>
    /// <exception cref="LoKrException">
    /// <see cref="ErrorIds.TaskUnknown"/>, <see cref="ErrorIds.TokenizerMissing"/>, <see cref="ErrorIds.MaxLengthTooLarge"/>, <see cref="ErrorIds.DataValueInvalid"/> or <see cref="ErrorIds.LogitsNotFinite"/>.
    /// </exception>
    public static IReadOnlyList<IReadOnlyList<LoKrEntity>> Find(
        LoKrModel model, IReadOnlyList<TextInput> texts, EntityAggregation aggregation = EntityAggregation.First, int? maxLength = null, Action<int, int>? onCut = null)
    {
        ArgumentNullException.ThrowIfNull(model);
        ArgumentNullException.ThrowIfNull(texts);
        ITokenClassifier classifier = model.Pretrained as ITokenClassifier ?? throw new LoKrException(
            ErrorIds.TaskUnknown, LoKrErrorKind.InvalidOperation, $"{model.Name} does not classify words.", "Load the model for token classification.");
        if (texts.Count == 0)
        {
            return [];
        }

        using EvaluationMode mode = new([model]);
        ITextTokenizer tokenizer = TextEncoding.RequireTokenizer(model);
        int longest = TextEncoding.ResolveMaxLength(maxLength, classifier.MaxSequenceLength, tokenizer);
        CutTokens[] encoded = [.. texts.Select(text => Encode(tokenizer, text, longest, onCut))];
        TokenMatrix tokens = new([.. encoded.Select(static text => text.Used.Select(static token => token.Id).ToArray())], classifier.PadId ?? tokenizer.PadId ?? 0);

        using var noGrad = no_grad();
        using var scope = NewDisposeScope();
        Tensor logits = classifier.ClassifyTokens(tokens.IdsOn(model.Device), tokens.MaskOn(model.Device)).to(ScalarType.Float64);
        double[] scores = logits.softmax(-1).cpu().data<double>().ToArray();
        int labels = classifier.Labels.Count;
        return [.. texts.Select((text, row) => EntitiesOf(text, encoded[row].Used, place => Scores(row, place)))];

        double[] Scores(int row, int place)
        {
            double[] own = scores.AsSpan(((row * tokens.Length) + place) * labels, labels).ToArray();
            return Array.TrueForAll(own, double.IsFinite) ? own : throw ModelOutputs.NotFinite($"The scores of {model.Name} for the text '{texts[row].Text}' are", texts[row].Text);
        }

        IReadOnlyList<LoKrEntity> EntitiesOf(TextInput text, IReadOnlyList<TextToken> used, Func<int, double[]> read)
        {
            int[] starts = Starts(text);
            List<TaggedPiece> pieces = [];
            for (int place = 0; place < used.Count; place++)
            {
                TextToken token = used[place];
                if (token.IsSpecial)
                {
                    continue;
                }

                // A word that is given is one, whatever its tokens stand for and wherever it is cut.
                bool isWhole = text.Words is not null && aggregation is not EntityAggregation.Simple;
                int offset = text.Words is null ? 0 : starts[token.Word];
                TaggedPiece piece = isWhole
                    ? new(offset, offset + text.Words![token.Word].Length, read(place))
                    : new(offset + token.Start, offset + token.End, read(place));
                bool goesOn = aggregation is not EntityAggregation.Simple && pieces.Count > 0 && !Begins(tokenizer, text, used, place);
                if (goesOn)
                {
                    pieces[^1].Add(piece);
                }
                else
                {
                    pieces.Add(piece);
                }
            }

            return EntityGroups.Of(text.Text, pieces.ConvertAll(piece => piece.Tag(classifier.Labels, aggregation)));
        }
    }

    private static CutTokens Encode(ITextTokenizer tokenizer, TextInput text, int longest, Action<int, int>? onCut)
    {
        CutTokens tokens = text.Words is null ? CutTokens.Encode(tokenizer, text.Text, longest) : CutTokens.Encode(tokenizer, text.Words, longest);
        if (tokens.Count > tokens.Used.Count)
        {
            onCut?.Invoke(tokens.Used.Count, tokens.Count);
        }

        return tokens.Used.Count > 0
            ? tokens
            : throw TextEncoding.WithoutTokens(text.Text);
    }

    // Where each word begins in the text.
    private static int[] Starts(TextInput text)
    {
        int next = 0;
        return [.. (text.Words ?? []).Select(word =>
        {
            int start = next;
            next += word.Length + 1;
            return start;
        })];
    }

    // transformers asks for a space on either side of where the token begins, unless the tokenizer marks tokens inside words.
    private static bool Begins(ITextTokenizer tokenizer, TextInput text, IReadOnlyList<TextToken> used, int place)
    {
        TextToken token = used[place];
        return text.Words is not null || tokenizer.MarksInsideOfWords
            ? used[place - 1].Word != token.Word
            : token.Start == 0 || char.IsWhiteSpace(text.Text[token.Start - 1]) || (token.Start < text.Text.Length && char.IsWhiteSpace(text.Text[token.Start]));
    }

    /// <summary>A word, or a token, with the probabilities of its tokens.</summary>
    private sealed class TaggedPiece(int start, int end, double[] scores)
    {
        private readonly List<double[]> _scores = [scores];
        private int _end = end;

        public void Add(TaggedPiece next)
        {
            _scores.AddRange(next._scores);
            _end = next._end;
        }

        public TaggedSpan Tag(IReadOnlyList<string> labels, EntityAggregation aggregation)
        {
            double[] own = aggregation switch
            {
                EntityAggregation.Average => [.. Enumerable.Range(0, labels.Count).Select(label => _scores.Average(token => token[label]))],
                EntityAggregation.Max => _scores.MaxBy(static token => token.Max())!,
                _ => _scores[0],
            };
            int best = Array.IndexOf(own, own.Max());
            return new(start, _end, labels[best], own[best]);
        }
    }
}

/// <summary>A part of a text with a tag.</summary>
/// <param name="Start">Index of its first UTF-16 unit.</param>
/// <param name="End">Index behind its last one.</param>
/// <param name="Tag">The tag.</param>
/// <param name="Score">Its probability.</param>
internal readonly record struct TaggedSpan(int Start, int End, string Tag, double Score);

/// <summary>Joins tagged parts of a text to entities.</summary>
internal static class EntityGroups
{
    /// <summary>The entities of a text.</summary>
    /// <param name="text">The text.</param>
    /// <param name="spans">Its parts, in order.</param>
    public static IReadOnlyList<LoKrEntity> Of(string text, IReadOnlyList<TaggedSpan> spans)
    {
        List<LoKrEntity> entities = [];
        List<TaggedSpan> group = [];
        foreach (TaggedSpan span in spans)
        {
            if (group.Count > 0 && (Begins(span.Tag) || Type(span.Tag) != Type(group[^1].Tag)))
            {
                Flush();
            }

            group.Add(span);
        }

        Flush();
        return entities;

        void Flush()
        {
            if (group.Count > 0 && Type(group[0].Tag) != EntityTags.Outside)
            {
                entities.Add(Describe(text, group));
            }

            group.Clear();
        }
    }

    private static LoKrEntity Describe(string text, List<TaggedSpan> group)
    {
        // Tokens of some tokenizers stand for the space before them too.
        (int start, int end) = (group[0].Start, group[^1].End);
        while (start < end && char.IsWhiteSpace(text[start]))
        {
            start++;
        }

        return new() { Text = text[start..end], Type = Type(group[0].Tag), Start = start, End = end, Score = group.Average(static span => span.Score), Source = text };
    }

    private static bool Begins(string tag) => tag.StartsWith("B-", StringComparison.Ordinal);

    private static string Type(string tag) => Begins(tag) || tag.StartsWith("I-", StringComparison.Ordinal) ? tag[2..] : tag;
}

/// <summary>An entity in a text. Flat and serializable.</summary>
public sealed record LoKrEntity
{
    /// <summary>The words of the entity, as they are in the text.</summary>
    public required string Text { get; init; }

    /// <summary>Its type, such as <c>PER</c>.</summary>
    public required string Type { get; init; }

    /// <summary>Index in the text of its first character (UTF-16 unit).</summary>
    public required int Start { get; init; }

    /// <summary>Index behind its last character.</summary>
    public required int End { get; init; }

    /// <summary>Mean probability of the tags of its words.</summary>
    public required double Score { get; init; }

    /// <summary>The text that it is in; of words all of them with a space between.</summary>
    public required string Source { get; init; }

    /// <summary>Index of the text among those that were given, from 0.</summary>
    public int Index { get; init; }

    /// <inheritdoc/>
    public override string ToString() => $"{Text} ({Type})";
}
