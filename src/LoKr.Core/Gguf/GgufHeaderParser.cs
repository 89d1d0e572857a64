using System.Buffers.Binary;
using System.Numerics;
using System.Text;
using LoKr.Core.Errors;
using LoKr.Core.Safetensors;
using Microsoft.Win32.SafeHandles;

namespace LoKr.Core.Gguf;

/// <summary>Reads a GGUF header through a window, so that the vocabulary of a model is walked over but never held.</summary>
internal sealed class GgufHeaderParser(SafeFileHandle handle, string path)
{
    // Limits far above what models have: the largest published files have about 100 keys and 3,000 tensors.
    private const ulong MostKeys = 1 << 16;
    private const ulong MostTensors = 1 << 20;
    private const int MostNesting = 4;
    private const int MostDimensions = 4;
    private const long LongestName = 1 << 16;
    private const long LongestText = 1 << 24;
    private const int MostIntegers = 4096;
    private const long LargestHeader = 1L << 30;

    private static readonly UTF8Encoding s_utf8 = new(encoderShouldEmitUTF8Identifier: false, throwOnInvalidBytes: true);

    private readonly long _length = Math.Min(RandomAccess.GetLength(handle), LargestHeader);
    private readonly byte[] _window = new byte[1 << 16];
    private long _windowStart;
    private int _windowCount;
    private long _position;

    /// <summary>Reads the header.</summary>
    public GgufHeader Parse()
    {
        (int version, ulong tensorCount, ulong keyCount) = ReadCounts();
        Dictionary<string, GgufValue> metadata = new(StringComparer.Ordinal);
        for (ulong i = 0; i < keyCount; i++)
        {
            string key = ReadText(LongestName, "the name of a key");
            if (!metadata.TryAdd(key, ReadValue(key)))
            {
                throw Invalid($"key '{key}' appears twice.");
            }
        }

        int alignment = ReadAlignment(metadata);
        long tableOffset = _position;
        List<TableEntry> table = [];
        for (ulong i = 0; i < tensorCount; i++)
        {
            table.Add(ReadTensor());
        }

        long dataOffset = GgufHeader.Align(_position, alignment);
        return new(version, metadata.AsReadOnly(), Place(table, dataOffset, alignment), alignment, tableOffset, dataOffset);
    }

    private (int Version, ulong Tensors, ulong Keys) ReadCounts()
    {
        ReadOnlySpan<byte> magic = Take(4, "the magic number");
        if (!magic.SequenceEqual(GgufHeader.Magic))
        {
            PickleGuard.ThrowIfPickle(path, magic);
            throw Invalid("it does not begin with the letters GGUF.");
        }

        uint version = ReadUInt32("the version");
        if (version is not (2 or 3))
        {
            throw Invalid((version & 0xffff) == 0 ? "it is written for processors with the other order of bytes (big endian)." : $"it has version {version}; 2 and 3 are read.");
        }

        ulong tensors = ReadUInt64("the number of tensors");
        ulong keys = ReadUInt64("the number of keys");
        return tensors > MostTensors ? throw Invalid($"it claims {tensors} tensors.")
            : keys > MostKeys ? throw Invalid($"it claims {keys} metadata keys.")
            : ((int)version, tensors, keys);
    }

    private int ReadAlignment(Dictionary<string, GgufValue> metadata)
    {
        if (!metadata.TryGetValue(GgufHeader.AlignmentKey, out GgufValue? value))
        {
            return GgufHeader.DefaultAlignment;
        }

        return value.Scalar is uint alignment && BitOperations.IsPow2(alignment) && alignment is >= 1 and <= 1 << 20
            ? (int)alignment
            : throw Invalid($"{GgufHeader.AlignmentKey} is '{value}'; it has to be a power of two of type UInt32.");
    }

    private GgufValue ReadValue(string key)
    {
        GgufValueType type = ReadValueType(key);
        return type == GgufValueType.Array ? ReadList(key, 1) : new(type, ReadScalar(type, key));
    }

    private GgufValueType ReadValueType(string key)
    {
        uint number = ReadUInt32($"the type of '{key}'");
        return number <= (uint)GgufValueType.Float64 ? (GgufValueType)number : throw Invalid($"key '{key}' has the unknown value type {number}.");
    }

