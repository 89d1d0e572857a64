using System.Runtime.InteropServices;
using System.Security.Cryptography;
using System.Threading.Channels;
using LoKr.Core.Data;

namespace LoKr.Core.Training;

/// <summary>A batch of texts as token ids, padded to the longest.</summary>
public abstract class TokenBatch : TrainingBatch
{
    private protected TokenBatch(IReadOnlyList<int[]> rows, int padId) => Tokens = new(rows, padId);

    /// <summary>Token ids and their mask.</summary>
    public TokenMatrix Tokens { get; }

    /// <inheritdoc/>
    public override int RowCount => Tokens.RowCount;

    /// <inheritdoc/>
    public override long UnitCount => Tokens.TokenCount;
}

/// <summary>Puts rows into batches: shuffled, with rows of similar length together, so that little time is spent on padding.</summary>
public static class LengthBuckets
{
    /// <summary>Batches whose rows are sorted together before they are cut. More batches mean less padding, but also less chance in the choice of rows.</summary>
    private const int MaxBatchesSorted = 50;

    /// <summary>Returns the row indices of every batch. Each row is in exactly one batch, and at most one batch is smaller than the rest.</summary>
    /// <param name="lengths">Length of each row; equal lengths where it does not matter.</param>
    /// <param name="order">Batch size, seed and epoch.</param>
    public static IReadOnlyList<int[]> Create(IReadOnlyList<int> lengths, BatchOrder order)
    {
        ArgumentNullException.ThrowIfNull(lengths);
        ArgumentNullException.ThrowIfNull(order);
        int[] rows = [.. Enumerable.Range(0, lengths.Count)];
        if (!order.Shuffle)
        {
            return [.. (order.Bucket ? rows.OrderBy(row => lengths[row]).ToArray() : rows).Chunk(order.BatchSize)];
        }

        // The seed of an epoch is mixed so that neighboring seeds and epochs do not share orders.
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
}

/// <summary>
/// Batches in which nothing occurs twice (sentence-transformers' <c>BatchSamplers.NO_DUPLICATES</c>), in the same number as without that: a row that
/// would repeat something goes to another batch, in the place of a row that can move where all are full. A row for which there is no place is
/// left out of the epoch.
/// </summary>
public sealed class DistinctBatches
{
    // Batches that are searched for a row that can make place.
    private const int SearchedBatches = 64;

    private readonly List<int>[] _rows;
    private readonly HashSet<int>[] _taken;
    private readonly int _batchSize;
    private readonly Func<int, IEnumerable<int>> _contents;

    private DistinctBatches(int count, int batchSize, Func<int, IEnumerable<int>> contents)
    {
        _rows = [.. Enumerable.Range(0, count).Select(static _ => new List<int>())];
        _taken = [.. _rows.Select(static _ => new HashSet<int>())];
        (_batchSize, _contents) = (batchSize, contents);
    }

    /// <summary>Moves rows.</summary>
    /// <param name="batches">Row indices of every batch.</param>
    /// <param name="batchSize">Most rows in a batch.</param>
    /// <param name="contents">What a row has; only other rows must not have it too.</param>
    public static IReadOnlyList<int[]> Create(IReadOnlyList<int[]> batches, int batchSize, Func<int, IEnumerable<int>> contents)
    {
        ArgumentNullException.ThrowIfNull(batches);
        ArgumentNullException.ThrowIfNull(contents);
        DistinctBatches result = new(batches.Count, batchSize, contents);
        List<int> moved = [.. batches.SelectMany((rows, batch) => rows.Where(row => !result.TryAdd(batch, row)).ToArray())];
        foreach (int row in moved)
        {
            if (!Enumerable.Range(0, batches.Count).Any(batch => result.TryAdd(batch, row)))
            {
                result.Exchange(row);
            }
        }

        return [.. result._rows.Select(static rows => rows.ToArray())];
    }

    private bool TryAdd(int batch, int row)
    {
        if (_rows[batch].Count == _batchSize || _taken[batch].Overlaps(_contents(row)))
        {
            return false;
        }

        _rows[batch].Add(row);
        _taken[batch].UnionWith(_contents(row));
        return true;
    }

