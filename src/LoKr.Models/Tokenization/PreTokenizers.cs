using LoKr.Models.Tokenization.Patterns;

namespace LoKr.Models.Tokenization;

/// <summary>A part of the text on its way to the model.</summary>
/// <param name="Text">The text of the part.</param>
/// <param name="AtStart">Whether it begins at the start of the whole input.</param>
internal readonly record struct Piece(string Text, bool AtStart);

/// <summary>
/// The pre-tokenizer stage: splits or changes pieces of the normalized text. Microsoft.ML.Tokenizers' pre-tokenizers only split; ByteLevel and
/// Metaspace also change the text.
/// </summary>
internal interface IPreTokenizer
{
    /// <summary>Splits or changes one piece, which is not empty, and adds the results to the list.</summary>
    void Apply(Piece piece, List<Piece> result);
}

/// <summary>Treatment of the matches that a text is split at.</summary>
internal enum SplitBehavior
{
    /// <summary>They are dropped.</summary>
    Removed,

    /// <summary>Each becomes a piece of its own.</summary>
    Isolated,

    /// <summary>Each ends the piece before it.</summary>
    MergedWithPrevious,

    /// <summary>Each begins the piece after it.</summary>
    MergedWithNext,

    /// <summary>Neighboring matches become one piece.</summary>
    Contiguous,
}

/// <summary>Pieces that Metaspace's replacement character is prepended to.</summary>
internal enum PrependScheme
{
    /// <summary>None.</summary>
    Never,

    /// <summary>Only one at the start of the whole input.</summary>
    First,

    /// <summary>Every one that does not begin with it.</summary>
    Always,
}

/// <summary>Byte-level pre-tokenizer: optional leading space, optional split by GPT-2's pattern, bytes as characters.</summary>
internal sealed class ByteLevelPreTokenizer(bool addPrefixSpace, bool useRegex) : IPreTokenizer
{
    private const string Gpt2Pattern = @"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

    // Compiled once, because every byte-level tokenizer has the same one.
    private static readonly Lazy<PatternSplitter> s_gpt2 =
        new(() => new PatternSplitter(new CodePointRegex(Gpt2Pattern, "GPT-2"), SplitBehavior.Isolated, invert: false));

    private readonly PatternSplitter? _split = useRegex ? s_gpt2.Value : null;

    /// <inheritdoc/>
    public void Apply(Piece piece, List<Piece> result)
    {
        string text = addPrefixSpace && !piece.Text.StartsWith(' ') ? " " + piece.Text : piece.Text;
        if (_split is null)
        {
            result.Add(new Piece(ByteAlphabet.Encode(text), piece.AtStart));
            return;
        }

        foreach ((int offset, int length) in _split.Split(text))
        {
            result.Add(new Piece(ByteAlphabet.Encode(text.Substring(offset, length)), piece.AtStart && offset == 0));
        }
    }
}

/// <summary>Metaspace: spaces become a visible character, which may be prepended and split at.</summary>
internal sealed class MetaspacePreTokenizer(char replacement, PrependScheme scheme, bool split) : IPreTokenizer
{
    private readonly PatternSplitter? _split = split
        ? new PatternSplitter(new LiteralPattern(replacement.ToString()), SplitBehavior.MergedWithNext, invert: false)
        : null;

    /// <inheritdoc/>
    public void Apply(Piece piece, List<Piece> result)
    {
        string text = piece.Text.Replace(' ', replacement);
        bool prepends = scheme == PrependScheme.Always || (scheme == PrependScheme.First && piece.AtStart);
        if (prepends && !text.StartsWith(replacement))
        {
            text = replacement + text;
        }

        if (_split is null)
        {
            result.Add(new Piece(text, piece.AtStart));
            return;
        }

        foreach ((int offset, int length) in _split.Split(text))
        {
            result.Add(new Piece(text.Substring(offset, length), piece.AtStart && offset == 0));
        }
    }
}

