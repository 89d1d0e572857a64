using System.Globalization;
using LoKr.Core.Distributed;
using LoKr.Core.Errors;
using LoKr.Core.Model;
using LoKr.Core.Training;
using TorchSharp;

namespace LoKr.Core.Runs;

/// <summary>A training of several workers: the first one alone has the run folder, and gives the others what it found there.</summary>
internal static class RunTogether
{
    /// <summary>Requires that all workers train the same.</summary>
    /// <param name="workers">The workers.</param>
    /// <param name="inputs">What the training is made of.</param>
    /// <param name="hasFolder">Whether it has a run folder.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.WorkersDiffer"/>, naming what differs.</exception>
    public static void Agree(WorkerGroup workers, RunInputs inputs, bool hasFolder) => workers.Agree(
    [
        .. inputs.Shared,
        ("use of a run folder", hasFolder ? "yes" : "no"),
        ("number of threads", torch.get_num_threads().ToString(CultureInfo.InvariantCulture)),
    ]);

    /// <summary>Gives the others what a run that had ended before has.</summary>
    /// <param name="workers">The workers.</param>
    /// <param name="target">The model or the pipeline, whose adapters have the values of such a run, or get them.</param>
    /// <param name="names">Names of the adapters.</param>
    /// <param name="own">Its result, or null, for the first worker; the others have none.</param>
    /// <returns>The result, or null where there is something to train.</returns>
    public static LoKrTrainingResult? ShareFinished(WorkerGroup workers, IAdaptable target, IReadOnlyList<string> names, LoKrTrainingResult? own)
    {
        LoKrTrainingResult? result = workers.RecordOfFirst(WorkerCall.Begin, "the result", own);
        if (result is not null)
        {
            WorkerTraining.Share(ValuesOf(target, names), workers);
            target.LastTraining = result;
        }

        return result;
    }

    private static IEnumerable<torch.Tensor> ValuesOf(IAdaptable target, IReadOnlyList<string> names) =>
        names.SelectMany(target.GetAdapters).SelectMany(static pair => pair.Value.FlatParameters).Select(static flat => flat.Value);
}
