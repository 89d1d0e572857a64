using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;

namespace LoKr.Core.Gguf;

/// <summary>
/// Values → Q4_K, Q5_K and Q6_K, byte for byte as llama.cpp without an importance matrix. For every sub-block it searches the scale (and
/// minimum) with the smallest weighted error among some. The sums of one sub-block have a fixed order, so sub-blocks are the lanes of the
/// vectors here: eight at a time, each with the arithmetic of the reference.
/// </summary>
internal static class SuperBlockQuantizer
{
    private const int Lanes = 8;

    // Sub-blocks with smaller values count as zeros.
    private const float Least = 1e-15f;

    /// <summary>Values → Q4_K.</summary>
    public static void ToQ4(ReadOnlySpan<float> source, Span<byte> destination)
    {
        const int bytes = 144;
        for (int block = 0; block < destination.Length / bytes; block++)
        {
            Span<byte> to = destination.Slice(block * bytes, bytes);
            ToQ4Or5(source.Slice(block * SuperBlocks.Count, SuperBlocks.Count), to, [], to[(4 + SuperBlocks.ScaleBytes)..], new(15, -1, 20));
        }
    }

    /// <summary>Values → Q5_K.</summary>
    public static void ToQ5(ReadOnlySpan<float> source, Span<byte> destination)
    {
        const int bytes = 176;
        for (int block = 0; block < destination.Length / bytes; block++)
        {
            Span<byte> to = destination.Slice(block * bytes, bytes);
            Span<byte> fifth = to.Slice(4 + SuperBlocks.ScaleBytes, 32);
            ToQ4Or5(source.Slice(block * SuperBlocks.Count, SuperBlocks.Count), to, fifth, to[(4 + SuperBlocks.ScaleBytes + 32)..], new(31, -0.5f, 15));
        }
    }

    /// <summary>Values → Q6_K.</summary>
    public static void ToQ6(ReadOnlySpan<float> source, Span<byte> destination)
    {
        const int bytes = 210;
        for (int block = 0; block < destination.Length / bytes; block++)
        {
            QuantizeQ6(source.Slice(block * SuperBlocks.Count, SuperBlocks.Count), destination.Slice(block * bytes, bytes));
        }
    }

    private static void ToQ4Or5(ReadOnlySpan<float> values, Span<byte> block, Span<byte> fifth, Span<byte> nibbles, ScaleSearch search)
    {
        const int size = SuperBlocks.Count / Lanes;
        Span<Vector256<float>> columns = stackalloc Vector256<float>[size];
        Span<Vector256<int>> numbers = stackalloc Vector256<int>[size];
        Transpose(values, columns);
        (Vector256<float> scales, Vector256<float> minimums) = search.Find(columns, numbers);
        (float largestScale, float largestMinimum) = (0, 0);
        for (int sub = 0; sub < Lanes; sub++)
        {
            largestScale = scales[sub] > largestScale ? scales[sub] : largestScale;
            largestMinimum = minimums[sub] > largestMinimum ? minimums[sub] : largestMinimum;
        }

        block.Clear();
        Span<byte> packed = block.Slice(4, SuperBlocks.ScaleBytes);
        float inverseScale = largestScale > 0 ? 63 / largestScale : 0;
        float inverseMinimum = largestMinimum > 0 ? 63 / largestMinimum : 0;
        for (int sub = 0; sub < Lanes; sub++)
        {
            SuperBlocks.WriteScale(packed, sub, Math.Min(63, (int)(byte)Nearest(inverseScale * scales[sub])), Math.Min(63, (int)(byte)Nearest(inverseMinimum * minimums[sub])));
        }

        FloatBlocks.WriteHalf(block, 0, largestScale / 63);
        FloatBlocks.WriteHalf(block, 2, largestMinimum / 63);
        Requantize(columns, numbers, block, search.Most);
        Span<int> flat = MemoryMarshal.Cast<Vector256<int>, int>(numbers);
        for (int sub = 0; sub < Lanes; sub++)
        {
            Span<byte> to = nibbles.Slice(sub / 2 * 32, 32);
            for (int i = 0; i < size; i++)
            {
                int number = flat[(i * Lanes) + sub];
                to[i] |= (byte)((number & 15) << (sub % 2 * 4));
                if (number > 15)
                {
                    fifth[i] |= (byte)(1 << sub);
                }
            }
        }
    }

