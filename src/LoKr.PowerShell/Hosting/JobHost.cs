using System.Globalization;
using System.Management.Automation;
using LoKr.Core.Distributed;
using LoKr.Core.Errors;
using LoKr.Core.Model;
using LoKr.Core.Runs;
using LoKr.Models.Loading;

namespace LoKr.PowerShell.Hosting;

/// <summary>
/// Runs a job for a cmdlet: the work on a thread of its own, its log as lines of the host, progress, and an orderly end at Ctrl+C and at signals.
/// </summary>
/// <param name="cmdlet">The cmdlet.</param>
/// <param name="life">How signals and Ctrl+C end it.</param>
/// <param name="workers">The processes that do the job together; null for this one alone. The first one reports.</param>
internal sealed class JobHost(Cmdlet cmdlet, CommandLife life, WorkerGroup? workers)
{
    /// <summary>Runs work with a job.</summary>
    /// <param name="job">The job.</param>
    /// <param name="work">Gets the runner and a token.</param>
    public T Run<T>(LoKrJob job, Func<JobRunner, CancellationToken, T> work)
    {
        using RunWatch watch = new(life);
        if (workers is { IsFirst: false })
        {
            watch.Follow();
        }

        using ProgressBar bar = new(cmdlet, $"Job {job.Name}");
        using ProgressBar evaluating = new(cmdlet, "Evaluating", bar);
        using BackgroundRun<Action, T> run = new(
            (report, token) => work(
                new JobRunner(job, new JobServices
                {
                    LoadModel = (own, labels, stop) => JobModel.Load(own, labels, line => report(() => Log(line)), bar.Throttle<double>(share => report(() => bar.Show(share, $"{share:P0} of the model"))), stop),
                    OnLog = line => report(() => Log(line)),
                    OnWarning = line => report(() => cmdlet.WriteWarning(line)),
                    OnStep = step => report(() =>
                    {
                        evaluating.Hide();
                        Report(step, bar);
                    }),
                    OnEvaluation = evaluating.Throttle<double>(share => report(() => evaluating.Show(share, $"{share:P0}"))),
                    OnRun = watch.Begin,
                    Workers = workers,
                }),
                token),
            life.StopToken);
        foreach (Action report in run.Reports)
        {
            report();
        }

        T result = run.Wait();
        foreach (string warning in watch.Warnings)
        {
            cmdlet.WriteWarning(warning);
        }

        return result;
    }

    /// <summary>Writes a line of the log, as Write-Host does: it is shown, and -InformationVariable and 6&gt; take it.</summary>
    /// <param name="line">The line.</param>
    public void Log(string line)
    {
        if (workers is not { IsFirst: false })
        {
            cmdlet.WriteInformation(new HostInformationMessage { Message = string.Create(CultureInfo.InvariantCulture, $"{DateTime.UtcNow:yyyy-MM-dd'T'HH:mm:ss'Z'} {line}") }, ["PSHOST", "LoKr", "Job"]);
        }
    }

    /// <summary>Tells the command and the script block of a job how it ended. What fails there is a warning.</summary>
    /// <param name="job">The job.</param>
    /// <param name="result">How it ended.</param>
    public void Notify(LoKrJob job, LoKrJobResult result)
    {
        if (!JobNotifier.IsDue(job.Notify, result.State))
        {
            return;
        }

        try
        {
            JobNotifier.RunCommand(job, result);
        }
        catch (LoKrException exception)
        {
            cmdlet.WriteWarning(exception.Message);
        }

        if (job.Notify!.Script is string code)
        {
            try
            {
                foreach (PSObject line in ScriptBlock.Create(code).InvokeWithContext(null, [new PSVariable("ErrorActionPreference", ActionPreference.Stop)], result))
                {
                    Log($"Notification: {line}");
                }
            }
            catch (RuntimeException exception)
            {
                cmdlet.WriteWarning($"The script that is told how the job ended failed: {exception.Message}");
            }
        }
    }

    private void Report(LoKrTrainingStep step, ProgressBar bar)
    {
        if (step.EvaluationLoss is double loss)
        {
            Log(FormattableString.Invariant($"Step {step.Step} of {step.TotalSteps}: loss {step.Loss:F4}, evaluation loss {loss:F4}{(step.EntityF1 is double entities ? $", entity F1 {entities:F4}" : step.Accuracy is double accuracy ? $", accuracy {accuracy:F4}" : "")}."));
        }

        bar.ShowIfDue((double)step.Step / step.TotalSteps, $"step {step.Step}/{step.TotalSteps}, loss {step.Loss:F4}");
    }
}
