using LoKr.Core.Errors;
using LoKr.Core.Layers;
using LoKr.Core.Model;
using TorchSharp;

namespace LoKr.Core.Training;

/// <summary>Trains adapters. Everything happens on the calling thread; only batches of plain data are prepared on another.</summary>
public static class Trainer
{
    /// <summary>Plans a run: checks everything that a run checks before its first step, and counts steps, parameters and memory.</summary>
    /// <exception cref="LoKrException">What a run would throw before its first step.</exception>
    public static TrainingPlan Plan(LoKrModel model, ITrainingTask task, TrainingOptions options) => Plan([model], task, options);

    /// <summary>Plans a run over several models.</summary>
    /// <inheritdoc cref="Plan(LoKrModel, ITrainingTask, TrainingOptions)"/>
    public static TrainingPlan Plan(IReadOnlyList<LoKrModel> models, ITrainingTask task, TrainingOptions options)
    {
        ArgumentNullException.ThrowIfNull(task);
        IReadOnlyList<Trainee> trainees = Trainee.Select(models, options);
        task = Pack(task, models, options);
        FlatParameter[] parameters = [.. trainees.SelectMany(trainee => trainee.Adapter.FlatParameters)];
        TrainedHead head = new(trainees, options);
        int batches = task.CountBatches(options.BatchSize);
        int steps = StepsPerEpoch(task, options);
        int total = TotalSteps(steps, options);
        return new TrainingPlan
        {
            AdapterName = Trainee.NameOf(trainees),
            RowCount = task.RowCount,
            LineCount = task.LineCount,
            BatchesPerEpoch = batches,
            StepsPerEpoch = steps,
            TotalSteps = total,
            WarmupSteps = Schedule.For(options, total).WarmupSteps,
            LearningRate = options.LearningRate,
            HeadLearningRate = head.LearningRate,
            HeadModules = head.LearningRate is null ? [] : head.Modules,
            TrainableParameterCount = parameters.Sum(flat => flat.ParameterCount),
            OptimizerBytes = parameters.Sum(flat => TrainingBytes.Of(flat.Value.numel(), flat.Value.dtype).Total + (options.KeepBest ? KeptValues.Bytes(flat.Value.numel(), flat.Value.dtype) : 0)),
            ModelBytes = models.Sum(model => model.Module.parameters().Sum(parameter => parameter.numel() * parameter.dtype.ElementSize())),
            LargestBatch = task.LargestBatch(options.BatchSize),
            Unit = task.Unit,
            BatchesPerStep = options.GradientAccumulation,
            Workers = options.Workers?.Size ?? 1,
            Day = task.Day,
            Notes = [.. head.Notes],
            Warnings = [.. task.Warnings, .. head.Warnings, .. trainees.SelectMany(static trainee => AdapterWarnings.Unsaved(trainee.Adapter.Name, trainee.Adapter.UnsavedModules))],
        };
    }

    /// <summary>
    /// Trains, and returns when done, ended early or canceled (<see cref="LoKrTrainingResult.StopReason"/>). The result is also the model's
    /// <see cref="LoKrModel.LastTraining"/>. Every module returns to the mode it was in, also after an exception, and the parameters have
    /// their values after the last complete step. A run that diverges throws; then the parameters have the values that last gave a finite loss,
    /// and <see cref="LoKrModel.LastTraining"/> is the run up to there.
    /// </summary>
    /// <param name="model">The model. The adapter that <see cref="TrainingOptions.AdapterName"/> names becomes the active one if it is not active.</param>
    /// <param name="task">Data and loss.</param>
    /// <param name="validation">Data to evaluate on, or null.</param>
    /// <param name="options">Steps, learning rate and so on.</param>
    /// <param name="onStep">Called after every step, on this thread.</param>
    /// <param name="cancellationToken">Checked before every batch.</param>
    /// <exception cref="LoKrException">
    /// <see cref="ErrorIds.TrainingOptionInvalid"/>, <see cref="ErrorIds.NoAdapter"/>, <see cref="ErrorIds.AdapterAmbiguous"/>,
    /// <see cref="ErrorIds.AdapterNotTrainable"/>, <see cref="ErrorIds.AdapterNotCalled"/>, <see cref="ErrorIds.LossInvalid"/>,
    /// <see cref="ErrorIds.LossNotFinite"/>, <see cref="ErrorIds.GradientNotFinite"/>, or in an evaluation <see cref="ErrorIds.LogitsNotFinite"/>.
    /// </exception>
    public static LoKrTrainingResult Run(
        LoKrModel model,
        ITrainingTask task,
        ITrainingTask? validation,
        TrainingOptions options,
        Action<LoKrTrainingStep>? onStep = null,
        CancellationToken cancellationToken = default) => Run([model], task, validation, options, null, onStep, cancellationToken);

