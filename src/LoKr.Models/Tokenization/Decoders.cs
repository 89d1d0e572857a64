using System.Globalization;
using System.Text;
using LoKr.Models.Tokenization.Patterns;

namespace LoKr.Models.Tokenization;

/// <summary>
/// The decoder stage, a chain of steps. Every text has a flow through it, so that text comes out as tokens come in: a step holds back what
/// the next tokens may still change (the bytes of a character, a space before a full stop), never all that came before.
/// </summary>
internal interface ITokenDecoder
{
    /// <summary>Whether all that comes out is one token.</summary>
    bool Joins { get; }

    /// <summary>Begins a text.</summary>
    /// <param name="next">Gets what comes out; what it gets last is a text.</param>
    /// <param name="joined">Whether what comes in are the parts of one token, because an earlier step joins; otherwise each part is a token.</param>
    TokenFlow Begin(TokenFlow next, bool joined);
}

/// <summary>A text on its way through one step.</summary>
internal abstract class TokenFlow
{
    /// <summary>Takes a token, or a part of the one that an earlier step joins.</summary>
    public abstract void Add(string part);

    /// <summary>Ends the text.</summary>
    public abstract void Complete();
}

/// <summary>The end of all steps: the text that has come out and was not taken yet.</summary>
internal sealed class TextFlow : TokenFlow
{
    private readonly StringBuilder _text = new();

    /// <inheritdoc/>
    public override void Add(string part) => _text.Append(part);

    /// <inheritdoc/>
    public override void Complete()
    {
    }

    public string Take()
    {
        string text = _text.ToString();
        _text.Clear();
        return text;
    }
}

/// <summary>
/// Turns runs of byte tokens such as <c>&lt;0xE4&gt;</c> into text. A run that is not valid UTF-8 becomes one U+FFFD for each byte, so a run
/// is held back until it ends.
/// </summary>
internal sealed class ByteFallbackDecoder : ITokenDecoder
{
    private static readonly UTF8Encoding s_strict = new(encoderShouldEmitUTF8Identifier: false, throwOnInvalidBytes: true);

    /// <inheritdoc/>
    public bool Joins => false;

    /// <inheritdoc/>
    public TokenFlow Begin(TokenFlow next, bool joined) => WholeFlow.OfTokens(new Flow(next), joined);

    private sealed class Flow(TokenFlow next) : TokenFlow
    {
        private readonly List<byte> _run = [];

        public override void Add(string part)
        {
            if (part.Length == 6 && part.StartsWith("<0x", StringComparison.Ordinal) && part[5] == '>'
                && byte.TryParse(part.AsSpan(3, 2), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out byte value))
            {
                _run.Add(value);
                return;
            }

            EndRun();
            next.Add(part);
        }

        public override void Complete()
        {
            EndRun();
            next.Complete();
        }

