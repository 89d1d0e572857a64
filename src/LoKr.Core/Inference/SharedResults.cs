using System.Globalization;
using System.Text;
using LoKr.Core.Distributed;
using LoKr.Core.Errors;
using LoKr.Core.IO;
using LoKr.Core.Model;
using LoKr.Core.Training;
using static TorchSharp.torch;

namespace LoKr.Core.Inference;

/// <summary>
/// Inference that workers share by turns: all of them read the same inputs, cut them into the same pieces, and each computes every piece whose turn it is.
/// The first one gets the results of all, in the order of the inputs and to the bit those of one process.
/// </summary>
public sealed class SharedResults
{
    private static readonly JsonErrors s_errors = new(ErrorIds.WorkersDiffer, ErrorIds.WorkersDiffer, "Use the same version of the library on every worker.");

    private readonly WorkerGroup _workers;
    private string _own = "";
    private int _pieces;

    /// <summary>Begins together with the other workers.</summary>
    /// <param name="workers">The workers.</param>
    /// <param name="model">The model, which has to be the same on all of them.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.WorkersDiffer"/>, <see cref="ErrorIds.WorkerFailed"/>.</exception>
    public SharedResults(WorkerGroup workers, LoKrModel model)
    {
        ArgumentNullException.ThrowIfNull(workers);
        ArgumentNullException.ThrowIfNull(model);
        _workers = workers;
        workers.Run(() =>
        {
            workers.Agree(("model", ModelHash.OfUse(model)), ("number of threads", get_num_threads().ToString(CultureInfo.InvariantCulture)));
            return 0;
        });
    }

    /// <summary>Takes part in the next piece.</summary>
    /// <param name="compute">Computes its results, a record that JSON keeps; called if it is this worker's turn. An exception ends only this piece.</param>
    /// <param name="onError">Gets such an exception; it is not called for a cancellation.</param>
    /// <returns>Results that are complete, in order; none on other workers than the first.</returns>
    /// <exception cref="LoKrException">As for the constructor.</exception>
    public IReadOnlyList<T> Add<T>(Func<T> compute, Action<Exception> onError)
        where T : class
    {
        ArgumentNullException.ThrowIfNull(compute);
        ArgumentNullException.ThrowIfNull(onError);
        if (_pieces++ % _workers.Size == _workers.Rank)
        {
            try
            {
                _own = JsonRecords.ToLine(compute());
            }
            catch (Exception exception) when (exception is not OperationCanceledException)
            {
                onError(exception);
            }
        }

        return _pieces % _workers.Size == 0 ? Collect<T>() : [];
    }

    /// <summary>The results of the last pieces.</summary>
    /// <inheritdoc cref="Add"/>
    public IReadOnlyList<T> Complete<T>()
        where T : class => Collect<T>();

    private IReadOnlyList<T> Collect<T>()
        where T : class => _workers.Run<IReadOnlyList<T>>(() =>
    {
        // The number of pieces tells inputs apart that are longer on one worker than on another.
        WorkerMessages messages = _workers.Exchange(WorkerCall.Collect, Encoding.UTF8.GetBytes(string.Create(CultureInfo.InvariantCulture, $"{_pieces}:{_own}")));
        _own = "";
        string[][] parts = [.. Enumerable.Range(0, _workers.Size).Select(rank => Encoding.UTF8.GetString(messages[rank].Span).Split(':', 2))];
        int other = Array.FindIndex(parts, part => part[0] != parts[0][0]);
        if (other >= 0)
        {
            throw _workers.Differ(other, $"worker {other} has {parts[other][0]} pieces of input where worker 0 has {parts[0][0]}");
        }

        return !_workers.IsFirst ? [] : [.. parts.Where(static part => part[1].Length > 0).Select(static part => JsonRecords.Parse<T>(part[1], "a result of a worker", s_errors))];
    });
}
