namespace LoKr.Core.Distributed;

/// <summary>
/// A sum whose order depends on nothing but the number of terms: it goes along a binary tree over their index. Whoever computes which terms, one
/// process or many, adds the same numbers in the same order and gets the same bits. A node of n terms has the largest power of two below n on its left.
/// </summary>
public static class TreeSum
{
    /// <summary>The terms that one of several workers computes: neighbors, as many as those of the others or one more; none where there are fewer terms than workers.</summary>
    /// <param name="count">Number of all terms.</param>
    /// <param name="rank">Index of the worker, from 0.</param>
    /// <param name="size">Number of workers.</param>
    public static TermRange ShareOf(int count, int rank, int size)
    {
        int start = (int)((long)count * rank / size);
        return new(start, (int)((long)count * (rank + 1) / size) - start);
    }

    /// <summary>The fewest nodes of the tree that cover a share, from left to right: the sums that its worker can compute alone.</summary>
    /// <param name="count">Number of all terms.</param>
    /// <param name="share">The terms of the share.</param>
    public static IReadOnlyList<TermRange> NodesOf(int count, TermRange share)
    {
        List<TermRange> nodes = [];
        Add(new(0, count));
        return nodes;

        void Add(TermRange node)
        {
            if (share.Covers(node))
            {
                nodes.Add(node);
            }
            else if (share.Meets(node))
            {
                Add(node.Left);
                Add(node.Right);
            }
        }
    }

    /// <summary>Adds along the tree.</summary>
    /// <param name="node">The node whose sum is wanted; every term is below it.</param>
    /// <param name="find">The sum of a node that is known, or of a single term; null for a node whose halves are to be added.</param>
    /// <param name="add">Adds the left half and the right half.</param>
    public static T Sum<T>(TermRange node, Func<TermRange, T?> find, Func<T, T, T> add)
        where T : class
    {
        ArgumentNullException.ThrowIfNull(find);
        ArgumentNullException.ThrowIfNull(add);
        return find(node) ?? add(Sum(node.Left, find, add), Sum(node.Right, find, add));
    }
}

/// <summary>Neighboring terms of a sum.</summary>
/// <param name="Start">Index of the first.</param>
/// <param name="Count">How many.</param>
public readonly record struct TermRange(int Start, int Count)
{
    /// <summary>Index after the last.</summary>
    public int End => Start + Count;

    /// <summary>The left half of a node of at least two terms.</summary>
    internal TermRange Left => new(Start, (int)(System.Numerics.BitOperations.RoundUpToPowerOf2((uint)Count) / 2));

    /// <summary>Its right half.</summary>
    internal TermRange Right => new(Left.End, Count - Left.Count);

    internal bool Covers(TermRange other) => other.Count > 0 && Start <= other.Start && other.End <= End;

    internal bool Meets(TermRange other) => Start < other.End && other.Start < End;
}
