using System.Runtime.InteropServices;

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
                    for (int i = 0; i < 32; i++)
                    {
                        int number = (((nibbles[i] >> shift) & 15) | (((high[i] >> (quarter * 2)) & 3) << 4)) - 32;
                        values[i] = scale * scales[(part * 8) + (quarter * 2) + (i / 16)] * number;
                    }
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
            Span<float> to = values.Slice(sub * 32, 32);
            int shift = sub % 2 * 4;
            for (int i = 0; i < 32; i++)
            {
                int number = (packed[i] >> shift) & 15;
                if (!fifth.IsEmpty)
                {
                    number |= ((fifth[i] >> sub) & 1) << 4;
                }

                to[i] = (step * number) - floor;
            }
        }
    }
}
