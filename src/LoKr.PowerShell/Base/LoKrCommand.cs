using System.ComponentModel;
using System.Management.Automation;
using System.Runtime.ExceptionServices;
using LoKr.Core.Data;
using LoKr.Core.Distributed;
using LoKr.Core.Model;
using LoKr.Core.Runtime;
using LoKr.Core.Training;
using LoKr.PowerShell.Binding;
using LoKr.PowerShell.Errors;
using LoKr.PowerShell.Hosting;

namespace LoKr.PowerShell.Base;

/// <summary>Base of every cmdlet: one way for errors and warnings to leave, one way to resolve paths, one way to load the native runtime.</summary>
[EditorBrowsable(EditorBrowsableState.Never)]
public abstract class LoKrCommand : PSCmdlet, IDisposable
{
    private CommandLife? _life;
    private ProgressBar? _lastingBar;

    /// <summary>Creates the cmdlet.</summary>
    protected LoKrCommand() => Paths = new PathResolver(this);

    /// <summary>Canceled when the user or the engine stops the pipeline, and when a signal ends the process.</summary>
    protected CancellationToken StopToken => Life.StopToken;

    /// <summary>How signals and Ctrl+C end this command.</summary>
    private protected CommandLife Life => _life ??= new CommandLife(Host);

    /// <summary>The current object for error records, as a path or a name: $Error would keep a model itself in memory.</summary>
    protected virtual string? Subject => null;

    /// <summary>Whether this call only shows what it would do, by -WhatIf or $WhatIfPreference.</summary>
    protected bool IsRehearsal => MyInvocation.BoundParameters.TryGetValue("WhatIf", out object? given)
        ? given is SwitchParameter { IsPresent: true }
        : LanguagePrimitives.IsTrue(GetVariableValue("WhatIfPreference", false));

    /// <summary>Whether another process, which mpirun or srun started beside this one, shows what happens and hands on the results.</summary>
    private protected virtual bool IsFollower => Launch.Current is { Rank: > 0 };

    /// <summary>Whether the command writes files, which the first of several processes that work together does for all.</summary>
    private protected virtual bool IsForFirstWorker => false;

    /// <summary>Resolves paths from parameters.</summary>
    private protected PathResolver Paths { get; }

    /// <summary>Work before the first object; exceptions end the command with an error record.</summary>
    protected virtual void Begin()
    {
    }

    /// <summary>
    /// Work on one object. An exception about an object of the pipeline is written, and the next object follows; where the call
    /// itself names the only object, it ends the command.
    /// </summary>
    protected virtual void Process()
    {
    }

    /// <summary>Work after the last object; exceptions end the command with an error record.</summary>
    protected virtual void End()
    {
    }

    /// <inheritdoc/>
    protected sealed override void BeginProcessing()
    {
        // Before the first object: what binds from the pipeline later is not what was written on the line.
        Paths.IsLiteral = MyInvocation.BoundParameters.ContainsKey("LiteralPath");
        ProcessSignals.Current.Add(Life);
        Guard(Begin);
    }

    /// <inheritdoc/>
    protected sealed override void ProcessRecord()
    {
        if (!IsForFirstWorker || !WorkerGroup.IsFollowing)
        {
            Guard(Process, oneOfMany: MyInvocation.ExpectingInput);
        }
    }

    /// <inheritdoc/>
    protected sealed override void EndProcessing()
    {
        if (!IsForFirstWorker || !WorkerGroup.IsFollowing)
        {
            Guard(End);
        }
    }

    /// <inheritdoc/>
    protected sealed override void StopProcessing() => Life.Cancel();

    /// <inheritdoc/>
    public void Dispose()
    {
        Dispose(disposing: true);
        GC.SuppressFinalize(this);
    }

    /// <summary>Releases what the command holds.</summary>
    protected virtual void Dispose(bool disposing)
    {
        if (disposing)
        {
            _life?.Dispose();
        }
    }