    /// <summary>
    /// Trains adapters of several models of one pipeline together, with one optimizer over all of them; models without adapters do not change.
    /// The task receives the first model that is trained, and the result is the <see cref="LoKrModel.LastTraining"/> of each of them.
    /// </summary>
    /// <inheritdoc cref="Run(LoKrModel, ITrainingTask, ITrainingTask, TrainingOptions, Action{LoKrTrainingStep}, CancellationToken)"/>
    /// <param name="models">The models; at least one has an adapter to train.</param>
    /// <param name="task">Data and loss.</param>
    /// <param name="validation">Data to evaluate on, or null.</param>
    /// <param name="options">Steps, learning rate and so on.</param>
    /// <param name="onStep">Called after every step, on this thread.</param>
    /// <param name="cancellationToken">Checked before every batch.</param>
    public static LoKrTrainingResult Run(
        IReadOnlyList<LoKrModel> models,
        ITrainingTask task,
        ITrainingTask? validation,
        TrainingOptions options,
        Action<LoKrTrainingStep>? onStep = null,
        CancellationToken cancellationToken = default) => Run(models, task, validation, options, null, onStep, cancellationToken);

    /// <summary>Trains as the other methods do, with a journal that follows the run, so that it can be continued later.</summary>
    /// <inheritdoc cref="Run(IReadOnlyList{LoKrModel}, ITrainingTask, ITrainingTask, TrainingOptions, Action{LoKrTrainingStep}, CancellationToken)"/>
    /// <param name="models">The models; at least one has an adapter to train.</param>
    /// <param name="task">Data and loss.</param>
    /// <param name="validation">Data to evaluate on, or null.</param>
    /// <param name="options">Steps, learning rate and so on.</param>
    /// <param name="journal">Follows the run; null for none.</param>
    /// <param name="onStep">Called after every step, on this thread.</param>
    /// <param name="cancellationToken">Checked before every batch.</param>
    public static LoKrTrainingResult Run(
        IReadOnlyList<LoKrModel> models,
        ITrainingTask task,
        ITrainingTask? validation,
        TrainingOptions options,
        ITrainingJournal? journal,
        Action<LoKrTrainingStep>? onStep = null,
        CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(task);
        ArgumentNullException.ThrowIfNull(models);
        ArgumentNullException.ThrowIfNull(options);
        return options.Workers is null ? Start() : options.Workers.Run(Start);

        LoKrTrainingResult Start() => Train(models, task, validation, options, journal, onStep, cancellationToken);
    }

    /// <summary>Number of optimizer steps in an epoch; the last one may have fewer batches.</summary>
    internal static int StepsPerEpoch(ITrainingTask task, TrainingOptions options) =>
        (task.CountBatches(options.BatchSize) + options.GradientAccumulation - 1) / options.GradientAccumulation;

    private static LoKrTrainingResult Train(
        IReadOnlyList<LoKrModel> models,
        ITrainingTask task,
        ITrainingTask? validation,
        TrainingOptions options,
        ITrainingJournal? journal,
        Action<LoKrTrainingStep>? onStep,
        CancellationToken cancellationToken)
    {
        using ModelUses uses = ModelUses.Change(models, "trained");
        IReadOnlyList<Trainee> trainees = Trainee.Select(models, options);
        task = Pack(task, models, options);
        foreach ((LoKrModel model, LoKrAdapter adapter) in trainees)
        {
            if (!model.ActiveAdapters.Contains(adapter.Name))
            {
                model.SetActiveAdapters([adapter.Name]);
            }
        }

        using TrainingRun run = new(trainees, task, validation, options, TotalSteps(StepsPerEpoch(task, options), options), journal);
        return run.Execute(onStep, cancellationToken);
    }

