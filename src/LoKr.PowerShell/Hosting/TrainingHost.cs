using System.Management.Automation;
using System.Runtime.ExceptionServices;
using LoKr.Core.Distributed;
using LoKr.Core.Model;

namespace LoKr.PowerShell.Hosting;

/// <summary>Runs a training for a cmdlet: progress, records of steps, and an orderly end at Ctrl+C, at a closed pipeline and at a signal.</summary>
/// <param name="cmdlet">The cmdlet.</param>
/// <param name="target">The model or pipeline that is trained.</param>
/// <param name="onStep">Called for each step on the pipeline thread.</param>
/// <param name="life">Ends the training.</param>
internal sealed class TrainingHost(Cmdlet cmdlet, IAdaptable target, Action<LoKrTrainingStep> onStep, CommandLife life)
{
    /// <summary>Runs the work.</summary>
    /// <param name="work">Trains; gets functions for steps and for the share of an evaluation that is done, and a token that ends it after the current step.</param>
    /// <param name="onPipelineThread">Whether the work runs on the pipeline thread, the only one on which script blocks can run.</param>
    public void Run(Func<Action<LoKrTrainingStep>, Action<double>, CancellationToken, LoKrTrainingResult> work, bool onPipelineThread)
    {
        LoKrTrainingResult? former = target.LastTraining;
        try
        {
            LoKrTrainingResult result = RunReported(work, onPipelineThread, life.StopToken);
            if (result.StopReason == StopReasons.Signal && !life.IsSignaled)
            {
                // Another process that takes part was ended by it.
                life.EndProcess(life.SignalExitCode ?? 143);
            }
        }
        finally
        {
            // Also where the engine stopped the next command, and with it this one.
            if (life.IsSignaled && target.LastTraining is { StopReason: StopReasons.Canceled } last && !ReferenceEquals(last, former))
            {
                target.LastTraining = last with { StopReason = StopReasons.Signal };
            }
        }

        // Ctrl+C or a signal while the last report was on its way: the next command must not run on.
        life.StopToken.ThrowIfCancellationRequested();
    }

    private LoKrTrainingResult RunReported(Func<Action<LoKrTrainingStep>, Action<double>, CancellationToken, LoKrTrainingResult> work, bool onPipelineThread, CancellationToken cancel)
    {
        using ProgressBar bar = new(cmdlet, $"Training {target.Name}");
        using ProgressBar evaluating = new(cmdlet, "Evaluating", bar);
        bar.Show(null, $"the first step");
        if (onPipelineThread)
        {
            ExceptionDispatchInfo? ended = null;
            LoKrTrainingResult result = work(
                step => ended ??= TryReport(() => Report(step, bar)),
                share => ended ??= TryReport(() => evaluating.ShowIfDue(share, $"{share:P0}")),
                cancel);
            ended?.Throw();
            return result;
        }

        // A downstream Select-Object -First ends WriteObject with an exception and signals nobody: disposing cancels and waits.
        using BackgroundRun<Action, LoKrTrainingResult> run = new(
            (report, token) => work(
                step => report(() =>
                {
                    evaluating.Hide();
                    Report(step, bar);
                }),
                evaluating.Throttle<double>(share => report(() => evaluating.Show(share, $"{share:P0}"))),
                token),
            cancel);
        foreach (Action report in run.Reports)
        {
            report();
        }

        return run.Wait();
    }

    // Ctrl+C, or a downstream Select-Object -First, ends a report with an exception. The training ends as when it is canceled, and its result is kept.
    private ExceptionDispatchInfo? TryReport(Action report)
    {
        try
        {
            report();
            return null;
        }
        catch (Exception exception) when (exception is PipelineStoppedException or FlowControlException)
        {
            life.Cancel();
            return ExceptionDispatchInfo.Capture(exception);
        }
    }

    private void Report(LoKrTrainingStep step, ProgressBar bar)
    {
        if (step.EvaluationLoss is double loss && Launch.Current is null or { Rank: 0 })
        {
            string metric = step.EntityF1 is double entities ? FormattableString.Invariant($", entity F1 {entities:F4}")
                : step.Accuracy is double accuracy ? FormattableString.Invariant($", accuracy {accuracy:F4}")
                : step.Perplexity is double perplexity ? FormattableString.Invariant($", perplexity {perplexity:F2}")
                : step.NdcgAt10 is double gain ? FormattableString.Invariant($", nDCG@10 {gain:F4}")
                : step.Spearman is double correlation ? FormattableString.Invariant($", Spearman {correlation:F4}")
                : "";
            cmdlet.WriteInformation(FormattableString.Invariant($"Step {step.Step} of {step.TotalSteps}: evaluation loss {loss:F4}{metric}."), ["LoKr", "Evaluation"]);
        }

        bar.ShowIfDue((double)step.Step / step.TotalSteps,
            $"step {step.Step}/{step.TotalSteps}, epoch {step.Epoch:F2}, loss {step.Loss:F4}, {step.TokensPerSecond:F0} a second");
        onStep(step);
    }
}