    /// <summary>Quantizes with the scales as they are stored; where one is zero, the numbers of the search stay.</summary>
    private static void Requantize(ReadOnlySpan<Vector256<float>> columns, Span<Vector256<int>> numbers, ReadOnlySpan<byte> block, int most)
    {
        (float scale, float minimum) = (FloatBlocks.ReadHalf(block, 0), FloatBlocks.ReadHalf(block, 2));
        Span<float> steps = stackalloc float[Lanes];
        Span<float> floors = stackalloc float[Lanes];
        for (int sub = 0; sub < Lanes; sub++)
        {
            (int factor, int least) = SuperBlocks.ReadScale(block[4..], sub);
            (steps[sub], floors[sub]) = (scale * factor, minimum * least);
        }

        Vector256<float> step = Vector256.Create<float>(steps);
        Vector256<float> floor = Vector256.Create<float>(floors);
        Vector256<int> isZero = Vector256.Equals(step, Vector256<float>.Zero).AsInt32();
        for (int i = 0; i < columns.Length; i++)
        {
            Vector256<int> number = Clamp(Nearest((columns[i] + floor) / step), 0, most);
            numbers[i] = Vector256.ConditionalSelect(isZero, numbers[i], number);
        }
    }

    private static void QuantizeQ6(ReadOnlySpan<float> values, Span<byte> block)
    {
        const int size = 16;
        Span<Vector256<float>> columns = stackalloc Vector256<float>[2 * size];
        Span<Vector256<int>> numbers = stackalloc Vector256<int>[2 * size];
        Span<float> scales = stackalloc float[2 * Lanes];
        for (int half = 0; half < 2; half++)
        {
            Transpose(values.Slice(half * 128, 128), columns.Slice(half * size, size));
            FindSymmetric(columns.Slice(half * size, size), numbers.Slice(half * size, size)).CopyTo(scales[(half * Lanes)..]);
        }

        (float extreme, float largest) = (0, 0);
        foreach (float scale in scales)
        {
            float magnitude = MathF.Abs(scale);
            if (magnitude > largest)
            {
                (extreme, largest) = (scale, magnitude);
            }
        }

        block.Clear();
        if (largest < Least)
        {
            return;
        }

        float inverse = -128 / extreme;
        FloatBlocks.WriteHalf(block, 208, 1 / inverse);
        float unit = FloatBlocks.ReadHalf(block, 208);
        Span<float> steps = stackalloc float[2 * Lanes];
        for (int sub = 0; sub < scales.Length; sub++)
        {
            sbyte factor = (sbyte)Math.Min(127, Nearest(inverse * scales[sub]));
            block[192 + sub] = (byte)factor;
            steps[sub] = unit * factor;
        }

        for (int half = 0; half < 2; half++)
        {
            Vector256<float> step = Vector256.Create<float>(steps.Slice(half * Lanes, Lanes));
            Vector256<int> isZero = Vector256.Equals(step, Vector256<float>.Zero).AsInt32();
            for (int i = half * size; i < (half + 1) * size; i++)
            {
                Vector256<int> number = Clamp(Nearest(columns[i] / step), -32, 31) + Vector256.Create(32);
                numbers[i] = Vector256.ConditionalSelect(isZero, numbers[i], number);
            }

            Pack(MemoryMarshal.Cast<Vector256<int>, int>(numbers.Slice(half * size, size)), block.Slice(half * 64, 64), block.Slice(128 + (half * 32), 32));
        }
    }

    // 128 numbers: the sub-block is the lane.
    private static void Pack(ReadOnlySpan<int> numbers, Span<byte> low, Span<byte> high)
    {
        for (int i = 0; i < 128; i++)
        {
            int number = numbers[(i % 16 * Lanes) + (i / 16)];
            low[i % 64] |= (byte)((number & 15) << (i / 64 * 4));
            high[i % 32] |= (byte)(number >> 4 << (i / 32 * 2));
        }
    }

