using System.Globalization;
using System.Runtime.ExceptionServices;
using LoKr.Core.Errors;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using static TorchSharp.torch;

namespace LoKr.Core.Data;

/// <summary>From texts to token ids: checks that training and inference share, and tokenizing on all cores.</summary>
internal static class TextEncoding
{
    /// <summary>Returns the model's tokenizer.</summary>
    /// <exception cref="LoKrException"><see cref="ErrorIds.TokenizerMissing"/>.</exception>
    public static ITextTokenizer RequireTokenizer(LoKrModel model) => model.Tokenizer ?? throw new LoKrException(
        ErrorIds.TokenizerMissing,
        LoKrErrorKind.InvalidOperation,
        $"The model {model.Name} has no tokenizer.",
        "Put its tokenizer files into the model folder and load it again.");

    /// <summary>The error of a text that a tokenizer makes nothing of.</summary>
    public static LoKrException WithoutTokens(string text) => new(
        ErrorIds.DataValueInvalid, LoKrErrorKind.InvalidData, $"The text '{text}' has no tokens.", "Leave it out.") { Target = text };

    /// <summary>Returns the longest allowed sequence: the requested one, or else the limit of model and tokenizer.</summary>
    /// <exception cref="LoKrException"><see cref="ErrorIds.MaxLengthTooLarge"/> or <see cref="ErrorIds.TrainingOptionInvalid"/>.</exception>
    public static int ResolveMaxLength(int? requested, int modelMaximum, ITextTokenizer tokenizer)
    {
        if (requested > modelMaximum)
        {
            throw new LoKrException(
                ErrorIds.MaxLengthTooLarge,
                LoKrErrorKind.LimitExceeded,
                $"A maximum length of {requested} is more than the {modelMaximum} tokens this model has positions for.",
                $"Use at most {modelMaximum}.") { Target = requested };
        }

        if (requested < 2)
        {
            throw new LoKrException(
                ErrorIds.TrainingOptionInvalid, LoKrErrorKind.InvalidArgument, $"A maximum length of {requested} leaves no text.", "Use at least 2.") { Target = requested };
        }

        return requested ?? Math.Min(modelMaximum, tokenizer.MaxLength ?? modelMaximum);
    }

    /// <summary>Runs a function for every index on all cores, and rethrows the first exception as it is.</summary>
    /// <param name="count">Number of indices.</param>
    /// <param name="encode">The function.</param>
    /// <param name="onProgress">Called now and then with the share that is done, on any thread.</param>
    /// <param name="cancellationToken">Checked before every index.</param>
    public static T[] EncodeAll<T>(int count, Func<int, T> encode, Action<double>? onProgress, CancellationToken cancellationToken)
    {
        const int Between = 64;
        T[] results = new T[count];
        int done = 0;
        try
        {
            Parallel.For(0, count, new ParallelOptions { CancellationToken = cancellationToken }, i =>
            {
                results[i] = encode(i);
                int now = Interlocked.Increment(ref done);
                if (now % Between == 0)
                {
                    onProgress?.Invoke((double)now / count);
                }
            });
        }
        catch (AggregateException e)
        {
            ExceptionDispatchInfo.Throw(e.InnerExceptions[0]);
        }

        return results;
    }
}

