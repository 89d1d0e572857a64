using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;

namespace LoKr.Core.Gguf;

/// <summary>
/// Values → Q2_K to Q6_K, byte for byte as llama.cpp without an importance matrix. For every sub-block it searches the scale (and
/// minimum) with the smallest weighted error among some. The sums of one sub-block have a fixed order, so sub-blocks are the lanes of the
/// vectors here: sixteen at a time, each with the arithmetic of the reference.
/// </summary>
internal static class SuperBlockQuantizer
{
    private const int Lanes = 16;

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
    public static void ToQ4(ReadOnlySpan<float> source, Span<byte> destination) => ToQ4Or5(source, destination, 0, new(15, -1, 20, false));

    /// <summary>Values → Q5_K.</summary>
    public static void ToQ5(ReadOnlySpan<float> source, Span<byte> destination) => ToQ4Or5(source, destination, 32, new(31, -0.5f, 15, false));

    /// <summary>Values → Q6_K.</summary>
    public static void ToQ6(ReadOnlySpan<float> source, Span<byte> destination)
    {
        const int bytes = 210;
        for (int block = 0; block < destination.Length / bytes; block++)
        {
            QuantizeQ6(source.Slice(block * SuperBlocks.Count, SuperBlocks.Count), destination.Slice(block * bytes, bytes));
        }
    }

    /// <summary>Two blocks at a time: each has eight sub-blocks.</summary>
    private static void ToQ4Or5(ReadOnlySpan<float> source, Span<byte> destination, int fifthBytes, ScaleSearch search)
    {
        const int size = 32;
        const int subs = SuperBlocks.Count / size;
        const int header = 4 + SuperBlocks.ScaleBytes;
        int bytes = header + fifthBytes + (SuperBlocks.Count / 2);
        Span<Vector512<float>> columns = stackalloc Vector512<float>[size];
        Span<Vector512<int>> numbers = stackalloc Vector512<int>[size];
        Span<float> steps = stackalloc float[Lanes];
        Span<float> floors = stackalloc float[Lanes];
        for (int done = 0; done < destination.Length; done += 2 * bytes)
        {
            Span<byte> blocks = destination.Slice(done, Math.Min(2 * bytes, destination.Length - done));
            int count = blocks.Length / bytes;
            Transpose(source.Slice(done / bytes * SuperBlocks.Count, count * SuperBlocks.Count), columns);
            (Vector512<float> scales, Vector512<float> minimums) = search.Find(columns, numbers);
            blocks.Clear();
            for (int i = 0; i < count; i++)
            {
                WriteScales(scales, minimums, i * subs, blocks.Slice(i * bytes, header), steps.Slice(i * subs, subs), floors.Slice(i * subs, subs));
            }

            Requantize(columns, numbers, steps, floors, search.Most);
            for (int i = 0; i < count; i++)
            {
                Span<byte> block = blocks.Slice(i * bytes, bytes);
                PackHalves(numbers, i, block.Slice(header, fifthBytes), block[(header + fifthBytes)..]);
            }
        }
    }

    /// <summary>Stores the scales and minimums of the eight sub-blocks of a block.</summary>
    /// <param name="scales">The scales.</param>
    /// <param name="minimums">The minimums, with the opposite sign.</param>
    /// <param name="first">Lane of the first sub-block.</param>
    /// <param name="header">The first bytes of the block, zeros.</param>
    /// <param name="steps">Gets the scales as they are stored.</param>
    /// <param name="floors">Gets the minimums as they are stored.</param>
    private static void WriteScales(Vector512<float> scales, Vector512<float> minimums, int first, Span<byte> header, Span<float> steps, Span<float> floors)
    {
        (float largestScale, float largestMinimum) = (0, 0);
        for (int sub = 0; sub < steps.Length; sub++)
        {
            largestScale = scales[first + sub] > largestScale ? scales[first + sub] : largestScale;
            largestMinimum = minimums[first + sub] > largestMinimum ? minimums[first + sub] : largestMinimum;
        }

        Span<byte> packed = header.Slice(4, SuperBlocks.ScaleBytes);
        float inverseScale = largestScale > 0 ? 63 / largestScale : 0;
        float inverseMinimum = largestMinimum > 0 ? 63 / largestMinimum : 0;
        for (int sub = 0; sub < steps.Length; sub++)
        {
            SuperBlocks.WriteScale(packed, sub, Math.Min(63, (int)(byte)Nearest(inverseScale * scales[first + sub])), Math.Min(63, (int)(byte)Nearest(inverseMinimum * minimums[first + sub])));
        }

        FloatBlocks.WriteHalf(header, 0, largestScale / 63);
        FloatBlocks.WriteHalf(header, 2, largestMinimum / 63);
        (float unit, float floorUnit) = (FloatBlocks.ReadHalf(header, 0), FloatBlocks.ReadHalf(header, 2));
        for (int sub = 0; sub < steps.Length; sub++)
        {
            (int factor, int least) = SuperBlocks.ReadScale(packed, sub);
            (steps[sub], floors[sub]) = (unit * factor, floorUnit * least);
        }
    }

