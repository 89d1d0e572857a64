using System.Buffers.Binary;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;

namespace LoKr.Core.Gguf;

/// <summary>
/// Types whose blocks of 32 values have one scale, and some a minimum: Q8_0, Q4_0, Q4_1, Q5_0, Q5_1. Values are quantized with the scale in
/// single precision, while the block stores it in half precision. Low bits of the values i and i + 16 share a byte.
/// </summary>
internal static class PlainBlocks
{
    private const int Count = 32;
    private const int Half = Count / 2;

    /// <summary>Q8_0 → values.</summary>
    public static void FromQ8(ReadOnlySpan<byte> source, Span<float> destination)
    {
        const int bytes = 34;
        for (int block = 0; block < source.Length / bytes; block++)
        {
            ReadOnlySpan<byte> from = source.Slice(block * bytes, bytes);
            Span<float> to = destination.Slice(block * Count, Count);
            Vector256<float> scale = Vector256.Create(FloatBlocks.ReadHalf(from, 0));
            Vector256<sbyte> numbers = Vector256.Create(MemoryMarshal.Cast<byte, sbyte>(from[2..]));
            (Vector256<short> low, Vector256<short> high) = Vector256.Widen(numbers);
            Store(low, scale, to);
            Store(high, scale, to[Half..]);
        }
    }

    /// <summary>Values → Q8_0.</summary>
    public static void ToQ8(ReadOnlySpan<float> source, Span<byte> destination)
    {
        const int bytes = 34;
        for (int block = 0; block < destination.Length / bytes; block++)
        {
            ReadOnlySpan<float> from = source.Slice(block * Count, Count);
            Span<byte> to = destination.Slice(block * bytes, bytes);
            Vector256<float> a = Vector256.Create(from);
            Vector256<float> b = Vector256.Create(from[8..]);
            Vector256<float> c = Vector256.Create(from[16..]);
            Vector256<float> d = Vector256.Create(from[24..]);
            Vector256<float> largest = Vector256.Max(Vector256.Max(Vector256.Abs(a), Vector256.Abs(b)), Vector256.Max(Vector256.Abs(c), Vector256.Abs(d)));
            Vector128<float> halves = Vector128.Max(largest.GetLower(), largest.GetUpper());
            float scale = MathF.Max(MathF.Max(halves[0], halves[1]), MathF.Max(halves[2], halves[3])) / 127;
            Vector256<float> inverse = Vector256.Create(scale != 0 ? 1 / scale : 0);
            FloatBlocks.WriteHalf(to, 0, scale);
            Vector256<short> low = Vector256.Narrow(Round(a * inverse), Round(b * inverse));
            Vector256<short> high = Vector256.Narrow(Round(c * inverse), Round(d * inverse));
            Vector256.Narrow(low, high).AsByte().CopyTo(to[2..]);
        }
    }

    /// <summary>Q4_0 → values.</summary>
    public static void FromQ4(ReadOnlySpan<byte> source, Span<float> destination)
    {
        const int bytes = 18;
        for (int block = 0; block < source.Length / bytes; block++)
        {
            ReadOnlySpan<byte> from = source.Slice(block * bytes, bytes);
            Span<float> to = destination.Slice(block * Count, Count);
            float scale = FloatBlocks.ReadHalf(from, 0);
            for (int i = 0; i < Half; i++)
            {
                to[i] = ((from[2 + i] & 15) - 8) * scale;
                to[i + Half] = ((from[2 + i] >> 4) - 8) * scale;
            }
        }
    }

    /// <summary>Values → Q4_0.</summary>
    public static void ToQ4(ReadOnlySpan<float> source, Span<byte> destination)
    {
        const int bytes = 18;
        for (int block = 0; block < destination.Length / bytes; block++)
        {
            ReadOnlySpan<float> from = source.Slice(block * Count, Count);
            Span<byte> to = destination.Slice(block * bytes, bytes);
            float scale = Extreme(from) / -8;
            float inverse = scale != 0 ? 1 / scale : 0;
            FloatBlocks.WriteHalf(to, 0, scale);
            for (int i = 0; i < Half; i++)
            {
                int low = Math.Min(15, Truncate((from[i] * inverse) + 8.5f));
                int high = Math.Min(15, Truncate((from[i + Half] * inverse) + 8.5f));
                to[2 + i] = (byte)((byte)low | ((byte)high << 4));
            }
        }
    }

