using LoKr.Core.Adapters;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Training;

/// <summary>Trains an adapter. Everything happens on the calling thread; only batches of plain data are prepared on another.</summary>
public static class Trainer
{
    /// <summary>Says what a run would do, without doing it.</summary>
    /// <exception cref="LoKrException">What <see cref="Run"/> would throw before its first step.</exception>
    public static TrainingPlan Plan(LoKrModel model, ITrainingTask task, TrainingOptions options)
    {
        ArgumentNullException.ThrowIfNull(task);
        LoKrAdapter adapter = SelectAdapter(model, options);
        int batches = task.CountBatches(options.BatchSize);
        int steps = StepsPerEpoch(task, options);
        int total = TotalSteps(steps, options);
        return new TrainingPlan
        {
            AdapterName = adapter.Name,
            RowCount = task.RowCount,
            BatchesPerEpoch = batches,
            StepsPerEpoch = steps,
            TotalSteps = total,
            WarmupSteps = Schedule.For(options, total).WarmupSteps,
            TrainableParameterCount = adapter.ParameterCount,
            OptimizerBytes = adapter.FlatParameters.Sum(flat =>
                (2 * flat.Value.numel() * flat.Value.dtype.ElementSize()) + FlatAdamW.StateBytes(flat.Value.numel(), flat.Value.dtype)),
            ModelBytes = model.Module.parameters().Sum(parameter => parameter.numel() * parameter.dtype.ElementSize()),
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
        CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(task);
        LoKrAdapter adapter = SelectAdapter(model, options);
        if (!model.ActiveAdapters.Contains(adapter.Name))
        {
            model.SetActiveAdapters([adapter.Name]);
        }

        using TrainingRun run = new(model, adapter, task, validation, options, TotalSteps(StepsPerEpoch(task, options), options));
        LoKrTrainingResult result = run.Execute(onStep, cancellationToken);
        model.LastTraining = result;
        return result;
    }

    /// <summary>Optimiser steps in a pass; the last one may have fewer batches.</summary>
    internal static int StepsPerEpoch(ITrainingTask task, TrainingOptions options) =>
        (task.CountBatches(options.BatchSize) + options.GradientAccumulation - 1) / options.GradientAccumulation;

    private static int TotalSteps(int stepsPerEpoch, TrainingOptions options) => options.MaxSteps ?? checked(stepsPerEpoch * options.Epochs);

    private static LoKrAdapter SelectAdapter(LoKrModel model, TrainingOptions options)
    {
        ArgumentNullException.ThrowIfNull(model);
        ArgumentNullException.ThrowIfNull(options);
        options.Validate();
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

        LoKrAdapter adapter = options.AdapterName is string name ? model.GetAdapter(name) : OnlyActive(model);
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
