using System.IO.Hashing;
using System.Runtime.ExceptionServices;
using System.Runtime.InteropServices;
using LoKr.Core.Formats;
using Microsoft.Win32.SafeHandles;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Merging;

/// <summary>
/// Writes a file of the result: several threads each take the next piece, read it, add the deltas and write it, so that reading, arithmetic
/// and writing overlap and a piece stays in the processor's cache. Holds one buffer for each thread.
/// </summary>
internal sealed class ShardWriter(bool safe, Action<MergePiece> onWritten, CancellationToken cancel)
{
    // More threads than this only wait for the disk.
    private static readonly int s_threads = Math.Clamp(Environment.ProcessorCount, 1, 4);

    /// <summary>Writes every piece; flushing and renaming are the caller's.</summary>
    /// <param name="shard">The file.</param>
    /// <param name="handle">Where to write.</param>
    /// <param name="path">Its path, for errors.</param>
    /// <returns>Checksum of the file.</returns>
    public string Write(MergeShard shard, SafeFileHandle handle, string path)
    {
        MergePiece[] pieces = [.. shard.Pieces()];
        ulong[] sums = new ulong[pieces.Length];
        int next = -1;
        ExceptionDispatchInfo? failure = null;
        void Work()
        {
            try
            {
                using PieceBuffer buffer = new();
                while (Volatile.Read(ref failure) is null && Interlocked.Increment(ref next) is int index && index < pieces.Length)
                {
                    cancel.ThrowIfCancellationRequested();
                    ReadOnlySpan<byte> bytes = Fill(buffer, shard, pieces[index]);
                    sums[index] = XxHash3.HashToUInt64(bytes);
                    Write(handle, bytes, pieces[index].Offset, path);
                    pieces[index].Work?.Done();
                    onWritten(pieces[index]);
                }
            }
            catch (Exception exception)
            {
                // Not swallowed: the first one is thrown on the caller's thread.
                Interlocked.CompareExchange(ref failure, ExceptionDispatchInfo.Capture(exception), null);
            }
        }

        // Threads of their own: torch's scopes belong to a thread, and the pool's may be anyone's.
        Thread[] threads = [.. Enumerable.Range(0, Math.Min(s_threads, pieces.Length)).Select(_ => new Thread(Work) { IsBackground = true, Name = "LoKr merge" })];
        Array.ForEach(threads, static thread => thread.Start());
        Array.ForEach(threads, static thread => thread.Join());
        foreach (MergePiece piece in pieces)
        {
            piece.Work?.Dispose();
        }

        failure?.Throw();
        return Sum(sums);
    }

    /// <summary>Checksum of a file that a former run wrote, or null where it is not as long as it has to be.</summary>
    /// <param name="shard">The file.</param>
    /// <param name="path">Its path.</param>
    public string? Check(MergeShard shard, string path)
    {
        using SafeFileHandle handle = File.OpenHandle(path, FileMode.Open, FileAccess.Read, FileShare.Read, FileOptions.SequentialScan);
        if (RandomAccess.GetLength(handle) != shard.ByteCount)
        {
            return null;
        }

        MergePiece[] pieces = [.. shard.Pieces()];
        ulong[] sums = new ulong[pieces.Length];
        byte[] buffer = new byte[pieces.Max(static piece => piece.Count)];
        for (int i = 0; i < pieces.Length; i++)
        {
            cancel.ThrowIfCancellationRequested();
            Span<byte> bytes = buffer.AsSpan(0, pieces[i].Count);
            if (SafetensorsHeader.ReadUpTo(handle, bytes, pieces[i].Offset) < bytes.Length)
            {
                return null;
            }

            sums[i] = XxHash3.HashToUInt64(bytes);
        }

        return Sum(sums);
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

    private static void Write(SafeFileHandle handle, ReadOnlySpan<byte> bytes, long offset, string path)
    {
        try
        {
            RandomAccess.Write(handle, bytes, offset);
        }
        catch (Exception exception) when (FileErrors.IsFileSystem(exception))
        {
            throw FileErrors.NotWritable(path, exception);
        }
    }

    private static string Sum(ulong[] sums) => Convert.ToHexStringLower(XxHash3.Hash(MemoryMarshal.AsBytes<ulong>(sums)));
}
