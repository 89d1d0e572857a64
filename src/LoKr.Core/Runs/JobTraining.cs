using System.Globalization;
using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Data;
using LoKr.Core.Errors;
using LoKr.Core.Layouts;
using LoKr.Core.Model;
using LoKr.Core.Training;

namespace LoKr.Core.Runs;

/// <summary>The training of a job: its model and adapter, its rows as a task, and the run folder that it begins or goes on in.</summary>
/// <param name="job">The job.</param>
/// <param name="services">What it needs from the program.</param>
/// <param name="survey">How its rows are read.</param>
/// <param name="runs">The folder of its runs.</param>
/// <param name="started">When the job started, in UTC.</param>
internal sealed class JobTraining(LoKrJob job, JobServices services, JobSurvey survey, string runs, DateTime started)
{
    /// <summary>Name of the adapter on the model, where a period would be a part of a module's name.</summary>
    public string AdapterName => job.AdapterName.Replace('.', '-');

    /// <summary>Options of the training.</summary>
    public TrainingOptions Options => job.Training with { AdapterName = AdapterName, Workers = services.Workers };

    /// <summary>Loads the model with the adapter that is trained; the caller owns it.</summary>
    /// <param name="night">What the job has found.</param>
    /// <param name="cancellation">Ends it.</param>
    public LoKrModel Prepare(JobNight night, CancellationToken cancellation)
    {
        LoKrModel model = services.LoadModel(job, night.Labels, cancellation);
        try
        {
            if (job.Registry?.StartFrom is JobStart.Champion && night.Champion is not null)
            {
                RequireSameConfiguration(night.Champion);
                LoKrAdapter adapter = Import(model, night, AdapterName, trainable: true, bias: 0);
                foreach (string warning in adapter.Warnings)
                {
                    services.OnWarning(warning);
                }
            }
            else
            {
                foreach (string warning in model.AddAdapter(job.Configuration, AdapterName, job.Training.Seed, restart: true).Warnings)
                {
                    services.OnWarning(warning);
                }
            }

            return model;
        }
        catch
        {
            model.Dispose();
            throw;
        }
    }

    // What the job leaves to the model is not compared.
    private void RequireSameConfiguration(LoKrAdapterVersion champion)
    {
        LoKrConfig own = job.Configuration;
        LoKrConfig theirs = LoKrConfigJson.Read(Path.Combine(champion.Path, PeftAdapterFolder.ConfigFile), out _);
        LoKrConfig expected = theirs with
        {
            TargetModules = own.TargetModules is null ? null : theirs.TargetModules,
            ModulesToSave = own.ModulesToSave is null ? null : theirs.ModulesToSave,
            TaskType = own.TaskType is null ? null : theirs.TaskType,
            AutoMapping = null,
            BaseModelNameOrPath = null,
            Revision = null,
            InferenceMode = false,
        };
        if (!JsonNode.DeepEquals(JsonNode.Parse(LoKrConfigJson.Write(own)), JsonNode.Parse(LoKrConfigJson.Write(expected))))
        {
            throw new LoKrException(ErrorIds.JobInvalid, LoKrErrorKind.InvalidData,
                FormattableString.Invariant($"'configuration' of '{job.Path}' ({own}) is not that of version {champion.Version} ({theirs}), which the training would start from."),
                "Start from the base, or keep the configuration.") { Target = "configuration" };
        }
    }

    /// <summary>Reads the champion onto a model.</summary>
    /// <param name="model">The model.</param>
    /// <param name="night">What the job has found, a champion among it.</param>
    /// <param name="name">Name that the adapter gets there.</param>
    /// <param name="trainable">Whether it is trained.</param>
    /// <param name="bias">What the head has for labels that the champion does not know.</param>
    public static LoKrAdapter Import(LoKrModel model, JobNight night, string name, bool trainable, double bias) => night.KnownLabels < night.Labels?.Count
        ? HeadGrowth.Import(model, night.Champion!.Path, name, trainable, bias)
        : AdapterImporter.Import(model, night.Champion!.Path, name: name, trainable: trainable).Values.Single();

    /// <summary>A task for rows of the job; columns have the names that are expected since the rows were read.</summary>
    /// <param name="model">The model.</param>
    /// <param name="rows">The rows.</param>
    /// <param name="cancellation">Ends it.</param>
    public ITrainingTask CreateTask(LoKrModel model, IReadOnlyList<DataRow> rows, CancellationToken cancellation) =>
        TrainingTaskFactory.Create(model, rows, job.Training, survey.BeginReading(), onProgress: null, cancellation);

    /// <summary>Trains in a run folder.</summary>
    /// <param name="night">What the job has found.</param>
    /// <param name="model">The model with its adapter.</param>
    /// <param name="folder">The run folder.</param>
    /// <param name="cancellation">Ends the training after its step.</param>
    public LoKrTrainingResult Train(JobNight night, LoKrModel model, RunFolder folder, CancellationToken cancellation)
    {
        survey.Day = FormerRun.DayOf(new() { Path = folder.Path }, services.Workers);
        using ITrainingTask task = CreateTask(model, night.Rows, cancellation);
        using ITrainingTask? validation = night.ValidationRows.Count == 0 ? null : CreateTask(model, night.ValidationRows, cancellation);
        TrainingPlan plan = Trainer.Plan(model, task, Options);
        foreach (string warning in plan.Warnings.Concat(validation?.Warnings ?? []).Concat(Options.IgnoredOptions(validation is not null)))
        {
            services.OnWarning(warning);
        }

        foreach (string note in task.Notes)
        {
            services.OnLog(note);
        }

        services.OnLog($"{(folder.Exists ? "Going on in" : "Training in")} {folder.Path}. {plan}");
        foreach (string note in plan.Notes)
        {
            services.OnLog(note);
        }

        RunOptions options = new()
        {
            Path = folder.Path,
            CheckpointEvery = job.Runs.CheckpointEvery,
            CheckpointLimit = job.Runs.CheckpointLimit,
            MinimumFreeSpace = job.Runs.MinimumFreeSpace,
        };
        LoKrTrainingResult result = RunRecorder.Train(options, model, task, validation, Options, services.OnStep, services.OnEvaluation, services.OnRun, cancellation);
        services.OnLog($"{result}.");
        return result;
    }

    /// <summary>
    /// The newest run of the same inputs: interrupted ones go on, finished ones need no more training. Without one, a new folder. From here on rows are
    /// read with the day of the run.
    /// </summary>
    /// <param name="night">What the job has found.</param>
    public RunFolder FindRun(JobNight night)
    {
        string start = job.Registry?.StartFrom is JobStart.Champion ? FormattableString.Invariant($"{night.Champion?.Version}") : "";
        string mark = "-" + (night.Inputs with { Configuration = night.Inputs.Configuration + start }).Digest[..12];
        string? found = !Directory.Exists(runs) ? null : Directory.EnumerateDirectories(runs)
            .Where(path => Path.GetFileName(path).EndsWith(mark, StringComparison.Ordinal)).Max(StringComparer.Ordinal);
        RunFolder folder = new(found ?? Path.Combine(runs, started.ToString("yyyyMMdd'T'HHmmss'Z'", CultureInfo.InvariantCulture) + mark));
        survey.Day = FormerRun.DayOf(new() { Path = folder.Path }, workers: null);
        return folder;
    }
}
