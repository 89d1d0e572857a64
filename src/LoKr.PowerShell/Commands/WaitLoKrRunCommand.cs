using System.Diagnostics;
using System.Management.Automation;
using LoKr.Core.Runs;
using LoKr.PowerShell.Base;
using LoKr.PowerShell.Binding;
using LoKr.PowerShell.Hosting;

namespace LoKr.PowerShell.Commands;

/// <summary>Waits until no process works on runs any more, and writes their state.</summary>
[Cmdlet(VerbsLifecycle.Wait, "LoKrRun", DefaultParameterSetName = PathSet)]
[OutputType(typeof(LoKrRun))]
public sealed class WaitLoKrRunCommand : RunCommand
{
    private readonly long _started = Stopwatch.GetTimestamp();

    /// <summary>Longest time to wait (90s, 10m, 2h); runs that go on then are written as they are.</summary>
    [Parameter]
    [DurationTransformation]
    public TimeSpan? Timeout { get; set; }

    /// <inheritdoc/>
    protected override void Process() => ForEachRun(folder =>
    {
        using ProgressBar bar = new(this, $"Waiting for {folder.Path}");
        LoKrRun run = folder.Read();
        while (run.State is RunState.Running && !(Stopwatch.GetElapsedTime(_started) >= Timeout))
        {
            bar.ShowIfDue((double)run.Step / run.TotalSteps, $"step {run.Step}/{run.TotalSteps}");
            if (StopToken.WaitHandle.WaitOne(TimeSpan.FromMilliseconds(250)))
            {
                StopToken.ThrowIfCancellationRequested();
            }

            run = folder.Read();
        }

        WriteObject(run);
    });
}
