using System.Diagnostics;
using System.Globalization;
using System.Management.Automation;
using LoKr.Models.StableDiffusion;

namespace LoKr.PowerShell.Training;

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
        double share = (step.Picture - 1 + ((double)step.Step / step.StepCount)) / step.PictureCount;
        string which = step.PictureCount == 1 ? "" : string.Create(CultureInfo.InvariantCulture, $"picture {step.Picture}/{step.PictureCount}, ");
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