    private object ReadScalar(GgufValueType type, string key)
    {
        if (type == GgufValueType.String)
        {
            return ReadText(LongestText, $"the value of '{key}'");
        }

        ReadOnlySpan<byte> bytes = Take(SizeOf(type), $"the value of '{key}'");
        return type switch
        {
            GgufValueType.UInt8 => bytes[0],
            GgufValueType.Int8 => (sbyte)bytes[0],
            GgufValueType.UInt16 => BinaryPrimitives.ReadUInt16LittleEndian(bytes),
            GgufValueType.Int16 => BinaryPrimitives.ReadInt16LittleEndian(bytes),
            GgufValueType.UInt32 => BinaryPrimitives.ReadUInt32LittleEndian(bytes),
            GgufValueType.Int32 => BinaryPrimitives.ReadInt32LittleEndian(bytes),
            GgufValueType.Float32 => BinaryPrimitives.ReadSingleLittleEndian(bytes),
            GgufValueType.Bool => bytes[0] <= 1 ? bytes[0] == 1 : throw Invalid($"the Boolean '{key}' is the byte {bytes[0]}."),
            GgufValueType.UInt64 => BinaryPrimitives.ReadUInt64LittleEndian(bytes),
            GgufValueType.Int64 => BinaryPrimitives.ReadInt64LittleEndian(bytes),
            _ => BinaryPrimitives.ReadDoubleLittleEndian(bytes),
        };
    }

    private GgufValue ReadList(string key, int depth)
    {
        GgufValueType item = ReadValueType(key);
        ulong count = ReadUInt64($"the length of '{key}'");
        int least = item == GgufValueType.String ? 8 : item == GgufValueType.Array ? 12 : SizeOf(item);
        if (count > (ulong)((_length - _position) / least))
        {
            throw Truncated($"list '{key}' claims {count} items, more than the rest of the file can hold.");
        }

        GgufValue list = new(GgufValueType.Array, null) { ItemType = item, Count = (long)count };
        if (item is GgufValueType.Int32 or GgufValueType.UInt32 && count <= MostIntegers)
        {
            long[] integers = new long[count];
            for (int i = 0; i < integers.Length; i++)
            {
                integers[i] = Convert.ToInt64(ReadScalar(item, key), null);
            }

            return list with { Integers = integers };
        }

        SkipItems(item, count, key, depth);
        return list;
    }

    private void SkipItems(GgufValueType item, ulong count, string key, int depth)
    {
        if (item == GgufValueType.Array && depth == MostNesting)
        {
            throw Invalid($"list '{key}' is nested more than {MostNesting} deep.");
        }

        if (item is not (GgufValueType.String or GgufValueType.Array))
        {
            Skip((long)count * SizeOf(item), $"list '{key}'");
            return;
        }

        for (ulong i = 0; i < count; i++)
        {
            if (item == GgufValueType.Array)
            {
                ReadList(key, depth + 1);
            }
            else
            {
                Skip(ReadLength(LongestText, $"an item of '{key}'"), $"an item of '{key}'");
            }
        }
    }

    private TableEntry ReadTensor()
    {
        string name = ReadText(LongestName, "the name of a tensor");
        uint dimensions = ReadUInt32($"the number of dimensions of '{name}'");
        if (dimensions is 0 or > MostDimensions)
        {
            throw Invalid($"tensor '{name}' has {dimensions} dimensions; 1 to {MostDimensions} are allowed.");
        }

        long[] shape = new long[dimensions];
        for (int i = shape.Length - 1; i >= 0; i--)
        {
            ulong size = ReadUInt64($"a dimension of '{name}'");
            shape[i] = size is > 0 and <= long.MaxValue ? (long)size : throw Invalid($"a dimension of tensor '{name}' is {size}.");
        }

        GgmlType type = (GgmlType)ReadUInt32($"the type of '{name}'");
        ulong offset = ReadUInt64($"the offset of '{name}'");
        if (!GgmlTypes.IsKnown(type))
        {
            throw GgufHeader.Error(path, ErrorIds.GgufTypeUnsupported, $"tensor '{name}' has the unknown element type {(uint)type}.");
        }

        BlockSize block = GgmlTypes.Size(type);
        if (shape[^1] % block.Values != 0)
        {
            throw Invalid($"a row of tensor '{name}' has {shape[^1]} values, which is not a multiple of {type}'s block of {block.Values}.");
        }

        try
        {
            long values = shape.Aggregate(1L, static (product, size) => checked(product * size));
            return new(name, type, shape, offset, block.BytesOf(values));
        }
        catch (OverflowException)
        {
            throw Invalid($"the shape [{string.Join(", ", shape)}] of tensor '{name}' is too large.");
        }
    }

