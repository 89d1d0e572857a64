using LoKr.Core.Errors;
using LoKr.Core.Model;
using LoKr.Core.Runs;
using LoKr.Core.Runtime;
using static TorchSharp.torch;

namespace LoKr.Models.Loading;

/// <summary>Loads the model of a job.</summary>
public static class JobModel
{
    /// <summary>Loads libtorch if that has not been done, and the model.</summary>
    /// <param name="job">The job.</param>
    /// <param name="labels">Labels of the head; null takes those of the checkpoint.</param>
    /// <param name="onNote">Gets what a person should know, such as a head that the checkpoint lacks.</param>
    /// <param name="onProgress">Gets the share of the weights that is read, on any thread.</param>
    /// <param name="cancellationToken">Checked before every tensor.</param>
    /// <exception cref="LoKrException">As for <see cref="ModelFolder.Load"/>; <see cref="ErrorIds.JobInvalid"/> for a pipeline of several models.</exception>
    public static LoKrModel Load(LoKrJob job, IReadOnlyList<string>? labels, Action<string>? onNote = null, Action<double>? onProgress = null, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(job);
        string folder = job.FullPath(job.Base.Path);
        if (StableDiffusionLoader.IsPipeline(folder))
        {
            throw new LoKrException(ErrorIds.JobInvalid, LoKrErrorKind.InvalidData, $"'base.path' of '{job.Path}' is a pipeline of several models; a job trains one.", "Train it without a job.")
            { Target = "base.path" };
        }

        TorchRuntime.EnsureLoaded(new RuntimeOptions(Threads: job.Base.Threads));
        ModelLoadResult result = ModelLoader.LoadWithReport(folder, new ModelLoadOptions
        {
            Task = job.Base.Task,
            Labels = labels,
            Pooling = job.Base.Pooling,
            Normalize = job.Base.Normalize,
            DType = job.Base.DType switch
            {
                JobDType.Float32 => ScalarType.Float32,
                JobDType.BFloat16 => ScalarType.BFloat16,
                JobDType.Float16 => ScalarType.Float16,
                _ => null,
            },
            Device = DeviceSelector.Select(job.Base.Device),
            Seed = job.Training.Seed,

            // A machine has many jobs on one base.
            SharePages = true,
            OnProgress = onProgress,
        }, cancellationToken);
        foreach (string warning in result.Warnings)
        {
            onNote?.Invoke(warning);
        }

        return result.Model;
    }
}