    // A full batch that has nothing of the row gives one of its own to a batch with room.
    private void Exchange(int row)
    {
        int[] withRoom = [.. Enumerable.Range(0, _rows.Length).Where(batch => _rows[batch].Count < _batchSize).Take(SearchedBatches)];
        foreach (int batch in Enumerable.Range(0, _rows.Length).Where(batch => !_taken[batch].Overlaps(_contents(row))).Take(SearchedBatches))
        {
            foreach (int other in _rows[batch])
            {
                if (withRoom.Any(room => room != batch && TryAdd(room, other)))
                {
                    _rows[batch].Remove(other);
                    _taken[batch].ExceptWith(_contents(other));
                    _ = TryAdd(batch, row);
                    return;
                }
            }
        }
    }
}

/// <summary>Puts short rows side by side into lines of a batch, so that little of a line is padding.</summary>
public static class RowPacking
{
    /// <summary>
    /// Returns the row indices of every line: the longest rows first, each into the fullest line that has room for it (best fit decreasing). The lines
    /// depend on the lengths only.
    /// </summary>
    /// <param name="lengths">Length of each row, from 1 to the capacity.</param>
    /// <param name="capacity">Most tokens of a line.</param>
    public static IReadOnlyList<int[]> Pack(IReadOnlyList<int> lengths, int capacity)
    {
        ArgumentNullException.ThrowIfNull(lengths);
        List<List<int>> lines = [];
        SortedSet<(int Room, int Line)> open = [];
        foreach (int row in Enumerable.Range(0, lengths.Count).OrderByDescending(row => lengths[row]))
        {
            int length = lengths[row];
            ArgumentOutOfRangeException.ThrowIfLessThan(length, 1);
            ArgumentOutOfRangeException.ThrowIfGreaterThan(length, capacity);
            (int Room, int Line) place = open.GetViewBetween((length, 0), (capacity, lines.Count)).Min;
            if (place.Room == 0)
            {
                place = (capacity, lines.Count);
                lines.Add([]);
            }
            else
            {
                open.Remove(place);
            }

            lines[place.Line].Add(row);
            open.Add((place.Room - length, place.Line));
        }

        return [.. lines.Select(static line => line.ToArray())];
    }
}

/// <summary>SHA-256 over the rows of a task, each with its length, so that equal hashes mean equal rows in an equal order.</summary>
internal sealed class RowHash
{
    private readonly IncrementalHash _hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);

    /// <summary>Adds the token ids of rows.</summary>
    public RowHash Add(IReadOnlyCollection<int[]> rows)
    {
        Add([rows.Count]);
        foreach (int[] row in rows)
        {
            Add([row.Length]);
            _hash.AppendData(MemoryMarshal.AsBytes(row.AsSpan()));
        }

        return this;
    }

    /// <summary>Adds one number a row.</summary>
    public RowHash Add(long[] values)
    {
        _hash.AppendData(MemoryMarshal.AsBytes(values.AsSpan()));
        return this;
    }

    /// <summary>Ends the hash, and returns it as lower-case hexadecimal digits.</summary>
    public string Finish()
    {
        using (_hash)
        {
            return Convert.ToHexStringLower(_hash.GetHashAndReset());
        }
    }
}

/// <summary>Enumerates plain data on another thread, a few items ahead of its reader.</summary>
internal sealed class Prefetch<T> : IDisposable
{
    private readonly CancellationTokenSource _stop = new();
    private readonly Channel<T> _items;
    private readonly Task _producer;

    public Prefetch(IEnumerable<T> source, int ahead = 4)
    {
        _items = Channel.CreateBounded<T>(new BoundedChannelOptions(ahead) { SingleReader = true, SingleWriter = true });
        CancellationToken token = _stop.Token;
        _producer = Task.Run(() => ProduceAsync(source, token), CancellationToken.None);
    }

    /// <summary>Returns the items in order; an exception of the source is thrown in the place of the item.</summary>
    public IEnumerable<T> Items()
    {
        while (_items.Reader.WaitToReadAsync(_stop.Token).AsTask().GetAwaiter().GetResult())
        {
            while (_items.Reader.TryRead(out T? item))
            {
                yield return item;
            }
        }
    }

    /// <summary>Stops the producer and waits for it.</summary>
    public void Dispose()
    {
        _stop.Cancel();
        _producer.GetAwaiter().GetResult();
        _stop.Dispose();
    }

    private async Task ProduceAsync(IEnumerable<T> source, CancellationToken token)
    {
        try
        {
            foreach (T item in source)
            {
                await _items.Writer.WriteAsync(item, token).ConfigureAwait(false);
            }

            _items.Writer.Complete();
        }
        catch (Exception e)
        {
            // The reader rethrows it; after a stop there is no reader.
            _items.Writer.TryComplete(e);
        }
    }
}
