using System.Buffers.Binary;
using System.Globalization;
using System.Text;
using TorchSharp;

namespace LoKr.Core.Formats;

/// <summary>
/// Writes safetensors files as the reference implementation does: sorted by falling alignment and name, header padded to 8 bytes,
/// to a temporary name, flushed, renamed.
/// </summary>
public static class SafetensorsWriter
{
    /// <summary>Bytes that pass through the CPU at a time.</summary>
    private const int ChunkBytes = 64 << 20;

    /// <summary>Writes a file; what was there before stays until the new one is complete.</summary>
    /// <param name="path">File to write.</param>
    /// <param name="tensors">Tensors by name; any device, contiguous or not. Tensors that share memory are each written whole.</param>
    /// <param name="metadata">Header metadata in the order given, for example format = pt; null or empty for none.</param>
    /// <exception cref="LoKrException">
    /// <c>LoKr.TensorDTypeUnsupported</c>, <c>LoKr.SafetensorsNameInvalid</c>, <c>LoKr.SafetensorsHeaderTooLarge</c>, <c>LoKr.PathNotFound</c>, <c>LoKr.FileNotWritable</c>.
    /// </exception>
    public static void Write(string path, IReadOnlyDictionary<string, torch.Tensor> tensors, IReadOnlyDictionary<string, string>? metadata = null)
    {
        ArgumentNullException.ThrowIfNull(tensors);
        List<Item> items = Sort(tensors);
        byte[] header = BuildHeader(items, metadata, path);
        AtomicFile.Write(path, stream =>
        {
            Span<byte> length = stackalloc byte[8];
            BinaryPrimitives.WriteUInt64LittleEndian(length, (ulong)header.Length);
            stream.Write(length);
            stream.Write(header);
            foreach (Item item in items)
            {
                WriteTensor(stream, item.Tensor);
            }
        });
    }

    /// <summary>Bytes of a tensor in a file.</summary>
    internal static long ByteCount(torch.Tensor tensor) => checked(tensor.numel() * tensor.ElementSize);

    private static List<Item> Sort(IReadOnlyDictionary<string, torch.Tensor> tensors)
    {
        List<Item> items = [];
        foreach ((string name, torch.Tensor tensor) in tensors)
        {
            if (name == SafetensorsHeader.MetadataKey)
            {
                throw InvalidName(name, "it is reserved for the metadata");
            }

            if (!SafetensorsDTypes.TryFromTorch(tensor.dtype, out SafetensorsDType dtype))
            {
                throw new LoKrException(
                    ErrorIds.TensorDTypeUnsupported,
                    LoKrErrorKind.NotSupported,
                    $"Tensor '{name}' has type {tensor.dtype}, which a safetensors file cannot hold.",
                    "Convert it to a floating-point, integer or boolean type.")
                {
                    Target = name,
                };
            }

            items.Add(new Item(Encode(name), dtype, tensor));
        }

        items.Sort((left, right) =>
        {
            int byType = SafetensorsDTypes.Rank(right.DType).CompareTo(SafetensorsDTypes.Rank(left.DType));
            return byType != 0 ? byType : left.Name.AsSpan().SequenceCompareTo(right.Name);
        });
        return items;
    }

    private static byte[] BuildHeader(List<Item> items, IReadOnlyDictionary<string, string>? metadata, string path)
    {
        using MemoryStream json = new();
        string separator = "";
        Ascii(json, "{");
        if (metadata is { Count: > 0 })
        {
            WriteString(json, Encode(SafetensorsHeader.MetadataKey));
            string comma = "";
            Ascii(json, ":{");
            foreach ((string key, string value) in metadata)
            {
                Ascii(json, comma);
                WriteString(json, Encode(key));
                Ascii(json, ":");
                WriteString(json, Encode(value));
                comma = ",";
            }

            Ascii(json, "}");
            separator = ",";
        }

        long offset = 0;
        foreach (Item item in items)
        {
            long end = checked(offset + ByteCount(item.Tensor));
            Ascii(json, separator);
            WriteString(json, item.Name);
            string shape = string.Join(',', item.Tensor.shape.Select(dimension => dimension.ToString(CultureInfo.InvariantCulture)));
            Ascii(json, string.Create(
                CultureInfo.InvariantCulture,
                $$""":{"dtype":"{{SafetensorsDTypes.Name(item.DType)}}","shape":[{{shape}}],"data_offsets":[{{offset}},{{end}}]}"""));
            offset = end;
            separator = ",";
        }

        Ascii(json, "}");
        while (json.Length % 8 != 0)
        {
            Ascii(json, " ");
        }

        return json.Length <= SafetensorsHeader.LargestHeader
            ? json.ToArray()
            : throw new LoKrException(
                ErrorIds.SafetensorsHeaderTooLarge,
                LoKrErrorKind.LimitExceeded,
                $"The header of '{path}' would have {json.Length} bytes; readers accept {SafetensorsHeader.LargestHeader}.",
                "Write shards, or less metadata.");
    }

    // Escapes what JSON demands and nothing else, as the reference implementation does, so that equal content gives equal bytes.
    private static void WriteString(MemoryStream json, byte[] text)
    {
        json.WriteByte((byte)'"');
        foreach (byte value in text)
        {
            string? escaped = value switch
            {
                (byte)'"' => "\\\"",
                (byte)'\\' => "\\\\",
                (byte)'\b' => "\\b",
                (byte)'\f' => "\\f",
                (byte)'\n' => "\\n",
                (byte)'\r' => "\\r",
                (byte)'\t' => "\\t",
                < 0x20 => $"\\u{value:x4}",
                _ => null,
            };
            if (escaped is null)
            {
                json.WriteByte(value);
            }
            else
            {
                Ascii(json, escaped);
            }
        }

        json.WriteByte((byte)'"');
    }

    private static void WriteTensor(FileStream stream, torch.Tensor tensor)
    {
        if (tensor.numel() == 0)
        {
            return;
        }

        using var scope = torch.NewDisposeScope();
        using var noGrad = torch.no_grad();
        torch.Tensor flat = tensor.detach().contiguous().view(-1);
        long perChunk = ChunkBytes / flat.ElementSize;
        for (long start = 0; start < flat.numel(); start += perChunk)
        {
            using torch.Tensor slice = flat.narrow(0, start, Math.Min(perChunk, flat.numel() - start));
            using torch.Tensor local = slice.cpu();
            stream.Write(local.bytes);
        }
    }

    private static void Ascii(MemoryStream stream, string text) => stream.Write(Encoding.ASCII.GetBytes(text));

    private static byte[] Encode(string text)
    {
        try
        {
            return new UTF8Encoding(false, throwOnInvalidBytes: true).GetBytes(text);
        }
        catch (EncoderFallbackException)
        {
            throw InvalidName(text, "it is not valid Unicode text");
        }
    }

    private static LoKrException InvalidName(string name, string why) => new(
        ErrorIds.SafetensorsNameInvalid,
        LoKrErrorKind.InvalidArgument,
        $"'{name}' cannot be written to a safetensors file: {why}.")
    {
        Target = name,
    };

    private sealed record Item(byte[] Name, SafetensorsDType DType, torch.Tensor Tensor);
}
