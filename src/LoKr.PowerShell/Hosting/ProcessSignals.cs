using System.Management.Automation.Host;
using System.Management.Automation.Runspaces;
using System.Reflection;
using System.Runtime.InteropServices;

namespace LoKr.PowerShell.Hosting;

/// <summary>
/// Handles SIGTERM and SIGHUP while commands of the module run: the commands stop as at Ctrl+C, <c>finally</c> blocks run, nothing after
/// them does, and the process ends with 128 + the number of the signal, whatever the script catches or exits with. So does SIGINT where
/// pwsh was started for a script or a command: by itself it would end with 0, as if nothing had happened. At a prompt Ctrl+C stops the command.
/// </summary>
/// <remarks>
/// Without a command of the module the runtime ends the process at once, with the same code. In an application that hosts PowerShell
/// signals are the application's.
/// </remarks>
internal sealed class ProcessSignals
{
    // pwsh, LoKr.Shell, and the child processes of both.
    private readonly bool _isShell = Assembly.GetEntryAssembly()?.GetReferencedAssemblies().Any(static name => name.Name == "Microsoft.PowerShell.ConsoleHost") ?? false;

    private readonly PosixSignal[] _signals = ShellArguments.EndAfterScript(Environment.GetCommandLineArgs())
        ? [PosixSignal.SIGTERM, PosixSignal.SIGHUP, PosixSignal.SIGINT]
        : [PosixSignal.SIGTERM, PosixSignal.SIGHUP];

    private readonly Lock _lock = new();
    private readonly List<CommandLife> _running = [];
    private PosixSignalRegistration[] _registrations = [];

    /// <summary>The instance of the process, which is what signals are sent to.</summary>
    public static ProcessSignals Current { get; } = new();

    /// <summary>Holds the signals for a command, until <see cref="Remove"/>.</summary>
    public void Add(CommandLife command)
    {
        lock (_lock)
        {
            _running.Add(command);
            if (_running.Count == 1 && _isShell)
            {
                _registrations = Array.ConvertAll(_signals, signal => PosixSignalRegistration.Create(signal, OnSignal));
            }
        }
    }

    /// <summary>Releases the signals if no other command holds them.</summary>
    public void Remove(CommandLife command)
    {
        PosixSignalRegistration[] released = [];
        lock (_lock)
        {
            if (_running.Remove(command) && _running.Count == 0)
            {
                (released, _registrations) = (_registrations, released);
            }
        }

        // Outside of the lock: disposing may wait for a handler, which takes it.
        foreach (PosixSignalRegistration registration in released)
        {
            registration.Dispose();
        }
    }

    private void OnSignal(PosixSignalContext context)
    {
        // At SIGINT the console stops its pipeline by itself. If a command ended before, that stop would meet the finally blocks.
        bool isStopped = context.Signal is PosixSignal.SIGINT;
        CommandLife? speaker;
        CommandLife[] ending;
        int? own;
        lock (_lock)
        {
            own = _running.Select(static command => command.SignalExitCode).FirstOrDefault(static code => code is not null);
            speaker = _running.FirstOrDefault(static command => command.IsInConsole) ?? _running.FirstOrDefault();
            ending = isStopped ? [] : [.. _running.Where(static command => command.BeginEnd())];
        }

        if (speaker is null)
        {
            return;
        }

        context.Cancel = true;
        int code = own ?? (context.Signal switch { PosixSignal.SIGHUP => 129, PosixSignal.SIGINT => 130, _ => 143 });

        speaker.Announce($"{context.Signal}: the process ends with exit code {code}.");
        speaker.SetExitCode(code);

        foreach (CommandLife command in ending)
        {
            command.Cancel();
        }

        if (ending.Length == 0 && !isStopped)
        {
            // The console's thread is in other code, or waits for a job that runs the command: only the engine can stop that.
            new Thread(() => EndProcess(speaker, code)) { IsBackground = true, Name = "LoKr end of the process" }.Start();
        }
    }

