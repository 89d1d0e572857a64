using System.Buffers.Binary;
using System.Text.Json;
using System.Text.Unicode;
using LoKr.Core.Errors;
using Microsoft.Win32.SafeHandles;

namespace LoKr.Core.Safetensors;

/// <summary>
/// The header of a safetensors file: an 8-byte length, then a JSON object of tensors and <c>__metadata__</c>.
/// Everything is checked against the length of the file before it is used.
/// </summary>
/// <param name="Entries">Tensors in the order of the header.</param>
/// <param name="Metadata">Metadata in the order of the header.</param>
internal sealed record SafetensorsHeader(IReadOnlyDictionary<string, SafetensorsEntry> Entries, IReadOnlyDictionary<string, string> Metadata)
{
    /// <summary>Largest header that the reference implementation accepts, in bytes.</summary>
    public const long LargestHeader = 100_000_000;

    /// <summary>Key of the metadata.</summary>
    public const string MetadataKey = "__metadata__";

    /// <summary>Reads and checks the header of an open file.</summary>
    public static SafetensorsHeader Read(SafeFileHandle handle, string path)
    {
        long length = RandomAccess.GetLength(handle);
        Span<byte> start = stackalloc byte[9];
        int got = ReadUpTo(handle, start, 0);
        if (got < 8)
        {
            throw Error(path, ErrorIds.SafetensorsTruncated, $"it has {length} bytes; even an empty file has more.");
        }

        ulong claimed = BinaryPrimitives.ReadUInt64LittleEndian(start);
        if (claimed > LargestHeader)
        {
            PickleGuard.ThrowIfPickle(path, start[..got]);
            throw Error(
                path,
                ErrorIds.SafetensorsHeaderTooLarge,
                $"its first bytes give a header of {claimed} bytes, more than the {LargestHeader} that the format allows; it may be another kind of file.");
        }

        if (claimed < 2)
        {
            throw Error(path, ErrorIds.SafetensorsHeaderInvalid, $"a header of {claimed} bytes.");
        }

        if ((long)claimed > length - 8)
        {
            PickleGuard.ThrowIfPickle(path, start[..got]);
            throw Error(path, ErrorIds.SafetensorsTruncated, $"the header has {claimed} bytes, the file only {length}.");
        }

        byte[] json = new byte[claimed];
        if (ReadUpTo(handle, json, 8) < json.Length)
        {
            throw Error(path, ErrorIds.SafetensorsTruncated, "the file ends inside the header.");
        }

        return Parse(json, path, length);
    }

    /// <summary>An error that names the file.</summary>
    public static LoKrException Error(string path, string id, string what, Exception? inner = null) => new(
        id,
        LoKrErrorKind.InvalidData,
        $"'{path}' is not a valid safetensors file: {what}",
        id is ErrorIds.SafetensorsTruncated ? "The download or copy is incomplete; get the file again." : "Get the file again, or ask its author.",
        inner)
    {
        Target = path,
    };

    /// <summary>Reads until the span is full or the file ends; a single read may return less.</summary>
    public static int ReadUpTo(SafeFileHandle handle, Span<byte> span, long offset)
    {
        int total = 0;
        while (total < span.Length)
        {
            int read = RandomAccess.Read(handle, span[total..], offset + total);
            if (read == 0)
            {
                break;
            }

            total += read;
        }

        return total;
    }

    private static SafetensorsHeader Parse(byte[] json, string path, long fileLength)
    {
        if (json[0] != (byte)'{')
        {
            PickleGuard.ThrowIfPickle(path, json);
            throw Error(path, ErrorIds.SafetensorsHeaderInvalid, "the header is not a JSON object.");
        }

        if (!Utf8.IsValid(json))
        {
            throw Error(path, ErrorIds.SafetensorsHeaderInvalid, "the header is not UTF-8.");
        }

        try
        {
            SafetensorsHeaderParser parser = new(path, 8 + json.Length);
            (List<SafetensorsEntry> entries, IReadOnlyDictionary<string, string> metadata) = parser.Parse(json);
            CheckLayout(entries, path, 8 + json.Length, fileLength);
            return new SafetensorsHeader(entries.ToDictionary(entry => entry.Name, StringComparer.Ordinal).AsReadOnly(), metadata);
        }
        catch (JsonException exception)
        {
            throw Error(path, ErrorIds.SafetensorsHeaderInvalid, $"the header is not valid JSON ({exception.Message}).", exception);
        }
        catch (InvalidOperationException exception)
        {
            // A lone surrogate written as an escape is valid JSON but not valid text.
            throw Error(path, ErrorIds.SafetensorsHeaderInvalid, $"the header holds a string that is not valid Unicode text ({exception.Message}).", exception);
        }
    }

    // Sorted by position, every tensor must begin where the one before it ends, and the last must end with the file.
    private static void CheckLayout(List<SafetensorsEntry> entries, string path, long dataStart, long fileLength)
    {
        long expected = dataStart;
        string? previous = null;

        // Files are written in the order of their header, nearly always.
        bool isSorted = entries.Zip(entries.Skip(1)).All(static pair => (pair.First.Offset, pair.First.ByteCount).CompareTo((pair.Second.Offset, pair.Second.ByteCount)) <= 0);
        IEnumerable<SafetensorsEntry> ordered = isSorted ? entries : entries.OrderBy(static entry => entry.Offset).ThenBy(static entry => entry.ByteCount);
        foreach (SafetensorsEntry entry in ordered)
        {
            if (entry.Offset < expected)
            {
                throw Error(path, ErrorIds.SafetensorsOverlap, $"tensors '{previous}' and '{entry.Name}' share bytes.");
            }

            if (entry.Offset > expected)
            {
                throw Error(path, ErrorIds.SafetensorsHole, $"{entry.Offset - expected} bytes before tensor '{entry.Name}' belong to no tensor.");
            }

            expected = entry.Offset + entry.ByteCount;
            previous = entry.Name;
            if (expected > fileLength)
            {
                throw Error(path, ErrorIds.SafetensorsTruncated, $"tensor '{entry.Name}' ends at byte {expected}, the file at {fileLength}.");
            }
        }

        if (expected < fileLength)
        {
            throw Error(path, ErrorIds.SafetensorsTrailingData, $"{fileLength - expected} bytes after the last tensor belong to no tensor.");
        }
    }
}

/// <summary>One tensor of a safetensors file, as its header describes it.</summary>
/// <param name="Name">Key of the tensor.</param>
/// <param name="DType">Element type.</param>
/// <param name="Shape">Dimensions; empty for a scalar.</param>
/// <param name="Offset">Position of its first byte in the file.</param>
/// <param name="ByteCount">Number of bytes.</param>
public sealed record SafetensorsEntry(string Name, SafetensorsDType DType, IReadOnlyList<long> Shape, long Offset, long ByteCount);
