using System.Globalization;
using System.IO.Hashing;
using System.Runtime.ExceptionServices;
using System.Runtime.InteropServices;
using LoKr.Core.Errors;
using LoKr.Core.Factors;
using LoKr.Core.IO;
using LoKr.Core.Safetensors;
using Microsoft.Win32.SafeHandles;
using static TorchSharp.torch;

namespace LoKr.Core.Merging.Checkpoints;

/// <summary>
/// Writes the files of the result. Several threads each take the next piece, read it, add the deltas and write it, so that reading, arithmetic
/// and writing overlap and a piece stays in the processor's cache. Each thread has its own file while there are enough, because the
/// operating system lets only one thread at a time write to a file. Memory: one buffer for each thread, and
/// the products of factors of the weights in work.
/// </summary>
internal sealed class ShardWriter(string folder, bool safe, Action<MergePiece, MergeFile> onWritten, Action<MergeFile, string, IReadOnlyDictionary<string, long>> onComplete, CancellationToken cancel, bool resumes = false, int mostThreads = ShardWriter.DiskThreads)
{
    // Where there is little to compute, more threads would only wait for the disk.
    private const int DiskThreads = 4;

    private readonly Lock _gate = new();
    private readonly Queue<MergeFile> _waiting = new();
    private readonly List<OpenShard> _open = [];
    private readonly List<Task> _completing = [];
    private readonly FiniteCheck _check = new(safe);
    private ExceptionDispatchInfo? _failure;
    private long _reusedByteCount;

    /// <summary>Bytes that an interrupted run had written, and that were taken as they were.</summary>
    public long ReusedByteCount => Volatile.Read(ref _reusedByteCount);

