using LoKr.Core.Distributed;

namespace LoKr.Core.Tests.Distributed;

/// <summary>Workers that are threads of this process.</summary>
internal sealed class ThreadWorkers : IDisposable
{
    private static readonly TimeSpan s_limit = TimeSpan.FromSeconds(60);

    private readonly Barrier _barrier;
    private readonly byte[][] _slots;

    private ThreadWorkers(int size) => (_barrier, _slots) = (new Barrier(size), new byte[size][]);

    /// <summary>Lets each of some workers do its part, and returns what it gave, or the exception that ended it.</summary>
    public static (T? Result, Exception? Error)[] Run<T>(int size, Func<WorkerGroup, T> part)
    {
        using ThreadWorkers shared = new(size);
        (T?, Exception?)[] results = new (T?, Exception?)[size];
        Thread[] threads = [.. Enumerable.Range(0, size).Select(rank => new Thread(
            () =>
            {
                try
                {
                    results[rank] = (part(new WorkerGroup(new Transport(shared, rank))), null);
                }
                catch (Exception exception)
                {
                    results[rank] = (default, exception);
                }
            },
            16 * 1024 * 1024))];
        Array.ForEach(threads, static thread => thread.Start());
        Array.ForEach(threads, static thread => thread.Join());
        return results;
    }

    public void Dispose() => _barrier.Dispose();

    private void Meet()
    {
        if (!_barrier.SignalAndWait(s_limit))
        {
            throw new TimeoutException("Another worker did not come.");
        }
    }

    private sealed class Transport(ThreadWorkers shared, int rank) : ITransport
    {
        public string Name => "threads";

        public int Rank => rank;

        public int Size => shared._slots.Length;

        public void AllGather(ReadOnlySpan<byte> mine, Span<byte> all)
        {
            shared._slots[rank] = mine.ToArray();
            shared.Meet();
            int offset = 0;
            foreach (byte[] slot in shared._slots)
            {
                slot.CopyTo(all[offset..]);
                offset += slot.Length;
            }

            shared.Meet();
        }

        public void AllGather(ReadOnlySpan<byte> mine, Span<byte> all, int[] counts)
        {
            if (mine.Length != counts[rank] || all.Length != counts.Sum())
            {
                throw new ArgumentException("The counts are not those of the bytes.");
            }

            AllGather(mine, all);
        }

        public void Abort(int exitCode) => throw new InvalidOperationException($"Aborted with {exitCode}.");

        public void Dispose()
        {
        }
    }
}
