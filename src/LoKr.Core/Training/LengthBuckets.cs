namespace LoKr.Core.Training;

/// <summary>Puts rows into batches: shuffled, and rows of similar length together, so that little is spent on padding.</summary>
internal static class LengthBuckets
{
    /// <summary>Batches whose rows are sorted among each other before they are cut; more means less padding and less chance in who meets whom.</summary>
    private const int MaxBatchesSorted = 50;

    /// <summary>Row indices of every batch; each row is in exactly one, and at most one batch is smaller than the rest.</summary>
    public static IReadOnlyList<int[]> Create(IReadOnlyList<int> lengths, BatchOrder order)
    {
        int[] rows = [.. Enumerable.Range(0, lengths.Count)];
        if (!order.Shuffle)
        {
            return [.. (order.Bucket ? rows.OrderBy(row => lengths[row]).ToArray() : rows).Chunk(order.BatchSize)];
        }

        // The seed of an epoch is mixed so that neighbouring seeds and epochs do not share orders.
        SplitMix64 random = new(unchecked(((ulong)order.Seed * 0x9E3779B97F4A7C15) + ((ulong)order.Epoch * 0xD1B54A32D192ED03)));
        random.Shuffle(rows);
        if (!order.Bucket)
        {
            return [.. rows.Chunk(order.BatchSize)];
        }

        // At least four groups where the data allows, so that small data sets are not simply sorted by length.
        int sorted = Math.Clamp(rows.Length / (order.BatchSize * 4), 1, MaxBatchesSorted);
        List<int[]> batches = [];
        foreach (int[] group in rows.Chunk(sorted * order.BatchSize))
        {
            batches.AddRange(group.OrderBy(row => lengths[row]).Chunk(order.BatchSize));
        }

        // Batches go in a random order too: otherwise the loss would rise and fall with their lengths.
        int[][] shuffled = [.. batches];
        random.Shuffle(shuffled);
        return shuffled;
    }

    /// <summary>A generator whose numbers are the same on every .NET version, unlike <see cref="Random"/> with a seed.</summary>
    private struct SplitMix64(ulong state)
    {
        private ulong _state = state;

        public void Shuffle<T>(T[] items)
        {
            for (int i = items.Length - 1; i > 0; i--)
            {
                int j = (int)Math.BigMul(Next(), (ulong)i + 1, out _);
                (items[i], items[j]) = (items[j], items[i]);
            }
        }

        private ulong Next()
        {
            ulong z = _state += 0x9E3779B97F4A7C15;
            z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
            z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
            return z ^ (z >> 31);
        }
    }
}
