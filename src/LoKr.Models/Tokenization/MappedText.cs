using System.Text;

namespace LoKr.Models.Tokenization;

/// <summary>A text on its way through the stages.</summary>
/// <param name="Text">The text.</param>
/// <param name="Source">Where its units come from; null where nobody asked, which saves the time.</param>
internal readonly record struct MappedText(string Text, SourceMap? Source = null)
{
    /// <summary>A part of the text.</summary>
    public MappedText Slice(int start, int length) =>
        length == Text.Length ? this : new MappedText(Text.Substring(start, length), Source?.Slice(start));
}

/// <summary>For each UTF-16 unit of a text the range of the code point that it comes from, in the text that the tokenizer was given.</summary>
internal sealed class SourceMap
{
    private readonly int[] _starts;
    private readonly int[] _ends;
    private readonly int _offset;

    private SourceMap(int[] starts, int[] ends, int offset) => (_starts, _ends, _offset) = (starts, ends, offset);

    public SourceMap(int[] starts, int[] ends)
        : this(starts, ends, 0)
    {
    }

    /// <summary>The map of a text that is still as it was given.</summary>
    public static SourceMap Of(string text)
    {
        int[] starts = new int[text.Length];
        int[] ends = new int[text.Length];
        int at = 0;
        foreach (Rune rune in text.EnumerateRunes())
        {
            int end = at + rune.Utf16SequenceLength;
            starts.AsSpan(at, end - at).Fill(at);
            ends.AsSpan(at, end - at).Fill(end);
            at = end;
        }

        return new SourceMap(starts, ends);
    }

    /// <summary>First unit that a unit comes from.</summary>
    public int StartOf(int unit) => _starts[_offset + unit];

    /// <summary>The unit behind the last one that a unit comes from.</summary>
    public int EndOf(int unit) => _ends[_offset + unit];

    /// <summary>The map of the text from one of its units on.</summary>
    public SourceMap Slice(int start) => new(_starts, _ends, _offset + start);

    /// <summary>Origin of a part that is not empty.</summary>
    public (int Start, int End) Range(int start, int length) => (StartOf(start), EndOf(start + length - 1));
}

/// <summary>Writes a changed text, and its map where the old text has one.</summary>
internal sealed class TextRewriter(MappedText source)
{
    private readonly StringBuilder _text = new(source.Text.Length + 8);
    private readonly List<int>? _starts = source.Source is null ? null : new(source.Text.Length + 8);
    private readonly List<int>? _ends = source.Source is null ? null : new(source.Text.Length + 8);

    public string Text => source.Text;

    /// <summary>Writes a part of the old text as it is.</summary>
    public void Copy(int start, int length)
    {
        _text.Append(source.Text, start, length);
        for (int unit = start; _starts is not null && unit < start + length; unit++)
        {
            Map(unit);
        }
    }

    /// <summary>Writes new text that comes from the code point at one unit of the old text.</summary>
    public void Write(ReadOnlySpan<char> text, int unit)
    {
        _text.Append(text);
        for (int i = 0; _starts is not null && i < text.Length; i++)
        {
            Map(unit);
        }
    }

    /// <summary>Writes a code point that comes from the code point at one unit of the old text.</summary>
    public void Write(Rune rune, int unit)
    {
        Span<char> units = stackalloc char[2];
        Write(units[..rune.EncodeToUtf16(units)], unit);
    }

    /// <summary>Writes a text that a part of the old text became.</summary>
    public void Write(MappedText text)
    {
        _text.Append(text.Text);
        for (int unit = 0; _starts is not null && unit < text.Text.Length; unit++)
        {
            _starts.Add(text.Source!.StartOf(unit));
            _ends!.Add(text.Source.EndOf(unit));
        }
    }

    /// <summary>The text that was written.</summary>
    public MappedText ToText() => new(_text.ToString(), _starts is null ? null : new SourceMap([.. _starts], [.. _ends!]));

    private void Map(int unit)
    {
        _starts!.Add(source.Source!.StartOf(unit));
        _ends!.Add(source.Source.EndOf(unit));
    }
}
