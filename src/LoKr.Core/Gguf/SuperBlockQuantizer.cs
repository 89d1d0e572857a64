using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;

namespace LoKr.Core.Gguf;

/// <summary>
/// Values → Q2_K to Q6_K, byte for byte as llama.cpp without an importance matrix. For every sub-block it searches the scale (and
/// minimum) with the smallest weighted error among some. The sums of one sub-block have a fixed order, so sub-blocks are the lanes of the
/// vectors here: eight at a time, each with the arithmetic of the reference.
/// </summary>
internal static class SuperBlockQuantizer
{
    private const int Lanes = 8;

    // Sub-blocks with smaller values count as zeros.
    private const float Least = 1e-15f;

    /// <summary>Values → Q2_K.</summary>
    public static void ToQ2(ReadOnlySpan<float> source, Span<byte> destination)
    {
        const int bytes = 84;
        for (int block = 0; block < destination.Length / bytes; block++)
        {
            QuantizeQ2(source.Slice(block * SuperBlocks.Count, SuperBlocks.Count), destination.Slice(block * bytes, bytes));
        }
    }

    /// <summary>Values → Q3_K.</summary>
    public static void ToQ3(ReadOnlySpan<float> source, Span<byte> destination)
    {
        const int bytes = 110;
        for (int block = 0; block < destination.Length / bytes; block++)
        {
            QuantizeQ3(source.Slice(block * SuperBlocks.Count, SuperBlocks.Count), destination.Slice(block * bytes, bytes));
        }
    }

