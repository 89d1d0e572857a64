using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using static TorchSharp.torch;

namespace LoKr.Core.Factors;

/// <summary>Differences of weights. Those of bfloat16 are computed in registers; torch would widen both weights into memory of their own first.</summary>
internal static unsafe class DifferenceKernel
{
    /// <summary>Sets numbers to the differences of others, on the calling thread where all are bfloat16.</summary>
    /// <param name="target">Five dimensions, float32 or float64.</param>
    /// <param name="minuend">Of the same shape, of any floating-point type.</param>
    /// <param name="subtrahend">Of the same shape, of any floating-point type.</param>
    public static void Subtract(Tensor target, Tensor minuend, Tensor subtrahend)
    {
        long[] strides = minuend.stride();
        bool isNarrow = minuend.dtype == ScalarType.BFloat16 && subtrahend.dtype == ScalarType.BFloat16 && target.dtype == ScalarType.Float32;
        if (!isNarrow || target.numel() == 0 || !strides.AsSpan().SequenceEqual(subtrahend.stride()) || !HasRuns(minuend) || !HasRuns(target))
        {
            target.copy_(minuend).sub_(subtrahend);
            return;
        }

        (long[] shape, long[] to) = (target.shape, target.stride());
        ushort* a = (ushort*)MergeKernel.Address(minuend);
        ushort* b = (ushort*)MergeKernel.Address(subtrahend);
        float* c = (float*)MergeKernel.Address(target);

        // In the order of the weights, which are read once.
        for (long i = 0; i < shape[0]; i++)
        {
            for (long k = 0; k < shape[2]; k++)
            {
                for (long j = 0; j < shape[1]; j++)
                {
                    long from = (i * strides[0]) + (j * strides[1]) + (k * strides[2]);
                    Subtract(c + (i * to[0]) + (j * to[1]) + (k * to[2]), a + from, b + from, shape[3] * shape[4]);
                }
            }
        }
    }

    // Whether the last two dimensions are one run of numbers.
    private static bool HasRuns(Tensor tensor) => (tensor.stride(4) == 1 || tensor.shape[4] == 1) && (tensor.stride(3) == tensor.shape[4] || tensor.shape[3] == 1);

    // Compiled once: the first weight would pass before the runtime replaces code that it compiled in haste.
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Subtract(float* target, ushort* minuend, ushort* subtrahend, long count)
    {
        long i = 0;
        for (; i <= count - Vector256<ushort>.Count; i += Vector256<ushort>.Count)
        {
            (Vector256<uint> low, Vector256<uint> high) = Vector256.Widen(Vector256.Load(minuend + i));
            (Vector256<uint> lowBefore, Vector256<uint> highBefore) = Vector256.Widen(Vector256.Load(subtrahend + i));
            Vector256.Store((low << 16).AsSingle() - (lowBefore << 16).AsSingle(), target + i);
            Vector256.Store((high << 16).AsSingle() - (highBefore << 16).AsSingle(), target + i + Vector256<float>.Count);
        }

        for (; i < count; i++)
        {
            target[i] = BitConverter.UInt32BitsToSingle((uint)minuend[i] << 16) - BitConverter.UInt32BitsToSingle((uint)subtrahend[i] << 16);
        }
    }
}
