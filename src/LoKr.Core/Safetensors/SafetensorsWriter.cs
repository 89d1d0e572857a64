using System.Buffers.Binary;
using System.Globalization;
using System.Text;
using LoKr.Core.Errors;
using LoKr.Core.IO;
using TorchSharp;

namespace LoKr.Core.Safetensors;

/// <summary>
/// Writes safetensors files as the reference implementation does: sorted by descending alignment and name, header padded to 8 bytes,
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
    /// <param name="cancellationToken">Checked before every tensor; the file is as before.</param>
    /// <exception cref="LoKrException">
    /// <c>LoKr.TensorDTypeUnsupported</c>, <c>LoKr.SafetensorsNameInvalid</c>, <c>LoKr.SafetensorsHeaderTooLarge</c>, <c>LoKr.PathNotFound</c>, <c>LoKr.FileNotWritable</c>.
    /// </exception>
    public static void Write(
        string path, IReadOnlyDictionary<string, torch.Tensor> tensors, IReadOnlyDictionary<string, string>? metadata = null, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(tensors);
        List<Item> items = Sort(tensors);
        byte[] header = SafetensorsHeaderWriter.Build([.. items.Select(item => item.Header)], metadata, path);
        AtomicFile.Write(path, stream =>
        {
            stream.Write(header);
            foreach (Item item in items)
            {
                cancellationToken.ThrowIfCancellationRequested();
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
            if (!SafetensorsDTypes.TryFromTorch(tensor.dtype, out SafetensorsDType dtype))
            {
                throw new LoKrException(
                    ErrorIds.TensorDTypeUnsupported,
                    LoKrErrorKind.NotSupported,
                    $"Tensor '{name}' has type {tensor.dtype}, which a safetensors file cannot store.",
                    "Convert it to a floating-point, integer or boolean type.")
                {
                    Target = name,
                };
            }

            items.Add(new Item(new SafetensorsHeaderItem(name, dtype, tensor.shape), tensor));
        }

        items.Sort((left, right) => SafetensorsHeaderWriter.Compare(left.Header, right.Header));
        return items;
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

    private sealed record Item(SafetensorsHeaderItem Header, torch.Tensor Tensor);
}

/// <summary>Writes the header of a safetensors file as the reference implementation does: no spaces, padded to 8 bytes.</summary>
internal static class SafetensorsHeaderWriter
{
    private static readonly UTF8Encoding s_utf8 = new(encoderShouldEmitUTF8Identifier: false, throwOnInvalidBytes: true);

    /// <summary>Order of the reference implementation: descending alignment, then the bytes of the name.</summary>
    public static int Compare(SafetensorsHeaderItem left, SafetensorsHeaderItem right)
    {
        int byType = SafetensorsDTypes.Rank(right.DType).CompareTo(SafetensorsDTypes.Rank(left.DType));
        return byType != 0 ? byType : Encode(left.Name).AsSpan().SequenceCompareTo(Encode(right.Name));
    }

    /// <summary>The first bytes of a file: length and header. Tensors follow in the order given, without gaps.</summary>
    /// <param name="items">Tensors in the order of their bytes.</param>
    /// <param name="metadata">Metadata in the order given; null or empty for none.</param>
    /// <param name="path">File, for errors.</param>
    /// <exception cref="LoKrException"><c>LoKr.SafetensorsNameInvalid</c>, <c>LoKr.SafetensorsHeaderTooLarge</c>.</exception>
    public static byte[] Build(IReadOnlyList<SafetensorsHeaderItem> items, IReadOnlyDictionary<string, string>? metadata, string path)
    {
        using MemoryStream json = new();
        json.Write(stackalloc byte[8]);
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
        foreach (SafetensorsHeaderItem item in items)
        {
            if (item.Name == SafetensorsHeader.MetadataKey)
            {
                throw InvalidName(item.Name, "it is reserved for the metadata");
            }

            long end = checked(offset + item.ByteCount);
            Ascii(json, separator);
            WriteString(json, Encode(item.Name));
            string shape = string.Join(',', item.Shape.Select(dimension => dimension.ToString(CultureInfo.InvariantCulture)));
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

        byte[] header = json.ToArray();
        BinaryPrimitives.WriteUInt64LittleEndian(header, (ulong)(header.Length - 8));
        return header.Length - 8 <= SafetensorsHeader.LargestHeader
            ? header
            : throw new LoKrException(
                ErrorIds.SafetensorsHeaderTooLarge,
                LoKrErrorKind.LimitExceeded,
                $"The header of '{path}' would have {header.Length - 8} bytes; readers accept {SafetensorsHeader.LargestHeader}.",
                "Write shards, or less metadata.");
    }

    // Escapes what JSON requires and nothing else, as the reference implementation does, so that equal content gives equal bytes.
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

    private static void Ascii(MemoryStream stream, string text) => stream.Write(Encoding.ASCII.GetBytes(text));

    private static byte[] Encode(string text)
    {
        try
        {
            return s_utf8.GetBytes(text);
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
}
