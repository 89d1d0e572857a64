using System.Diagnostics;
using System.Globalization;
using System.Management.Automation;
using LoKr.Core.Training;

namespace LoKr.PowerShell.Training;

/// <summary>Progress and verbose lines of a training run; only for the pipeline thread.</summary>
internal sealed class TrainingProgress(Cmdlet cmdlet, string activity)
{
    private static readonly TimeSpan s_interval = TimeSpan.FromMilliseconds(200);
    private long _last;
    private bool _shown;

    /// <summary>Shows a step, at most five times a second, and says every evaluation.</summary>
    public void Show(LoKrTrainingStep step)
    {
        if (step.EvaluationLoss is double loss)
        {
            string metric = step.Accuracy is double accuracy ? Text($", accuracy {accuracy:F4}") : step.Perplexity is double perplexity ? Text($", perplexity {perplexity:F2}") : "";
            cmdlet.WriteVerbose(Text($"Step {step.Step} of {step.TotalSteps}: evaluation loss {loss:F4}{metric}."));
        }

        if (_last != 0 && Stopwatch.GetElapsedTime(_last) < s_interval)
        {
            return;
        }

        _last = Stopwatch.GetTimestamp();
        _shown = true;
        double share = (double)step.Step / step.TotalSteps;
        cmdlet.WriteProgress(new ProgressRecord(0, activity, Text($"step {step.Step}/{step.TotalSteps}, epoch {step.Epoch:F2}, loss {step.Loss:F4}, {step.TokensPerSecond:F0} a second"))
        {
            PercentComplete = (int)(100 * share),
            SecondsRemaining = (int)Math.Ceiling(step.Elapsed.TotalSeconds * (1 - share) / share),
        });
    }

    /// <summary>Takes the bar away.</summary>
    public void Complete()
    {
        if (_shown)
        {
            cmdlet.WriteProgress(new ProgressRecord(0, activity, "done") { RecordType = ProgressRecordType.Completed });
        }
    }

    private static string Text(FormattableString text) => text.ToString(CultureInfo.InvariantCulture);
}