    // Closing the first runspace stops its pipeline, waits for its finally blocks, and closes all other runspaces.
    private static void EndProcess(CommandLife speaker, int code)
    {
        try
        {
            using System.Management.Automation.PowerShell shell = System.Management.Automation.PowerShell.Create();
            shell.AddCommand("Microsoft.PowerShell.Utility\\Get-Runspace").Invoke<Runspace>().MinBy(static runspace => runspace.Id)?.Close();
        }
        catch (Exception exception)
        {
            speaker.Announce(exception.Message);
        }

        Environment.Exit(code);
    }
}

/// <summary>The life of one command: whether its thread is in code of the module, and how Ctrl+C and signals end it.</summary>
/// <param name="host">The host of the command.</param>
internal sealed class CommandLife(PSHost host) : IDisposable
{
    private readonly Lock _lock = new();
    private readonly CancellationTokenSource _stop = new();
    private int _depth;
    private Action? _beforeStop;
    private bool _signaled;
    private bool _ending;
    private bool _disposed;

    /// <summary>Canceled when the pipeline is stopped, and when a signal ends the process.</summary>
    public CancellationToken StopToken => _stop.Token;

    /// <summary>Whether a signal ends the process, wherever it met the thread of the command.</summary>
    public bool IsSignaled
    {
        get
        {
            lock (_lock)
            {
                return _signaled;
            }
        }
    }

    /// <summary>Exit code of a process that a signal ends while this command runs; null for 128 + the number of the signal.</summary>
    public int? SignalExitCode { get; set; }

    /// <summary>The host of the command.</summary>
    public PSHost Host => host;

    /// <summary>Whether the command runs in pwsh's console, which ends the process when its script is done; other hosts and threads of jobs do not.</summary>
    public bool IsInConsole { get; } = host.Name == "ConsoleHost";

    /// <summary>Enters code of the module.</summary>
    public void Enter()
    {
        lock (_lock)
        {
            _depth++;
        }
    }

    /// <summary>Leaves code of the module.</summary>
    /// <returns>Whether the command must end the script, as a signal ends the process.</returns>
    public bool Leave()
    {
        lock (_lock)
        {
            _depth--;
            return _ending;
        }
    }

    /// <summary>Tells the command of a signal; it ends the script of the console if its thread is in code of the module.</summary>
    /// <returns>Whether it will.</returns>
    public bool BeginEnd()
    {
        lock (_lock)
        {
            _signaled = true;
            return _ending = IsInConsole && _depth > 0;
        }
    }

    /// <summary>Ends the script of the console with an exit code, when the command leaves code of the module.</summary>
    /// <param name="code">The exit code.</param>
    public void EndProcess(int code)
    {
        SetExitCode(code);
        BeginEnd();
    }

    /// <summary>Decides the exit code of the process of a console.</summary>
    /// <param name="code">The exit code.</param>
    public void SetExitCode(int code)
    {
        // The last word, also where a finally block calls exit.
        AppDomain.CurrentDomain.ProcessExit += (_, _) => Environment.ExitCode = code;
        if (IsInConsole)
        {
            host.SetShouldExit(code);
        }
    }

    /// <summary>Has something done before <see cref="StopToken"/> is canceled, which work may see at once; now where it is canceled already.</summary>
    /// <param name="action">What is done; null for nothing. No thread is in the former one when this returns.</param>
    public void BeforeStop(Action? action)
    {
        lock (_lock)
        {
            _beforeStop = action;
            if (_stop.IsCancellationRequested)
            {
                action?.Invoke();
            }
        }
    }

    /// <summary>Ends the work of the command.</summary>
    public void Cancel()
    {
        lock (_lock)
        {
            // A signal may come when the command is done.
            if (!_disposed)
            {
                _beforeStop?.Invoke();
                _stop.Cancel();
            }
        }
    }

    /// <summary>Shows a line beside the streams of PowerShell, of which a script that is being ended reads none.</summary>
    public void Announce(string line) => host.UI.WriteErrorLine(line);

    /// <inheritdoc/>
    public void Dispose()
    {
        ProcessSignals.Current.Remove(this);
        lock (_lock)
        {
            _disposed = true;
            _stop.Dispose();
        }
    }
}
