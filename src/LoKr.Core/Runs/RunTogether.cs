using System.Globalization;
using System.Text;
using LoKr.Core.Distributed;
using LoKr.Core.Errors;
using LoKr.Core.IO;
using LoKr.Core.Model;
using LoKr.Core.Training;
using TorchSharp;

namespace LoKr.Core.Runs;

/// <summary>A training of several workers: the first one alone has the run folder, and gives the others what it found there.</summary>
internal static class RunTogether
{
    private static readonly JsonErrors s_errors = new(ErrorIds.WorkersDiffer, ErrorIds.WorkersDiffer, "Use the same version of the library on every worker.");

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
            ("configuration", inputs.Configuration),
            ("use of a run folder", options is null ? "no" : "yes"),
            ("number of threads", torch.get_num_threads().ToString(CultureInfo.InvariantCulture)));
        return options is null ? train(null)
            : workers.IsFirst ? RunRecorder.RecordAlone(options, target, task, validation, training, train, onOpen)
            : Finished(workers, target, names) ?? train(null);
    }

    /// <summary>Tells the others whether a run had ended before.</summary>
    /// <param name="workers">The workers.</param>
    /// <param name="target">The model or the pipeline, whose adapters have the values of a run that had ended.</param>
    /// <param name="names">Names of the adapters.</param>
    /// <param name="result">Its result, or null.</param>
    public static void TellFinished(WorkerGroup workers, IAdaptable target, IReadOnlyList<string> names, LoKrTrainingResult? result)
    {
        workers.FromFirst(WorkerCall.Begin, result is null ? default : Encoding.UTF8.GetBytes(JsonRecords.ToLine(result)));
        if (result is not null)
        {
            WorkerTraining.Share(ValuesOf(target, names), workers);
        }
    }

    private static LoKrTrainingResult? Finished(WorkerGroup workers, IAdaptable target, IReadOnlyList<string> names)
    {
        string json = Encoding.UTF8.GetString(workers.FromFirst(WorkerCall.Begin, default));
        if (json.Length == 0)
        {
            return null;
        }

        WorkerTraining.Share(ValuesOf(target, names), workers);
        return target.LastTraining = JsonRecords.Parse<LoKrTrainingResult>(json, "the result of worker 0", s_errors);
    }

    private static IEnumerable<torch.Tensor> ValuesOf(IAdaptable target, IReadOnlyList<string> names) =>
        names.SelectMany(target.GetAdapters).SelectMany(static pair => pair.Value.FlatParameters).Select(static flat => flat.Value);
}