/// <summary>A text to classify, a pair of texts, or a text that is split into words.</summary>
/// <param name="Text">The text.</param>
/// <param name="Pair">The second text of a pair, which may be empty; null for one text.</param>
public readonly record struct TextInput(string Text, string? Pair = null)
{
    /// <summary>Name of the column with the second text.</summary>
    public const string PairColumn = "text_pair";

    /// <summary>The words of the text, which then is all of them with a space between; null for a text that is not split.</summary>
    public IReadOnlyList<string>? Words { get; init; }

    /// <summary>A text that is split into words.</summary>
    /// <param name="words">The words.</param>
    public static TextInput Of(IReadOnlyList<string> words) => new(string.Join(' ', words)) { Words = words };

    /// <summary>Whether a row has a list of words: <c>tokens</c> or <c>words</c>.</summary>
    /// <param name="row">The row.</param>
    public static bool HasWords(DataRow row) => TaggedWords.HasWords(row);

    /// <summary>Reads the words of a row.</summary>
    /// <param name="row">The row.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.DataColumnMissing"/> or <see cref="ErrorIds.DataValueInvalid"/>.</exception>
    public static TextInput OfWords(DataRow row) => Of(TaggedWords.Words(row));

    /// <summary>Reads the columns <c>text</c> and, where there is one with a value, <c>text_pair</c>.</summary>
    /// <param name="row">The row.</param>
    /// <param name="expected">The required columns, for messages.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.DataColumnMissing"/> or <see cref="ErrorIds.DataValueInvalid"/>.</exception>
    public static TextInput Of(DataRow row, string expected) => new(RowFields.Text(row, "text", expected), PairOf(row, expected));

    /// <summary>Reads the second text of a row; null where it has none.</summary>
    public static string? PairOf(DataRow row, string expected) => IsPair(row) ? RowFields.AnyText(row, PairColumn, expected) : null;

    /// <summary>Whether a row has a second text.</summary>
    internal static bool IsPair(DataRow row) => RowFields.Has(row, PairColumn) && !RowFields.IsNull(row, PairColumn);
}

/// <summary>Token ids of a text or of a pair of texts, and how many it has without a limit.</summary>
/// <param name="Ids">The ids that are used, special tokens included.</param>
/// <param name="TokenCount">Number of tokens of the whole text, special tokens included.</param>
/// <param name="Types">Segment of each token of a pair; null where all are 0.</param>
public sealed record CutText(int[] Ids, int TokenCount, int[]? Types = null)
{
    /// <summary>Whether the end of the text is not used.</summary>
    public bool IsCut => TokenCount > Ids.Length;

    /// <summary>The warning about texts that were cut, or none.</summary>
    /// <param name="cut">Number of tokens of each text that was cut, before it was.</param>
    /// <param name="count">Number of all texts.</param>
    /// <param name="what">Name of the texts in the plural.</param>
    /// <param name="longest">Number of tokens that were kept.</param>
    public static IEnumerable<string> Describe(IReadOnlyCollection<int> cut, int count, string what, int longest) =>
        cut is not { Count: > 0 } ? [] : [string.Create(CultureInfo.InvariantCulture, $"{cut.Count} of {count} {what} are cut to {longest} tokens; the longest has {cut.Max()}.")];

    /// <summary>Encodes a text or a pair of texts up to a limit. Of a pair the longer text is cut first (<c>longest_first</c>).</summary>
    /// <param name="tokenizer">The tokenizer.</param>
    /// <param name="input">The texts.</param>
    /// <param name="longest">Most tokens to use.</param>
    public static CutText Encode(ITextTokenizer tokenizer, TextInput input, int longest)
    {
        ArgumentNullException.ThrowIfNull(tokenizer);
        if (input.Pair is null)
        {
            return Encode(tokenizer, input.Text, longest);
        }

        IReadOnlyList<TextToken> all = tokenizer.Tokenize(input.Text, input.Pair);
        IReadOnlyList<TextToken> used = all.Count <= longest ? all : tokenizer.Tokenize(input.Text, input.Pair, addSpecialTokens: true, longest);
        return new([.. used.Select(static token => token.Id)], all.Count, used.Any(static token => token.TypeId != 0) ? [.. used.Select(static token => token.TypeId)] : null);
    }

    /// <summary>The segments of a batch, padded with 0; null where all are 0, and for a model without segments.</summary>
    /// <param name="classifier">The model.</param>
    /// <param name="texts">The texts of the batch.</param>
    /// <param name="length">Length of every row.</param>
    public static TokenMatrix? TypesOf(IClassifier classifier, IReadOnlyList<CutText> texts, int length)
    {
        ArgumentNullException.ThrowIfNull(classifier);
        ArgumentNullException.ThrowIfNull(texts);
        return classifier.TokenTypeCount > 1 && texts.Any(static text => text.Types is not null)
            ? new([.. texts.Select(static text => text.Types ?? new int[text.Ids.Length])], padId: 0, length)
            : null;
    }

