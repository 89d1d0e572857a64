using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;
using LoKr.Core.Safetensors;

namespace LoKr.Core.Factors;

/// <summary>
/// Adds rows of scale·(w1 ⊗ w2) into rows of a weight in memory of the CPU, on the calling thread: fma(scale·w1, w2, w) in float32, as torch's
/// <c>addcmul_</c> does where the processor has fused multiplication, so that both give the same bits; bfloat16 is rounded once, to nearest even.
/// </summary>
internal sealed class RowKernel
{
    // Shorter rows of w2 leave the vectors empty.
    private const long LeastColumns = 16;

    private readonly float[] _w1;
    private readonly float[] _w2;
    private readonly int _m;
    private readonly int _n;
    private readonly int _group;
    private readonly SafetensorsDType _type;

    private RowKernel(float[] w1, float[] w2, int m, int n, int group, SafetensorsDType type) =>
        (_w1, _w2, _m, _n, _group, _type) = (w1, w2, m, n, group, type);

    /// <summary>A kernel for a weight, or null where tensors have to do it.</summary>
    /// <param name="w1">w1, flat, l×m.</param>
    /// <param name="w2">w2, flat, k×n with the kernel of a convolution in n.</param>
    /// <param name="columns">m.</param>
    /// <param name="group">k.</param>
    /// <param name="scale">What w1 ⊗ w2 is multiplied with.</param>
    /// <param name="type">Type of the weight.</param>
    public static RowKernel? TryCreate(float[] w1, float[] w2, long columns, long group, double scale, SafetensorsDType type)
    {
        if (type is not (SafetensorsDType.F32 or SafetensorsDType.BF16) || !Vector256.IsHardwareAccelerated || !Fma.IsSupported || !BitConverter.IsLittleEndian || w2.Length / group < LeastColumns)
        {
            return null;
        }

        float factor = (float)scale;
        return new RowKernel(Array.ConvertAll(w1, value => factor * value), w2, (int)columns, (int)(w2.Length / group), (int)group, type);
    }

    /// <summary>Adds to rows in place.</summary>
    /// <param name="rows">Whole rows as they are in a file.</param>
    /// <param name="start">Number of the first row.</param>
    public void MergeInto(Span<byte> rows, long start)
    {
        int rowBytes = _m * _n * SafetensorsDTypes.Size(_type);
        for (int done = 0; done < rows.Length; done += rowBytes)
        {
            (long group, long inner) = Math.DivRem(start++, (long)_group);
            ReadOnlySpan<float> w1 = _w1.AsSpan((int)group * _m, _m);
            ReadOnlySpan<float> w2 = _w2.AsSpan((int)inner * _n, _n);
            Span<byte> row = rows.Slice(done, rowBytes);
            if (_type == SafetensorsDType.F32)
            {
                Add(MemoryMarshal.Cast<byte, float>(row), w1, w2);
            }
            else
            {
                Add(MemoryMarshal.Cast<byte, ushort>(row), w1, w2);
            }
        }
    }

    private static void Add(Span<float> row, ReadOnlySpan<float> w1, ReadOnlySpan<float> w2)
    {
        ref float target = ref MemoryMarshal.GetReference(row);
        ref float factors = ref MemoryMarshal.GetReference(w2);
        nuint vectors = (nuint)(w2.Length - (w2.Length % Vector256<float>.Count));
        foreach (float factor in w1)
        {
            Vector256<float> broadcast = Vector256.Create(factor);
            nuint i = 0;
            for (; i < vectors; i += (nuint)Vector256<float>.Count)
            {
                Vector256.FusedMultiplyAdd(broadcast, Vector256.LoadUnsafe(ref factors, i), Vector256.LoadUnsafe(ref target, i)).StoreUnsafe(ref target, i);
            }

            for (; i < (nuint)w2.Length; i++)
            {
                Unsafe.Add(ref target, i) = MathF.FusedMultiplyAdd(factor, Unsafe.Add(ref factors, i), Unsafe.Add(ref target, i));
            }

            target = ref Unsafe.Add(ref target, w2.Length);
        }
    }

    private static void Add(Span<ushort> row, ReadOnlySpan<float> w1, ReadOnlySpan<float> w2)
    {
        ref ushort target = ref MemoryMarshal.GetReference(row);
        ref float factors = ref MemoryMarshal.GetReference(w2);
        nuint vectors = (nuint)(w2.Length - (w2.Length % Vector256<ushort>.Count));
        foreach (float factor in w1)
        {
            nuint i = 0;
            if (Vector512.IsHardwareAccelerated)
            {
                Vector512<float> wide = Vector512.Create(factor);
                for (; i + (nuint)Vector512<ushort>.Count <= vectors; i += (nuint)Vector512<ushort>.Count)
                {
                    (Vector512<uint> low, Vector512<uint> high) = Vector512.Widen(Vector512.LoadUnsafe(ref target, i));
                    Vector512<uint> first = Round(Vector512.FusedMultiplyAdd(wide, Vector512.LoadUnsafe(ref factors, i), (low << 16).AsSingle()));
                    Vector512<uint> second = Round(Vector512.FusedMultiplyAdd(wide, Vector512.LoadUnsafe(ref factors, i + (nuint)Vector512<float>.Count), (high << 16).AsSingle()));
                    Vector512.Narrow(first, second).StoreUnsafe(ref target, i);
                }
            }

            Vector256<float> broadcast = Vector256.Create(factor);
            for (; i < vectors; i += (nuint)Vector256<ushort>.Count)
            {
                (Vector256<uint> low, Vector256<uint> high) = Vector256.Widen(Vector256.LoadUnsafe(ref target, i));
                Vector256<uint> first = Round(Vector256.FusedMultiplyAdd(broadcast, Vector256.LoadUnsafe(ref factors, i), (low << 16).AsSingle()));
                Vector256<uint> second = Round(Vector256.FusedMultiplyAdd(broadcast, Vector256.LoadUnsafe(ref factors, i + (nuint)Vector256<float>.Count), (high << 16).AsSingle()));
                Vector256.Narrow(first, second).StoreUnsafe(ref target, i);
            }

            for (; i < (nuint)w2.Length; i++)
            {
                float value = BitConverter.UInt32BitsToSingle((uint)Unsafe.Add(ref target, i) << 16);
                Unsafe.Add(ref target, i) = Round(MathF.FusedMultiplyAdd(factor, Unsafe.Add(ref factors, i), value));
            }

            target = ref Unsafe.Add(ref target, w2.Length);
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector256<uint> Round(Vector256<float> value)
    {
        Vector256<uint> bits = value.AsUInt32();
        Vector256<uint> even = (bits >>> 16) & Vector256.Create(1u);
        Vector256<uint> rounded = (bits + even + Vector256.Create(0x7fffu)) >>> 16;
        return Vector256.ConditionalSelect(Vector256.Equals(value, value).AsUInt32(), rounded, Vector256.Create(0x7fc0u));
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector512<uint> Round(Vector512<float> value)
    {
        Vector512<uint> bits = value.AsUInt32();
        Vector512<uint> even = (bits >>> 16) & Vector512.Create(1u);
        Vector512<uint> rounded = (bits + even + Vector512.Create(0x7fffu)) >>> 16;
        return Vector512.ConditionalSelect(Vector512.Equals(value, value).AsUInt32(), rounded, Vector512.Create(0x7fc0u));
    }

    private static ushort Round(float value)
    {
        uint bits = BitConverter.SingleToUInt32Bits(value);
        return float.IsNaN(value) ? (ushort)0x7fc0 : (ushort)((bits + ((bits >> 16) & 1) + 0x7fff) >> 16);
    }
}
