using System.Diagnostics;
using System.Globalization;

namespace LoKr.Reliability;

/// <summary>This program as another process with a role. It says when it is ready, waits for the word to start, and is killed at the latest when disposed.</summary>
internal sealed class ChildProcess : IDisposable
{
    /// <summary>First argument of such a process.</summary>
    public const string Role = "--role";

    private readonly Process _process;

    private ChildProcess(Process process) => _process = process;

    public int Id => _process.Id;

    public bool HasExited => _process.HasExited;

    public int ExitCode => _process.ExitCode;

    /// <summary>Processor time so far; that of a process that ended is the last one.</summary>
    public TimeSpan ProcessorTime
    {
        get
        {
            try
            {
                _process.Refresh();
                return _process.TotalProcessorTime;
            }
            catch (InvalidOperationException)
            {
                return TimeSpan.Zero;
            }
        }
    }

    /// <summary>Starts a process and waits until it is ready.</summary>
    public static async Task<ChildProcess> StartAsync(IEnumerable<string> role, CancellationToken cancellation, params (string Name, string Value)[] variables)
    {
        ChildProcess child = Start(role, variables);
        string? line = await child.ReadLineAsync(cancellation);
        if (line != ChildRoles.Ready)
        {
            string rest = await child._process.StandardOutput.ReadToEndAsync(cancellation);
            child.Dispose();
            throw new InvalidOperationException($"The process of role '{string.Join(' ', role)}' is not ready: {line}\n{rest}");
        }

        return child;
    }

    /// <summary>Starts a process that does not wait for the word to start.</summary>
    public static ChildProcess Start(IEnumerable<string> role, params (string Name, string Value)[] variables)
    {
        ProcessStartInfo start = new("dotnet", [typeof(ChildProcess).Assembly.Location, Role, .. role])
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
        };
        // Ticks of many threads that wait for work would be most of what these short processes do.
        start.Environment["OMP_NUM_THREADS"] = "1";
        foreach ((string name, string value) in variables)
        {
            start.Environment[name] = value;
        }

        return new(Process.Start(start)!);
    }

    /// <summary>Lets it start.</summary>
    public void Go()
    {
        _process.StandardInput.BaseStream.WriteByte(1);
        _process.StandardInput.BaseStream.Flush();
    }

    public async Task<string?> ReadLineAsync(CancellationToken cancellation) => await _process.StandardOutput.ReadLineAsync(cancellation);

    /// <summary>SIGKILL.</summary>
    public void Kill() => _process.Kill();

    public async Task WaitAsync(CancellationToken cancellation) => await _process.WaitForExitAsync(cancellation);

    public void Dispose()
    {
        if (!_process.HasExited)
        {
            _process.Kill();
            _process.WaitForExit();
        }

        _process.Dispose();
    }

    public override string ToString() => string.Create(CultureInfo.InvariantCulture, $"process {_process.Id}");
}