    /// <summary>The scales of eight sub-blocks without minimum, weighted by the squares of the values; numbers are 32 too large.</summary>
    private static Vector256<float> FindSymmetric(ReadOnlySpan<Vector256<float>> columns, Span<Vector256<int>> numbers)
    {
        const int most = 32;
        Vector256<float> extreme = Vector256<float>.Zero;
        Vector256<float> largest = Vector256<float>.Zero;
        foreach (Vector256<float> column in columns)
        {
            Vector256<float> magnitude = Vector256.Abs(column);
            Vector256<float> isLarger = Vector256.GreaterThan(magnitude, largest);
            extreme = Vector256.ConditionalSelect(isLarger, column, extreme);
            largest = Vector256.ConditionalSelect(isLarger, magnitude, largest);
        }

        Vector256<float> inverse = Vector256.Create(-(float)most) / extreme;
        (Vector256<float> products, Vector256<float> squares) = Sums(columns, inverse);
        Vector256<float> scale = Vector256.ConditionalSelect(Vector256.Equals(squares, Vector256<float>.Zero), Vector256<float>.Zero, products / squares);
        Vector256<float> best = scale * products;
        for (int step = -9; step <= 9; step++)
        {
            if (step == 0)
            {
                continue;
            }

            Vector256<float> candidate = Vector256.Create(-(most + (0.1f * step))) / extreme;
            (products, squares) = Sums(columns, candidate);
            Vector256<float> isBetter = Vector256.GreaterThan(squares, Vector256<float>.Zero) & Vector256.GreaterThan(products * products, best * squares);
            scale = Vector256.ConditionalSelect(isBetter, products / squares, scale);
            best = Vector256.ConditionalSelect(isBetter, scale * products, best);
            inverse = Vector256.ConditionalSelect(isBetter, candidate, inverse);
        }

        Vector256<float> isZero = Vector256.LessThan(largest, Vector256.Create(Least));
        for (int i = 0; i < columns.Length; i++)
        {
            Vector256<int> number = Clamp(Nearest(inverse * columns[i]), -most, most - 1) + Vector256.Create(most);
            numbers[i] = Vector256.AndNot(number, isZero.AsInt32());
        }

        return Vector256.AndNot(scale, isZero);

        static (Vector256<float> Products, Vector256<float> Squares) Sums(ReadOnlySpan<Vector256<float>> columns, Vector256<float> inverse)
        {
            (Vector256<float> products, Vector256<float> squares) = (Vector256<float>.Zero, Vector256<float>.Zero);
            foreach (Vector256<float> column in columns)
            {
                Vector256<float> number = Vector256.ConvertToSingle(Clamp(Nearest(inverse * column), -most, most - 1));
                Vector256<float> weight = column * column;
                products += weight * column * number;
                squares += weight * number * number;
            }

            return (products, squares);
        }
    }

    // Sub-block s of the values becomes lane s.
    private static void Transpose(ReadOnlySpan<float> values, Span<Vector256<float>> columns)
    {
        Span<float> flat = MemoryMarshal.Cast<Vector256<float>, float>(columns);
        for (int sub = 0; sub < Lanes; sub++)
        {
            for (int i = 0; i < columns.Length; i++)
            {
                flat[(i * Lanes) + sub] = values[(sub * columns.Length) + i];
            }
        }
    }

    // To the nearest integer, halves to even, by the bits of the sum with 1.5·2²³; right up to 2²².
    private static int Nearest(float value) => (BitConverter.SingleToInt32Bits(value + 12582912f) & 0x007fffff) - 0x00400000;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector256<int> Nearest(Vector256<float> value) =>
        ((value + Vector256.Create(12582912f)).AsInt32() & Vector256.Create(0x007fffff)) - Vector256.Create(0x00400000);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector256<int> Clamp(Vector256<int> value, int least, int most) => Vector256.Max(Vector256.Create(least), Vector256.Min(Vector256.Create(most), value));

