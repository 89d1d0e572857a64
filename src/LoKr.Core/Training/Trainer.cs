using LoKr.Core.Errors;
using LoKr.Core.Layers;
using LoKr.Core.Model;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Training;

/// <summary>Trains an adapter. Everything happens on the calling thread; only batches of plain data are prepared on another.</summary>
public static class Trainer
{
    /// <summary>Says what a run would do, without doing it.</summary>
    /// <exception cref="LoKrException">What a run would throw before its first step.</exception>
    public static TrainingPlan Plan(LoKrModel model, ITrainingTask task, TrainingOptions options) => Plan([model], task, options);

    /// <summary>Says what a run over several models would do, without doing it.</summary>
    /// <inheritdoc cref="Plan(LoKrModel, ITrainingTask, TrainingOptions)"/>
    public static TrainingPlan Plan(IReadOnlyList<LoKrModel> models, ITrainingTask task, TrainingOptions options)
    {
        ArgumentNullException.ThrowIfNull(task);
        IReadOnlyList<Trainee> trainees = Trainee.Select(models, options);
        FlatParameter[] parameters = [.. trainees.SelectMany(trainee => trainee.Adapter.FlatParameters)];
        int batches = task.CountBatches(options.BatchSize);
        int steps = StepsPerEpoch(task, options);
        int total = TotalSteps(steps, options);
        return new TrainingPlan
        {
            AdapterName = Trainee.NameOf(trainees),
            RowCount = task.RowCount,
            BatchesPerEpoch = batches,
            StepsPerEpoch = steps,
            TotalSteps = total,
            WarmupSteps = Schedule.For(options, total).WarmupSteps,
            TrainableParameterCount = parameters.Sum(flat => flat.ParameterCount),
            OptimizerBytes = parameters.Sum(flat =>
                (2 * flat.Value.numel() * flat.Value.dtype.ElementSize()) + FlatAdamW.StateBytes(flat.Value.numel(), flat.Value.dtype)),
            ModelBytes = models.Sum(model => model.Module.parameters().Sum(parameter => parameter.numel() * parameter.dtype.ElementSize())),
            LargestBatch = task.LargestBatch(options.BatchSize),
            Unit = task.Unit,
            Warnings = task.Warnings,
        };
    }

    /// <summary>
    /// Trains and returns when done or canceled (<see cref="LoKrTrainingResult.StopReason"/>); the result is also the model's
    /// <see cref="LoKrModel.LastTraining"/>. Modules are put back into the mode they were in, also after an exception; the values
    /// are those after the last whole step.
    /// </summary>
    /// <param name="model">The model; the adapter that <see cref="TrainingOptions.AdapterName"/> names becomes the active one if it is not active.</param>
    /// <param name="task">Data and loss.</param>
    /// <param name="validation">Data to evaluate on, or null.</param>
    /// <param name="options">Steps, learning rate and so on.</param>
    /// <param name="onStep">Called after every step, on this thread.</param>
    /// <param name="cancellationToken">Looked at before every batch.</param>
    /// <exception cref="LoKrException">
    /// <see cref="ErrorIds.TrainingOptionInvalid"/>, <see cref="ErrorIds.NoAdapter"/>, <see cref="ErrorIds.AdapterAmbiguous"/>,
    /// <see cref="ErrorIds.AdapterNotTrainable"/>, <see cref="ErrorIds.AdapterNotCalled"/>, <see cref="ErrorIds.LossInvalid"/>,
    /// <see cref="ErrorIds.LossNotFinite"/> or <see cref="ErrorIds.GradientNotFinite"/>.
    /// </exception>
    public static LoKrTrainingResult Run(
        LoKrModel model,
        ITrainingTask task,
        ITrainingTask? validation,
        TrainingOptions options,
        Action<LoKrTrainingStep>? onStep = null,
        CancellationToken cancellationToken = default) => Run([model], task, validation, options, onStep, cancellationToken);

    /// <summary>
    /// Trains adapters of several models of one pipeline together, with one optimizer over all of them; models without adapters stay as they
    /// are. The loss gets the first model that is trained, and the result is the <see cref="LoKrModel.LastTraining"/> of each of them.
    /// </summary>
    /// <inheritdoc cref="Run(LoKrModel, ITrainingTask, ITrainingTask, TrainingOptions, Action{LoKrTrainingStep}, CancellationToken)"/>
    /// <param name="models">The models; at least one has an adapter to train.</param>
    /// <param name="task">Data and loss.</param>
    /// <param name="validation">Data to evaluate on, or null.</param>
    /// <param name="options">Steps, learning rate and so on.</param>
    /// <param name="onStep">Called after every step, on this thread.</param>
    /// <param name="cancellationToken">Looked at before every batch.</param>
    public static LoKrTrainingResult Run(
        IReadOnlyList<LoKrModel> models,
        ITrainingTask task,
        ITrainingTask? validation,
        TrainingOptions options,
        Action<LoKrTrainingStep>? onStep = null,
        CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(task);
        IReadOnlyList<Trainee> trainees = Trainee.Select(models, options);
        foreach ((LoKrModel model, LoKrAdapter adapter) in trainees)
        {
            if (!model.ActiveAdapters.Contains(adapter.Name))
            {
                model.SetActiveAdapters([adapter.Name]);
            }
        }

        using TrainingRun run = new(trainees, task, validation, options, TotalSteps(StepsPerEpoch(task, options), options));
        LoKrTrainingResult result = run.Execute(onStep, cancellationToken);
        foreach (Trainee trainee in trainees)
        {
            trainee.Model.LastTraining = result;
        }

        return result;
    }