    /// <summary>Quantizes with the scales as they are stored; where one is zero, the numbers of the search stay.</summary>
    private static void Requantize(ReadOnlySpan<Vector512<float>> columns, Span<Vector512<int>> numbers, ReadOnlySpan<float> steps, ReadOnlySpan<float> floors, int most)
    {
        Vector512<float> step = Vector512.Create(steps);
        Vector512<float> floor = Vector512.Create(floors);
        Vector512<int> isZero = Vector512.Equals(step, Vector512<float>.Zero).AsInt32();
        for (int i = 0; i < columns.Length; i++)
        {
            Vector512<int> number = Clamp(Nearest((columns[i] + floor) / step), 0, most);
            numbers[i] = Vector512.ConditionalSelect(isZero, numbers[i], number);
        }
    }

    /// <summary>Numbers of a block → low halves of two sub-blocks in a byte, and the fifth bits of all eight in one.</summary>
    /// <param name="numbers">Numbers of at most 5 bits; the lane is the sub-block.</param>
    /// <param name="block">Which of the two blocks.</param>
    /// <param name="fifth">Gets the fifth bits; empty where there are none.</param>
    /// <param name="low">Gets the low halves.</param>
    private static void PackHalves(ReadOnlySpan<Vector512<int>> numbers, int block, Span<byte> fifth, Span<byte> low)
    {
        for (int i = 0; i < numbers.Length; i++)
        {
            // One byte for each sub-block.
            Vector256<int> own = block == 0 ? numbers[i].GetLower() : numbers[i].GetUpper();
            Vector128<short> words = Vector128.Narrow(own.GetLower(), own.GetUpper());
            ulong all = Vector128.Narrow(words.AsUInt16(), words.AsUInt16()).AsUInt64().ToScalar();
            ulong halves = all & 0x0f0f0f0f0f0f0f0f;
            ulong pairs = halves | (halves >> 4);
            low[i] = (byte)pairs;
            low[32 + i] = (byte)(pairs >> 16);
            low[64 + i] = (byte)(pairs >> 32);
            low[96 + i] = (byte)(pairs >> 48);
            if (!fifth.IsEmpty)
            {
                // The product collects the lowest bits of the bytes in the highest byte.
                fifth[i] = (byte)((((all >> 4) & 0x0101010101010101) * 0x0102040810204080) >> 56);
            }
        }
    }

