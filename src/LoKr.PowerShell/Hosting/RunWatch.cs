using System.Runtime.InteropServices;
using LoKr.Core.Model;
using LoKr.Core.Runs;
using LoKr.Core.Training;

namespace LoKr.PowerShell.Hosting;

/// <summary>
/// Connects a run in a folder with what ends a command: Ctrl+C, a closed pipeline and signals end the run with a checkpoint, and a process that
/// a signal ends has the exit code that says so. SIGUSR1 writes a checkpoint, and the run goes on.
/// </summary>
/// <param name="life">The life of the command.</param>
internal sealed class RunWatch(CommandLife life) : IDisposable
{
    private RunRecorder? _recorder;
    private PosixSignalRegistration? _checkpoint;

    /// <summary>Warnings of the recorder.</summary>
    public IReadOnlyList<string> Warnings => _recorder?.Warnings ?? [];

    // 10 on Linux, 30 on macOS; .NET has no name for it.
    private static PosixSignal? UserSignal => OperatingSystem.IsLinux() ? (PosixSignal)10 : OperatingSystem.IsMacOS() ? (PosixSignal)30 : null;

    /// <summary>Watches a training, or takes part in one whose run folder another process has.</summary>
    /// <param name="life">The life of the command.</param>
    /// <param name="run">The run folder; null for a run in memory.</param>
    /// <param name="training">Options of the training.</param>
    public static RunWatch Of(CommandLife life, RunOptions? run, TrainingOptions training)
    {
        RunWatch watch = new(life);
        if (run is not null && training.Workers is { IsFirst: false })
        {
            watch.Follow();
        }

        return watch;
    }

    /// <summary>Begins to watch a run.</summary>
    public void Begin(RunRecorder recorder)
    {
        _recorder = recorder;
        life.SignalExitCode = RunExitCodes.RunAgain;

        // The work must not end as canceled before the run knows why.
        life.BeforeStop(() => recorder.RequestStop(life.IsSignaled ? StopReasons.Signal : StopReasons.Canceled));
        OnUserSignal(recorder.RequestCheckpoint);
    }

    /// <summary>Takes part in a run whose folder another process has: a signal ends this process with the code of that one.</summary>
    public void Follow()
    {
        life.SignalExitCode = RunExitCodes.RunAgain;

        // Launchers pass it on to every process, and the first one writes the checkpoint; nothing else may end this one.
        OnUserSignal(static () => { });
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _checkpoint?.Dispose();
        life.BeforeStop(null);
        life.SignalExitCode = null;
    }

    private void OnUserSignal(Action action)
    {
        if (UserSignal is PosixSignal signal)
        {
            _checkpoint = PosixSignalRegistration.Create(signal, context =>
            {
                context.Cancel = true;
                action();
            });
        }
    }
}
