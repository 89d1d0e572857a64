using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;

namespace LoKr.Core.Gguf;

/// <summary>Types without blocks: F32, F16 and BF16.</summary>
internal static class FloatBlocks
{
    /// <summary>F32 → values.</summary>
    public static void CopyOut(ReadOnlySpan<byte> source, Span<float> destination) => MemoryMarshal.Cast<byte, float>(source).CopyTo(destination);

    /// <summary>Values → F32.</summary>
    public static void CopyIn(ReadOnlySpan<float> source, Span<byte> destination) => MemoryMarshal.AsBytes(source).CopyTo(destination);

    /// <summary>F16 → values; NaN keeps its bits, as in llama.cpp.</summary>
    public static void FromHalf(ReadOnlySpan<byte> source, Span<float> destination)
    {
        ReadOnlySpan<ushort> halves = MemoryMarshal.Cast<byte, ushort>(source);
        int i = 0;
        for (; i <= halves.Length - Vector256<ushort>.Count; i += Vector256<ushort>.Count)
        {
            (Vector256<uint> low, Vector256<uint> high) = Vector256.Widen(Vector256.Create(halves[i..]));
            Widen(low).CopyTo(destination[i..]);
            Widen(high).CopyTo(destination[(i + Vector256<float>.Count)..]);
        }

        for (; i < halves.Length; i++)
        {
            destination[i] = Widen(Vector256.Create((uint)halves[i]))[0];
        }
    }

    /// <summary>Values → F16, to nearest with ties to even.</summary>
    public static void ToHalf(ReadOnlySpan<float> source, Span<byte> destination)
    {
        Span<ushort> halves = MemoryMarshal.Cast<byte, ushort>(destination);
        int i = 0;
        for (; i <= source.Length - Vector256<ushort>.Count; i += Vector256<ushort>.Count)
        {
            Vector256.Narrow(Narrow(Vector256.Create(source[i..])), Narrow(Vector256.Create(source[(i + Vector256<float>.Count)..]))).CopyTo(halves[i..]);
        }

        for (; i < source.Length; i++)
        {
            halves[i] = Narrow(source[i]);
        }
    }

    /// <summary>BF16 → values.</summary>
    public static void FromBrain(ReadOnlySpan<byte> source, Span<float> destination)
    {
        ReadOnlySpan<ushort> numbers = MemoryMarshal.Cast<byte, ushort>(source);
        for (int i = 0; i < numbers.Length; i++)
        {
            destination[i] = BitConverter.UInt32BitsToSingle((uint)numbers[i] << 16);
        }
    }

    /// <summary>Values → BF16, to nearest with ties to even; NaN stays NaN and becomes a quiet one.</summary>
    public static void ToBrain(ReadOnlySpan<float> source, Span<byte> destination)
    {
        Span<ushort> numbers = MemoryMarshal.Cast<byte, ushort>(destination);
        for (int i = 0; i < source.Length; i++)
        {
            uint bits = BitConverter.SingleToUInt32Bits(source[i]);
            numbers[i] = (ushort)((float.IsNaN(source[i]) ? bits | (64u << 16) : bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
        }
    }

    // The exponent is shifted by a multiplication, which is exact for subnormal halves too; that of infinity and NaN is set.
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector256<float> Widen(Vector256<uint> half)
    {
        Vector256<uint> magnitude = (half & Vector256.Create(0x7fffu)) << 13;
        Vector256<uint> sign = (half & Vector256.Create(0x8000u)) << 16;
        Vector256<uint> finite = (magnitude.AsSingle() * Vector256.Create(5.192296858534828e33f)).AsUInt32();
        Vector256<uint> isFinite = Vector256.LessThan(magnitude, Vector256.Create(0x0f800000u));
        return (Vector256.ConditionalSelect(isFinite, finite, magnitude | Vector256.Create(0x7f800000u)) | sign).AsSingle();
    }

    // Rounding adds half a unit of the last bit that stays, less one for an even number; a subnormal half is rounded by a sum whose last bit has its
    // weight. What is beyond the largest half becomes infinity, and NaN a quiet one that keeps the bits that fit.
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector256<uint> Narrow(Vector256<float> value)
    {
        Vector256<uint> bits = value.AsUInt32();
        Vector256<uint> magnitude = bits & Vector256.Create(0x7fffffffu);
        Vector256<uint> normal = (magnitude + ((magnitude >>> 13) & Vector256<uint>.One) + Vector256.Create(0xc8000fffu)) >>> 13;
        Vector256<uint> subnormal = (magnitude.AsSingle() + Vector256.Create(0.5f)).AsUInt32() - Vector256.Create(0x3f000000u);
        Vector256<uint> finite = Vector256.ConditionalSelect(Vector256.LessThan(magnitude, Vector256.Create(0x38800000u)), subnormal, normal);
        Vector256<uint> nan = ((magnitude >>> 13) & Vector256.Create(0x7fffu)) | Vector256.Create(0x7e00u);
        Vector256<uint> special = Vector256.ConditionalSelect(Vector256.GreaterThan(magnitude, Vector256.Create(0x7f800000u)), nan, Vector256.Create(0x7c00u));
        return Vector256.ConditionalSelect(Vector256.LessThan(magnitude, Vector256.Create(0x47800000u)), finite, special) | ((bits >>> 16) & Vector256.Create(0x8000u));
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static ushort Narrow(float value)
    {
        uint bits = BitConverter.SingleToUInt32Bits(value);
        uint magnitude = bits & 0x7fffffff;
        uint half = magnitude >= 0x47800000 ? magnitude > 0x7f800000 ? ((magnitude >>> 13) & 0x7fff) | 0x7e00 : 0x7c00
            : magnitude >= 0x38800000 ? (magnitude + ((magnitude >>> 13) & 1) + 0xc8000fff) >>> 13
            : BitConverter.SingleToUInt32Bits(BitConverter.UInt32BitsToSingle(magnitude) + 0.5f) - 0x3f000000;
        return (ushort)(half | ((bits >>> 16) & 0x8000));
    }

    /// <summary>The half at a position of a block. The conversion of .NET takes the time of a whole block, because it passes through subnormal numbers.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static float ReadHalf(ReadOnlySpan<byte> block, int offset)
    {
        uint half = MemoryMarshal.Read<ushort>(block[offset..]);
        uint magnitude = (half & 0x7fff) << 13;
        uint value = magnitude > 0x0f800000 ? magnitude | 0x7fc00000
            : magnitude == 0x0f800000 ? 0x7f800000
            : magnitude >= 0x00800000 ? magnitude + 0x38000000
            : BitConverter.SingleToUInt32Bits((half & 0x7fff) * 5.9604644775390625e-8f);
        return BitConverter.UInt32BitsToSingle(value | ((half & 0x8000) << 16));
    }

    /// <summary>Stores a number as a half at a position of a block.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void WriteHalf(Span<byte> block, int offset, float value) => MemoryMarshal.Write(block[offset..], Narrow(value));
}
