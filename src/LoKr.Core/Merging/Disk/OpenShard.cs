using System.IO.Hashing;
using System.Runtime.InteropServices;
using LoKr.Core.Formats;
using Microsoft.Win32.SafeHandles;

namespace LoKr.Core.Merging;

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
