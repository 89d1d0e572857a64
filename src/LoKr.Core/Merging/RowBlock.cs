namespace LoKr.Core.Merging;

/// <summary>Some consecutive rows of w1 ⊗ w2: whole groups of rows that share a row of the outer factor, or a part of one group.</summary>
/// <param name="OuterStart">First row of the outer factor.</param>
/// <param name="OuterCount">Rows of the outer factor; 1 where only a part of a group is meant.</param>
/// <param name="InnerStart">First row of the inner factor.</param>
/// <param name="InnerCount">Rows of the inner factor.</param>
internal readonly record struct RowBlock(long OuterStart, long OuterCount, long InnerStart, long InnerCount)
{
    /// <summary>Number of rows.</summary>
    public long Count => OuterCount * InnerCount;

    /// <summary>Rows of a stored weight that share a row of the outer factor.</summary>
    /// <param name="isTransposed">Whether the weight is stored in×out.</param>
    /// <param name="isReversed">Whether the delta is w2 ⊗ w1.</param>
    /// <param name="l">Rows of w1.</param>
    /// <param name="k">Rows of w2.</param>
    /// <param name="n">Columns of w2.</param>
    public static long GroupOf(bool isTransposed, bool isReversed, long l, long k, long n) => isTransposed ? n : isReversed ? l : k;

    /// <summary>Cuts a run of rows where whole groups begin and end: at most three blocks.</summary>
    /// <param name="inner">Rows of the inner factor, the size of a group.</param>
    /// <param name="start">First row.</param>
    /// <param name="count">Number of rows.</param>
    public static IEnumerable<RowBlock> Cut(long inner, long start, long count)
    {
        long end = start + count;
        while (start < end)
        {
            (long group, long first) = Math.DivRem(start, inner);
            RowBlock block = first == 0 && end - start >= inner
                ? new RowBlock(group, (end - start) / inner, 0, inner)
                : new RowBlock(group, 1, first, Math.Min(inner - first, end - start));
            yield return block;
            start += block.Count;
        }
    }
}