    private static void QuantizeQ2(ReadOnlySpan<float> values, Span<byte> block)
    {
        const int size = 16;
        const int most = 15;
        Span<Vector512<float>> columns = stackalloc Vector512<float>[size];
        Span<Vector512<int>> numbers = stackalloc Vector512<int>[size];
        Span<float> scales = stackalloc float[Lanes];
        Span<float> minimums = stackalloc float[Lanes];
        ScaleSearch search = new(3, -0.5f, 15, true);
        Transpose(values, columns);
        (Vector512<float> found, Vector512<float> least) = search.Find(columns, numbers);
        found.CopyTo(scales);
        least.CopyTo(minimums);
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

        Requantize(columns, numbers, scales, minimums, search.Most);
        ReadOnlySpan<int> flat = MemoryMarshal.Cast<Vector512<int>, int>(numbers);
        for (int i = 0; i < values.Length; i++)
        {
            int number = flat[(i % size * Lanes) + (i / size)];
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
        Span<Vector512<float>> columns = stackalloc Vector512<float>[size];
        Span<Vector512<int>> numbers = stackalloc Vector512<int>[size];
        Span<float> scales = stackalloc float[Lanes];
        Transpose(values, columns);
        FindSymmetric(columns, numbers).CopyTo(scales);
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
        Span<float> steps = stackalloc float[Lanes];
        for (int sub = 0; sub < scales.Length; sub++)
        {
            sbyte factor = (sbyte)Math.Min(127, Nearest(inverse * scales[sub]));
            block[192 + sub] = (byte)factor;
            steps[sub] = unit * factor;
        }

        Vector512<float> step = Vector512.Create<float>(steps);
        Vector512<int> isZero = Vector512.Equals(step, Vector512<float>.Zero).AsInt32();
        for (int i = 0; i < columns.Length; i++)
        {
            Vector512<int> number = Clamp(Nearest(columns[i] / step), -32, 31) + Vector512.Create(32);
            numbers[i] = Vector512.ConditionalSelect(isZero, numbers[i], number);
        }

        for (int half = 0; half < 2; half++)
        {
            Pack(MemoryMarshal.Cast<Vector512<int>, int>(numbers), half, block.Slice(half * 64, 64), block.Slice(128 + (half * 32), 32));
        }
    }

    // 128 numbers, of sub-blocks that are eight of the lanes.
    private static void Pack(ReadOnlySpan<int> numbers, int half, Span<byte> low, Span<byte> high)
    {
        for (int i = 0; i < 128; i++)
        {
            int number = numbers[(i % 16 * Lanes) + (half * 8) + (i / 16)];
            low[i % 64] |= (byte)((number & 15) << (i / 64 * 4));
            high[i % 32] |= (byte)(number >> 4 << (i / 32 * 2));
        }
    }

    /// <summary>The scales of sixteen sub-blocks without minimum, weighted by the squares of the values; numbers are 32 too large.</summary>
    private static Vector512<float> FindSymmetric(ReadOnlySpan<Vector512<float>> columns, Span<Vector512<int>> numbers)
    {
        const int most = 32;
        Vector512<float> extreme = Vector512<float>.Zero;
        Vector512<float> largest = Vector512<float>.Zero;
        foreach (Vector512<float> column in columns)
        {
            Vector512<float> magnitude = Vector512.Abs(column);
            Vector512<float> isLarger = Vector512.GreaterThan(magnitude, largest);
            extreme = Vector512.ConditionalSelect(isLarger, column, extreme);
            largest = Vector512.ConditionalSelect(isLarger, magnitude, largest);
        }

        Vector512<float> inverse = Vector512.Create(-(float)most) / extreme;
        (Vector512<float> products, Vector512<float> squares) = Sums(columns, inverse);
        Vector512<float> scale = Vector512.ConditionalSelect(Vector512.Equals(squares, Vector512<float>.Zero), Vector512<float>.Zero, products / squares);
        Vector512<float> best = scale * products;
        for (int step = -9; step <= 9; step++)
        {
            if (step == 0)
            {
                continue;
            }

            Vector512<float> candidate = Vector512.Create(-(most + (0.1f * step))) / extreme;
            (products, squares) = Sums(columns, candidate);
            Vector512<float> isBetter = Vector512.GreaterThan(squares, Vector512<float>.Zero) & Vector512.GreaterThan(products * products, best * squares);
            scale = Vector512.ConditionalSelect(isBetter, products / squares, scale);
            best = Vector512.ConditionalSelect(isBetter, scale * products, best);
            inverse = Vector512.ConditionalSelect(isBetter, candidate, inverse);
        }

        Vector512<float> isZero = Vector512.LessThan(largest, Vector512.Create(Least));
        for (int i = 0; i < columns.Length; i++)
        {
            Vector512<int> number = Clamp(Nearest(inverse * columns[i]), -most, most - 1) + Vector512.Create(most);
            numbers[i] = Vector512.AndNot(number, isZero.AsInt32());
        }

        return Vector512.AndNot(scale, isZero);

        static (Vector512<float> Products, Vector512<float> Squares) Sums(ReadOnlySpan<Vector512<float>> columns, Vector512<float> inverse)
        {
            (Vector512<float> products, Vector512<float> squares) = (Vector512<float>.Zero, Vector512<float>.Zero);
            foreach (Vector512<float> column in columns)
            {
                Vector512<float> number = Vector512.ConvertToSingle(Clamp(Nearest(inverse * column), -most, most - 1));
                Vector512<float> weight = column * column;
                products += weight * column * number;
                squares += weight * number * number;
            }

            return (products, squares);
        }
    }

    // Sub-block s of the values becomes lane s; lanes beyond the values become zeros.
    private static void Transpose(ReadOnlySpan<float> values, Span<Vector512<float>> columns)
    {
        Span<float> flat = MemoryMarshal.Cast<Vector512<float>, float>(columns);
        int subs = values.Length / columns.Length;
        if (subs < Lanes)
        {
            columns.Clear();
        }

        for (int sub = 0; sub < subs; sub++)
        {
            ReadOnlySpan<float> from = values.Slice(sub * columns.Length, columns.Length);
            for (int i = 0; i < from.Length; i++)
            {
                flat[(i * Lanes) + sub] = from[i];
            }
        }
    }

    // To the nearest integer, halves to even, by the bits of the sum with 1.5·2²³; right up to 2²².
    internal static int Nearest(float value) => (BitConverter.SingleToInt32Bits(value + 12582912f) & 0x007fffff) - 0x00400000;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector512<int> Nearest(Vector512<float> value) =>
        ((value + Vector512.Create(12582912f)).AsInt32() & Vector512.Create(0x007fffff)) - Vector512.Create(0x00400000);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector512<int> Clamp(Vector512<int> value, int least, int most) => Vector512.Max(Vector512.Create(least), Vector512.Min(Vector512.Create(most), value));

    /// <summary>The search for the scale and minimum of sixteen sub-blocks.</summary>
    /// <param name="Most">Largest number, 2^bits − 1.</param>
    /// <param name="First">What the first step adds to it; each further one adds 0.1.</param>
    /// <param name="Steps">Number of the last step.</param>
    /// <param name="ByMagnitude">Whether a value counts by its magnitude alone, and its error by its magnitude instead of its square.</param>
    private readonly record struct ScaleSearch(int Most, float First, int Steps, bool ByMagnitude)
    {
        /// <summary>Finds the scales, and the minimums with the opposite sign.</summary>
        /// <param name="columns">The values; the lane is the sub-block.</param>
        /// <param name="numbers">Gets the numbers with the scales that were found.</param>
        public (Vector512<float> Scales, Vector512<float> Minimums) Find(ReadOnlySpan<Vector512<float>> columns, Span<Vector512<int>> numbers)
        {
            Span<Vector512<float>> weights = stackalloc Vector512<float>[columns.Length];
            Span<Vector512<float>> levels = stackalloc Vector512<float>[columns.Length];
            Weigh(columns, weights);
            Vector512<float> minimum = columns[0];
            Vector512<float> maximum = columns[0];
            Vector512<float> sumWeights = weights[0];
            Vector512<float> sumValues = weights[0] * columns[0];
            for (int i = 1; i < columns.Length; i++)
            {
                minimum = Vector512.ConditionalSelect(Vector512.LessThan(columns[i], minimum), columns[i], minimum);
                maximum = Vector512.ConditionalSelect(Vector512.GreaterThan(columns[i], maximum), columns[i], maximum);
                sumWeights += weights[i];
                sumValues += weights[i] * columns[i];
            }

            minimum = Vector512.ConditionalSelect(Vector512.GreaterThan(minimum, Vector512<float>.Zero), Vector512<float>.Zero, minimum);
            Vector512<float> isFlat = Vector512.Equals(maximum, minimum);
            Vector512<float> flatMinimum = minimum;
            Vector512<float> inverse = Vector512.Create((float)Most) / (maximum - minimum);
            Vector512<float> scale = Vector512<float>.One / inverse;
            Sums(columns, weights, inverse, minimum, levels);
            Vector512<float> bestError = Error(columns, weights, levels, scale, minimum);
            (Vector512<float> bestInverse, Vector512<float> bestFloor) = (inverse, minimum);
            for (int step = 0; step <= Steps; step++)
            {
                inverse = Vector512.Create(First + (0.1f * step) + Most) / (maximum - minimum);
                (Vector512<float> sum, Vector512<float> squares, Vector512<float> products) = Sums(columns, weights, inverse, minimum, levels);
                Vector512<float> determinant = (sumWeights * squares) - (sum * sum);
                Vector512<float> newScale = ((sumWeights * products) - (sumValues * sum)) / determinant;
                Vector512<float> newMinimum = ((squares * sumValues) - (sum * products)) / determinant;
                Vector512<float> isPositive = Vector512.GreaterThan(newMinimum, Vector512<float>.Zero);
                newScale = Vector512.ConditionalSelect(isPositive, products / squares, newScale);
                newMinimum = Vector512.AndNot(newMinimum, isPositive);
                Vector512<float> error = Error(columns, weights, levels, newScale, newMinimum);
                Vector512<float> isBetter = Vector512.GreaterThan(determinant, Vector512<float>.Zero) & Vector512.LessThan(error, bestError);
                bestInverse = Vector512.ConditionalSelect(isBetter, inverse, bestInverse);
                bestFloor = Vector512.ConditionalSelect(isBetter, minimum, bestFloor);
                bestError = Vector512.ConditionalSelect(isBetter, error, bestError);
                scale = Vector512.ConditionalSelect(isBetter, newScale, scale);
                minimum = Vector512.ConditionalSelect(isBetter, newMinimum, minimum);
            }

            for (int i = 0; i < numbers.Length; i++)
            {
                numbers[i] = Vector512.AndNot(Number(columns[i], bestInverse, bestFloor), isFlat.AsInt32());
            }

            return (Vector512.AndNot(scale, isFlat), -Vector512.ConditionalSelect(isFlat, flatMinimum, minimum));
        }

        // A value counts by its magnitude, and by the root of the mean square of its sub-block.
        private void Weigh(ReadOnlySpan<Vector512<float>> columns, Span<Vector512<float>> weights)
        {
            Vector512<float> squares = Vector512<float>.Zero;
            foreach (Vector512<float> column in columns)
            {
                squares += column * column;
            }

            Vector512<float> root = ByMagnitude ? Vector512<float>.Zero : Vector512.Sqrt(squares / Vector512.Create((float)columns.Length));
            for (int i = 0; i < columns.Length; i++)
            {
                weights[i] = root + Vector512.Abs(columns[i]);
            }
        }

        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        private Vector512<int> Number(Vector512<float> column, Vector512<float> inverse, Vector512<float> minimum) => Clamp(Nearest(inverse * (column - minimum)), 0, Most);

        /// <summary>The numbers under a scale, as floats, and their weighted sums.</summary>
        private (Vector512<float> Sum, Vector512<float> Squares, Vector512<float> Products) Sums(
            ReadOnlySpan<Vector512<float>> columns, ReadOnlySpan<Vector512<float>> weights, Vector512<float> inverse, Vector512<float> minimum, Span<Vector512<float>> levels)
        {
            (Vector512<float> sum, Vector512<float> squares, Vector512<float> products) = (Vector512<float>.Zero, Vector512<float>.Zero, Vector512<float>.Zero);
            for (int i = 0; i < columns.Length; i++)
            {
                Vector512<float> number = Vector512.ConvertToSingle(Number(columns[i], inverse, minimum));
                levels[i] = number;
                Vector512<float> weighted = weights[i] * number;
                sum += weighted;
                squares += weighted * number;
                products += weighted * columns[i];
            }

            return (sum, squares, products);
        }

        private Vector512<float> Error(
            ReadOnlySpan<Vector512<float>> columns, ReadOnlySpan<Vector512<float>> weights, ReadOnlySpan<Vector512<float>> levels, Vector512<float> scale, Vector512<float> minimum)
        {
            Vector512<float> error = Vector512<float>.Zero;
            for (int i = 0; i < columns.Length; i++)
            {
                Vector512<float> difference = (scale * levels[i]) + minimum - columns[i];
                error += weights[i] * (ByMagnitude ? Vector512.Abs(difference) : difference * difference);
            }

            return error;
        }
    }
}
