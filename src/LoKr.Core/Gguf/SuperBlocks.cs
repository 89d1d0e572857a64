using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;

namespace LoKr.Core.Gguf;

/// <summary>
/// K types → values. A block of 256 has sub-blocks of 16 or 32 with scales (and minimums) of a few bits, which count in units of a scale in
/// half precision.
/// </summary>
internal static class SuperBlocks
{
    /// <summary>Values in a block.</summary>
    public const int Count = 256;

    /// <summary>Bytes of the scales and minimums of Q4_K and Q5_K.</summary>
    public const int ScaleBytes = 12;

    /// <summary>Q2_K → values.</summary>
    public static void FromQ2(ReadOnlySpan<byte> source, Span<float> destination)
    {
        const int bytes = 84;
        for (int block = 0; block < source.Length / bytes; block++)
        {
            ReadOnlySpan<byte> from = source.Slice(block * bytes, bytes);
            Span<float> to = destination.Slice(block * Count, Count);
            (float scale, float minimum) = (FloatBlocks.ReadHalf(from, 80), FloatBlocks.ReadHalf(from, 82));
            for (int i = 0; i < Count; i++)
            {
                byte packed = from[i / 16];
                int number = (from[16 + (i / 128 * 32) + (i % 32)] >> (i % 128 / 32 * 2)) & 3;
                to[i] = (scale * (packed & 15) * number) - (minimum * (packed >> 4));
            }
        }
    }

    /// <summary>Q3_K → values.</summary>
    public static void FromQ3(ReadOnlySpan<byte> source, Span<float> destination)
    {
        const int bytes = 110;
        for (int block = 0; block < source.Length / bytes; block++)
        {
            ReadOnlySpan<byte> from = source.Slice(block * bytes, bytes);
            Span<float> to = destination.Slice(block * Count, Count);
            ReadOnlySpan<byte> packed = from.Slice(96, ScaleBytes);
            float scale = FloatBlocks.ReadHalf(from, 108);
            for (int i = 0; i < Count; i++)
            {
                int sub = i / 16;
                int low = sub < 8 ? packed[sub] & 15 : packed[sub - 8] >> 4;
                int factor = (low | (((packed[8 + (sub % 4)] >> (sub / 4 * 2)) & 3) << 4)) - 32;
                int number = (from[32 + (i / 128 * 32) + (i % 32)] >> (i % 128 / 32 * 2)) & 3;
                bool isUpper = ((from[i % 32] >> (i / 32)) & 1) != 0;
                to[i] = scale * factor * (isUpper ? number : number - 4);
            }
        }
    }

    /// <summary>Q4_K → values.</summary>
    public static void FromQ4(ReadOnlySpan<byte> source, Span<float> destination)
    {
        const int bytes = 144;
        for (int block = 0; block < source.Length / bytes; block++)
        {
            ReadOnlySpan<byte> from = source.Slice(block * bytes, bytes);
            FromQ4Or5(from, [], from[(4 + ScaleBytes)..], destination.Slice(block * Count, Count));
        }
    }

    /// <summary>Q5_K → values.</summary>
    public static void FromQ5(ReadOnlySpan<byte> source, Span<float> destination)
    {
        const int bytes = 176;
        for (int block = 0; block < source.Length / bytes; block++)
        {
            ReadOnlySpan<byte> from = source.Slice(block * bytes, bytes);
            FromQ4Or5(from, from.Slice(4 + ScaleBytes, 32), from[(4 + ScaleBytes + 32)..], destination.Slice(block * Count, Count));
        }
    }

