using System.Management.Automation;
using LoKr.Core.Distributed;
using LoKr.Core.Errors;
using LoKr.Core.IO;
using LoKr.Core.Runs;
using LoKr.PowerShell.Base;
using LoKr.PowerShell.Binding;
using LoKr.PowerShell.Errors;
using LoKr.PowerShell.Hosting;

namespace LoKr.PowerShell.Commands;

/// <summary>Does a job: trains on new data or goes on where it was interrupted, asks the gate, registers and publishes.</summary>
[Cmdlet(VerbsLifecycle.Invoke, "LoKrJob", DefaultParameterSetName = PathSet, SupportsShouldProcess = true)]
[OutputType(typeof(LoKrJobResult))]
public sealed class InvokeLoKrJobCommand : LoKrCommand
{
    private const string PathSet = "Path";
    private const string LiteralPathSet = "LiteralPath";

    /// <summary>The job file, .psd1 or .json. Wildcards are allowed if they match one item.</summary>
    [Parameter(Mandatory = true, Position = 0, ParameterSetName = PathSet)]
    [ArgumentCompleter(typeof(JobFileCompleter))]
    [SupportsWildcards]
    [ValidateNotNullOrEmpty]
    public string Path { get; set; } = "";

    /// <summary>The job file, taken as it is written.</summary>
    [Parameter(Mandatory = true, ValueFromPipelineByPropertyName = true, ParameterSetName = LiteralPathSet)]
    [Alias("PSPath", "FullName")]
    [ValidateNotNullOrEmpty]
    public string LiteralPath { get; set; } = "";

    /// <summary>File that gets the result as JSON, however the job ends.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public string? ResultPath { get; set; }

    /// <summary>Ends the process with the exit code of the job, when finally blocks have run; no result is written then. For the last line of a script in pwsh.</summary>
    [Parameter]
    public SwitchParameter Exit { get; set; }

    /// <summary>Whether the training is shared with other processes: Auto with those that mpirun or srun started beside this one, None with none, Mpi over MPI also where no launcher is seen. The first process does all else.</summary>
    [Parameter]
    public DistributedMode Distributed { get; set; }

    /// <inheritdoc/>
    protected override string? Subject => Given;

    /// <inheritdoc/>
    private protected override bool IsFollower => Distributed is not DistributedMode.None && base.IsFollower;

    private string Given => LiteralPath.Length > 0 ? LiteralPath : Path;

    /// <inheritdoc/>
    protected override void Process()
    {
        JobHost host = new(this, Life, IsRehearsal ? null : WorkerGroup.Join(Distributed));
        LoKrJob? job = null;
        LoKrJobResult result;
        Exception? failure = null;
        try
        {
            job = JobScript.ReadJob(Paths.ExistingOne(Path, LiteralPath));
            if (IsRehearsal)
            {
                if (IsFollower)
                {
                    return;
                }

                string plan = $"{host.Run(job, static (runner, token) => runner.Plan(token))}";
                ShouldProcess(plan, $"{plan} Continue?", "Invoke-LoKrJob");
                return;
            }

            if (!IsFollower && !ShouldProcess(job.Path, "Do the job"))
            {
                return;
            }

            (result, failure) = host.Run(job, static (runner, token) => (runner.Run(token), runner.Failure));
        }
        catch (LoKrException exception) when (job is null)
        {
            // Whatever keeps the file from being read: the job is invalid.
            failure = exception;
            result = new()
            {
                Job = JobFile.DefaultName(Given), Path = Given, State = LoKrJobState.Failed, ExitCode = RunExitCodes.Invalid, ErrorId = exception.ErrorId, Message = exception.Message, Started = DateTime.UtcNow,
            };
        }

        if (ResultPath is not null && !IsFollower)
        {
            JsonRecords.Write(Paths.New(ResultPath), result);
        }

        StopToken.ThrowIfCancellationRequested();
        if (job is not null && !IsFollower)
        {
            host.Notify(job, result);
        }

        Finish(result, failure is null ? null : ErrorFactory.Create(failure, MyInvocation.MyCommand.Name, Given));
    }

    private void Finish(LoKrJobResult result, ErrorRecord? error)
    {
        if (Exit)
        {
            if (error is not null)
            {
                // No script reads it any more, and a preference must not turn it into another exit code.
                Life.Announce($"{MyInvocation.MyCommand.Name}: {error.ErrorDetails.Message} {error.ErrorDetails.RecommendedAction} ({error.FullyQualifiedErrorId})");
            }

            Life.EndProcess(result.ExitCode);
            return;
        }

        if (!IsFollower)
        {
            WriteObject(result);
        }

        if (error is not null)
        {
            WriteError(error);
        }
    }
}
