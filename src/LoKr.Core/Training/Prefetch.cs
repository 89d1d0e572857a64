using System.Threading.Channels;

namespace LoKr.Core.Training;

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
