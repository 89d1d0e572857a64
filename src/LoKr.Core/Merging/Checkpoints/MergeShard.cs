using System.IO.Hashing;
using System.Runtime.InteropServices;
using LoKr.Core.Factors;
using LoKr.Core.IO;
using LoKr.Core.Safetensors;
using Microsoft.Win32.SafeHandles;

namespace LoKr.Core.Merging.Checkpoints;

/// <summary>One file of the result.</summary>
/// <param name="FileName">Its name.</param>
/// <param name="Header">Its first bytes: length and header.</param>
/// <param name="Targets">Its tensors in the order of their bytes.</param>
internal sealed record MergeShard(string FileName, byte[] Header, IReadOnlyList<MergeTarget> Targets)
{
    /// <summary>Size of the file.</summary>
    public long ByteCount { get; } = Header.Length + Targets.Sum(static target => target.Header.ByteCount);

    /// <summary>The files of the base with what becomes of their tensors; what adapters add goes into the last one.</summary>
    /// <param name="source">The base.</param>
    /// <param name="matcher">What becomes of its tensors.</param>
    public static IReadOnlyList<MergeShard> Keep(CheckpointReader source, MergeMatcher matcher)
    {
        IReadOnlyList<MergeTarget> added = matcher.AddedTargets();
        return [.. source.Shards.Select((shard, index) =>
        {
            IReadOnlyList<MergeTarget> own = matcher.Targets(shard);
            MergeTarget[] targets = index == source.Shards.Count - 1 ? [.. own, .. added] : [.. own];
            return Create(Path.GetFileName(shard.FilePath), targets, shard.Metadata);
        })];
    }

    /// <summary>Files of a largest size; a single larger tensor gets one of its own.</summary>
    /// <param name="source">The base.</param>
    /// <param name="matcher">What becomes of its tensors.</param>
    /// <param name="baseName">Name of the weights without extension.</param>
    /// <param name="maxBytes">Largest file, tensors alone.</param>
    public static IReadOnlyList<MergeShard> Split(CheckpointReader source, MergeMatcher matcher, string baseName, long maxBytes)
    {
        List<List<MergeTarget>> groups = CheckpointWriter.Split(source.Shards.SelectMany(matcher.Targets).Concat(matcher.AddedTargets()), static target => target.Header.ByteCount, maxBytes);
        return [.. groups.Select((targets, index) => Create(CheckpointWriter.FileName(baseName, index, groups.Count), targets, source.Metadata))];
    }

    /// <summary>The file in pieces, in their order: the header, then tensors in blocks. Neighbors in the base that stay neighbors are copied as one run.</summary>
    public IEnumerable<MergePiece> Pieces()
    {
        yield return new MergePiece(0, Header.Length, null, 0, null);
        long offset = Header.Length;
        MergeTarget? first = null;
        long length = 0;
        foreach (MergeTarget target in Targets)
        {
            if (target.IsCopy && first is not null && ReferenceEquals(first.Shard, target.Shard) && first.Entry!.Offset + length == target.Entry!.Offset)
            {
                length += target.Header.ByteCount;
                continue;
            }

            foreach (MergePiece piece in Run(first, length, offset))
            {
                yield return piece;
            }

            offset += length;
            (first, length) = target.IsCopy ? (target, target.Header.ByteCount) : (null, 0);
            if (!target.IsCopy)
            {
                foreach (MergePiece piece in target.Replacement is null ? Merged(target, offset) : Run(target, target.Header.ByteCount, offset))
                {
                    yield return piece;
                }

                offset += target.Header.ByteCount;
            }
        }

        foreach (MergePiece piece in Run(first, length, offset))
        {
            yield return piece;
        }
    }

    private static MergeShard Create(string fileName, IReadOnlyList<MergeTarget> targets, IReadOnlyDictionary<string, string> metadata) =>
        new(fileName, SafetensorsHeaderWriter.Build([.. targets.Select(static target => target.Header)], metadata, fileName), targets);

    private static IEnumerable<MergePiece> Run(MergeTarget? first, long length, long offset)
    {
        for (long start = 0; start < length; start += LayerDelta.BlockBytes)
        {
            yield return new MergePiece(offset + start, (int)Math.Min(LayerDelta.BlockBytes, length - start), first, start, null);
        }
    }

    private static IEnumerable<MergePiece> Merged(MergeTarget target, long offset)
    {
        MergeWork work = new(target);
        return work.Runs().ToArray().Select(run => new MergePiece(offset + run.Start, run.Count, target, run.Start, work));
    }
}