    /// <summary>Optimizer steps in a pass; the last one may have fewer batches.</summary>
    internal static int StepsPerEpoch(ITrainingTask task, TrainingOptions options) =>
        (task.CountBatches(options.BatchSize) + options.GradientAccumulation - 1) / options.GradientAccumulation;

    private static int TotalSteps(int stepsPerEpoch, TrainingOptions options) => options.MaxSteps ?? checked(stepsPerEpoch * options.Epochs);
}

/// <summary>A model and the adapter of it that a run trains.</summary>
internal sealed record Trainee(LoKrModel Model, LoKrAdapter Adapter)
{
    /// <summary>What a run trains: of a single model its adapter, of several models that of each that has one.</summary>
    /// <exception cref="LoKrException">Nothing can be trained, or it is not clear which adapter is meant; or an option is out of its range.</exception>
    public static IReadOnlyList<Trainee> Select(IReadOnlyList<LoKrModel> models, TrainingOptions options)
    {
        ArgumentNullException.ThrowIfNull(models);
        ArgumentNullException.ThrowIfNull(options);
        options.Validate();
        LoKrModel[] adapted = models.Count == 1 ? [.. models] : [.. models.Where(model => IsReady(model, options.AdapterName))];
        if (adapted.Length == 0)
        {
            // Those that have adapters say what keeps them from being trained.
            adapted = [.. models.Where(model => options.AdapterName is null ? model.Adapters.Count > 0 : model.Adapters.Any(adapter => adapter.Name == options.AdapterName))];
        }

        Trainee[] trainees = adapted.Length > 0
            ? [.. adapted.Select(model => new Trainee(model, SelectAdapter(model, options.AdapterName)))]
            : throw new LoKrException(ErrorIds.NoAdapter, LoKrErrorKind.InvalidOperation,
                $"None of {string.Join(", ", models.Select(model => model.Name))} has an adapter{(options.AdapterName is null ? "" : $" '{options.AdapterName}'")} to train.",
                "Add one with Add-LoKrAdapter.");
        if (options.GradientCheckpointing)
        {
            CheckpointedBlocks.Require(trainees);
        }

        return trainees;
    }

    /// <summary>Names of the adapters in one line; usually one name.</summary>
    public static string NameOf(IEnumerable<Trainee> trainees) => string.Join(", ", trainees.Select(trainee => trainee.Adapter.Name).Distinct(StringComparer.Ordinal));

    private static bool IsReady(LoKrModel model, string? name) => model.AdaptersEnabled && model.MergedAdapters.Count == 0
        && model.Adapters.Any(adapter => name is null ? adapter.IsTrainable && model.ActiveAdapters.Contains(adapter.Name) : adapter.Name == name);

    private static LoKrAdapter SelectAdapter(LoKrModel model, string? name)
    {
        ArgumentNullException.ThrowIfNull(model);
        if (model.Adapters.Count == 0)
        {
            throw new LoKrException(ErrorIds.NoAdapter, LoKrErrorKind.InvalidOperation, $"{model.Name} has no adapter to train.", "Add one with Add-LoKrAdapter.");
        }

        if (model.MergedAdapters.Count > 0)
        {
            throw new LoKrException(
                ErrorIds.AdapterNotTrainable,
                LoKrErrorKind.InvalidOperation,
                $"Adapters are merged into the base weights: {string.Join(", ", model.MergedAdapters)}.",
                "Take them out with Undo-LoKrMerge, then train.");
        }

        if (!model.AdaptersEnabled)
        {
            throw new LoKrException(
                ErrorIds.AdapterNotTrainable, LoKrErrorKind.InvalidOperation, "The adapters of the model are disabled.", "Switch them on with Enable-LoKrAdapter.");
        }

        LoKrAdapter adapter = name is null ? OnlyActive(model) : model.GetAdapter(name);
        return adapter.IsTrainable ? adapter : throw new LoKrException(
            ErrorIds.AdapterNotTrainable,
            LoKrErrorKind.InvalidOperation,
            $"Adapter '{adapter.Name}' was made for inference only (InferenceMode).",
            "Make it with InferenceMode off to train it.");
    }

    private static LoKrAdapter OnlyActive(LoKrModel model) =>
        model.ActiveAdapters.Count switch
        {
            1 => model.GetAdapter(model.ActiveAdapters[0]),
            0 => throw new LoKrException(ErrorIds.NoAdapter, LoKrErrorKind.InvalidOperation, $"No adapter of {model.Name} is active.", "Name the one to train (-AdapterName)."),
            _ => throw new LoKrException(
                ErrorIds.AdapterAmbiguous,
                LoKrErrorKind.InvalidArgument,
                $"Several adapters are active: {string.Join(", ", model.ActiveAdapters)}.",
                "Name the one to train (-AdapterName)."),
        };
}

/// <summary>Gradients on for one adapter, its trained copies of saved modules included, and off for the others while a run lasts.</summary>
internal sealed class TrainableOnly : IDisposable
{
    private readonly LoKrModel _model;
    private readonly (LoKrAdapter Adapter, bool Trainable)[] _before;

    public TrainableOnly(LoKrModel model, LoKrAdapter trained)
    {
        _model = model;
        _before = [.. model.Adapters.Select(static adapter => (adapter, adapter.IsTrainable))];
        foreach (LoKrAdapter adapter in model.Adapters)
        {
            Set(adapter, ReferenceEquals(adapter, trained));
        }
    }

    public void Dispose()
    {
        foreach ((LoKrAdapter adapter, bool trainable) in _before)
        {
            if (_model.Adapters.Contains(adapter))
            {
                Set(adapter, trainable);
            }
        }
    }

    private void Set(LoKrAdapter adapter, bool trainable)
    {
        if (adapter.IsTrainable != trainable)
        {
            _model.SetAdapterTrainable(adapter.Name, trainable);
        }
    }
}
