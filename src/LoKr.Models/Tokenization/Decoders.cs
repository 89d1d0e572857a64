using System.Globalization;
using System.Text;

namespace LoKr.Models.Tokenization;

/// <summary>The decoder stage: changes the list of tokens. The result of the last decoder is concatenated.</summary>
internal interface ITokenDecoder
{
    List<string> Decode(List<string> tokens);
}

/// <summary>
/// Turns runs of byte tokens such as <c>&lt;0xE4&gt;</c> into text. A run that is not valid UTF-8 becomes one U+FFFD for each byte.
/// </summary>
internal sealed class ByteFallbackDecoder : ITokenDecoder
{
    private static readonly UTF8Encoding s_strict = new(encoderShouldEmitUTF8Identifier: false, throwOnInvalidBytes: true);

    /// <inheritdoc/>
    public List<string> Decode(List<string> tokens)
    {
        List<string> decoded = new(tokens.Count);
        List<byte> run = [];
        foreach (string token in tokens)
        {
            if (token.Length == 6 && token.StartsWith("<0x", StringComparison.Ordinal) && token[5] == '>'
                && byte.TryParse(token.AsSpan(3, 2), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out byte value))
            {
                run.Add(value);
                continue;
            }

            Flush();
            decoded.Add(token);
        }

        Flush();
        return decoded;

        void Flush()
        {
            if (run.Count > 0)
            {
                decoded.Add(Text([.. run]));
                run.Clear();
            }
        }
    }

    private static string Text(byte[] bytes)
    {
        try
        {
            return s_strict.GetString(bytes);
        }
        catch (DecoderFallbackException)
        {
            return new string('\uFFFD', bytes.Length);
        }
    }
}

/// <summary>Turns byte-level characters back into bytes and those into text; invalid UTF-8 becomes U+FFFD.</summary>
internal sealed class ByteLevelDecoder : ITokenDecoder
{
    /// <inheritdoc/>
    public List<string> Decode(List<string> tokens) => [Encoding.UTF8.GetString([.. tokens.SelectMany(ByteAlphabet.Decode)])];
}

/// <summary>The steps of transformers' CLIP tokenizer after its decoder: word ends become spaces, and the text is trimmed.</summary>
internal static class ClipDecoder
{
    public static ITokenDecoder Around(ITokenDecoder decoder, string endOfWordSuffix) => new SequenceDecoder(
    [
        decoder,
        new FuseDecoder(),
        new MapDecoder((text, _) => text.Replace(endOfWordSuffix, " ", StringComparison.Ordinal).Trim()),
    ]);
}

/// <summary>Joins all tokens to one.</summary>
internal sealed class FuseDecoder : ITokenDecoder
{
    /// <inheritdoc/>
    public List<string> Decode(List<string> tokens) => [string.Concat(tokens)];
}

/// <summary>Maps each token; the function also receives its index.</summary>
internal sealed class MapDecoder(Func<string, int, string> map) : ITokenDecoder
{
    /// <inheritdoc/>
    public List<string> Decode(List<string> tokens) => [.. tokens.Select(map)];
}

/// <summary>Applies decoders one after another.</summary>
internal sealed class SequenceDecoder(IReadOnlyList<ITokenDecoder> decoders) : ITokenDecoder
{
    /// <inheritdoc/>
    public List<string> Decode(List<string> tokens) => decoders.Aggregate(tokens, (current, decoder) => decoder.Decode(current));
}

/// <summary>Decoders that map one token at a time.</summary>
internal static class TokenMaps
{
    // In the order of the reference.
    private static readonly (string From, string To)[] s_cleanUps =
    [
        (" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"),
        (" do not", " don't"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re"),
    ];

    /// <summary>WordPiece: tokens inside a word lose their prefix, others get a space in front.</summary>
    public static string WordPiece(string token, int index, string prefix, bool cleanUp)
    {
        string text = index == 0 ? token
            : token.StartsWith(prefix, StringComparison.Ordinal) ? token[prefix.Length..]
            : " " + token;
        return cleanUp ? s_cleanUps.Aggregate(text, (current, pair) => current.Replace(pair.From, pair.To, StringComparison.Ordinal)) : text;
    }

    /// <summary>
    /// The clean-up that transformers does on the whole text where <c>clean_up_tokenization_spaces</c> is true: the same list
    /// without the contraction of "do not".
    /// </summary>
    public static string CleanUp(string text) => s_cleanUps
        .Where(pair => pair.From != " do not")
        .Aggregate(text, (current, pair) => current.Replace(pair.From, pair.To, StringComparison.Ordinal));

    /// <summary>Metaspace: the replacement character becomes a space; in a first token that was prefixed it is removed.</summary>
    public static string Metaspace(string token, int index, char replacement, bool dropsFirst) =>
        token.Replace(replacement.ToString(), index == 0 && dropsFirst ? "" : " ", StringComparison.Ordinal);

    /// <summary>Strip: removes at most so many of one character at either end.</summary>
    public static string Strip(string token, char content, int start, int stop)
    {
        int from = 0;
        while (from < start && from < token.Length && token[from] == content)
        {
            from++;
        }

        int to = token.Length;
        while (token.Length - to < stop && to > from && token[to - 1] == content)
        {
            to--;
        }

        return token[from..to];
    }
}

/// <summary>Turns the mark of a word's end into a space, and into nothing in the last token (BPEDecoder of tokenizer.json).</summary>
internal sealed class WordEndDecoder(string suffix) : ITokenDecoder
{
    /// <inheritdoc/>
    public List<string> Decode(List<string> tokens) =>
        [.. tokens.Select((token, index) => token.Replace(suffix, index == tokens.Count - 1 ? "" : " ", StringComparison.Ordinal))];
}
