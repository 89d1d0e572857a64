using System.Buffers.Binary;

namespace LoKr.Core.Gguf;

/// <summary>Types whose numbers are codes of uneven steps, small floats or three values, to values.</summary>
internal static class CodeBlocks
{
    /// <summary>The steps of IQ4_NL and IQ4_XS.</summary>
    public static ReadOnlySpan<sbyte> Steps => [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

    // Twice the values of a float of 4 bits with 2 bits of exponent and 1 of mantissa.
    private static ReadOnlySpan<sbyte> Floats => [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

    private static ReadOnlySpan<byte> PowersOfThree => [1, 3, 9, 27, 81];

    /// <summary>IQ4_NL → values.</summary>
    public static void FromIQ4(ReadOnlySpan<byte> source, Span<float> destination)
    {
        const int bytes = 18;
        for (int block = 0; block < source.Length / bytes; block++)
        {
            ReadOnlySpan<byte> from = source.Slice(block * bytes, bytes);
            Decode(from[2..], FloatBlocks.ReadHalf(from, 0), Steps, destination.Slice(block * 32, 32));
        }
    }

    /// <summary>IQ4_XS → values.</summary>
    public static void FromIQ4Super(ReadOnlySpan<byte> source, Span<float> destination)
    {
        const int bytes = 136;
        for (int block = 0; block < source.Length / bytes; block++)
        {
            ReadOnlySpan<byte> from = source.Slice(block * bytes, bytes);
            float scale = FloatBlocks.ReadHalf(from, 0);
            int high = BinaryPrimitives.ReadUInt16LittleEndian(from[2..]);
            for (int sub = 0; sub < 8; sub++)
            {
                int factor = ((from[4 + (sub / 2)] >> (sub % 2 * 4)) & 15) | (((high >> (sub * 2)) & 3) << 4);
                Decode(from.Slice(8 + (sub * 16), 16), scale * (factor - 32), Steps, destination.Slice((block * 256) + (sub * 32), 32));
            }
        }
    }

    /// <summary>MXFP4 → values. The scale is a power of two, half of which undoes the doubled steps.</summary>
    public static void FromMxFp4(ReadOnlySpan<byte> source, Span<float> destination)
    {
        const int bytes = 17;
        for (int block = 0; block < source.Length / bytes; block++)
        {
            ReadOnlySpan<byte> from = source.Slice(block * bytes, bytes);
            uint exponent = from[0];
            float scale = BitConverter.UInt32BitsToSingle(exponent < 2 ? 0x00200000u << (int)exponent : (exponent - 1) << 23);
            Decode(from[1..], scale, Floats, destination.Slice(block * 32, 32));
        }
    }

    /// <summary>NVFP4 → values: four sub-blocks of 16 with a scale of 8 bits each.</summary>
    public static void FromNvFp4(ReadOnlySpan<byte> source, Span<float> destination)
    {
        const int bytes = 36;
        for (int block = 0; block < source.Length / bytes; block++)
        {
            ReadOnlySpan<byte> from = source.Slice(block * bytes, bytes);
            for (int sub = 0; sub < 4; sub++)
            {
                Decode(from.Slice(4 + (sub * 8), 8), HalfOfUnsignedFloat8(from[sub]), Floats, destination.Slice((block * 64) + (sub * 16), 16));
            }
        }
    }

    /// <summary>TQ1_0 → values: five numbers in a byte, as digits of base three.</summary>
    public static void FromTernary5(ReadOnlySpan<byte> source, Span<float> destination)
    {
        const int bytes = 54;
        for (int block = 0; block < source.Length / bytes; block++)
        {
            ReadOnlySpan<byte> from = source.Slice(block * bytes, bytes);
            Span<float> to = destination.Slice(block * 256, 256);
            float scale = FloatBlocks.ReadHalf(from, 52);
            Digits(from[..32], 5, scale, to[..160]);
            Digits(from.Slice(32, 16), 5, scale, to.Slice(160, 80));
            Digits(from.Slice(48, 4), 4, scale, to[240..]);
        }

        static void Digits(ReadOnlySpan<byte> packed, int count, float scale, Span<float> values)
        {
            for (int digit = 0; digit < count; digit++)
            {
                for (int i = 0; i < packed.Length; i++)
                {
                    int number = ((byte)(packed[i] * PowersOfThree[digit]) * 3) >> 8;
                    values[(digit * packed.Length) + i] = (number - 1) * scale;
                }
            }
        }
    }

    /// <summary>TQ2_0 → values: four numbers in a byte.</summary>
    public static void FromTernary4(ReadOnlySpan<byte> source, Span<float> destination)
    {
        const int bytes = 66;
        for (int block = 0; block < source.Length / bytes; block++)
        {
            ReadOnlySpan<byte> from = source.Slice(block * bytes, bytes);
            float scale = FloatBlocks.ReadHalf(from, 64);
            for (int i = 0; i < 256; i++)
            {
                int number = (from[(i / 128 * 32) + (i % 32)] >> (i % 128 / 32 * 2)) & 3;
                destination[(block * 256) + i] = (number - 1) * scale;
            }
        }
    }

    // Low nibbles are the first half of the values.
    private static void Decode(ReadOnlySpan<byte> packed, float scale, ReadOnlySpan<sbyte> steps, Span<float> values)
    {
        for (int i = 0; i < packed.Length; i++)
        {
            values[i] = scale * steps[packed[i] & 15];
            values[i + packed.Length] = scale * steps[packed[i] >> 4];
        }
    }

    // 4 bits of exponent and 3 of mantissa without a sign; 127 is not a number and counts as zero.
    private static float HalfOfUnsignedFloat8(byte bits)
    {
        int exponent = (bits >> 3) & 15;
        int mantissa = bits & 7;
        float value = (bits & 127) == 127 ? 0 : exponent == 0 ? MathF.ScaleB(mantissa, -9) : MathF.ScaleB(8 + mantissa, exponent - 10);
        return value / 2;
    }
}