/// <summary>A file of the result while it is written: under a temporary name, flushed as it grows, renamed when it is complete.</summary>
internal sealed class OpenShard : IDisposable
{
    // What is written goes to the disk while the rest is computed, so that little is left to wait for at the end.
    private const long FlushBytes = 128L << 20;

    private readonly string _path;
    private readonly SafeFileHandle _handle;
    private readonly MergePiece[] _pieces;
    private readonly ulong[] _sums;
    private int _next = -1;
    private int _pending;
    private long _unflushed;
    private int _isFlushing;
    private Task _flush = Task.CompletedTask;
    private bool _isComplete;

    /// <summary>Creates the file.</summary>
    /// <param name="shard">What it will hold.</param>
    /// <param name="folder">Where it will be.</param>
    public OpenShard(MergeShard shard, string folder)
    {
        Shard = shard;
        _path = Path.Combine(folder, shard.FileName);
        _pieces = [.. shard.Pieces()];
        _sums = new ulong[_pieces.Length];
        _pending = _pieces.Length;
        try
        {
            _handle = File.OpenHandle(Partial, FileMode.Create, FileAccess.Write, FileShare.None);
        }
        catch (Exception exception) when (FileErrors.IsFileSystem(exception))
        {
            throw FileErrors.NotWritable(_path, exception);
        }
    }

    /// <summary>What it will hold.</summary>
    public MergeShard Shard { get; }

    /// <summary>Threads that work on it; under the pool's lock.</summary>
    public int Workers { get; set; }

    /// <summary>Whether every piece was handed out.</summary>
    public bool IsHandedOut => Volatile.Read(ref _next) >= _pieces.Length - 1;

    private string Partial => _path + ".partial";

    /// <summary>The next piece to write, or null.</summary>
    public (int Index, MergePiece Piece)? Next() => Interlocked.Increment(ref _next) is int index && index < _pieces.Length ? (index, _pieces[index]) : null;

    /// <summary>Writes a piece.</summary>
    /// <returns>Whether it was the last one.</returns>
    public bool Write(int index, ReadOnlySpan<byte> bytes)
    {
        _sums[index] = XxHash3.HashToUInt64(bytes);
        try
        {
            RandomAccess.Write(_handle, bytes, _pieces[index].Offset);
        }
        catch (Exception exception) when (FileErrors.IsFileSystem(exception))
        {
            throw FileErrors.NotWritable(_path, exception);
        }

        _pieces[index].Work?.Done();
        if (Interlocked.Add(ref _unflushed, bytes.Length) >= FlushBytes && Interlocked.CompareExchange(ref _isFlushing, 1, 0) == 0)
        {
            Interlocked.Exchange(ref _unflushed, 0);
            _flush = Task.Run(() =>
            {
                RandomAccess.FlushToDisk(_handle);
                Volatile.Write(ref _isFlushing, 0);
            });
        }

        return Interlocked.Decrement(ref _pending) == 0;
    }

    /// <summary>Brings the file to the disk and gives it its name.</summary>
    /// <returns>Its checksum.</returns>
    public string Complete()
    {
        try
        {
            _flush.GetAwaiter().GetResult();
            using (_handle)
            {
                RandomAccess.FlushToDisk(_handle);
            }

            File.Move(Partial, _path, overwrite: true);
            _isComplete = true;
            return Sum(_sums);
        }
        catch (Exception exception) when (FileErrors.IsFileSystem(exception))
        {
            throw FileErrors.NotWritable(_path, exception);
        }
    }

    /// <summary>Checksum of a file that a former run wrote, or null where it is not as long as it has to be.</summary>
    /// <param name="shard">What it has to hold.</param>
    /// <param name="path">Its path.</param>
    /// <param name="cancel">Ends the reading.</param>
    public static string? Check(MergeShard shard, string path, CancellationToken cancel)
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

    /// <summary>Closes the file and removes it unless it is complete.</summary>
    public void Dispose()
    {
        // A flush that failed has failed the merge already, or will be repeated by nobody: the file goes.
        ((IAsyncResult)_flush).AsyncWaitHandle.WaitOne();
        _handle.Dispose();
        foreach (MergePiece piece in _pieces)
        {
            piece.Work?.Dispose();
        }

        if (!_isComplete)
        {
            File.Delete(Partial);
        }
    }

    private static string Sum(ulong[] sums) => Convert.ToHexStringLower(XxHash3.Hash(MemoryMarshal.AsBytes<ulong>(sums)));
}
