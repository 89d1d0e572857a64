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
        byte[] header = SafetensorsHeaderWriter.Build([.. items.Select(item => item.Header)], metadata, path);
        AtomicFile.Write(path, stream =>
        {
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