    /// <summary>Q4_1 → values.</summary>
    public static void FromQ4WithMinimum(ReadOnlySpan<byte> source, Span<float> destination)
    {
        const int bytes = 20;
        for (int block = 0; block < source.Length / bytes; block++)
        {
            ReadOnlySpan<byte> from = source.Slice(block * bytes, bytes);
            Span<float> to = destination.Slice(block * Count, Count);
            (float scale, float minimum) = (FloatBlocks.ReadHalf(from, 0), FloatBlocks.ReadHalf(from, 2));
            for (int i = 0; i < Half; i++)
            {
                to[i] = ((from[4 + i] & 15) * scale) + minimum;
                to[i + Half] = ((from[4 + i] >> 4) * scale) + minimum;
            }
        }
    }

    /// <summary>Values → Q4_1.</summary>
    public static void ToQ4WithMinimum(ReadOnlySpan<float> source, Span<byte> destination)
    {
        const int bytes = 20;
        for (int block = 0; block < destination.Length / bytes; block++)
        {
            ReadOnlySpan<float> from = source.Slice(block * Count, Count);
            Span<byte> to = destination.Slice(block * bytes, bytes);
            (float minimum, float maximum) = Range(from);
            float scale = (maximum - minimum) / 15;
            float inverse = scale != 0 ? 1 / scale : 0;
            FloatBlocks.WriteHalf(to, 0, scale);
            FloatBlocks.WriteHalf(to, 2, minimum);
            for (int i = 0; i < Half; i++)
            {
                int low = Math.Min(15, Truncate(((from[i] - minimum) * inverse) + 0.5f));
                int high = Math.Min(15, Truncate(((from[i + Half] - minimum) * inverse) + 0.5f));
                to[4 + i] = (byte)((byte)low | ((byte)high << 4));
            }
        }
    }

    /// <summary>Q5_0 → values.</summary>
    public static void FromQ5(ReadOnlySpan<byte> source, Span<float> destination)
    {
        const int bytes = 22;
        for (int block = 0; block < source.Length / bytes; block++)
        {
            ReadOnlySpan<byte> from = source.Slice(block * bytes, bytes);
            Span<float> to = destination.Slice(block * Count, Count);
            float scale = FloatBlocks.ReadHalf(from, 0);
            uint fifth = BinaryPrimitives.ReadUInt32LittleEndian(from[2..]);
            for (int i = 0; i < Half; i++)
            {
                to[i] = (Low(from[6 + i], fifth, i) - 16) * scale;
                to[i + Half] = (High(from[6 + i], fifth, i) - 16) * scale;
            }
        }
    }

    /// <summary>Values → Q5_0.</summary>
    public static void ToQ5(ReadOnlySpan<float> source, Span<byte> destination)
    {
        const int bytes = 22;
        for (int block = 0; block < destination.Length / bytes; block++)
        {
            ReadOnlySpan<float> from = source.Slice(block * Count, Count);
            Span<byte> to = destination.Slice(block * bytes, bytes);
            float scale = Extreme(from) / -16;
            float inverse = scale != 0 ? 1 / scale : 0;
            FloatBlocks.WriteHalf(to, 0, scale);
            uint fifth = 0;
            for (int i = 0; i < Half; i++)
            {
                int low = Math.Min(31, Truncate((from[i] * inverse) + 16.5f));
                int high = Math.Min(31, Truncate((from[i + Half] * inverse) + 16.5f));
                to[6 + i] = Pack(low, high, i, ref fifth);
            }

            BinaryPrimitives.WriteUInt32LittleEndian(to[2..], fifth);
        }
    }

    /// <summary>Q5_1 → values.</summary>
    public static void FromQ5WithMinimum(ReadOnlySpan<byte> source, Span<float> destination)
    {
        const int bytes = 24;
        for (int block = 0; block < source.Length / bytes; block++)
        {
            ReadOnlySpan<byte> from = source.Slice(block * bytes, bytes);
            Span<float> to = destination.Slice(block * Count, Count);
            (float scale, float minimum) = (FloatBlocks.ReadHalf(from, 0), FloatBlocks.ReadHalf(from, 2));
            uint fifth = BinaryPrimitives.ReadUInt32LittleEndian(from[4..]);
            for (int i = 0; i < Half; i++)
            {
                to[i] = (Low(from[8 + i], fifth, i) * scale) + minimum;
                to[i + Half] = (High(from[8 + i], fifth, i) * scale) + minimum;
            }
        }
    }