        private void EndRun()
        {
            if (_run.Count > 0)
            {
                next.Add(Text([.. _run]));
                _run.Clear();
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
}

/// <summary>
/// Turns byte-level characters back into bytes and those into text; invalid UTF-8 becomes U+FFFD. The bytes of a character are held back until
/// it is whole.
/// </summary>
internal sealed class ByteLevelDecoder : ITokenDecoder
{
    /// <inheritdoc/>
    public bool Joins => true;

    /// <inheritdoc/>
    public TokenFlow Begin(TokenFlow next, bool joined) => WholeFlow.OfTokens(new Flow(next), joined);

    private sealed class Flow(TokenFlow next) : TokenFlow
    {
        private readonly Decoder _decoder = Encoding.UTF8.GetDecoder();

        public override void Add(string part) => Write(ByteAlphabet.Decode(part), flush: false);

        public override void Complete()
        {
            Write([], flush: true);
            next.Complete();
        }

        private void Write(byte[] bytes, bool flush)
        {
            char[] characters = new char[_decoder.GetCharCount(bytes, flush)];
            int count = _decoder.GetChars(bytes, characters, flush);
            if (count > 0)
            {
                next.Add(new string(characters, 0, count));
            }
        }
    }
}

/// <summary>Joins all tokens to one.</summary>
internal sealed class FuseDecoder : ITokenDecoder
{
    /// <inheritdoc/>
    public bool Joins => true;

    /// <inheritdoc/>
    public TokenFlow Begin(TokenFlow next, bool joined) => next;
}

/// <summary>Maps each token; the function also receives its index.</summary>
internal sealed class MapDecoder(Func<string, int, string> map) : ITokenDecoder
{
    /// <inheritdoc/>
    public bool Joins => false;

    /// <inheritdoc/>
    public TokenFlow Begin(TokenFlow next, bool joined) => WholeFlow.OfTokens(new Flow(next, map), joined);

    private sealed class Flow(TokenFlow next, Func<string, int, string> map) : TokenFlow
    {
        private int _count;

        public override void Add(string part) => next.Add(map(part, _count++));

        public override void Complete() => next.Complete();
    }
}

/// <summary>Replaces a fixed text; its beginning at the end of a part is held back.</summary>
internal sealed class ReplaceDecoder(string from, string to) : ITokenDecoder
{
    /// <inheritdoc/>
    public bool Joins => false;

    /// <inheritdoc/>
    public TokenFlow Begin(TokenFlow next, bool joined) =>
        joined ? new Flow(next, from, to) : new MapDecoder((token, _) => token.Replace(from, to, StringComparison.Ordinal)).Begin(next, joined);

    private sealed class Flow(TokenFlow next, string from, string to) : TokenFlow
    {
        private string _held = "";

        public override void Add(string part)
        {
            string text = _held + part;
            int done = 0;
            for (int at = text.IndexOf(from, StringComparison.Ordinal); at >= 0; at = text.IndexOf(from, done, StringComparison.Ordinal))
            {
                done = at + from.Length;
            }

            int held = Math.Min(from.Length - 1, text.Length - done);
            while (!from.AsSpan().StartsWith(text.AsSpan(text.Length - held)))
            {
                held--;
            }

            _held = text[^held..];
            Write(text[..^held].Replace(from, to, StringComparison.Ordinal));
        }

        public override void Complete()
        {
            Write(_held);
            next.Complete();
        }

        private void Write(string text)
        {
            if (text.Length > 0)
            {
                next.Add(text);
            }
        }
    }
}

/// <summary>Removes at most so many characters of a kind at either end of each token; those that may be the last ones are held back.</summary>
internal sealed class StripDecoder(Func<char, bool> isMatch, int start, int stop) : ITokenDecoder
{
    /// <inheritdoc/>
    public bool Joins => false;

    /// <summary>Removes all characters of a kind at both ends.</summary>
    public static StripDecoder All(Func<char, bool> isMatch) => new(isMatch, int.MaxValue, int.MaxValue);

    /// <inheritdoc/>
    public TokenFlow Begin(TokenFlow next, bool joined) => joined ? new Flow(next, isMatch, start, stop) : new MapDecoder((token, _) => Strip(token)).Begin(next, joined);

    private string Strip(string token)
    {
        TextFlow text = new();
        Flow flow = new(text, isMatch, start, stop);
        flow.Add(token);
        flow.Complete();
        return text.Take();
    }

    private sealed class Flow(TokenFlow next, Func<char, bool> isMatch, int start, int stop) : TokenFlow
    {
        private readonly StringBuilder _held = new();
        private int _leading = start;

        public override void Add(string part)
        {
            int begin = 0;
            while (_leading > 0 && begin < part.Length)
            {
                bool drops = isMatch(part[begin]);
                _leading = drops ? _leading - 1 : 0;
                begin += drops ? 1 : 0;
            }

            int end = part.Length;
            while (end > begin && isMatch(part[end - 1]))
            {
                end--;
            }

            if (end > begin)
            {
                next.Add(_held.Append(part, begin, end - begin).ToString());
                _held.Clear();
            }

            _held.Append(part, end, part.Length - end);
            if (_held.Length > stop)
            {
                next.Add(_held.ToString(0, _held.Length - stop));
                _held.Remove(0, _held.Length - stop);
            }
        }

        // What is held matches, and nothing follows it.
        public override void Complete() => next.Complete();
    }
}

/// <summary>Turns the mark of a word's end into a space, and into nothing in the last token (BPEDecoder of tokenizer.json).</summary>
internal sealed class WordEndDecoder(string suffix) : ITokenDecoder
{
    /// <inheritdoc/>
    public bool Joins => false;

    /// <inheritdoc/>
    public TokenFlow Begin(TokenFlow next, bool joined) => WholeFlow.OfTokens(new Flow(next, suffix), joined);

    private sealed class Flow(TokenFlow next, string suffix) : TokenFlow
    {
        private string? _last;

        public override void Add(string part)
        {
            Write(" ");
            _last = part;
        }

        public override void Complete()
        {
            Write("");
            next.Complete();
        }

        private void Write(string end)
        {
            if (_last is not null)
            {
                next.Add(_last.Replace(suffix, end, StringComparison.Ordinal));
            }
        }
    }
}

/// <summary>Applies decoders one after another.</summary>
internal sealed class SequenceDecoder(IReadOnlyList<ITokenDecoder> decoders) : ITokenDecoder
{
    /// <inheritdoc/>
    public bool Joins => decoders.Any(static decoder => decoder.Joins);

    /// <inheritdoc/>
    public TokenFlow Begin(TokenFlow next, bool joined)
    {
        for (int i = decoders.Count - 1; i >= 0; i--)
        {
            next = decoders[i].Begin(next, joined || decoders.Take(i).Any(static decoder => decoder.Joins));
        }

        return next;
    }
}

/// <summary>
/// Puts the one token that an earlier step joins together for a step that needs it whole. No published tokenizer has such steps in this order.
/// </summary>
internal sealed class WholeFlow : TokenFlow
{
    private readonly StringBuilder _token = new();
    private readonly TokenFlow _next;

    private WholeFlow(TokenFlow next) => _next = next;

    /// <summary>A flow that takes whole tokens, for what comes in.</summary>
    public static TokenFlow OfTokens(TokenFlow flow, bool joined) => joined ? new WholeFlow(flow) : flow;

    /// <inheritdoc/>
    public override void Add(string part) => _token.Append(part);

    /// <inheritdoc/>
    public override void Complete()
    {
        _next.Add(_token.ToString());
        _next.Complete();
    }
}

/// <summary>Decoders by the names that tokenizer.json and families have for them.</summary>
internal static class TokenDecoders
{
    // In the order of the reference.
    private static readonly (string From, string To)[] s_cleanUps =
    [
        (" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"),
        (" do not", " don't"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re"),
    ];

    /// <summary>Joins the tokens with spaces, as Hugging Face's tokenizers does without a decoder.</summary>
    public static ITokenDecoder Spaces { get; } = new MapDecoder(static (token, index) => index == 0 ? token : " " + token);

    /// <summary>WordPiece: tokens inside a word lose their prefix, others get a space in front.</summary>
    public static ITokenDecoder WordPiece(string prefix, bool cleanUp) => new MapDecoder((token, index) =>
    {
        string text = index == 0 ? token
            : token.StartsWith(prefix, StringComparison.Ordinal) ? token[prefix.Length..]
            : " " + token;
        return cleanUp ? s_cleanUps.Aggregate(text, static (current, pair) => current.Replace(pair.From, pair.To, StringComparison.Ordinal)) : text;
    });

    /// <summary>
    /// The clean-up that transformers does on the whole text where <c>clean_up_tokenization_spaces</c> is true: the list of WordPiece
    /// without the contraction of "do not".
    /// </summary>
    public static ITokenDecoder CleanUp(ITokenDecoder decoder) => new SequenceDecoder(
        [decoder, new FuseDecoder(), .. s_cleanUps.Where(static pair => pair.From != " do not").Select(static pair => new ReplaceDecoder(pair.From, pair.To))]);

    /// <summary>Metaspace: the replacement character becomes a space; in a first token that was prefixed it is removed.</summary>
    public static ITokenDecoder Metaspace(char replacement, bool dropsFirst) =>
        new MapDecoder((token, index) => token.Replace(replacement.ToString(), index == 0 && dropsFirst ? "" : " ", StringComparison.Ordinal));

    /// <summary>Replaces the matches of a pattern.</summary>
    public static ITokenDecoder Replace(ITextPattern pattern, string content) => pattern is LiteralPattern fixedText
        ? new ReplaceDecoder(fixedText.Literal, content)
        : new MapDecoder((token, _) => ReplaceNormalizer.Replace(new MappedText(token), pattern, content).Text);

    /// <summary>A SentencePiece model: spaces, bytes, then what its configuration removes at the ends of the text.</summary>
    public static ITokenDecoder SentencePiece(char space, StripDecoder strip) =>
        new SequenceDecoder([new ReplaceDecoder(space.ToString(), " "), new ByteFallbackDecoder(), new FuseDecoder(), strip]);

    /// <summary>The steps of transformers' CLIP tokenizer after its decoder: word ends become spaces, and the text is trimmed.</summary>
    public static ITokenDecoder Clip(ITokenDecoder decoder, string endOfWordSuffix) =>
        new SequenceDecoder([decoder, new FuseDecoder(), new ReplaceDecoder(endOfWordSuffix, " "), StripDecoder.All(char.IsWhiteSpace)]);
}
