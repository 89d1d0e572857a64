using System.Text;
using LoKr.Models.Tokenization.Patterns;

namespace LoKr.Models.Tokenization;

/// <summary>A part of the text on its way to the model.</summary>
/// <param name="Content">The text of the part.</param>
/// <param name="AtStart">Whether it begins at the start of the whole input.</param>
internal readonly record struct Piece(MappedText Content, bool AtStart)
{
    /// <summary>A part of the piece.</summary>
    public Piece Slice(int start, int length) => new(Content.Slice(start, length), AtStart && start == 0);
}

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
        piece = addPrefixSpace && !piece.Content.Text.StartsWith(' ') ? piece with { Content = PrependNormalizer.Prepend(piece.Content, " ") } : piece;
        if (_split is null)
        {
            result.Add(piece with { Content = Bytes(piece.Content) });
            return;
        }

        foreach ((int start, int length) in _split.Split(piece.Content.Text))
        {
            Piece part = piece.Slice(start, length);
            result.Add(part with { Content = Bytes(part.Content) });
        }
    }

    // Each byte comes from the code point that it is a part of.
    private static MappedText Bytes(MappedText text)
    {
        string bytes = ByteAlphabet.Encode(text.Text);
        if (text.Source is not SourceMap source || bytes.Length == text.Text.Length)
        {
            return text with { Text = bytes };
        }

        int[] starts = new int[bytes.Length];
        int[] ends = new int[bytes.Length];
        int unit = 0;
        int at = 0;
        foreach (Rune rune in text.Text.EnumerateRunes())
        {
            int length = rune.Utf8SequenceLength;
            starts.AsSpan(at, length).Fill(source.StartOf(unit));
            ends.AsSpan(at, length).Fill(source.EndOf(unit));
            at += length;
            unit += rune.Utf16SequenceLength;
        }

        return new MappedText(bytes, new SourceMap(starts, ends));
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
        MappedText text = piece.Content with { Text = piece.Content.Text.Replace(' ', replacement) };
        bool prepends = scheme == PrependScheme.Always || (scheme == PrependScheme.First && piece.AtStart);
        if (prepends && !text.Text.StartsWith(replacement))
        {
            text = PrependNormalizer.Prepend(text, replacement.ToString());
        }

        piece = piece with { Content = text };
        if (_split is null)
        {
            result.Add(piece);
            return;
        }

        foreach ((int start, int length) in _split.Split(text.Text))
        {
            result.Add(piece.Slice(start, length));
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
        MappedText text = piece.Content with { Text = piece.Content.Text.Replace(' ', replacement) };
        bool prepends = scheme == PrependScheme.Always || (scheme == PrependScheme.First && piece.AtStart);
        result.Add(piece with { Content = prepends ? PrependNormalizer.Prepend(text, replacement.ToString()) : text });
    }
}

/// <summary>Splits at the matches of a pattern, as Split and its relatives in tokenizer.json do.</summary>
internal sealed class SplitPreTokenizer(PatternSplitter splitter) : IPreTokenizer
{
    /// <inheritdoc/>
    public void Apply(Piece piece, List<Piece> result)
    {
        foreach ((int start, int length) in splitter.Split(piece.Content.Text))
        {
            result.Add(piece.Slice(start, length));
        }
    }
}

/// <summary>Finds the pieces of a text between or at the matches of a pattern.</summary>
/// <param name="pattern">The pattern.</param>
/// <param name="behavior">Treatment of the matches.</param>
/// <param name="invert">Whether the parts between matches count as the matches.</param>
internal sealed class PatternSplitter(ITextPattern pattern, SplitBehavior behavior, bool invert)
{
    public List<(int Start, int Length)> Split(string text)
    {
        List<Part> parts = Parts(text);
        parts = behavior switch
        {
            SplitBehavior.Contiguous => Contiguous(parts),
            SplitBehavior.MergedWithPrevious => MergedWithPrevious(parts),
            SplitBehavior.MergedWithNext => MergedWithNext(parts),
            _ => parts,
        };
        List<(int Start, int Length)> ranges = new(parts.Count);
        foreach (Part part in parts)
        {
            if (behavior != SplitBehavior.Removed || !part.IsMatch)
            {
                ranges.Add((part.Start, part.Stop - part.Start));
            }
        }

        return ranges;
    }

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
