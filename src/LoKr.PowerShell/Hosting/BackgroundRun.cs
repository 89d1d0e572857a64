using System.Collections.Concurrent;
using System.Runtime.ExceptionServices;

namespace LoKr.PowerShell.Hosting;

/// <summary>
/// Work on one dedicated thread (torch's scopes and gradient mode belong to a thread) that hands reports to the pipeline thread,
/// the only one that may write. Disposing cancels the work and waits for it, however the pipeline ended.
/// </summary>
internal sealed class BackgroundRun<TReport, TResult> : IDisposable
{
    // Forward passes of nested modules recurse; the default size of a second thread differs between systems (1.5 MiB on most).
    private const int StackSize = 16 * 1024 * 1024;

    // A slow reader makes the work wait, so that reports do not pile up.
    private const int Capacity = 64;

    private readonly BlockingCollection<TReport> _reports = new(Capacity);
    private readonly CancellationTokenSource _cancel;
    private readonly Thread _thread;
    private TResult? _result;
    private ExceptionDispatchInfo? _failure;

    /// <summary>Starts the work.</summary>
    /// <param name="work">Gets a function for reports, and a token that ends it.</param>
    /// <param name="stop">Ends it too, from outside.</param>
    public BackgroundRun(Func<Action<TReport>, CancellationToken, TResult> work, CancellationToken stop)
    {
        _cancel = CancellationTokenSource.CreateLinkedTokenSource(stop);
        CancellationToken token = _cancel.Token;
        _thread = new Thread(() => Run(work, token), StackSize) { IsBackground = true, Name = "LoKr work" };
        _thread.Start();
    }

    /// <summary>Reports as they come, until the work ends.</summary>
    public IEnumerable<TReport> Reports => _reports.GetConsumingEnumerable();

    /// <summary>Waits for the result; an exception of the work is rethrown with its stack trace.</summary>
    public TResult Wait()
    {
        _thread.Join();
        _failure?.Throw();
        return _result!;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _cancel.Cancel();
        _thread.Join();
        _cancel.Dispose();
        _reports.Dispose();
    }

    private void Run(Func<Action<TReport>, CancellationToken, TResult> work, CancellationToken token)
    {
        try
        {
            _result = work(report => _reports.Add(report, token), token);
        }
        catch (Exception exception)
        {
            // Not swallowed: Wait throws it on the thread that can write it.
            _failure = ExceptionDispatchInfo.Capture(exception);
        }
        finally
        {
            _reports.CompleteAdding();
        }
    }
}