    /// <summary>Values → Q4_K.</summary>
    public static void ToQ4(ReadOnlySpan<float> source, Span<byte> destination)
    {
        const int bytes = 144;
        for (int block = 0; block < destination.Length / bytes; block++)
        {
            Span<byte> to = destination.Slice(block * bytes, bytes);
            ToQ4Or5(source.Slice(block * SuperBlocks.Count, SuperBlocks.Count), to, [], to[(4 + SuperBlocks.ScaleBytes)..], new(15, -1, 20, false));
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
            ToQ4Or5(source.Slice(block * SuperBlocks.Count, SuperBlocks.Count), to, fifth, to[(4 + SuperBlocks.ScaleBytes + 32)..], new(31, -0.5f, 15, false));
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
        (float unit, float floorUnit) = (FloatBlocks.ReadHalf(block, 0), FloatBlocks.ReadHalf(block, 2));
        Span<float> steps = stackalloc float[Lanes];
        Span<float> floors = stackalloc float[Lanes];
        for (int sub = 0; sub < Lanes; sub++)
        {
            (int factor, int least) = SuperBlocks.ReadScale(packed, sub);
            (steps[sub], floors[sub]) = (unit * factor, floorUnit * least);
        }

        Requantize(columns, numbers, steps, floors, search.Most);
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
    private static void Requantize(ReadOnlySpan<Vector256<float>> columns, Span<Vector256<int>> numbers, ReadOnlySpan<float> steps, ReadOnlySpan<float> floors, int most)
    {
        Vector256<float> step = Vector256.Create(steps);
        Vector256<float> floor = Vector256.Create(floors);
        Vector256<int> isZero = Vector256.Equals(step, Vector256<float>.Zero).AsInt32();
        for (int i = 0; i < columns.Length; i++)
        {
            Vector256<int> number = Clamp(Nearest((columns[i] + floor) / step), 0, most);
            numbers[i] = Vector256.ConditionalSelect(isZero, numbers[i], number);
        }
    }

    private static void QuantizeQ2(ReadOnlySpan<float> values, Span<byte> block)
    {
        const int size = 16;
        const int most = 15;
        Span<Vector256<float>> columns = stackalloc Vector256<float>[2 * size];
        Span<Vector256<int>> numbers = stackalloc Vector256<int>[2 * size];
        Span<float> scales = stackalloc float[2 * Lanes];
        Span<float> minimums = stackalloc float[2 * Lanes];
        ScaleSearch search = new(3, -0.5f, 15, true);
        for (int half = 0; half < 2; half++)
        {
            Span<Vector256<float>> own = columns.Slice(half * size, size);
            Transpose(values.Slice(half * 128, 128), own);
            (Vector256<float> found, Vector256<float> least) = search.Find(own, numbers.Slice(half * size, size));
            found.CopyTo(scales[(half * Lanes)..]);
            least.CopyTo(minimums[(half * Lanes)..]);
        }

        (float largestScale, float largestMinimum) = (0, 0);
        for (int sub = 0; sub < scales.Length; sub++)
        {
            largestScale = scales[sub] > largestScale ? scales[sub] : largestScale;
            largestMinimum = minimums[sub] > largestMinimum ? minimums[sub] : largestMinimum;
        }

        block.Clear();
        float inverseScale = largestScale > 0 ? most / largestScale : 0;
        float inverseMinimum = largestMinimum > 0 ? most / largestMinimum : 0;
        FloatBlocks.WriteHalf(block, 80, largestScale > 0 ? largestScale / most : 0);
        FloatBlocks.WriteHalf(block, 82, largestMinimum > 0 ? largestMinimum / most : 0);
        (float unit, float floorUnit) = (FloatBlocks.ReadHalf(block, 80), FloatBlocks.ReadHalf(block, 82));
        for (int sub = 0; sub < scales.Length; sub++)
        {
            block[sub] = (byte)(Nearest(inverseScale * scales[sub]) | (Nearest(inverseMinimum * minimums[sub]) << 4));
            (scales[sub], minimums[sub]) = (unit * (block[sub] & 15), floorUnit * (block[sub] >> 4));
        }

        for (int half = 0; half < 2; half++)
        {
            Requantize(columns.Slice(half * size, size), numbers.Slice(half * size, size), scales.Slice(half * Lanes, Lanes), minimums.Slice(half * Lanes, Lanes), search.Most);
        }

        ReadOnlySpan<int> flat = MemoryMarshal.Cast<Vector256<int>, int>(numbers);
        for (int i = 0; i < values.Length; i++)
        {
            int sub = i / size;
            int number = flat[((((sub / Lanes) * size) + (i % size)) * Lanes) + (sub % Lanes)];
            block[16 + (i / 128 * 32) + (i % 32)] |= (byte)(number << (i % 128 / 32 * 2));
        }
    }

    private static void QuantizeQ3(ReadOnlySpan<float> values, Span<byte> block)
    {
        const int size = 16;
        Span<int> numbers = stackalloc int[SuperBlocks.Count];
        Span<float> scales = stackalloc float[SuperBlocks.Count / size];
        (float extreme, float largest) = (0, 0);
        for (int sub = 0; sub < scales.Length; sub++)
        {
            scales[sub] = FitThreeBits(values.Slice(sub * size, size), numbers.Slice(sub * size, size));
            float magnitude = MathF.Abs(scales[sub]);
            if (magnitude > largest)
            {
                (extreme, largest) = (scales[sub], magnitude);
            }
        }

        block.Clear();
        if (extreme != 0)
        {
            float inverse = -32 / extreme;
            FloatBlocks.WriteHalf(block, 108, 1 / inverse);
            float unit = FloatBlocks.ReadHalf(block, 108);
            for (int sub = 0; sub < scales.Length; sub++)
            {
                int factor = Math.Clamp((int)(sbyte)Nearest(inverse * scales[sub]), -32, 31);
                block[96 + (sub % 8)] |= (byte)(((factor + 32) & 15) << (sub / 8 * 4));
                block[104 + (sub % 4)] |= (byte)((factor + 32) >> 4 << (sub / 4 * 2));
                float step = unit * factor;
                for (int i = sub * size; step != 0 && i < (sub + 1) * size; i++)
                {
                    numbers[i] = Math.Clamp(Nearest(values[i] / step), -4, 3) + 4;
                }
            }
        }

        for (int i = 0; i < numbers.Length; i++)
        {
            block[i % 32] |= (byte)(numbers[i] >> 2 << (i / 32));
            block[32 + (i / 128 * 32) + (i % 32)] |= (byte)((numbers[i] & 3) << (i % 128 / 32 * 2));
        }
    }

    /// <summary>
    /// The scale of a sub-block of Q3_K, weighted by the squares of the values: numbers are changed one at a time while that makes the error
    /// smaller, in at most five rounds. Numbers are 4 too large.
    /// </summary>
    private static float FitThreeBits(ReadOnlySpan<float> values, Span<int> numbers)
    {
        const int most = 4;
        (float extreme, float largest) = (0, 0);
        foreach (float value in values)
        {
            float magnitude = MathF.Abs(value);
            if (magnitude > largest)
            {
                (extreme, largest) = (value, magnitude);
            }
        }

        numbers.Clear();
        if (largest < Least)
        {
            return 0;
        }

        float inverse = -most / extreme;
        (float products, float squares) = (0, 0);
        for (int i = 0; i < values.Length; i++)
        {
            numbers[i] = Math.Clamp(Nearest(inverse * values[i]), -most, most - 1);
            float weight = values[i] * values[i];
            products += weight * values[i] * numbers[i];
            squares += weight * numbers[i] * numbers[i];
        }

        bool isChanged = true;
        for (int round = 0; round < 5 && isChanged; round++)
        {
            isChanged = false;
            for (int i = 0; i < values.Length; i++)
            {
                float weight = values[i] * values[i];
                float otherProducts = products - (weight * values[i] * numbers[i]);
                if (!(otherProducts > 0))
                {
                    continue;
                }

                float otherSquares = squares - (weight * numbers[i] * numbers[i]);
                int number = Math.Clamp(Nearest(values[i] * otherSquares / otherProducts), -most, most - 1);
                if (number == numbers[i])
                {
                    continue;
                }

                otherProducts += weight * values[i] * number;
                otherSquares += weight * number * number;
                if (otherSquares > 0 && otherProducts * otherProducts * squares > products * products * otherSquares)
                {
                    (numbers[i], products, squares) = (number, otherProducts, otherSquares);
                    isChanged = true;
                }
            }
        }

        for (int i = 0; i < numbers.Length; i++)
        {
            numbers[i] += most;
        }

        return squares > 0 ? products / squares : 0;
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
    internal static int Nearest(float value) => (BitConverter.SingleToInt32Bits(value + 12582912f) & 0x007fffff) - 0x00400000;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector256<int> Nearest(Vector256<float> value) =>
        ((value + Vector256.Create(12582912f)).AsInt32() & Vector256.Create(0x007fffff)) - Vector256.Create(0x00400000);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector256<int> Clamp(Vector256<int> value, int least, int most) => Vector256.Max(Vector256.Create(least), Vector256.Min(Vector256.Create(most), value));

    /// <summary>The search for the scale and minimum of eight sub-blocks.</summary>
    /// <param name="Most">Largest number, 2^bits − 1.</param>
    /// <param name="First">What the first step adds to it; each further one adds 0.1.</param>
    /// <param name="Steps">Number of the last step.</param>
    /// <param name="ByMagnitude">Whether a value counts by its magnitude alone, and its error by its magnitude instead of its square.</param>
    private readonly record struct ScaleSearch(int Most, float First, int Steps, bool ByMagnitude)
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

        // A value counts by its magnitude, and by the root of the mean square of its sub-block.
        private void Weigh(ReadOnlySpan<Vector256<float>> columns, Span<Vector256<float>> weights)
        {
            Vector256<float> squares = Vector256<float>.Zero;
            foreach (Vector256<float> column in columns)
            {
                squares += column * column;
            }

            Vector256<float> root = ByMagnitude ? Vector256<float>.Zero : Vector256.Sqrt(squares / Vector256.Create((float)columns.Length));
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

        private Vector256<float> Error(
            ReadOnlySpan<Vector256<float>> columns, ReadOnlySpan<Vector256<float>> weights, ReadOnlySpan<Vector256<int>> numbers, Vector256<float> scale, Vector256<float> minimum)
        {
            Vector256<float> error = Vector256<float>.Zero;
            for (int i = 0; i < columns.Length; i++)
            {
                Vector256<float> difference = (scale * Vector256.ConvertToSingle(numbers[i])) + minimum - columns[i];
                error += weights[i] * (ByMagnitude ? Vector256.Abs(difference) : difference * difference);
            }

            return error;
        }
    }
}
