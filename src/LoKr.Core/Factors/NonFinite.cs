using System.Numerics;
using System.Runtime.InteropServices;
using LoKr.Core.Safetensors;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Factors;

/// <summary>Counts numbers that are NaN or infinity, at the speed of memory where there are none.</summary>
internal static class NonFinite
{
    // Elements that one task looks at.
    private const long Chunk = 1L << 20;

    /// <summary>Counts in bytes of a file.</summary>
    /// <param name="bytes">Whole numbers of the type.</param>
    /// <param name="type">Their type; types without NaN and infinity have none.</param>
    public static long Count(ReadOnlySpan<byte> bytes, SafetensorsDType type) => type switch
    {
        SafetensorsDType.F16 => Count<ushort>(MemoryMarshal.Cast<byte, ushort>(bytes), 0x7c00),
        SafetensorsDType.BF16 => Count<ushort>(MemoryMarshal.Cast<byte, ushort>(bytes), 0x7f80),
        SafetensorsDType.F32 => Count<uint>(MemoryMarshal.Cast<byte, uint>(bytes), 0x7f800000),
        SafetensorsDType.F64 => Count<ulong>(MemoryMarshal.Cast<byte, ulong>(bytes), 0x7ff0000000000000),
        _ => 0,
    };

    /// <summary>Counts in a tensor, on as many threads as torch uses.</summary>
    public static long Count(Tensor tensor)
    {
        SafetensorsDType? type = tensor.dtype switch
        {
            ScalarType.Float16 => SafetensorsDType.F16,
            ScalarType.BFloat16 => SafetensorsDType.BF16,
            ScalarType.Float32 => SafetensorsDType.F32,
            ScalarType.Float64 => SafetensorsDType.F64,
            _ => null,
        };
        if (type is not SafetensorsDType known || tensor.numel() == 0)
        {
            return 0;
        }

        using IDisposable noGrad = no_grad();
        using DisposeScope scope = NewDisposeScope();
        if (tensor.device_type != DeviceType.CPU || !tensor.is_contiguous())
        {
            return tensor.numel() - tensor.isfinite().sum().ToInt64();
        }

        Tensor flat = tensor.detach().view(-1);
        long total = 0;
        Parallel.For(0, (flat.numel() + Chunk - 1) / Chunk, new ParallelOptions { MaxDegreeOfParallelism = get_num_threads() }, part =>
        {
            using Tensor chunk = flat.narrow(0, part * Chunk, Math.Min(Chunk, flat.numel() - (part * Chunk)));
            Interlocked.Add(ref total, Count(chunk.bytes, known));
        });
        return total;
    }

    /// <summary>A warning for each tensor with such numbers, as they are written to a file.</summary>
    /// <param name="tensors">Tensors by name.</param>
    public static IEnumerable<string> Warnings(IEnumerable<KeyValuePair<string, Tensor>> tensors) => tensors
        .Select(static pair => (pair.Key, Count: Count(pair.Value)))
        .Where(static entry => entry.Count > 0)
        .Select(static entry => $"{entry.Count} numbers of '{entry.Key}' are NaN or infinity: the training diverged, or the type of the file is too narrow.");

    // NaN and infinity have every bit of the exponent set.
    private static long Count<T>(ReadOnlySpan<T> values, T exponent)
        where T : unmanaged, IBinaryInteger<T>
    {
        Vector<T> mask = new(exponent);
        long count = 0;
        int i = 0;
        for (; i <= values.Length - Vector<T>.Count; i += Vector<T>.Count)
        {
            Vector<T> exponents = new Vector<T>(values[i..]) & mask;
            if (Vector.EqualsAny(exponents, mask))
            {
                for (int j = 0; j < Vector<T>.Count; j++)
                {
                    count += exponents[j] == exponent ? 1 : 0;
                }
            }
        }

        for (; i < values.Length; i++)
        {
            count += (values[i] & exponent) == exponent ? 1 : 0;
        }

        return count;
    }
}
