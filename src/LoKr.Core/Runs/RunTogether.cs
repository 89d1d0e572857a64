using System.Globalization;
using LoKr.Core.Distributed;
using LoKr.Core.Model;
using LoKr.Core.Training;
using TorchSharp;

namespace LoKr.Core.Runs;

/// <summary>A training of several workers: the first one alone has the run folder, and gives the others what it found there.</summary>
internal static class RunTogether
{
    /// <summary>Trains as <see cref="RunRecorder.Record"/> does.</summary>
    public static LoKrTrainingResult Record(
        WorkerGroup workers,
        RunOptions? options,
        IAdaptable target,
        ITrainingTask task,
        ITrainingTask? validation,
        TrainingOptions training,
        Func<ITrainingJournal?, LoKrTrainingResult> train,
        Action<RunRecorder>? onOpen)
    {
        string[] names = Trainer.Plan([.. target.Models.Values], task, training).AdapterName.Split(", ");
        RunInputs inputs = new RunDescription(target, names, task, validation, training).Inputs;
        workers.Agree(
            ("data", inputs.Data),
            ("validation data", inputs.ValidationData),
            ("base model", inputs.BaseModel),
            ("configuration of the model", inputs.ModelSettings),
            ("configuration", inputs.Configuration),
            ("use of a run folder", options is null ? "no" : "yes"),
            ("number of threads", torch.get_num_threads().ToString(CultureInfo.InvariantCulture)));
        return options is null ? train(null)
            : workers.IsFirst ? RunRecorder.RecordAlone(options, target, task, validation, training, train, onOpen)
            : ShareFinished(workers, target, names, own: null) ?? train(null);
    }

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