/// <summary>
/// SentencePiece's escaping of spaces. Unlike Metaspace it also prepends its character to a text that begins with a space.
/// </summary>
internal sealed class SentencePiecePreTokenizer(char replacement, PrependScheme scheme) : IPreTokenizer
{
    /// <inheritdoc/>
    public void Apply(Piece piece, List<Piece> result)
    {
        string text = piece.Text.Replace(' ', replacement);
        bool prepends = scheme == PrependScheme.Always || (scheme == PrependScheme.First && piece.AtStart);
        result.Add(piece with { Text = prepends ? replacement + text : text });
    }
}

/// <summary>Splits at the matches of a pattern, as Split and its relatives in tokenizer.json do.</summary>
internal sealed class SplitPreTokenizer(PatternSplitter splitter) : IPreTokenizer
{
    /// <inheritdoc/>
    public void Apply(Piece piece, List<Piece> result)
    {
        foreach ((int offset, int length) in splitter.Split(piece.Text))
        {
            result.Add(length == piece.Text.Length
                ? piece
                : new Piece(piece.Text.Substring(offset, length), piece.AtStart && offset == 0));
        }
    }
}

/// <summary>Finds the pieces of a text between or at the matches of a pattern.</summary>
/// <param name="pattern">The pattern.</param>
/// <param name="behavior">Treatment of the matches.</param>
/// <param name="invert">Whether the parts between matches count as the matches.</param>
internal sealed class PatternSplitter(ITextPattern pattern, SplitBehavior behavior, bool invert)
{
    public IEnumerable<(int Offset, int Length)> Split(string text)
    {
        List<Part> parts = Parts(text);
        return behavior switch
        {
            SplitBehavior.Removed => parts.Where(part => !part.IsMatch).Select(Range),
            SplitBehavior.Isolated => parts.Select(Range),
            SplitBehavior.Contiguous => Contiguous(parts).Select(Range),
            SplitBehavior.MergedWithPrevious => MergedWithPrevious(parts).Select(Range),
            _ => MergedWithNext(parts).Select(Range),
        };
    }

    private static (int Offset, int Length) Range(Part part) => (part.Start, part.Stop - part.Start);

    private List<Part> Parts(string text)
    {
        List<Part> parts = [];
        int done = 0;
        foreach ((int start, int length) in pattern.Find(text))
        {
            Add(done, start, invert);
            Add(start, start + length, !invert);
            done = start + length;
        }

        Add(done, text.Length, invert);
        return parts;

        void Add(int start, int stop, bool isMatch)
        {
            if (stop > start)
            {
                parts.Add(new Part(start, stop, isMatch));
            }
        }
    }

    private static List<Part> Contiguous(List<Part> parts)
    {
        List<Part> merged = [];
        foreach (Part part in parts)
        {
            if (merged.Count > 0 && merged[^1].IsMatch == part.IsMatch)
            {
                merged[^1] = merged[^1] with { Stop = part.Stop };
            }
            else
            {
                merged.Add(part);
            }
        }

        return merged;
    }

    // A match joins what is not a match; of two matches in a row the second is a piece of its own.
    private static List<Part> MergedWithPrevious(List<Part> parts)
    {
        List<Part> merged = [];
        bool afterMatch = false;
        foreach (Part part in parts)
        {
            if (part.IsMatch && !afterMatch && merged.Count > 0)
            {
                merged[^1] = merged[^1] with { Stop = part.Stop };
            }
            else
            {
                merged.Add(part);
            }

            afterMatch = part.IsMatch;
        }

        return merged;
    }

    private static List<Part> MergedWithNext(List<Part> parts)
    {
        List<Part> merged = [];
        bool beforeMatch = false;
        for (int i = parts.Count - 1; i >= 0; i--)
        {
            Part part = parts[i];
            if (part.IsMatch && !beforeMatch && merged.Count > 0)
            {
                merged[^1] = merged[^1] with { Start = part.Start };
            }
            else
            {
                merged.Add(part);
            }

            beforeMatch = part.IsMatch;
        }

        merged.Reverse();
        return merged;
    }

    private readonly record struct Part(int Start, int Stop, bool IsMatch);
}
