using System.Globalization;
using System.Management.Automation;
using LoKr.Models.StableDiffusion.Training;

namespace LoKr.PowerShell.Training;

/// <summary>Progress of the computation of latents; only for the pipeline thread.</summary>
internal sealed class LatentsProgress(Cmdlet cmdlet, string folder)
{
    private readonly string _activity = $"Latents of {folder}";
    private bool _shown;

    /// <summary>Shows a picture that is done.</summary>
    public void Show(LatentProgress progress)
    {
        _shown = true;
        cmdlet.WriteProgress(new ProgressRecord(0, _activity, string.Create(CultureInfo.InvariantCulture, $"{progress.Done}/{progress.Count}, {progress.Computed} computed"))
        {
            PercentComplete = (int)(100.0 * progress.Done / progress.Count),
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