    /// <summary>Q6_K → values.</summary>
    public static void FromQ6(ReadOnlySpan<byte> source, Span<float> destination)
    {
        const int bytes = 210;
        for (int block = 0; block < source.Length / bytes; block++)
        {
            ReadOnlySpan<byte> from = source.Slice(block * bytes, bytes);
            ReadOnlySpan<sbyte> scales = MemoryMarshal.Cast<byte, sbyte>(from.Slice(192, 16));
            float scale = FloatBlocks.ReadHalf(from, 208);
            for (int part = 0; part < 2; part++)
            {
                ReadOnlySpan<byte> low = from.Slice(part * 64, 64);
                ReadOnlySpan<byte> high = from.Slice(128 + (part * 32), 32);
                Span<float> to = destination.Slice((block * Count) + (part * 128), 128);
                for (int quarter = 0; quarter < 4; quarter++)
                {
                    ReadOnlySpan<byte> nibbles = low.Slice(quarter % 2 * 32, 32);
                    int shift = quarter / 2 * 4;
                    Span<float> values = to.Slice(quarter * 32, 32);
                    Vector256<byte> four = (Vector256.Create(nibbles) >>> shift) & Vector256.Create((byte)15);
                    Vector256<byte> two = (Vector256.Create(high) >>> (quarter * 2)) & Vector256.Create((byte)3);
                    (Vector256<short> first, Vector256<short> second) = Vector256.Widen((four | (two << 4)).AsSByte() - Vector256.Create((sbyte)32));
                    Store(first, scale * scales[(part * 8) + (quarter * 2)], values);
                    Store(second, scale * scales[(part * 8) + (quarter * 2) + 1], values[16..]);
                }
            }
        }
    }

    /// <summary>The scale and the minimum of one of the eight sub-blocks of Q4_K and Q5_K.</summary>
    public static (int Scale, int Minimum) ReadScale(ReadOnlySpan<byte> packed, int sub) => sub < 4
        ? (packed[sub] & 63, packed[sub + 4] & 63)
        : ((packed[sub + 4] & 15) | (packed[sub - 4] >> 6 << 4), (packed[sub + 4] >> 4) | (packed[sub] >> 6 << 4));

    /// <summary>Stores the scale and the minimum of a sub-block; sub-blocks in ascending order, into zeros.</summary>
    public static void WriteScale(Span<byte> packed, int sub, int scale, int minimum)
    {
        if (sub < 4)
        {
            packed[sub] = (byte)scale;
            packed[sub + 4] = (byte)minimum;
            return;
        }

        packed[sub + 4] = (byte)((scale & 15) | ((minimum & 15) << 4));
        packed[sub - 4] |= (byte)(scale >> 4 << 6);
        packed[sub] |= (byte)(minimum >> 4 << 6);
    }

    private static void FromQ4Or5(ReadOnlySpan<byte> block, ReadOnlySpan<byte> fifth, ReadOnlySpan<byte> nibbles, Span<float> values)
    {
        (float scale, float minimum) = (FloatBlocks.ReadHalf(block, 0), FloatBlocks.ReadHalf(block, 2));
        for (int sub = 0; sub < 8; sub++)
        {
            (int factor, int least) = ReadScale(block[4..], sub);
            (float step, float floor) = (scale * factor, minimum * least);
            ReadOnlySpan<byte> packed = nibbles.Slice(sub / 2 * 32, 32);
            Vector256<byte> numbers = (Vector256.Create(packed) >>> (sub % 2 * 4)) & Vector256.Create((byte)15);
            if (!fifth.IsEmpty)
            {
                numbers |= ((Vector256.Create(fifth) >>> sub) & Vector256<byte>.One) << 4;
            }

            Span<float> to = values.Slice(sub * 32, 32);
            (Vector256<ushort> low, Vector256<ushort> high) = Vector256.Widen(numbers);
            Store(low, step, floor, to);
            Store(high, step, floor, to[16..]);
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Store(Vector256<short> numbers, float step, Span<float> values)
    {
        (Vector256<int> low, Vector256<int> high) = Vector256.Widen(numbers);
        (Vector256.ConvertToSingle(low) * step).CopyTo(values);
        (Vector256.ConvertToSingle(high) * step).CopyTo(values[8..]);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Store(Vector256<ushort> numbers, float step, float floor, Span<float> values)
    {
        (Vector256<uint> low, Vector256<uint> high) = Vector256.Widen(numbers);
        ((Vector256.ConvertToSingle(low.AsInt32()) * step) - Vector256.Create(floor)).CopyTo(values);
        ((Vector256.ConvertToSingle(high.AsInt32()) * step) - Vector256.Create(floor)).CopyTo(values[8..]);
    }
}