    /// <summary>The search for the scale and minimum of eight sub-blocks.</summary>
    /// <param name="Most">Largest number, 2^bits − 1.</param>
    /// <param name="First">What the first step adds to it; each further one adds 0.1.</param>
    /// <param name="Steps">Number of the last step.</param>
    private readonly record struct ScaleSearch(int Most, float First, int Steps)
    {
        /// <summary>Finds the scales, and the minimums with the opposite sign.</summary>
        /// <param name="columns">The values; the lane is the sub-block.</param>
        /// <param name="numbers">Gets the numbers with the scales that were found.</param>
        public (Vector256<float> Scales, Vector256<float> Minimums) Find(ReadOnlySpan<Vector256<float>> columns, Span<Vector256<int>> numbers)
        {
            Span<Vector256<float>> weights = stackalloc Vector256<float>[columns.Length];
            Weigh(columns, weights);
            Vector256<float> minimum = columns[0];
            Vector256<float> maximum = columns[0];
            Vector256<float> sumWeights = weights[0];
            Vector256<float> sumValues = weights[0] * columns[0];
            for (int i = 1; i < columns.Length; i++)
            {
                minimum = Vector256.ConditionalSelect(Vector256.LessThan(columns[i], minimum), columns[i], minimum);
                maximum = Vector256.ConditionalSelect(Vector256.GreaterThan(columns[i], maximum), columns[i], maximum);
                sumWeights += weights[i];
                sumValues += weights[i] * columns[i];
            }

            minimum = Vector256.ConditionalSelect(Vector256.GreaterThan(minimum, Vector256<float>.Zero), Vector256<float>.Zero, minimum);
            Vector256<float> isFlat = Vector256.Equals(maximum, minimum);
            Vector256<float> flatMinimum = minimum;
            Vector256<float> inverse = Vector256.Create((float)Most) / (maximum - minimum);
            Vector256<float> scale = Vector256<float>.One / inverse;
            Vector256<float> bestError = Error(columns, weights, Numbers(columns, inverse, minimum, numbers), scale, minimum);
            (Vector256<float> bestInverse, Vector256<float> bestFloor) = (inverse, minimum);
            for (int step = 0; step <= Steps; step++)
            {
                inverse = Vector256.Create(First + (0.1f * step) + Most) / (maximum - minimum);
                Numbers(columns, inverse, minimum, numbers);
                (Vector256<float> sum, Vector256<float> squares, Vector256<float> products) = Sums(columns, weights, numbers);
                Vector256<float> determinant = (sumWeights * squares) - (sum * sum);
                Vector256<float> newScale = ((sumWeights * products) - (sumValues * sum)) / determinant;
                Vector256<float> newMinimum = ((squares * sumValues) - (sum * products)) / determinant;
                Vector256<float> isPositive = Vector256.GreaterThan(newMinimum, Vector256<float>.Zero);
                newScale = Vector256.ConditionalSelect(isPositive, products / squares, newScale);
                newMinimum = Vector256.AndNot(newMinimum, isPositive);
                Vector256<float> error = Error(columns, weights, numbers, newScale, newMinimum);
                Vector256<float> isBetter = Vector256.GreaterThan(determinant, Vector256<float>.Zero) & Vector256.LessThan(error, bestError);
                bestInverse = Vector256.ConditionalSelect(isBetter, inverse, bestInverse);
                bestFloor = Vector256.ConditionalSelect(isBetter, minimum, bestFloor);
                bestError = Vector256.ConditionalSelect(isBetter, error, bestError);
                scale = Vector256.ConditionalSelect(isBetter, newScale, scale);
                minimum = Vector256.ConditionalSelect(isBetter, newMinimum, minimum);
            }

            Numbers(columns, bestInverse, bestFloor, numbers);
            for (int i = 0; i < numbers.Length; i++)
            {
                numbers[i] = Vector256.AndNot(numbers[i], isFlat.AsInt32());
            }

            return (Vector256.AndNot(scale, isFlat), -Vector256.ConditionalSelect(isFlat, flatMinimum, minimum));
        }

        // A value counts by its magnitude and by the root of the mean square of its sub-block.
        private static void Weigh(ReadOnlySpan<Vector256<float>> columns, Span<Vector256<float>> weights)
        {
            Vector256<float> squares = Vector256<float>.Zero;
            foreach (Vector256<float> column in columns)
            {
                squares += column * column;
            }

            Vector256<float> root = Vector256.Sqrt(squares / Vector256.Create((float)columns.Length));
            for (int i = 0; i < columns.Length; i++)
            {
                weights[i] = root + Vector256.Abs(columns[i]);
            }
        }

        private ReadOnlySpan<Vector256<int>> Numbers(ReadOnlySpan<Vector256<float>> columns, Vector256<float> inverse, Vector256<float> minimum, Span<Vector256<int>> numbers)
        {
            for (int i = 0; i < columns.Length; i++)
            {
                numbers[i] = Clamp(Nearest(inverse * (columns[i] - minimum)), 0, Most);
            }

            return numbers;
        }

        private static (Vector256<float> Sum, Vector256<float> Squares, Vector256<float> Products) Sums(
            ReadOnlySpan<Vector256<float>> columns, ReadOnlySpan<Vector256<float>> weights, ReadOnlySpan<Vector256<int>> numbers)
        {
            (Vector256<float> sum, Vector256<float> squares, Vector256<float> products) = (Vector256<float>.Zero, Vector256<float>.Zero, Vector256<float>.Zero);
            for (int i = 0; i < columns.Length; i++)
            {
                Vector256<float> number = Vector256.ConvertToSingle(numbers[i]);
                Vector256<float> weighted = weights[i] * number;
                sum += weighted;
                squares += weighted * number;
                products += weighted * columns[i];
            }

            return (sum, squares, products);
        }

        private static Vector256<float> Error(
            ReadOnlySpan<Vector256<float>> columns, ReadOnlySpan<Vector256<float>> weights, ReadOnlySpan<Vector256<int>> numbers, Vector256<float> scale, Vector256<float> minimum)
        {
            Vector256<float> error = Vector256<float>.Zero;
            for (int i = 0; i < columns.Length; i++)
            {
                Vector256<float> difference = (scale * Vector256.ConvertToSingle(numbers[i])) + minimum - columns[i];
                error += weights[i] * (difference * difference);
            }

            return error;
        }
    }
}
