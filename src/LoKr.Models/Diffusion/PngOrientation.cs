using System.Buffers.Binary;
using LoKr.Core.IO;

namespace LoKr.Models.Diffusion;

/// <summary>The EXIF orientation of a PNG, in its <c>eXIf</c> chunk (PNG, third edition, 11.3.4.5).</summary>
internal static class PngOrientation
{
    // The tag is in the first directory of the EXIF data, which camera programs write at its beginning.
    private const int LargestExif = 1 << 20;
    private const int OrientationTag = 0x0112;

    /// <summary>Reads the orientation of a file that is a PNG.</summary>
    /// <param name="path">The file.</param>
    /// <returns>1 to 8, or null where the file has none that can be read.</returns>
    public static int? Read(string path)
    {
        using FileStream file = FileSystem.OpenRead(path);
        file.Position = 8;
        Span<byte> header = stackalloc byte[8];
        while (file.ReadAtLeast(header, header.Length, throwOnEndOfStream: false) == header.Length)
        {
            uint length = BinaryPrimitives.ReadUInt32BigEndian(header);
            ReadOnlySpan<byte> type = header[4..];
            if (type.SequenceEqual("IEND"u8) || length > int.MaxValue)
            {
                return null;
            }

            if (type.SequenceEqual("eXIf"u8))
            {
                byte[] exif = new byte[Math.Min(length, LargestExif)];
                return Parse(exif.AsSpan(0, file.ReadAtLeast(exif, exif.Length, throwOnEndOfStream: false)));
            }

            // The data and its checksum.
            file.Position += length + 4L;
        }

        return null;
    }

    // TIFF: byte order, 42, place of the first directory; there the number of entries and twelve bytes for each.
    private static int? Parse(ReadOnlySpan<byte> exif)
    {
        if (exif.Length < 8 || !(exif.StartsWith("II"u8) || exif.StartsWith("MM"u8)))
        {
            return null;
        }

        bool little = exif[0] == 'I';
        uint place = little ? BinaryPrimitives.ReadUInt32LittleEndian(exif[4..]) : BinaryPrimitives.ReadUInt32BigEndian(exif[4..]);
        if (place > exif.Length - 2)
        {
            return null;
        }

        ReadOnlySpan<byte> entries = exif[(int)place..];
        int count = Number(entries, little);
        for (entries = entries[2..]; count > 0 && entries.Length >= 12; count--, entries = entries[12..])
        {
            if (Number(entries, little) == OrientationTag)
            {
                return Number(entries[8..], little) is var value and >= 1 and <= 8 ? value : null;
            }
        }

        return null;
    }

    private static ushort Number(ReadOnlySpan<byte> bytes, bool little) =>
        little ? BinaryPrimitives.ReadUInt16LittleEndian(bytes) : BinaryPrimitives.ReadUInt16BigEndian(bytes);
}