    /// <summary>Writes files; returns when all of them are on the disk under their names.</summary>
    public void Write(IEnumerable<MergeFile> files)
    {
        foreach (MergeFile file in files)
        {
            _waiting.Enqueue(file);
        }

        using ProductMemory products = new();
        try
        {
            // Not from the pool: torch's dispose scopes belong to a thread.
            Thread[] threads = [.. Enumerable.Range(0, Math.Min(mostThreads, Environment.ProcessorCount)).Select(_ => new Thread(() => Work(products)) { IsBackground = true, Name = "LoKr merge" })];
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

    private void Work(ProductMemory products)
    {
        try
        {
            using PieceBuffer buffer = new(products);
            OpenShard? open = null;
            while (Volatile.Read(ref _failure) is null && (open = Choose(open)) is not null)
            {
                while (Volatile.Read(ref _failure) is null && open.Next() is (int index, MergePiece piece))
                {
                    cancel.ThrowIfCancellationRequested();
                    bool? reused = open.TryReuse(index, buffer, _check);
                    bool isLast = reused ?? open.Write(index, piece.Fill(buffer, _check));
                    Interlocked.Add(ref _reusedByteCount, reused is null ? 0 : piece.Count);
                    onWritten(piece, open.File);
                    if (isLast)
                    {
                        Complete(open);
                    }
                }
            }
        }
        catch (Exception exception)
        {
            // Rethrown on the caller's thread.
            Interlocked.CompareExchange(ref _failure, ExceptionDispatchInfo.Capture(exception), null);
        }
    }

    /// <summary>The file to work on next: a new one while there are more threads than open files, then the one with the fewest threads.</summary>
    private OpenShard? Choose(OpenShard? former)
    {
        lock (_gate)
        {
            if (former is not null)
            {
                former.Workers--;
            }

            OpenShard? best = _open.Where(static open => !open.IsHandedOut).MinBy(static open => open.Workers);
            if ((best is null || best.Workers > 0) && _waiting.TryDequeue(out MergeFile? file))
            {
                best = new OpenShard(file, folder, resumes);
                _open.Add(best);
            }

            if (best is not null)
            {
                best.Workers++;
            }

            return best;
        }
    }

    // Flushes the last bytes while the next file is being written.
    private void Complete(OpenShard open)
    {
        lock (_gate)
        {
            _completing.Add(Task.Run(() => onComplete(open.File, open.Complete(), _check.Of(open.File))));
        }
    }
}

/// <summary>A file of the result while it is written: under a temporary name, flushed as it grows, renamed when it is complete.</summary>
internal sealed class OpenShard : IDisposable
{
    // Flushing while the rest is computed leaves little to wait for at the end.
    private const long FlushBytes = 128L << 20;

    private readonly string _path;
    private readonly PendingFile _pendingFile;
    private readonly MergePiece[] _pieces;
    private readonly ulong[] _sums;
    private readonly bool[] _written;
    private readonly PieceLog? _log;
    private readonly ulong?[] _former;
    private int _next = -1;
    private bool _isComplete;
    private int _pending;
    private long _unflushed;
    private int _isFlushing;
    private Task _flush = Task.CompletedTask;

    /// <summary>Creates the file.</summary>
    /// <param name="file">Its header and pieces.</param>
    /// <param name="folder">Folder to create it in.</param>
    /// <param name="resumes">Whether pieces that an interrupted run has written are taken, and left for the next run.</param>
    public OpenShard(MergeFile file, string folder, bool resumes)
    {
        File = file;
        _path = Path.Combine(folder, file.FileName);
        _pieces = [.. file.Pieces()];
        _sums = new ulong[_pieces.Length];
        _written = new bool[_pieces.Length];
        _pending = _pieces.Length;
        try
        {
            _log = resumes ? new(_path, _pieces.Length) : null;
            _former = _log?.Read() ?? [];
            _pendingFile = new PendingFile(_path, UnfinishedName(_path), resumes);
        }
        catch (Exception exception) when (FileErrors.IsFileSystem(exception))
        {
            throw FileErrors.NotWritable(_path, exception);
        }
    }

    /// <summary>The header and pieces of the file.</summary>
    public MergeFile File { get; }

    /// <summary>Number of threads that work on it; guarded by the writer's lock.</summary>
    public int Workers { get; set; }

    /// <summary>Whether every piece was handed out.</summary>
    public bool IsHandedOut => Volatile.Read(ref _next) >= _pieces.Length - 1;

    /// <summary>The next piece to write, or null.</summary>
    public (int Index, MergePiece Piece)? Next() => Interlocked.Increment(ref _next) is int index && index < _pieces.Length ? (index, _pieces[index]) : null;

    /// <summary>Writes a piece.</summary>
    /// <returns>Whether it was the last one.</returns>
    public bool Write(int index, ReadOnlySpan<byte> bytes)
    {
        _sums[index] = XxHash3.HashToUInt64(bytes);
        try
        {
            RandomAccess.Write(_pendingFile.Handle, bytes, _pieces[index].Offset);
        }
        catch (Exception exception) when (FileErrors.IsFileSystem(exception))
        {
            throw FileErrors.NotWritable(_path, exception);
        }

        Volatile.Write(ref _written[index], true);
        _pieces[index].Written();
        if (Interlocked.Add(ref _unflushed, bytes.Length) >= FlushBytes && Interlocked.CompareExchange(ref _isFlushing, 1, 0) == 0)
        {
            Interlocked.Exchange(ref _unflushed, 0);
            _flush = Task.Run(() =>
            {
                Flush();
                Volatile.Write(ref _isFlushing, 0);
            });
        }

        return Interlocked.Decrement(ref _pending) == 0;
    }

    /// <summary>Takes a piece that an interrupted run has written, if its bytes are still those.</summary>
    /// <returns>Whether it was the last one; null where it has to be written.</returns>
    public bool? TryReuse(int index, PieceBuffer buffer, FiniteCheck check)
    {
        if (index >= _former.Length || _former[index] is not ulong sum || _pieces[index] is not { CanReuse: true } piece)
        {
            return null;
        }

        using Tensor memory = buffer.Take(piece.Count, SafetensorsDType.U8);
        Span<byte> bytes = memory.bytes;
        if (SafetensorsHeader.ReadUpTo(_pendingFile.Handle, bytes, piece.Offset) < bytes.Length || XxHash3.HashToUInt64(bytes) != sum)
        {
            return null;
        }

        piece.Reuse(bytes, check);
        _sums[index] = sum;
        Volatile.Write(ref _written[index], true);
        piece.Written();
        return Interlocked.Decrement(ref _pending) == 0;
    }

    // What was written before the flush is on the disk after it.
    private void Flush()
    {
        _log?.Note(_sums, _written);
        RandomAccess.FlushToDisk(_pendingFile.Handle);
        _log?.Write();
    }

    /// <summary>Flushes the file to the disk and renames it.</summary>
    /// <returns>Its checksum.</returns>
    public string Complete()
    {
        try
        {
            _flush.GetAwaiter().GetResult();
            _pendingFile.Commit();
            _isComplete = true;
            _log?.Remove();
            return Sum(_sums);
        }
        catch (Exception exception) when (FileErrors.IsFileSystem(exception))
        {
            throw FileErrors.NotWritable(_path, exception);
        }
    }

    /// <summary>Removes what a killed writer left of a file; nobody else writes it meanwhile.</summary>
    /// <param name="path">Its path.</param>
    public static void RemoveLeftover(string path) => Contention.DeleteFile(UnfinishedName(path));

    /// <summary>The files that an unfinished file consists of.</summary>
    /// <param name="path">Its path.</param>
    public static IReadOnlyList<string> Unfinished(string path) => [UnfinishedName(path), PieceLog.NameOf(path)];

    /// <summary>Checksum of a file that an earlier run wrote, or null if its length is wrong.</summary>
    /// <param name="file">Its header and pieces.</param>
    /// <param name="path">Its path.</param>
    /// <param name="cancel">Interrupts the reading.</param>
    public static string? Check(MergeFile file, string path, CancellationToken cancel)
    {
        using SafeFileHandle handle = System.IO.File.OpenHandle(path, FileMode.Open, FileAccess.Read, FileShare.Read, FileOptions.SequentialScan);
        if (RandomAccess.GetLength(handle) != file.ByteCount)
        {
            return null;
        }

        MergePiece[] pieces = [.. file.Pieces()];
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

    /// <summary>Closes the file and removes it unless it is complete, or is left for the next run.</summary>
    public void Dispose()
    {
        // A failed flush has either failed the merge already or concerns a file that is removed.
        ((IAsyncResult)_flush).AsyncWaitHandle.WaitOne();
        if (!_isComplete && _log is not null)
        {
            Leave();
        }

        _pendingFile.Dispose();
        foreach (MergePiece piece in _pieces)
        {
            piece.Release();
        }
    }

    // The next run can go on without the last pieces, so a disk that refuses them is not another error.
    private void Leave()
    {
        try
        {
            Flush();
        }
        catch (Exception exception) when (FileErrors.IsFileSystem(exception) || exception is LoKrException)
        {
            _log!.Remove();
        }
    }

    private static string UnfinishedName(string path) => TemporaryName.Of(path, "partial");

    private static string Sum(ulong[] sums) => Convert.ToHexStringLower(XxHash3.Hash(MemoryMarshal.AsBytes<ulong>(sums)));
}

/// <summary>
/// The pieces of an unfinished file that are on the disk, with their checksums: a line for each piece, empty for one that is not. The list is written
/// whole with every flush, from memory that is there, since a large file has many pieces and many flushes.
/// </summary>
/// <param name="path">Path of the file.</param>
/// <param name="count">Number of its pieces.</param>
internal sealed class PieceLog(string path, int count)
{
    // Hexadecimal digits, and the end of the line.
    private const int LineBytes = (sizeof(ulong) * 2) + 1;

    private readonly byte[] _text = new byte[count * LineBytes];
    private int _length;

    /// <summary>Path of the list.</summary>
    public static string NameOf(string path) => TemporaryName.Of(path, "pieces");

    /// <summary>The checksums by piece; none where there is no list, or one of another file.</summary>
    public ulong?[] Read()
    {
        string list = NameOf(path);
        string[] lines = System.IO.File.Exists(list) ? System.IO.File.ReadAllLines(list) : [];
        return lines.Length == count ? [.. lines.Select(static line => ulong.TryParse(line, NumberStyles.HexNumber, CultureInfo.InvariantCulture, out ulong sum) ? sum : (ulong?)null)] : [];
    }

    /// <summary>Notes the pieces that are written. They are on the disk after the next flush; then the list may be.</summary>
    /// <param name="sums">Checksums by piece.</param>
    /// <param name="written">Whether a piece is written, while other threads write.</param>
    public void Note(ReadOnlySpan<ulong> sums, bool[] written)
    {
        _length = 0;
        for (int i = 0; i < count; i++)
        {
            if (Volatile.Read(ref written[i]) && sums[i].TryFormat(_text.AsSpan(_length), out int digits, "x", CultureInfo.InvariantCulture))
            {
                _length += digits;
            }

            _text[_length++] = (byte)'\n';
        }
    }

    /// <summary>Writes the list as it was noted.</summary>
    public void Write() => AtomicFile.Write(NameOf(path), stream => stream.Write(_text, 0, _length));

    /// <summary>Removes the list.</summary>
    public void Remove() => Contention.DeleteFile(NameOf(path));
}

/// <summary>Memory of one thread for the pieces that it merges: one buffer for each element type.</summary>
/// <param name="products">Memory that all threads share for products of factors.</param>
internal sealed class PieceBuffer(ProductMemory products) : IDisposable
{
    private readonly Dictionary<ScalarType, Tensor> _buffers = [];

    /// <summary>Lends memory for products of factors.</summary>
    public ProductMemory Products => products;

    /// <summary>A flat tensor in the buffer, with undefined content.</summary>
    /// <param name="byteCount">Its number of bytes.</param>
    /// <param name="type">Its element type.</param>
    public Tensor Take(int byteCount, SafetensorsDType type)
    {
        ScalarType scalar = SafetensorsDTypes.Natural(type);
        long count = byteCount / SafetensorsDTypes.Size(type);
        if (!_buffers.TryGetValue(scalar, out Tensor? buffer) || buffer.numel() < count)
        {
            buffer?.Dispose();
            buffer = empty(Math.Max(count, LayerDelta.BlockBytes / SafetensorsDTypes.Size(type)), scalar).DetachFromDisposeScope();
            _buffers[scalar] = buffer;
        }

        return buffer.narrow(0, 0, count);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (Tensor buffer in _buffers.Values)
        {
            buffer.Dispose();
        }
    }
}