    private List<GgufTensor> Place(List<TableEntry> table, long dataOffset, int alignment)
    {
        long fileLength = RandomAccess.GetLength(handle);
        HashSet<string> names = new(StringComparer.Ordinal);
        List<GgufTensor> tensors = new(table.Count);
        long expected = 0;
        foreach (TableEntry entry in table)
        {
            if (!names.Add(entry.Name))
            {
                throw Invalid($"tensor '{entry.Name}' appears twice.");
            }

            if (entry.Offset != (ulong)expected)
            {
                throw Invalid($"tensor '{entry.Name}' has offset {entry.Offset}, expected {expected}.");
            }

            if (entry.ByteCount > fileLength - dataOffset - expected)
            {
                throw Truncated($"tensor '{entry.Name}' needs {entry.ByteCount} bytes at {dataOffset + expected}, and the file has {fileLength}.");
            }

            tensors.Add(new(entry.Name, entry.Type, entry.Shape.AsReadOnly(), dataOffset + expected, entry.ByteCount));
            expected = GgufHeader.Align(expected + entry.ByteCount, alignment);
        }

        return tensors;
    }

    private string ReadText(long longest, string what)
    {
        long length = ReadLength(longest, what);
        try
        {
            return s_utf8.GetString(Take((int)length, what));
        }
        catch (DecoderFallbackException)
        {
            throw Invalid($"{what} is not UTF-8.");
        }
    }

    private long ReadLength(long longest, string what)
    {
        ulong length = ReadUInt64($"the length of {what}");
        return length > (ulong)(_length - _position) ? throw Truncated($"{what} claims {length} bytes, more than the rest of the file.")
            : length > (ulong)longest ? throw Invalid($"{what} has {length} bytes; at most {longest} are read.")
            : (long)length;
    }

    private uint ReadUInt32(string what) => BinaryPrimitives.ReadUInt32LittleEndian(Take(4, what));

    private ulong ReadUInt64(string what) => BinaryPrimitives.ReadUInt64LittleEndian(Take(8, what));

    private void Skip(long count, string what)
    {
        if (count > _length - _position)
        {
            throw Truncated($"it ends inside {what}.");
        }

        _position += count;
    }

    /// <summary>The next bytes; valid until the next call.</summary>
    private ReadOnlySpan<byte> Take(int count, string what)
    {
        if (count > _length - _position)
        {
            throw _length == LargestHeader ? Invalid($"its header has more than {LargestHeader} bytes.") : Truncated($"it ends inside {what}.");
        }

        if (count > _window.Length)
        {
            byte[] large = new byte[count];
            Fill(large, what);
            _position += count;
            return large;
        }

        if (_position < _windowStart || _position + count > _windowStart + _windowCount)
        {
            _windowStart = _position;
            _windowCount = (int)Math.Min(_window.Length, _length - _position);
            Fill(_window.AsSpan(0, _windowCount), what);
        }

        ReadOnlySpan<byte> bytes = _window.AsSpan((int)(_position - _windowStart), count);
        _position += count;
        return bytes;
    }

    private void Fill(Span<byte> bytes, string what)
    {
        if (SafetensorsHeader.ReadUpTo(handle, bytes, _position) < bytes.Length)
        {
            throw Truncated($"it ends inside {what}.");
        }
    }

    private static int SizeOf(GgufValueType type) => type switch
    {
        GgufValueType.UInt8 or GgufValueType.Int8 or GgufValueType.Bool => 1,
        GgufValueType.UInt16 or GgufValueType.Int16 => 2,
        GgufValueType.UInt32 or GgufValueType.Int32 or GgufValueType.Float32 => 4,
        _ => 8,
    };

    private LoKrException Invalid(string what) => GgufHeader.Error(path, ErrorIds.GgufHeaderInvalid, what);

    private LoKrException Truncated(string what) => GgufHeader.Error(path, ErrorIds.GgufTruncated, what);

    private sealed record TableEntry(string Name, GgmlType Type, long[] Shape, ulong Offset, long ByteCount);
}
