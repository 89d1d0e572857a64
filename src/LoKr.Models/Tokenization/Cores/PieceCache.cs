using System.Collections.Concurrent;

namespace LoKr.Models.Tokenization.Cores;

/// <summary>Remembers the ids of short pieces, because words repeat. Bounded: it starts anew when it is full.</summary>
internal sealed class PieceCache
{
    private const int Capacity = 32768;
    private const int LongestPiece = 64;

    private readonly ConcurrentDictionary<string, int[]> _ids = new(StringComparer.Ordinal);
    private int _count;

    public bool TryGet(string piece, List<int> ids)
    {
        if (piece.Length > LongestPiece || !_ids.TryGetValue(piece, out int[]? known))
        {
            return false;
        }

        ids.AddRange(known);
        return true;
    }

    public void Add(string piece, ReadOnlySpan<int> ids)
    {
        if (piece.Length > LongestPiece)
        {
            return;
        }

        if (Interlocked.Increment(ref _count) > Capacity)
        {
            _ids.Clear();
            Interlocked.Exchange(ref _count, 0);
        }

        _ids.TryAdd(piece, ids.ToArray());
    }
}
