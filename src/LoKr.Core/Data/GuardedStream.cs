using LoKr.Core.Errors;

namespace LoKr.Core.Data;

/// <summary>
/// The text of a data file as it is read. A line without end, or a small compressed file that expands without end, is an error before it fills
/// the memory.
/// </summary>
/// <param name="content">The text; expanded where the file is compressed.</param>
/// <param name="name">Name of the file, for messages.</param>
/// <param name="unit">What has to fit into memory at once.</param>
internal sealed class GuardedStream(Stream content, string name, DataUnit unit) : ForwardStream
{
    /// <summary>Most bytes of a line that is one row.</summary>
    public const long LongestLine = 64L << 20;

    /// <summary>Most bytes of a file that is one document; .NET's strings hold no more characters.</summary>
    public const long LargestDocument = 1L << 30;

    /// <summary>Most bytes that a byte of a compressed file may stand for. Text is compressed to a tenth or so; what gets near the thousandth that gzip can reach is one line over and over.</summary>
    public const long LargestExpansion = 500;

    // Up to here a file may be anything.
    private const long Unchecked = 64L << 20;

    private readonly GzipText? _compressed = content as GzipText;
    private long _count;
    private long _lineStart;
    private long _lines;

    /// <inheritdoc/>
    public override long Position { get => _count; set => throw new NotSupportedException(); }

    /// <inheritdoc/>
    public override int Read(Span<byte> buffer)
    {
        int read = content.Read(buffer);
        ReadOnlySpan<byte> bytes = buffer[..read];
        if (bytes.LastIndexOfAny((byte)'\n', (byte)'\r') is int end and >= 0)
        {
            _lineStart = _count + end + 1;
            _lines += bytes.Count((byte)'\n');
        }

        _count += read;
        Check();
        return read;
    }

    private void Check()
    {
        if (_compressed is not null && _count > Unchecked && _count / Math.Max(1, _compressed.CompressedPosition) > LargestExpansion)
        {
            throw Error(name, $"expands to more than {LargestExpansion} times its size, as no data does", "Expand it and look at the result, or write it again.");
        }

        if (unit == DataUnit.Line && _count - _lineStart > LongestLine)
        {
            throw Error($"{name}:{_lines + 1}", $"is longer than {LongestLine >> 20} MiB", "Every line must be one row; end each with a line feed.");
        }

        if (unit == DataUnit.Document && _count > LargestDocument)
        {
            throw Error(name, $"is larger than {LargestDocument >> 30} GiB", "Write one object per line, and name the file .jsonl.");
        }
    }

    private static LoKrException Error(string origin, string what, string advice) => new(ErrorIds.DataLineInvalid, LoKrErrorKind.InvalidData, $"{origin} {what}.", advice) { Target = origin };
}

/// <summary>Parts of a data file that have to fit into memory at once.</summary>
internal enum DataUnit
{
    /// <summary>A line, which is a row or a part of one.</summary>
    Line,

    /// <summary>All of it.</summary>
    Document,
}
