using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Factors;

/// <summary>
/// Adds an outer product into bfloat16 numbers on the CPU, in one pass: each is widened to float32, added to and rounded (to nearest, ties
/// to even) in registers. torch has no operation that adds float32 products into bfloat16 without a second copy of the weight.
/// </summary>
internal static class BFloat16Merge
{
    /// <summary>Numbers that a thread takes at a time.</summary>
    private const long Chunk = 1L << 18;

    /// <summary>Adds outer[a, c]·inner[b, d] to target[a, b, c, d].</summary>
    /// <param name="target">bfloat16, contiguous, a·b·c·d numbers.</param>
    /// <param name="outer">float32 [a, c].</param>
    /// <param name="inner">float32 [b, d].</param>
    /// <param name="threads">How many threads work.</param>
    public static unsafe void Add(Tensor target, Tensor outer, Tensor inner, int threads)
    {
        using DisposeScope scope = NewDisposeScope();
        (long b, long c, long d) = (inner.shape[0], outer.shape[1], inner.shape[1]);
        long rows = outer.shape[0] * b;
        ushort* numbers = (ushort*)Address(target);
        float* first = (float*)Address(outer.contiguous());
        float* second = (float*)Address(inner.contiguous());
        long step = Math.Max(1, Chunk / (c * d));
        ParallelOptions options = new() { MaxDegreeOfParallelism = threads };
        Parallel.For(0, (rows + step - 1) / step, options, part =>
        {
            for (long row = part * step; row < Math.Min(rows, (part + 1) * step); row++)
            {
                AddRow(numbers + (row * c * d), first + (row / b * c), second + (row % b * d), c, d);
            }
        });
    }

    /// <summary>Where the numbers of a tensor on the CPU begin.</summary>
    private static unsafe void* Address(Tensor tensor)
    {
        // A span counts with 32 bits; one element is enough for the address.
        using Tensor element = tensor.reshape(-1).narrow(0, 0, 1);
        return Unsafe.AsPointer(ref MemoryMarshal.GetReference(element.bytes));
    }

    private static unsafe void AddRow(ushort* target, float* outer, float* inner, long outerCount, long innerCount)
    {
        for (long i = 0; i < outerCount; i++, target += innerCount)
        {
            float factor = outer[i];
            Vector256<float> factors = Vector256.Create(factor);
            long j = 0;
            for (; j <= innerCount - 16; j += 16)
            {
                (Vector256<uint> low, Vector256<uint> high) = Vector256.Widen(Vector256.Load(target + j));
                low = Round(Vector256.FusedMultiplyAdd(factors, Vector256.Load(inner + j), Wide(low)));
                high = Round(Vector256.FusedMultiplyAdd(factors, Vector256.Load(inner + j + 8), Wide(high)));
                Vector256.Store(Vector256.Narrow(low, high), target + j);
            }

            for (; j < innerCount; j++)
            {
                float sum = MathF.FusedMultiplyAdd(factor, inner[j], BitConverter.UInt32BitsToSingle((uint)target[j] << 16));
                target[j] = (ushort)Round(Vector256.Create(sum))[0];
            }
        }
    }

    private static Vector256<float> Wide(Vector256<uint> halves) => Vector256.ShiftLeft(halves, 16).AsSingle();

    /// <summary>The upper 16 bits after rounding; what is not a number stays so.</summary>
    private static Vector256<uint> Round(Vector256<float> numbers)
    {
        Vector256<uint> bits = numbers.AsUInt32();
        Vector256<uint> odd = Vector256.ShiftRightLogical(bits, 16) & Vector256<uint>.One;
        Vector256<uint> rounded = Vector256.ShiftRightLogical(bits + Vector256.Create(0x7FFFu) + odd, 16);
        return Vector256.ConditionalSelect(Vector256.Equals(numbers, numbers).AsUInt32(), rounded, Vector256.Create(0x7FC0u));
    }
}
