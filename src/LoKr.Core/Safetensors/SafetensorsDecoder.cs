using System.Buffers.Binary;
using System.Runtime.InteropServices;

namespace LoKr.Core.Safetensors;

/// <summary>Turns the element types that TorchSharp lacks into wider ones it has.</summary>
internal static class SafetensorsDecoder
{
    private static readonly float[] s_e4m3 = [.. Enumerable.Range(0, 256).Select(value => Float8((byte)value, exponentBits: 4, hasInfinity: false))];
    private static readonly float[] s_e5m2 = [.. Enumerable.Range(0, 256).Select(value => Float8((byte)value, exponentBits: 5, hasInfinity: true))];

    /// <summary>Decodes elements of the file into the bytes of the natural torch type.</summary>
    /// <returns>False when a value does not fit (an unsigned 64-bit integer above the signed range).</returns>
    public static bool TryDecode(SafetensorsDType dtype, ReadOnlySpan<byte> source, Span<byte> destination)
    {
        switch (dtype)
        {
            case SafetensorsDType.F8E4M3:
                Map(source, MemoryMarshal.Cast<byte, float>(destination), s_e4m3);
                return true;
            case SafetensorsDType.F8E5M2:
                Map(source, MemoryMarshal.Cast<byte, float>(destination), s_e5m2);
                return true;
            case SafetensorsDType.U16:
                Span<int> ints = MemoryMarshal.Cast<byte, int>(destination);
                for (int i = 0; i < ints.Length; i++)
                {
                    ints[i] = BinaryPrimitives.ReadUInt16LittleEndian(source[(i * 2)..]);
                }

                return true;
            case SafetensorsDType.U32:
                Span<long> longs = MemoryMarshal.Cast<byte, long>(destination);
                for (int i = 0; i < longs.Length; i++)
                {
                    longs[i] = BinaryPrimitives.ReadUInt32LittleEndian(source[(i * 4)..]);
                }

                return true;
            case SafetensorsDType.U64:
                source.CopyTo(destination);
                return !MemoryMarshal.Cast<byte, long>(destination).ContainsAnyInRange(long.MinValue, -1);
            default:
                throw new ArgumentOutOfRangeException(nameof(dtype), dtype, "The bytes of this type need no decoding.");
        }
    }

    private static void Map(ReadOnlySpan<byte> source, Span<float> destination, float[] table)
    {
        for (int i = 0; i < source.Length; i++)
        {
            destination[i] = table[source[i]];
        }
    }

    /// <summary>
    /// The value of an 8-bit float (Micikevicius et al., FP8 Formats for Deep Learning, arXiv 2209.05433). E5M2 follows IEEE;
    /// E4M3 has no infinities, and NaN only where every bit but the sign is set.
    /// </summary>
    private static float Float8(byte bits, int exponentBits, bool hasInfinity)
    {
        int mantissaBits = 7 - exponentBits;
        int bias = (1 << (exponentBits - 1)) - 1;
        int exponent = (bits & 0x7f) >> mantissaBits;
        int mantissa = bits & ((1 << mantissaBits) - 1);
        float sign = (bits & 0x80) == 0 ? 1f : -1f;
        if (hasInfinity && exponent == (1 << exponentBits) - 1)
        {
            return mantissa == 0 ? sign * float.PositiveInfinity : float.NaN;
        }

        if (!hasInfinity && (bits & 0x7f) == 0x7f)
        {
            return float.NaN;
        }

        return exponent == 0
            ? sign * MathF.ScaleB(mantissa, 1 - bias - mantissaBits)
            : sign * MathF.ScaleB((1 << mantissaBits) + mantissa, exponent - bias - mantissaBits);
    }
}