    /// <summary>Hands an object to the next command. Meanwhile the thread is in its code, where a signal cannot wait for this command.</summary>
    /// <param name="value">The object.</param>
    protected new void WriteObject(object? value)
    {
        bool ends = Life.Leave();
        try
        {
            ThrowIfEnding(ends);
            base.WriteObject(value);
        }
        finally
        {
            Life.Enter();
        }
    }

    /// <summary>Writes a warning; of several processes that work together the first one does.</summary>
    /// <param name="text">The warning.</param>
    protected new void WriteWarning(string text)
    {
        if (!IsFollower)
        {
            base.WriteWarning(text);
        }
    }

    /// <summary>Does something to one object of several; an exception is written, and the next object follows.</summary>
    /// <param name="target">The object, for the error record.</param>
    /// <param name="action">The work.</param>
    protected void ForOne(object target, Action action)
    {
        ArgumentNullException.ThrowIfNull(action);
        try
        {
            action();
        }
        catch (Exception exception) when (!ErrorFactory.IsEngine(exception) && exception is not OperationCanceledException)
        {
            WriteError(ErrorFactory.Create(exception, MyInvocation.MyCommand.Name, target));
        }
    }

    /// <summary>
    /// The names of adapters that a parameter means, in the order of the model. Of several values one that means none is an error that is written, and the
    /// others count; the exception about an only one ends the work on the model.
    /// </summary>
    /// <param name="model">The model or the pipeline.</param>
    /// <param name="names">The values of the parameter, with or without wildcards; null for all adapters.</param>
    /// <param name="select">Finds the names that some values mean, or throws.</param>
    private protected IReadOnlyList<string> SelectEach(IAdaptable model, string[]? names, Func<IAdaptable, string[], IReadOnlyList<string>> select)
    {
        if (names is null or { Length: 1 })
        {
            return names is null ? model.GetAdapterNames() : select(model, names);
        }

        HashSet<string> chosen = new(StringComparer.Ordinal);
        foreach (string name in names)
        {
            ForOne(name, () => chosen.UnionWith(select(model, [name])));
        }

        return [.. model.GetAdapterNames().Where(chosen.Contains)];
    }

    /// <summary>Writes warnings of the library, each as one warning of PowerShell.</summary>
    protected void WriteWarnings(IEnumerable<string> warnings)
    {
        ArgumentNullException.ThrowIfNull(warnings);
        foreach (string warning in warnings)
        {
            WriteWarning(warning);
        }
    }

    /// <summary>Warnings about parameters that were given and have no effect beside another one.</summary>
    /// <param name="reason">Why, as the end of a sentence: without -RunPath.</param>
    /// <param name="parameters">Names of the parameters; those that were not given are passed over.</param>
    private protected IEnumerable<string> Ignored(string reason, params string[] parameters) =>
        parameters.Where(MyInvocation.BoundParameters.ContainsKey).Select(name => $"-{name} has no effect {reason}.");

    /// <summary>Loads libtorch before the first torch call, and says what was loaded the first time.</summary>
    /// <param name="options">Where to look; null for the usual places.</param>
    protected LoKrRuntimeInfo EnsureRuntime(RuntimeOptions? options = null)
    {
        bool first = TorchRuntime.Current is null;
        LoKrRuntimeInfo runtime = TorchRuntime.EnsureLoaded(options);
        if (first)
        {
            WriteVerbose($"libtorch {runtime.LibtorchVersion} ({runtime.Flavor}) from {runtime.Path}.");
            foreach (string workaround in runtime.Workarounds)
            {
                WriteVerbose(workaround);
            }
        }

        return runtime;
    }

    /// <summary>The bar of work that goes on from object to object. The command hides it at its end; an error that ends the command hides it too.</summary>
    /// <param name="activity">What is done, in words.</param>
    private protected ProgressBar LastingBar(string activity) => _lastingBar ??= new(this, activity);

