using System.Diagnostics;
using System.Globalization;
using System.Management.Automation;
using LoKr.Core.Merging.Checkpoints;
using LoKr.Core.Model;
using LoKr.Models.Diffusion;

namespace LoKr.PowerShell.Hosting;

/// <summary>Progress of the computation of latents; only for the pipeline thread.</summary>
internal sealed class LatentsProgress(Cmdlet cmdlet)
{
    private string? _activity;

    /// <summary>Shows an image that is done.</summary>
    public void Show(LatentProgress progress)
    {
        _activity = $"Latents of {progress.Folder}";
        cmdlet.WriteProgress(new ProgressRecord(0, _activity, string.Create(CultureInfo.InvariantCulture, $"{progress.Done}/{progress.Count}, {progress.Computed} computed"))
        {
            PercentComplete = (int)(100.0 * progress.Done / progress.Count),
        });
    }

    /// <summary>Takes the bar away.</summary>
    public void Complete()
    {
        if (_activity is not null)
        {
            cmdlet.WriteProgress(new ProgressRecord(0, _activity, "done") { RecordType = ProgressRecordType.Completed });
        }
    }
}

/// <summary>Progress of a merge on disk, at most five times a second.</summary>
internal sealed class MergeProgress(Cmdlet cmdlet, string activity)
{
    private static readonly long s_interval = Stopwatch.Frequency / 5;
    private long _next;
    private bool _shown;

    /// <summary>Lets through what will be shown; for the threads that write, which must not wait for the pipeline.</summary>
    public Action<CheckpointMergeProgress> Thin(Action<CheckpointMergeProgress> report) => step =>
    {
        long now = Stopwatch.GetTimestamp();
        long next = Interlocked.Read(ref _next);
        if (now >= next && Interlocked.CompareExchange(ref _next, now + s_interval, next) == next)
        {
            report(step);
        }
    };

    /// <summary>Shows a step; only for the pipeline thread.</summary>
    public void Show(CheckpointMergeProgress step)
    {
        _shown = true;
        double share = (double)step.Bytes / step.TotalBytes;
        cmdlet.WriteProgress(new ProgressRecord(0, activity, string.Create(CultureInfo.InvariantCulture,
            $"{step.File}: tensor {step.Tensors}/{step.TotalTensors}, {step.Bytes / 1e9:F2} of {step.TotalBytes / 1e9:F2} GB"))
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
}

/// <summary>Progress of pictures by denoising step; only for the pipeline thread.</summary>
internal sealed class PictureProgress(Cmdlet cmdlet, string prompt)
{
    private readonly long _started = Stopwatch.GetTimestamp();
    private readonly string _activity = $"Making a picture of '{prompt}'";
    private bool _shown;

    /// <summary>Shows a step.</summary>
    public void Show(DenoisingStep step)
    {
        _shown = true;
        double share = (step.Image - 1 + ((double)step.Step / step.StepCount)) / step.ImageCount;
        string which = step.ImageCount == 1 ? "" : string.Create(CultureInfo.InvariantCulture, $"picture {step.Image}/{step.ImageCount}, ");
        cmdlet.WriteProgress(new ProgressRecord(0, _activity, string.Create(CultureInfo.InvariantCulture, $"{which}step {step.Step}/{step.StepCount}"))
        {
            PercentComplete = (int)(100 * share),
            SecondsRemaining = (int)Math.Ceiling(Stopwatch.GetElapsedTime(_started).TotalSeconds * (1 - share) / share),
        });
    }

    /// <summary>Takes the bar away.</summary>
    public void Complete()
    {
        if (_shown)
        {
            cmdlet.WriteProgress(new ProgressRecord(0, _activity, "done") { RecordType = ProgressRecordType.Completed });
        }
    }
}

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
