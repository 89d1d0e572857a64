namespace LoKr.Core.Model;

/// <summary>
/// Who uses a model. One thread may change or train it, or any number may run it; whoever else comes is refused at once, because two of them
/// together would corrupt the weights. A thread that has the model may begin further uses inside.
/// </summary>
internal sealed class ModelUse(LoKrModel model)
{
    private readonly Lock _lock = new();
    private readonly Dictionary<int, int> _readers = [];
    private string _purpose = "";
    private int _owner;
    private int _depth;

    /// <summary>Whether the model was disposed.</summary>
    public bool IsDisposed { get; private set; }

    /// <summary>Begins a use that nobody may share.</summary>
    /// <param name="purpose">What is done to the model: <c>trained</c>.</param>
    /// <returns>Ends the use; to be disposed on the same thread.</returns>
    public IDisposable Change(string purpose)
    {
        lock (_lock)
        {
            RequireAlive();
            int thread = Environment.CurrentManagedThreadId;
            if (_owner != thread)
            {
                RequireNoOwner();
                if (_readers.Keys.Any(reader => reader != thread))
                {
                    throw ModelErrors.Busy(model, _purpose);
                }

                (_owner, _purpose) = (thread, purpose);
            }

            _depth++;
            return new Ended(EndChange);
        }
    }

    /// <summary>Begins a use that others may share: the model is run and stays as it is.</summary>
    /// <inheritdoc cref="Change"/>
    public IDisposable Run(string purpose)
    {
        lock (_lock)
        {
            RequireAlive();
            int thread = Environment.CurrentManagedThreadId;
            if (_owner == thread)
            {
                _depth++;
                return new Ended(EndChange);
            }

            RequireNoOwner();
            _purpose = purpose;
            _readers[thread] = _readers.GetValueOrDefault(thread) + 1;
            return new Ended(() => EndRun(thread));
        }
    }

    /// <summary>Ends every use for good; false where that was done before.</summary>
    public bool TryDispose()
    {
        lock (_lock)
        {
            if (IsDisposed)
            {
                return false;
            }

            using (Change("disposed"))
            {
                IsDisposed = true;
                return true;
            }
        }
    }

    /// <summary>Throws for a model that was disposed.</summary>
    public void RequireAlive()
    {
        if (IsDisposed)
        {
            throw ModelErrors.Disposed(model.Name, model);
        }
    }

    private void RequireNoOwner()
    {
        if (_owner != 0)
        {
            throw ModelErrors.Busy(model, _purpose);
        }
    }

    private void EndChange()
    {
        lock (_lock)
        {
            if (--_depth == 0)
            {
                _owner = 0;
            }
        }
    }

    private void EndRun(int thread)
    {
        lock (_lock)
        {
            if (--_readers[thread] == 0)
            {
                _readers.Remove(thread);
            }
        }
    }

    private sealed class Ended(Action end) : IDisposable
    {
        private Action? _end = end;

        public void Dispose() => Interlocked.Exchange(ref _end, null)?.Invoke();
    }
}

/// <summary>One use of several models at once: of all, or of none.</summary>
internal sealed class ModelUses : IDisposable
{
    private readonly List<IDisposable> _uses = [];

    private ModelUses()
    {
    }

    /// <summary>Begins a use of every model that nobody may share.</summary>
    public static ModelUses Change(IEnumerable<LoKrModel> models, string purpose) => Begin(models, model => model.Use.Change(purpose));

    /// <summary>Begins a use of every model that others may share.</summary>
    public static ModelUses Run(IEnumerable<LoKrModel> models, string purpose) => Begin(models, model => model.Use.Run(purpose));

    /// <inheritdoc/>
    public void Dispose() => _uses.ForEach(static use => use.Dispose());

    private static ModelUses Begin(IEnumerable<LoKrModel> models, Func<LoKrModel, IDisposable> begin)
    {
        ModelUses uses = new();
        try
        {
            foreach (LoKrModel model in models)
            {
                uses._uses.Add(begin(model));
            }

            return uses;
        }
        catch
        {
            uses.Dispose();
            throw;
        }
    }
}