    /// <summary>Runs work on a thread of its own, with a progress bar; Ctrl+C and a signal cancel it and wait for it.</summary>
    /// <param name="activity">What is done, in words.</param>
    /// <param name="status">Words for the share that is done.</param>
    /// <param name="work">Gets a function for the share that is done, which any thread may call, and a token.</param>
    private protected T RunReported<T>(string activity, Func<double, FormattableString> status, Func<Action<double>, CancellationToken, T> work)
    {
        using ProgressBar bar = new(this, activity);
        using BackgroundRun<double, T> run = new((report, token) => work(bar.Throttle(report), token), StopToken);
        foreach (double share in run.Reports)
        {
            bar.Show(share, status(share));
        }

        return run.Wait();
    }

    /// <summary>Reads rows of text data, and says how.</summary>
    /// <param name="data">Paths of data files, hashtables and objects.</param>
    /// <param name="reading">Names of columns and treatment of rows that do not fit.</param>
    private protected IReadOnlyList<DataRow> ReadRows(IReadOnlyList<object?> data, DataReading reading)
    {
        using ProgressBar bar = new(this, "Reading data");
        IReadOnlyList<DataRow> rows = DataRows.Read(data, Paths, reading, (file, count) => bar.ShowIfDue(null, $"{Path.GetFileName(file)}, {count} rows"), StopToken);
        foreach (string note in reading.Notes)
        {
            WriteInformation(note, ["LoKr", "Data"]);
        }

        return rows;
    }

    /// <summary>Reads rows of text data and tokenizes them for a model.</summary>
    /// <param name="model">The model.</param>
    /// <param name="data">Paths of data files, hashtables and objects.</param>
    /// <param name="options">What is trained: the longest sequence, the loss of a sentence encoder.</param>
    /// <param name="reading">Names of columns and treatment of rows that do not fit.</param>
    private protected ITrainingTask ReadTask(LoKrModel model, IReadOnlyList<object?> data, TrainingOptions options, DataReading reading)
    {
        IReadOnlyList<DataRow> rows = ReadRows(data, reading);
        ITrainingTask task = RunReported(
            "Tokenizing",
            share => $"{share:P0} of {rows.Count} rows",
            (report, token) => TrainingTaskFactory.Create(model, rows, options, reading, report, token));
        foreach (string note in task.Notes)
        {
            WriteInformation(note, ["LoKr", "Data"]);
        }

        return task;
    }

    private void Guard(Action action, bool oneOfMany = false)
    {
        Exception? failure = null;
        Life.Enter();
        try
        {
            action();
        }
        catch (Exception exception)
        {
            failure = exception;
        }

        bool ends = Life.Leave();
        switch (failure)
        {
            case null:
            case OperationCanceledException when Stopping || ends:
                // Ctrl+C: the engine raises PipelineStoppedException itself.
                break;
            case not null when ErrorFactory.IsEngine(failure):
                HideLastingBar();
                ThrowIfEnding(ends && failure is not PipelineStoppedException);
                ExceptionDispatchInfo.Throw(failure);
                break;
            case not null when ends:
                // No script reads it any more.
                Life.Announce($"{MyInvocation.MyCommand.Name}: {failure.Message}");
                break;
            case not null when oneOfMany:
                WriteError(ErrorFactory.Create(failure, MyInvocation.MyCommand.Name, Subject));
                break;
            default:
                HideLastingBar();
                ThrowTerminatingError(ErrorFactory.Create(failure, MyInvocation.MyCommand.Name, Subject));
                break;
        }

        ThrowIfEnding(ends);
    }

    // Where the pipeline is stopped, the host takes its bars away itself and takes no more records.
    private void HideLastingBar()
    {
        if (!Stopping)
        {
            _lastingBar?.Hide();
        }
    }

    // No catch and no trap of a script takes this exception; finally blocks run.
    private static void ThrowIfEnding(bool ends)
    {
        if (ends)
        {
            throw new TerminateException();
        }
    }
}
