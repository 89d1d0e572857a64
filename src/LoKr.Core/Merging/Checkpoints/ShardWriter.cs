using System.Runtime.ExceptionServices;
using LoKr.Core.Errors;
using LoKr.Core.Safetensors;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Merging.Checkpoints;

/// <summary>
/// Writes the files of the result: several threads each take the next piece, read it, add the deltas and write it, so that reading, arithmetic
/// and writing overlap and a piece stays in the processor's cache. Each thread has a file of its own while there are enough, because the
/// system lets one thread write to a file at a time. Holds one buffer for each thread.
/// </summary>
internal sealed class ShardWriter(string folder, bool safe, Action<MergePiece, MergeShard> onWritten, Action<MergeShard, string> onComplete, CancellationToken cancel)
{
    // More threads than this only wait for the disk.
    private static readonly int s_threads = Math.Clamp(Environment.ProcessorCount, 1, 4);

    private readonly Lock _gate = new();
    private readonly Queue<MergeShard> _waiting = new();
    private readonly List<OpenShard> _open = [];
    private readonly List<Task> _completing = [];
    private ExceptionDispatchInfo? _failure;

    /// <summary>Writes files; returns when all of them are on the disk under their names.</summary>
    public void Write(IEnumerable<MergeShard> shards)
    {
        foreach (MergeShard shard in shards)
        {
            _waiting.Enqueue(shard);
        }

        try
        {
            // Threads of their own: torch's scopes belong to a thread, and the pool's may be anyone's.
            Thread[] threads = [.. Enumerable.Range(0, s_threads).Select(_ => new Thread(Work) { IsBackground = true, Name = "LoKr merge" })];
            Array.ForEach(threads, static thread => thread.Start());
            Array.ForEach(threads, static thread => thread.Join());
            _failure?.Throw();
            Task.WhenAll(_completing).GetAwaiter().GetResult();
        }
        finally
        {
            ((IAsyncResult)Task.WhenAll(_completing)).AsyncWaitHandle.WaitOne();
            _open.ForEach(static open => open.Dispose());
        }
    }

    private void Work()
    {
        try
        {
            using PieceBuffer buffer = new();
            OpenShard? open = null;
            while (Volatile.Read(ref _failure) is null && (open = Choose(open)) is not null)
            {
                while (Volatile.Read(ref _failure) is null && open.Next() is (int index, MergePiece piece))
                {
                    cancel.ThrowIfCancellationRequested();
                    bool isLast = open.Write(index, Fill(buffer, open.Shard, piece));
                    onWritten(piece, open.Shard);
                    if (isLast)
                    {
                        Complete(open);
                    }
                }
            }
        }
        catch (Exception exception)
        {
            // Not swallowed: the first one is thrown on the caller's thread.
            Interlocked.CompareExchange(ref _failure, ExceptionDispatchInfo.Capture(exception), null);
        }
    }

    /// <summary>The file to work on next: a new one while fewer are open than threads work, then the one with the fewest threads.</summary>
    private OpenShard? Choose(OpenShard? former)
    {
        lock (_gate)
        {
            if (former is not null)
            {
                former.Workers--;
            }

            OpenShard? best = _open.Where(static open => !open.IsHandedOut).MinBy(static open => open.Workers);
            if ((best is null || best.Workers > 0) && _waiting.TryDequeue(out MergeShard? shard))
            {
                best = new OpenShard(shard, folder);
                _open.Add(best);
            }

            if (best is not null)
            {
                best.Workers++;
            }

            return best;
        }
    }

    // The last bytes go to the disk while the next file is being written.
    private void Complete(OpenShard open)
    {
        lock (_gate)
        {
            _completing.Add(Task.Run(() => onComplete(open.Shard, open.Complete())));
        }
    }

    private ReadOnlySpan<byte> Fill(PieceBuffer buffer, MergeShard shard, MergePiece piece)
    {
        if (piece.Target is not { } target)
        {
            return shard.Header;
        }

        // The bytes stay valid: they are the buffer's.
        using Tensor values = buffer.Take(piece.Count, target.IsCopy ? SafetensorsDType.U8 : target.DType);
        Span<byte> bytes = values.bytes;
        if (target.Replacement is (ITensorSource source, string key))
        {
            source.ReadRange(key, piece.Start / SafetensorsDTypes.Size(target.DType), values);
            return bytes;
        }

        target.Shard!.ReadBytes(target.Entry!, piece.Start, bytes);
        if (piece.Work is { } work)
        {
            work.Prepare();
            work.Merge(values, piece.Start);
            CheckFinite(values, target);
        }

        return bytes;
    }

    private void CheckFinite(Tensor rows, MergeTarget target)
    {
        using DisposeScope scope = NewDisposeScope();
        if (safe && !rows.isfinite().all().ToBoolean())
        {
            throw new LoKrException(ErrorIds.MergeNotFinite, LoKrErrorKind.InvalidData,
                $"Merging would put NaN or infinity into '{target.Entry!.Name}'; nothing was written.", "An adapter seems to be broken; train it again with a lower learning rate.")
            { Target = target.Entry.Name };
        }
    }
}
