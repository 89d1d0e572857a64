using System.IO.Compression;

namespace LoKr.Core.Data;

/// <summary>
/// A file of gzip, expanded: one member or several, one behind the other. .NET reads a file that was cut, or that has other bytes behind its end, as
/// if it ended there; here it is an error. A last member is put behind the file, which only comes out where the file is whole.
/// </summary>
/// <remarks>Format: RFC 1952.</remarks>
internal sealed class GzipText : ForwardStream
{
    // No text ends so.
    private static readonly byte[] s_mark = [0, 0xFF, 0, 0xFE, 0, 0xFD, 0, 0xFC];

    private readonly Stream _file;
    private readonly GZipStream _expanded;
    private readonly byte[] _ahead = new byte[s_mark.Length];
    private byte[] _pieces = [];
    private int _aheadCount;

    /// <param name="file">The file.</param>
    public GzipText(Stream file)
    {
        _file = file;
        _expanded = new GZipStream(new Chain(file, new MemoryStream(MarkMember())), CompressionMode.Decompress);
    }

    /// <summary>Bytes of the file that are read.</summary>
    public long CompressedPosition => _file.Position;

    /// <inheritdoc/>
    /// <exception cref="InvalidDataException">The file is damaged, or not whole.</exception>
    public override int Read(Span<byte> buffer)
    {
        if (buffer.IsEmpty)
        {
            return 0;
        }

        // As many bytes as the mark has are held back until it is known that more follow.
        if (_pieces.Length < buffer.Length + _ahead.Length)
        {
            _pieces = new byte[buffer.Length + _ahead.Length];
        }

        Span<byte> pieces = _pieces.AsSpan(0, buffer.Length + _ahead.Length);
        _ahead.AsSpan(0, _aheadCount).CopyTo(pieces);
        int count = _aheadCount;
        while (count <= _ahead.Length)
        {
            int read = _expanded.Read(pieces[count..]);
            if (read == 0)
            {
                return pieces[..count].SequenceEqual(s_mark) ? 0
                    : throw new InvalidDataException("it is not whole, or it has other bytes behind its end");
            }

            count += read;
        }

        int given = count - _ahead.Length;
        pieces[..given].CopyTo(buffer);
        pieces[given..count].CopyTo(_ahead);
        _aheadCount = _ahead.Length;
        return given;
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            _expanded.Dispose();
        }

        base.Dispose(disposing);
    }

    private static byte[] MarkMember()
    {
        using MemoryStream member = new();
        using (GZipStream compressed = new(member, CompressionLevel.NoCompression, leaveOpen: true))
        {
            compressed.Write(s_mark);
        }

        return member.ToArray();
    }

    /// <summary>One stream behind the other.</summary>
    private sealed class Chain(Stream first, Stream second) : ForwardStream
    {
        private bool _isSecond;

        public override int Read(Span<byte> buffer)
        {
            if (!_isSecond && first.Read(buffer) is int read and > 0)
            {
                return read;
            }

            _isSecond = true;
            return second.Read(buffer);
        }

        protected override void Dispose(bool disposing)
        {
            if (disposing)
            {
                first.Dispose();
                second.Dispose();
            }

            base.Dispose(disposing);
        }
    }
}
