using System.Management.Automation;
using System.Management.Automation.Runspaces;

namespace LoKr.Shell;

/// <summary>One runspace of the PowerShell engine with the LoKr module imported from the folder beside the program.</summary>
internal sealed class Engine : IDisposable
{
    private const int Interrupted = 130;
    private readonly ShellHost _host = new();
    private readonly Runspace _runspace;
    private readonly Lock _lock = new();
    private PowerShell? _running;
    private bool _interrupted;

    /// <summary>Opens the runspace.</summary>
    public Engine()
    {
        string modules = Path.Combine(AppContext.BaseDirectory, "modules");
        Environment.SetEnvironmentVariable("PSModulePath",
            string.Join(Path.PathSeparator, new[] { modules, Environment.GetEnvironmentVariable("PSModulePath") }.Where(path => !string.IsNullOrEmpty(path))));

        InitialSessionState state = InitialSessionState.CreateDefault2();
        state.ThrowOnRunspaceOpenError = true;
        if (OperatingSystem.IsWindows())
        {
            // The user names the script on the command line, as with pwsh -ExecutionPolicy Bypass.
            state.ExecutionPolicy = Microsoft.PowerShell.ExecutionPolicy.Bypass;
        }

        state.ImportPSModule([Path.Combine(modules, "LoKr", "LoKr.psd1")]);
        _runspace = RunspaceFactory.CreateRunspace(_host, state);
        _runspace.ThreadOptions = PSThreadOptions.ReuseThread;
        _runspace.Open();
        Runspace.DefaultRunspace = _runspace;
        Console.CancelKeyPress += Interrupt;
    }

    /// <summary>Whether a script asked for the end with <c>exit</c>.</summary>
    public bool ShouldExit => _host.ExitCode is not null;

    /// <summary>Runs a script file and returns the exit status of the program.</summary>
    public int RunScript(string path, IReadOnlyList<CommandParameter> arguments)
    {
        string full = Path.GetFullPath(path);
        if (!File.Exists(full))
        {
            _host.UI.WriteErrorLine($"There is no script at '{full}'.");
            return 64;
        }

        // As a function, a script ends the host with `exit`, as with pwsh -File; run as a file it would only end itself.
        string name = Path.GetFileName(full);
        try
        {
            ExternalScriptInfo script = (ExternalScriptInfo)_runspace.SessionStateProxy.InvokeCommand.GetCommand(full, CommandTypes.ExternalScript);
            _runspace.SessionStateProxy.InvokeProvider.Item.Set($"function:{WildcardPattern.Escape(name)}", script.ScriptBlock);
        }
        catch (ParseException exception)
        {
            ErrorPrinter.Print(_host.UI, exception.ErrorRecord);
            return 1;
        }

        Command command = new(name);
        foreach (CommandParameter argument in arguments)
        {
            command.Parameters.Add(argument);
        }

        return Run(command);
    }

    /// <summary>
    /// Runs a command of the command line. As with pwsh -Command, a last statement that failed is a failure, although the engine
    /// only reports its error and goes on.
    /// </summary>
    public int RunCommand(string text) => RunText($"{text}{Environment.NewLine}if (-not $?) {{ exit 1 }}");

    /// <summary>Runs text and returns the exit status of the program.</summary>
    public int RunText(string text) => Run(new Command(text, isScript: true, useLocalScope: false));

    /// <inheritdoc/>
    public void Dispose()
    {
        Console.CancelKeyPress -= Interrupt;
        _runspace.Dispose();
    }

    private int Run(Command command)
    {
        using PowerShell shell = PowerShell.Create(_runspace);
        shell.Commands.AddCommand(command);
        shell.AddCommand("Out-Default");
        shell.Streams.Error.DataAdded += (_, added) => ErrorPrinter.Print(_host.UI, shell.Streams.Error[added.Index]);
        lock (_lock)
        {
            _running = shell;
            _interrupted = false;
        }

        try
        {
            shell.Invoke();
            // A pipeline that is stopped while it runs no command ends without an exception.
            return _host.ExitCode ?? (_interrupted ? Interrupted : 0);
        }
        catch (PipelineStoppedException)
        {
            return _host.ExitCode ?? Interrupted;
        }
        catch (RuntimeException exception)
        {
            ErrorPrinter.Print(_host.UI, exception.ErrorRecord);
            return _host.ExitCode ?? 1;
        }
        finally
        {
            lock (_lock)
            {
                _running = null;
            }

            _host.FinishProgress();
        }
    }

    private void Interrupt(object? sender, ConsoleCancelEventArgs signal)
    {
        lock (_lock)
        {
            // A second Ctrl+C ends the program whatever it does.
            signal.Cancel = _running is not null && !_interrupted;
            if (signal.Cancel)
            {
                _interrupted = true;
                _running!.BeginStop(null, null);
            }
        }
    }
}