    private static ITrainingTask Pack(ITrainingTask task, IReadOnlyList<LoKrModel> models, TrainingOptions options) =>
        !options.Packing ? task : task.Pack() ?? throw new LoKrException(
            ErrorIds.TrainingOptionInvalid,
            LoKrErrorKind.InvalidArgument,
            $"{nameof(TrainingOptions.Packing)} is on, but rows of {string.Join(", ", models.Select(static model => model.Name))} cannot share a line of a batch.",
            "Train without it: only a causal language model keeps the texts of a line apart.") { Target = nameof(TrainingOptions.Packing) };

    private static int TotalSteps(int stepsPerEpoch, TrainingOptions options) => options.MaxSteps ?? checked(stepsPerEpoch * options.Epochs);
}

/// <summary>A model, and the one of its adapters that a run trains.</summary>
internal sealed record Trainee(LoKrModel Model, LoKrAdapter Adapter)
{
    /// <summary>Selects the adapters of a run: the adapter of a single model, or of several models that of each model that has one.</summary>
    /// <exception cref="LoKrException">Nothing can be trained, several adapters could be meant, or an option is out of its range.</exception>
    public static IReadOnlyList<Trainee> Select(IReadOnlyList<LoKrModel> models, TrainingOptions options)
    {
        ArgumentNullException.ThrowIfNull(models);
        ArgumentNullException.ThrowIfNull(options);
        options.Validate();
        string? name = options.AdapterName;
        LoKrModel[] adapted = models.Count == 1 ? [.. models] : [.. models.Where(model => IsReady(model, name))];
        if (adapted.Length == 0)
        {
            // Models with such an adapter report the reason why it cannot be trained.
            adapted = [.. models.Where(model => name is null ? model.Adapters.Count > 0 : model.Adapters.Any(adapter => adapter.Name == name))];
        }

        Trainee[] trainees = adapted.Length > 0
            ? [.. adapted.Select(model => new Trainee(model, SelectAdapter(model, name)))]
            : throw NoAdapter($"None of {string.Join(", ", models.Select(model => model.Name))} has an adapter{(name is null ? "" : $" '{name}'")} to train.");
        if (options.GradientCheckpointing)
        {
            CheckpointedBlocks.Require(trainees);
        }

        return trainees;
    }

    /// <summary>Separates the names of several adapters in one line.</summary>
    public const string Separator = ", ";

    /// <summary>Names of the adapters in one line; usually one name.</summary>
    public static string NameOf(IEnumerable<Trainee> trainees) => string.Join(Separator, trainees.Select(trainee => trainee.Adapter.Name).Distinct(StringComparer.Ordinal));

    private static bool IsReady(LoKrModel model, string? name) => model.AdaptersEnabled && model.MergedAdapters.Count == 0
        && model.Adapters.Any(adapter => name is null ? adapter.IsTrainable && model.ActiveAdapters.Contains(adapter.Name) : adapter.Name == name);

    private static LoKrAdapter SelectAdapter(LoKrModel model, string? name)
    {
        ArgumentNullException.ThrowIfNull(model);
        if (model.Adapters.Count == 0)
        {
            throw NoAdapter($"{model.Name} has no adapter to train.");
        }

        if (model.MergedAdapters.Count > 0)
        {
            throw NotTrainable($"Adapters are merged into the base weights: {string.Join(", ", model.MergedAdapters)}.", "Undo the merge, then train.");
        }

        if (!model.AdaptersEnabled)
        {
            throw NotTrainable("The adapters of the model are disabled.", "Enable them.");
        }

        if (name is null && model.ActiveAdapters.Count == 0)
        {
            throw NoAdapter($"No adapter of {model.Name} is active.");
        }

        LoKrAdapter adapter = name is null ? model.GetOnlyActiveAdapter() : model.GetAdapter(name);
        return adapter.IsTrainable ? adapter : throw NotTrainable(
            $"Adapter '{adapter.Name}' was created for inference only (InferenceMode).", "Create it with InferenceMode off to train it.");
    }

    private static LoKrException NoAdapter(string summary) => new(
        ErrorIds.NoAdapter, LoKrErrorKind.InvalidOperation, summary, "Add an adapter, or name the one to train.");

    private static LoKrException NotTrainable(string summary, string advice) => new(
        ErrorIds.AdapterNotTrainable, LoKrErrorKind.InvalidOperation, summary, advice);
}
