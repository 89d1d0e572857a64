using System.Runtime.ExceptionServices;
using System.Threading.Channels;
using LoKr.Core.Data;
using LoKr.Core.Errors;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using TorchSharp;

namespace LoKr.Core.Training;

/// <summary>Token ids of a batch, padded on the right to its longest row.</summary>
public abstract class TokenBatch : TrainingBatch
{
    private protected TokenBatch(IReadOnlyList<int[]> rows, int padId)
    {
        RowCount = rows.Count;
        Length = rows.Max(row => row.Length);
        InputIds = new long[RowCount * Length];
        AttentionMask = new long[RowCount * Length];
        Array.Fill(InputIds, padId);
        for (int r = 0; r < rows.Count; r++)
        {
            int[] row = rows[r];
            int start = r * Length;
            for (int i = 0; i < row.Length; i++)
            {
                InputIds[start + i] = row[i];
            }

            AttentionMask.AsSpan(start, row.Length).Fill(1);
            UnitCount += row.Length;
        }
    }

    /// <inheritdoc/>
    public override int RowCount { get; }

    /// <inheritdoc/>
    public override long UnitCount { get; }

    /// <summary>Length of the longest row.</summary>
    public int Length { get; }

    /// <summary>Token ids, [rows, length].</summary>
    internal long[] InputIds { get; }

    /// <summary>1 for tokens, 0 for padding, [rows, length].</summary>
    internal long[] AttentionMask { get; }
}

/// <summary>What the text tasks share: checks, tokenizing on all cores, tensors.</summary>
internal static class TextEncoding
{
    /// <summary>The model's tokenizer.</summary>
    public static ITextTokenizer RequireTokenizer(LoKrModel model) => model.Tokenizer ?? throw new LoKrException(
        ErrorIds.TokenizerMissing,
        LoKrErrorKind.InvalidOperation,
        $"The model {model.Name} has no tokenizer.",
        "Put its tokenizer files into the model folder and import it again.");

    /// <summary>Throws where there is nothing to learn from.</summary>
    public static void RequireRows(IReadOnlyList<DataRow> rows)
    {
        ArgumentNullException.ThrowIfNull(rows);
        if (rows.Count == 0)
        {
            throw new LoKrException(ErrorIds.DataEmpty, LoKrErrorKind.InvalidData, "There are no rows of data.", "Give at least one.");
        }
    }

    /// <summary>The longest sequence: what was asked for, else what model and tokenizer allow.</summary>
    public static int ResolveMaxLength(int? asked, int modelMaximum, ITextTokenizer tokenizer)
    {
        if (asked > modelMaximum)
        {
            throw new LoKrException(
                ErrorIds.MaxLengthTooLarge,
                LoKrErrorKind.LimitExceeded,
                $"A maximum length of {asked} is more than the {modelMaximum} tokens this model has positions for.",
                $"Use at most {modelMaximum}.") { Target = asked };
        }

        if (asked < 2)
        {
            throw new LoKrException(
                ErrorIds.TrainingOptionInvalid, LoKrErrorKind.InvalidArgument, $"A maximum length of {asked} leaves no text.", "Use at least 2.") { Target = asked };
        }

        return asked ?? Math.Min(modelMaximum, tokenizer.MaxLength ?? modelMaximum);
    }

    /// <summary>Runs a function for every index on all cores; the first exception comes out as it is.</summary>
    public static T[] Parallelize<T>(int count, Func<int, T> function, CancellationToken cancellationToken)
    {
        T[] results = new T[count];
        try
        {
            Parallel.For(0, count, new ParallelOptions { CancellationToken = cancellationToken }, i => results[i] = function(i));
        }
        catch (AggregateException e)
        {
            ExceptionDispatchInfo.Throw(e.InnerExceptions[0]);
        }

        return results;
    }

    /// <summary>A matrix of token ids or mask values on the model's device.</summary>
    public static torch.Tensor Matrix(long[] values, TokenBatch batch, torch.Device device) =>
        torch.tensor(values, [batch.RowCount, batch.Length], device: device);
}

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

/// <summary>Runs a sequence of plain data on another thread a few items ahead of its reader.</summary>
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

    /// <summary>The items in order; an exception of the source comes out where the item would have.</summary>
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
            // Handed to the reader, who rethrows it; after a stop nobody reads any more.
            _items.Writer.TryComplete(e);
        }
    }
}