    /// <summary>Encodes a text up to a limit; only one that exceeds it is read to its end.</summary>
    /// <param name="tokenizer">The tokenizer.</param>
    /// <param name="text">The text.</param>
    /// <param name="longest">Most tokens to use.</param>
    public static CutText Encode(ITextTokenizer tokenizer, string text, int longest)
    {
        ArgumentNullException.ThrowIfNull(tokenizer);
        int[] ids = [.. tokenizer.Encode(text, addSpecialTokens: true, longest + 1)];
        return ids.Length <= longest
            ? new(ids, ids.Length)
            : new([.. tokenizer.Encode(text, addSpecialTokens: true, longest)], tokenizer.Encode(text).Count);
    }
}

/// <summary>Tokens of a text with their places, and how many it has without a limit.</summary>
/// <param name="Used">The tokens that are used, special ones included.</param>
/// <param name="Count">Number of tokens of the whole text.</param>
internal sealed record CutTokens(IReadOnlyList<TextToken> Used, int Count)
{
    /// <summary>Whether a token is the first of its word.</summary>
    /// <param name="place">Index of the token.</param>
    public bool Begins(int place) => Used[place].Word >= 0 && (place == 0 || Used[place - 1].Word != Used[place].Word);

    /// <summary>Encodes words up to a limit.</summary>
    /// <param name="tokenizer">The tokenizer.</param>
    /// <param name="words">The words, each of which is encoded on its own.</param>
    /// <param name="longest">Most tokens to use.</param>
    public static CutTokens Encode(ITextTokenizer tokenizer, IReadOnlyList<string> words, int longest) =>
        Cut(longest, length => tokenizer.TokenizeWords(words, addSpecialTokens: true, length));

    /// <summary>Encodes a text up to a limit.</summary>
    /// <param name="tokenizer">The tokenizer.</param>
    /// <param name="text">The text.</param>
    /// <param name="longest">Most tokens to use.</param>
    public static CutTokens Encode(ITextTokenizer tokenizer, string text, int longest) =>
        Cut(longest, length => tokenizer.Tokenize(text, textPair: null, addSpecialTokens: true, length));

    private static CutTokens Cut(int longest, Func<int?, IReadOnlyList<TextToken>> encode)
    {
        IReadOnlyList<TextToken> all = encode(null);
        return new(all.Count <= longest ? all : encode(longest), all.Count);
    }
}

/// <summary>
/// Rows of token ids, padded on the right to one length, and the mask that tells tokens (1) from padding (0). Plain arrays, so that batches
/// can be prepared on another thread.
/// </summary>
public sealed class TokenMatrix
{
    private readonly long[] _ids;
    private readonly long[] _mask;

    /// <summary>Pads rows.</summary>
    /// <param name="rows">Token ids of each row; at least one row.</param>
    /// <param name="padId">Id that fills a row up.</param>
    /// <param name="length">Length of every row, at least that of the longest; null for that of the longest.</param>
    public TokenMatrix(IReadOnlyList<IReadOnlyList<int>> rows, int padId, int? length = null)
    {
        ArgumentNullException.ThrowIfNull(rows);
        RowCount = rows.Count;
        Length = length ?? rows.Max(static row => row.Count);
        _ids = new long[RowCount * Length];
        _mask = new long[_ids.Length];
        Array.Fill(_ids, padId);
        for (int r = 0; r < rows.Count; r++)
        {
            IReadOnlyList<int> row = rows[r];
            int start = r * Length;
            for (int i = 0; i < row.Count; i++)
            {
                _ids[start + i] = row[i];
            }

            _mask.AsSpan(start, row.Count).Fill(1);
            TokenCount += row.Count;
        }
    }

    /// <summary>Number of rows.</summary>
    public int RowCount { get; }

    /// <summary>Length of every row.</summary>
    public int Length { get; }

    /// <summary>Number of tokens without padding.</summary>
    public long TokenCount { get; }

    /// <summary>Token ids, rows×length, row by row.</summary>
    public ReadOnlySpan<long> Ids => _ids;

    /// <summary>1 for tokens and 0 for padding, rows×length, row by row.</summary>
    public ReadOnlySpan<long> Mask => _mask;

    /// <summary>Creates the tensor of token ids, int64 rows×length.</summary>
    public Tensor IdsOn(Device device) => tensor(_ids, [RowCount, Length], device: device);

    /// <summary>Creates the tensor of the mask, int64 rows×length.</summary>
    public Tensor MaskOn(Device device) => tensor(_mask, [RowCount, Length], device: device);
}
