namespace LoKr.Models.Tokenization.Models;

/// <summary>A part of a piece of text: a token, or what tokens are merged from.</summary>
/// <param name="Id">Its token; negative where the vocabulary has none.</param>
/// <param name="Start">Where it begins in the piece.</param>
/// <param name="Length">Its length in the piece.</param>
internal readonly record struct Symbol(int Id, int Start, int Length);

/// <summary>A merge of two neighbors.</summary>
/// <param name="Id">The token that they become.</param>
/// <param name="Priority">The lowest number is merged first.</param>
internal readonly record struct Merge(int Id, uint Priority);

/// <summary>Which neighbors merge, and in which order. Implemented by structs, so that calls are inlined.</summary>
internal interface IMergeRule
{
    /// <summary>Looks up the merge of two symbols that have become neighbors.</summary>
    bool TryGetMerge(Symbol left, Symbol right, out Merge merge);

    /// <summary>Whether a merge that was queued still holds for what is now at its place.</summary>
    /// <param name="left">The symbol at the place of the merge.</param>
    /// <param name="right">Its neighbor.</param>
    /// <param name="id">The token of the queued merge.</param>
    /// <param name="length">Length of both symbols when it was queued.</param>
    bool IsCurrent(Symbol left, Symbol right, int id, int length);
}

/// <summary>
/// Byte-pair encoding (Sennrich et al., arXiv:1508.07909): merges neighbors until no merge is left, the first in priority first and of equal
/// ones the leftmost. Takes O(n log n) for n symbols.
/// </summary>
internal static class PairMerger
{
    private const int LongestOnStack = 256;
    private const int Merged = -1;

    /// <summary>Merges symbols in place.</summary>
    /// <param name="symbols">The symbols; those that remain come first afterwards, in their order.</param>
    /// <param name="rule">Decides what merges.</param>
    /// <returns>The number of symbols that remain.</returns>
    public static int Run<TRule>(Span<Symbol> symbols, ref TRule rule)
        where TRule : struct, IMergeRule, allows ref struct
    {
        int count = symbols.Length;
        if (count < 2)
        {
            return count;
        }

        // Neighbors as a linked list; a symbol that was merged into its left neighbor has no next one.
        Span<Link> links = count <= LongestOnStack ? stackalloc Link[count] : new Link[count];
        PriorityQueue<Queued, ulong> queue = new(count);
        for (int i = 0; i < count; i++)
        {
            links[i] = new Link(i - 1, i + 1);
            if (i > 0)
            {
                Offer(symbols, ref rule, queue, i - 1, i);
            }
        }

        while (queue.TryDequeue(out Queued top, out ulong key))
        {
            int left = (int)(uint)key;
            int right = links[left].Next;
            if (right is Merged || right == count || !rule.IsCurrent(symbols[left], symbols[right], top.Id, top.Length))
            {
                continue;
            }

            symbols[left] = new Symbol(top.Id, symbols[left].Start, symbols[left].Length + symbols[right].Length);
            int next = links[right].Next;
            links[left].Next = next;
            links[right].Next = Merged;
            if (next < count)
            {
                links[next].Previous = left;
            }

            if (links[left].Previous >= 0)
            {
                Offer(symbols, ref rule, queue, links[left].Previous, left);
            }

            if (next < count)
            {
                Offer(symbols, ref rule, queue, left, next);
            }
        }

        int remaining = 0;
        for (int i = 0; i < count; i = links[i].Next)
        {
            symbols[remaining++] = symbols[i];
        }

        return remaining;
    }

    private static void Offer<TRule>(Span<Symbol> symbols, ref TRule rule, PriorityQueue<Queued, ulong> queue, int left, int right)
        where TRule : struct, IMergeRule, allows ref struct
    {
        if (rule.TryGetMerge(symbols[left], symbols[right], out Merge merge))
        {
            queue.Enqueue(new Queued(merge.Id, symbols[left].Length + symbols[right].Length), ((ulong)merge.Priority << 32) | (uint)left);
        }
    }

    private record struct Link(int Previous, int Next);

    private readonly record struct Queued(int Id, int Length);
}
