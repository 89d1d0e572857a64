using System.Management.Automation;
using System.Runtime.InteropServices;
using LoKr.Core.Errors;
using LoKr.Core.Model;
using LoKr.Core.Training;
using LoKr.Models.Diffusion;
using LoKr.PowerShell.Base;
using LoKr.PowerShell.Errors;
using LoKr.PowerShell.Hosting;

namespace LoKr.PowerShell.Commands;

/// <summary>Trains an adapter and passes the model on; the figures are in its LastTraining.</summary>
[Cmdlet(VerbsLifecycle.Start, "LoKrTraining", DefaultParameterSetName = DataSet, SupportsShouldProcess = true)]
[OutputType(typeof(LoKrModel), typeof(StableDiffusionPipeline), typeof(LoKrTrainingStep))]
public sealed partial class StartLoKrTrainingCommand : PathCommand
{
    private const string DataSet = "Data";
    private const string RowSet = "Row";
    private const string LossSet = "Loss";
    private const string PictureSet = "Picture";
    private static readonly TrainingOptions s_defaults = new();
    private readonly List<object?> _rows = [];

    /// <inheritdoc/>
    protected override void Process()
    {
        if (ParameterSetName == RowSet)
        {
            _rows.Add(InputObject);
            return;
        }

        if (ParameterSetName == PictureSet)
        {
            TrainOnPictures();
            return;
        }

        Train(ParameterSetName == LossSet ? null : Data);
    }

    /// <inheritdoc/>
    protected override void End()
    {
        if (ParameterSetName == RowSet)
        {
            Train(_rows);
        }
    }

    private void Train(IReadOnlyList<object?>? data)
    {
        if (Model.Adapters.Count == 0 && IsRehearsal())
        {
            // The adapter was only rehearsed as well, so there is nothing to plan with.
            ShouldProcess(Model.Name, "Train the adapter");
            WriteObject(Model);
            return;
        }

        EnsureRuntime();
        TrainingOptions options = Options();
        using ITrainingTask task = data is null ? new CustomLossTask(Batch, new ScriptLoss(Loss).Compute) : ReadTask(data);
        using ITrainingTask? validation = ValidationData is null ? null : ReadTask(ValidationData);
        TrainingPlan plan = Trainer.Plan(Model, task, options);
        Warn(plan.Warnings.Concat(validation?.Warnings ?? []));
        if (Confirms(plan))
        {
            Run(Model.Name, (report, token) => Trainer.Run(Model, task, validation, options, report, token), result => Model.LastTraining = result, onThisThread: data is null);
        }

        if (!ReportStep)
        {
            WriteObject(Model);
        }
    }

    private void Warn(IEnumerable<string> warnings)
    {
        foreach (string warning in warnings)
        {
            WriteWarning(warning);
        }
    }

    private bool Confirms(TrainingPlan plan)
    {
        WriteVerbose(plan.ToString());
        return ShouldProcess(plan.ToString(), $"{plan} Continue?", "Start-LoKrTraining");
    }

    /// <param name="name">What is trained, for people.</param>
    /// <param name="work">Trains; gets a function for reports, and a token that ends it.</param>
    /// <param name="keep">Keeps the figures of a run that a signal ended.</param>
    /// <param name="onThisThread">Whether the work is done on the pipeline thread, where script blocks can run.</param>
    private void Run(string name, Func<Action<LoKrTrainingStep>, CancellationToken, LoKrTrainingResult> work, Action<LoKrTrainingResult> keep, bool onThisThread)
    {
        using CancellationTokenSource cancel = CancellationTokenSource.CreateLinkedTokenSource(StopToken);
        bool interrupted = false;
        using PosixSignalRegistration signal = PosixSignalRegistration.Create(PosixSignal.SIGTERM, context =>
        {
            context.Cancel = true;
            interrupted = true;
            cancel.Cancel();
        });
        TrainingProgress progress = new(this, $"Training {name}");
        LoKrTrainingResult result;
        try
        {
            result = onThisThread
                ? work(step => Report(step, progress), cancel.Token)
                : RunBeside(work, progress, cancel.Token);
        }
        finally
        {
            progress.Complete();
        }

        if (interrupted)
        {
            keep(result with { StopReason = "Signal" });
            throw new LoKrException(ModuleErrorIds.TrainingInterrupted, LoKrErrorKind.InvalidOperation,
                $"Training was ended by a signal after {result.History.Count} steps.", "The adapter is as after the last of them; its LastTraining holds the figures.") { Target = name };
        }

        // Ctrl+C while the last report was on its way: the engine ends the pipeline, and nothing half trained goes on.
        StopToken.ThrowIfCancellationRequested();
    }

    private LoKrTrainingResult RunBeside(Func<Action<LoKrTrainingStep>, CancellationToken, LoKrTrainingResult> work, TrainingProgress progress, CancellationToken stop)
    {
        // A downstream Select-Object -First ends WriteObject with an exception and signals nobody: disposing cancels and waits.
        using BackgroundRun<LoKrTrainingStep, LoKrTrainingResult> run = new(work, stop);
        foreach (LoKrTrainingStep step in run.Reports)
        {
            Report(step, progress);
        }

        return run.Wait();
    }

    private void Report(LoKrTrainingStep step, TrainingProgress progress)
    {
        progress.Show(step);
        if (ReportStep)
        {
            WriteObject(step);
        }
    }

    private ITrainingTask ReadTask(IReadOnlyList<object?> data) => TrainingTaskFactory.Create(
        Model, DataRows.Read(data, path => ResolveOne(path, literal: false)), MaxLength, StopToken);

    private bool IsRehearsal() => MyInvocation.BoundParameters.TryGetValue("WhatIf", out object? given)
        ? given is SwitchParameter { IsPresent: true }
        : LanguagePrimitives.IsTrue(GetVariableValue("WhatIfPreference", false));
}
