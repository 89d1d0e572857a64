using System.Buffers.Binary;
using System.Text;
using LoKr.Core.Safetensors;

namespace LoKr.Core.Gguf;

/// <summary>A tensor to write.</summary>
/// <param name="Name">Its name.</param>
/// <param name="Type">Element type.</param>
/// <param name="Shape">Dimensions, rows first.</param>
internal sealed record GgufItem(string Name, GgmlType Type, IReadOnlyList<long> Shape)
{
    /// <summary>Number of bytes, without padding.</summary>
    public long ByteCount => GgmlTypes.Size(Type).BytesOf(Shape.Product());
}

/// <summary>Builds the bytes before the first tensor, and gives every tensor its place.</summary>
internal static class GgufHeaderWriter
{
    /// <summary>Puts a table of tensors behind metadata.</summary>
    /// <param name="beginning">Magic, version, counts and metadata.</param>
    /// <param name="items">Tensors in their order, as many as counted.</param>
    /// <param name="alignment">Alignment that the metadata names.</param>
    /// <returns>The bytes up to the first tensor, and the tensors with their positions.</returns>
    public static (byte[] Header, IReadOnlyList<GgufTensor> Tensors) Build(ReadOnlySpan<byte> beginning, IEnumerable<GgufItem> items, int alignment)
    {
        using MemoryStream stream = new();
        stream.Write(beginning);
        List<(GgufItem Item, long Offset)> placed = [];
        long offset = 0;
        foreach (GgufItem item in items)
        {
            WriteText(stream, item.Name);
            Write(stream, (uint)item.Shape.Count);
            foreach (long size in item.Shape.Reverse())
            {
                Write(stream, (ulong)size);
            }

            Write(stream, (uint)item.Type);
            Write(stream, (ulong)offset);
            placed.Add((item, offset));
            offset = GgufHeader.Align(offset + item.ByteCount, alignment);
        }

        stream.SetLength(GgufHeader.Align(stream.Length, alignment));
        byte[] header = stream.ToArray();
        return (header, [.. placed.Select(place => new GgufTensor(place.Item.Name, place.Item.Type, place.Item.Shape, header.Length + place.Offset, place.Item.ByteCount))]);
    }

    /// <summary>Builds a header with metadata of texts.</summary>
    /// <param name="metadata">Keys and values in their order.</param>
    /// <param name="items">Tensors in their order.</param>
    public static (byte[] Header, IReadOnlyList<GgufTensor> Tensors) Build(IReadOnlyList<KeyValuePair<string, string>> metadata, IReadOnlyList<GgufItem> items)
    {
        using MemoryStream stream = new();
        stream.Write(GgufHeader.Magic);
        Write(stream, 3u);
        Write(stream, (ulong)items.Count);
        Write(stream, (ulong)metadata.Count);
        foreach ((string key, string value) in metadata)
        {
            WriteText(stream, key);
            Write(stream, (uint)GgufValueType.String);
            WriteText(stream, value);
        }

        return Build(stream.ToArray(), items, GgufHeader.DefaultAlignment);
    }

    private static void WriteText(MemoryStream stream, string text)
    {
        byte[] bytes = Encoding.UTF8.GetBytes(text);
        Write(stream, (ulong)bytes.Length);
        stream.Write(bytes);
    }

    private static void Write(MemoryStream stream, uint value)
    {
        Span<byte> bytes = stackalloc byte[sizeof(uint)];
        BinaryPrimitives.WriteUInt32LittleEndian(bytes, value);
        stream.Write(bytes);
    }

    private static void Write(MemoryStream stream, ulong value)
    {
        Span<byte> bytes = stackalloc byte[sizeof(ulong)];
        BinaryPrimitives.WriteUInt64LittleEndian(bytes, value);
        stream.Write(bytes);
    }
}