    /// <summary>Values → Q5_1.</summary>
    public static void ToQ5WithMinimum(ReadOnlySpan<float> source, Span<byte> destination)
    {
        const int bytes = 24;
        for (int block = 0; block < destination.Length / bytes; block++)
        {
            ReadOnlySpan<float> from = source.Slice(block * Count, Count);
            Span<byte> to = destination.Slice(block * bytes, bytes);
            (float minimum, float maximum) = Range(from);
            float scale = (maximum - minimum) / 31;
            float inverse = scale != 0 ? 1 / scale : 0;
            FloatBlocks.WriteHalf(to, 0, scale);
            FloatBlocks.WriteHalf(to, 2, minimum);
            uint fifth = 0;
            for (int i = 0; i < Half; i++)
            {
                int low = (byte)Truncate(((from[i] - minimum) * inverse) + 0.5f);
                int high = (byte)Truncate(((from[i + Half] - minimum) * inverse) + 0.5f);
                to[8 + i] = Pack(low, high, i, ref fifth);
            }

            BinaryPrimitives.WriteUInt32LittleEndian(to[4..], fifth);
        }
    }

    /// <summary>The value with the largest magnitude, the first of several, with its sign.</summary>
    private static float Extreme(ReadOnlySpan<float> values)
    {
        (float extreme, float largest) = (0, 0);
        foreach (float value in values)
        {
            float magnitude = MathF.Abs(value);
            if (magnitude > largest)
            {
                (extreme, largest) = (value, magnitude);
            }
        }

        return extreme;
    }

    private static (float Minimum, float Maximum) Range(ReadOnlySpan<float> values)
    {
        (float minimum, float maximum) = (float.MaxValue, -float.MaxValue);
        foreach (float value in values)
        {
            minimum = value < minimum ? value : minimum;
            maximum = value > maximum ? value : maximum;
        }

        return (minimum, maximum);
    }

    // To an 8-bit integer with a sign; what no integer of 32 bits holds becomes zero, as on the processors that the reference runs on.
    private static int Truncate(float value) => MathF.Abs(value) < 1e9f ? (sbyte)(int)value : 0;

    private static int Low(byte packed, uint fifth, int i) => (packed & 15) | (int)((fifth >> i << 4) & 16);

    private static int High(byte packed, uint fifth, int i) => (packed >> 4) | (int)((fifth >> (i + 12)) & 16);

    private static byte Pack(int low, int high, int i, ref uint fifth)
    {
        fifth |= (uint)((low & 16) >> 4) << i;
        fifth |= (uint)((high & 16) >> 4) << (i + Half);
        return (byte)((low & 15) | ((high & 15) << 4));
    }

    private static void Store(Vector256<short> numbers, Vector256<float> scale, Span<float> destination)
    {
        (Vector256<int> low, Vector256<int> high) = Vector256.Widen(numbers);
        (Vector256.ConvertToSingle(low) * scale).CopyTo(destination);
        (Vector256.ConvertToSingle(high) * scale).CopyTo(destination[8..]);
    }

    /// <summary>
    /// To the nearest integer, halves away from zero. The difference to the truncated value is exact. Infinity, where the inverse of a tiny
    /// scale overflows, becomes zero as on the processors that the reference runs on.
    /// </summary>
    private static Vector256<int> Round(Vector256<float> values)
    {
        values &= Vector256.LessThan(Vector256.Abs(values), Vector256.Create(1e9f));
        Vector256<float> whole = Vector256.Truncate(values);
        Vector256<float> rest = values - whole;
        Vector256<float> one = Vector256.CopySign(Vector256<float>.One, values);
        Vector256<float> isHalf = Vector256.GreaterThanOrEqual(Vector256.Abs(rest), Vector256.Create(0.5f));
        return Vector256.ConvertToInt32(whole + (one & isHalf));
    }
}
