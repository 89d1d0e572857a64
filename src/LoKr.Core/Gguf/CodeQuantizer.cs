using System.Buffers.Binary;

namespace LoKr.Core.Gguf;

/// <summary>
/// Values → IQ4_NL and IQ4_XS, byte for byte as llama.cpp without an importance matrix: of fifteen scales around the one that puts the
/// extreme value on the first step, and of the least-squares one for each, the scale with the smallest error weighted by squares.
/// </summary>
internal static class CodeQuantizer
{
    private const int Count = 32;
    private const int Tries = 7;

    // Blocks with smaller values count as zeros.
    private const float Least = 1e-15f;

    /// <summary>Values → IQ4_NL.</summary>
    public static void ToIQ4(ReadOnlySpan<float> source, Span<byte> destination)
    {
        const int bytes = 18;
        for (int block = 0; block < destination.Length / bytes; block++)
        {
            ReadOnlySpan<float> from = source.Slice(block * Count, Count);
            Span<byte> to = destination.Slice(block * bytes, bytes);
            float scale = Scale(from);
            FloatBlocks.WriteHalf(to, 0, scale);
            Encode(from, scale != 0 ? 1 / scale : 0, to[2..]);
        }
    }

    /// <summary>Values → IQ4_XS.</summary>
    public static void ToIQ4Super(ReadOnlySpan<float> source, Span<byte> destination)
    {
        const int bytes = 136;
        const int subs = SuperBlocks.Count / Count;
        Span<float> scales = stackalloc float[subs];
        for (int block = 0; block < destination.Length / bytes; block++)
        {
            ReadOnlySpan<float> from = source.Slice(block * SuperBlocks.Count, SuperBlocks.Count);
            Span<byte> to = destination.Slice(block * bytes, bytes);
            to.Clear();
            float extreme = 0;
            for (int sub = 0; sub < subs; sub++)
            {
                scales[sub] = Scale(from.Slice(sub * Count, Count));
                extreme = MathF.Abs(scales[sub]) > MathF.Abs(extreme) ? scales[sub] : extreme;
            }

            float unit = -extreme / 32;
            FloatBlocks.WriteHalf(to, 0, unit);
            float inverse = unit != 0 ? 1 / unit : 0;
            int high = 0;
            for (int sub = 0; sub < subs; sub++)
            {
                int factor = Math.Clamp(SuperBlockQuantizer.Nearest(inverse * scales[sub]), -32, 31);
                float step = unit * factor;
                Encode(from.Slice(sub * Count, Count), step != 0 ? 1 / step : 0, to.Slice(8 + (sub * 16), 16));
                to[4 + (sub / 2)] |= (byte)(((factor + 32) & 15) << (sub % 2 * 4));
                high |= ((factor + 32) >> 4) << (sub * 2);
            }

            BinaryPrimitives.WriteUInt16LittleEndian(to[2..], (ushort)high);
        }
    }

    private static float Scale(ReadOnlySpan<float> values)
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

        if (largest < Least)
        {
            return 0;
        }

        float first = CodeBlocks.Steps[0];
        (float products, float squares) = Sums(values, 1 / (-extreme / first));
        float scale = products / squares;
        float best = scale * products;
        for (int i = -Tries; i <= Tries; i++)
        {
            (products, squares) = Sums(values, (i + first) / extreme);
            if (squares > 0 && products * products > best * squares)
            {
                scale = products / squares;
                best = scale * products;
            }
        }

        return scale;
    }

    private static (float Products, float Squares) Sums(ReadOnlySpan<float> values, float inverse)
    {
        (float products, float squares) = (0, 0);
        foreach (float value in values)
        {
            float step = CodeBlocks.Steps[Code(inverse * value)];
            float weighted = value * value * step;
            products += weighted * value;
            squares += weighted * step;
        }

        return (products, squares);
    }

    private static void Encode(ReadOnlySpan<float> values, float inverse, Span<byte> packed)
    {
        for (int i = 0; i < packed.Length; i++)
        {
            packed[i] = (byte)(Code(inverse * values[i]) | (Code(inverse * values[i + packed.Length]) << 4));
        }
    }

    /// <summary>The code of the nearest step; of two, the upper one.</summary>
    private static int Code(float value)
    {
        ReadOnlySpan<sbyte> steps = CodeBlocks.Steps;
        if (value <= steps[0])
        {
            return 0;
        }

        if (value >= steps[^1])
        {
            return steps.Length - 1;
        }

        (int lower, int upper) = (0, steps.Length - 1);
        while (upper - lower > 1)
        {
            int middle = (lower + upper) / 2;
            (lower, upper) = value < steps[middle] ? (lower, middle) : (middle, upper);
        }

        return value - steps[lower] < steps[upper] - value ? lower : upper;
    }
}
