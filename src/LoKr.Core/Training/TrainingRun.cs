using System.Diagnostics;
using System.Globalization;
using LoKr.Core.Distributed;
using LoKr.Core.Errors;
using LoKr.Core.Layers;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using static TorchSharp.torch;

namespace LoKr.Core.Training;

/// <summary>One run of the trainer: the loop over batches, and its state.</summary>
internal sealed class TrainingRun : IDisposable
{
    private readonly IReadOnlyList<Trainee> _trainees;
    private readonly LoKrModel _model;
    private readonly ITrainingTask _task;
    private readonly ITrainingTask? _validation;
    private readonly TrainingOptions _options;
    private readonly Schedule _schedule;
    private readonly WorkerTraining? _workers;
    private readonly ModuleModes[] _modes;
    private readonly TrainableOnly[] _trainable;
    private readonly FlatAdamW _optimizer;
    private readonly StepGradients _gradients;
    private readonly KeptValues _lastFinite;
    private readonly BestEvaluation _best;
    private readonly TrainingTensors _tensors;
    private readonly CheckpointedBlocks? _checkpoints;
    private readonly CallCheck[] _calls;
    private readonly MemoryPeak _memory = new();
    private readonly Throughput _throughput = new();
    private readonly List<LoKrTrainingStep> _history = [];
    private readonly ITrainingJournal? _journal;
    private readonly bool _seedsDropout;
    private readonly bool _dropsModules;
    private readonly CancellationTokenSource _timeLimit = new();
    private readonly long _started = Stopwatch.GetTimestamp();
    private long _seed;
    private double? _headLearningRate;
    private TimeSpan _before;
    private LoKrEvaluation? _first;
    private LoKrEvaluation? _last;
    private bool _evaluationIsDue;

    public TrainingRun(
        IReadOnlyList<Trainee> trainees, ITrainingTask task, ITrainingTask? validation, TrainingOptions options, int totalSteps, ITrainingJournal? journal)
    {
        (_trainees, _model, _task, _validation, _options, _journal) = (trainees, trainees[0].Model, task, validation, options, journal);
        _schedule = Schedule.For(options, totalSteps);
        TrainingState? start = journal?.Start;
        _seed = start?.Seed ?? options.Seed ?? journal?.Seed ?? Random.Shared.NextInt64();
        _seedsDropout = options.Seed is not null || journal is not null || options.Workers is not null;
        _dropsModules = trainees.Any(static trainee => trainee.Adapter.Config.ModuleDropout > 0);
        _modes = [.. trainees.Select(trainee => new ModuleModes(trainee.Model.Module))];
        _calls = [.. trainees.Select(trainee => new CallCheck(trainee.Adapter, (trainee.Model.Pretrained as ISentenceEncoder)?.IdleModules ?? []))];
        FlatParameter[] parameters = [.. trainees.SelectMany(trainee => trainee.Adapter.FlatParameters)];
        _lastFinite = new KeptValues(parameters, "finite");
        _best = new BestEvaluation(options, task.Metric, options.KeepBest && validation is not null ? new KeptValues(parameters, "best") : null);
        TrainedHead head = new(trainees, options);
        _headLearningRate = head.LearningRate;
        _optimizer = new FlatAdamW(parameters, options.Beta1, options.Beta2, options.Epsilon, options.WeightDecay, head.Ranges);
        _gradients = new StepGradients(parameters, options.Workers);
        _tensors = new([.. parameters.Select((flat, index) => ($"value.{index}", flat.Value)), .. _optimizer.State, .. _lastFinite.State, .. _best.State]);
        _trainable = [.. trainees.Select(trainee => new TrainableOnly(trainee.Model, trainee.Adapter))];
        _checkpoints = options.GradientCheckpointing ? new CheckpointedBlocks(trainees) : null;
        _workers = options.Workers is null ? null : new WorkerTraining(options.Workers, trainees, _tensors);
        if (start is not null)
        {
            _tensors.Restore(start.Tensors);
            Resume(start);
        }
    }

    /// <summary>Runs, and sets the result on every model that is trained, also when the run diverges.</summary>
    public LoKrTrainingResult Execute(Action<LoKrTrainingStep>? onStep, CancellationToken token)
    {
        string stopReason;
        try
        {
            if (_workers?.Begin(Capture()) is TrainingState shared)
            {
                Resume(shared);
            }

            using CancellationTokenSource stop = CancellationTokenSource.CreateLinkedTokenSource(_timeLimit.Token, _journal?.Stop ?? default);
            _journal?.OnStart(Capture);
            if (_options.TimeLimit is TimeSpan limit)
            {
                _timeLimit.CancelAfter(limit);
            }

            stopReason = Train(onStep, stop.Token, token);
        }
        catch (OperationCanceledException exception) when (token.IsCancellationRequested || exception is WorkersStoppedException)
        {
            _workers?.Stop(exception);

            // Nobody but a signal ends another worker; this one may get it later, or never.
            stopReason = !token.IsCancellationRequested && _options.Workers is { IsFirst: true } ? StopReasons.Signal
                : _journal?.StopReason is { Length: > 0 } known ? known
                : StopReasons.Canceled;
        }
        catch (LoKrException exception) when (exception.ErrorId is ErrorIds.LossNotFinite or ErrorIds.GradientNotFinite or ErrorIds.LogitsNotFinite)
        {
            _lastFinite.Restore();
            Report(StopReasons.Diverged);
            throw;
        }

        return Report(stopReason);
    }

    public void Dispose()
    {
        _checkpoints?.Dispose();
        _optimizer.ZeroGradients();
        _optimizer.Dispose();
        _lastFinite.Dispose();
        _best.Dispose();
        _timeLimit.Dispose();
        Array.ForEach(_trainable, static trainable => trainable.Dispose());
        Array.ForEach(_modes, static modes => modes.Dispose());
        _memory.Dispose();
    }

    private TimeSpan Elapsed => _before + Stopwatch.GetElapsedTime(_started);

    private LoKrTrainingResult Report(string stopReason)
    {
        LoKrTrainingResult result = new()
        {
            AdapterName = Trainee.NameOf(_trainees),
            History = _history,
            StopReason = stopReason,
            Before = _first,
            After = _last,
            BestStep = _best.Step,
            Seed = _seed,
            HeadLearningRate = _headLearningRate,
            TrainableParameterCount = _trainees.Sum(trainee => trainee.Adapter.ParameterCount),
            PeakMemoryBytes = _memory.Bytes,
            Elapsed = Elapsed,
        };

        // A run that goes on later has the values of its last step; only a finished one ends with the best.
        if (StopReasons.IsComplete(stopReason) && _best.Restore())
        {
            result = result with { After = _best.Evaluation };
        }

        _journal?.OnEnd(result, Capture);
        foreach (Trainee trainee in _trainees)
        {
            trainee.Model.LastTraining = result;
            if (stopReason != StopReasons.Diverged && _history.Count > 0)
            {
                trainee.Adapter.UntrainedFrom = null;
            }
        }

        return result;
    }

    private TrainingState Capture() => new()
    {
        Seed = _seed,
        HeadLearningRate = _headLearningRate,
        TotalSteps = _schedule.TotalSteps,
        History = _history,
        EvaluationIsDue = _evaluationIsDue,
        Before = _first,
        Last = _last,
        Best = _best.Evaluation,
        BestStep = _best.Step,
        EvaluationsWithoutImprovement = _best.WithoutImprovement,
        Elapsed = Elapsed,
        Tensors = _tensors.Live,
    };

    private void Resume(TrainingState start)
    {
        (_seed, _headLearningRate) = (start.Seed, start.HeadLearningRate);
        _optimizer.StepCount = start.History.Count;
        _history.AddRange(start.History);
        _best.Resume(start);
        (_before, _first, _last, _evaluationIsDue) = (start.Elapsed, start.Before, start.Last, start.EvaluationIsDue);
    }

    private string Train(Action<LoKrTrainingStep>? onStep, CancellationToken stop, CancellationToken token)
    {
        if (_options.EvaluateBefore && _history.Count == 0 && !Evaluate(ref _first, stop, token))
        {
            return EndReason();
        }

        int stepsPerEpoch = Trainer.StepsPerEpoch(_task, _options);
        using var gradients = enable_grad();

        // An evaluation returns every module to this mode.
        foreach (Trainee trainee in _trainees)
        {
            trainee.Model.Module.train();
        }

        // A run that goes on begins with what followed its last step.
        if (_history.Count > 0 && (_evaluationIsDue ? Complete(_history[^1], onStep, stop, token) : EndAfter(_history[^1])) is string ended)
        {
            return ended;
        }

        while (true)
        {
            (int epoch, int done) = Math.DivRem(_history.Count, stepsPerEpoch);
            BatchOrder order = new(_options.BatchSize, Shuffle: true, _options.LengthBucketing, _seed, epoch);
            IEnumerable<TrainingBatch> rest = _task.Batches(order).Skip(done * _options.GradientAccumulation);
            using Prefetch<TrainingBatch[]> prefetch = new(rest.Chunk(_options.GradientAccumulation));
            foreach (TrainingBatch[] group in prefetch.Items())
            {
                done++;
                LoKrTrainingStep step = Step(group, epoch + ((double)done / stepsPerEpoch), stop, token);
                _history.Add(step);
                bool final = step.Step == _schedule.TotalSteps;
                if (final)
                {
                    RequireFiniteParameters(step);
                }

                _workers?.CompareIfDue(step);

                _evaluationIsDue = _validation is not null && (final || (_options.EvaluateEvery is int every ? step.Step % every == 0 : done == stepsPerEpoch));
                if (Complete(step, onStep, stop, token) is string reason)
                {
                    return reason;
                }
            }
        }
    }

    /// <summary>Does what follows a step: its evaluation, the reports.</summary>
    /// <returns>Why the run ends with it, or null.</returns>
    private string? Complete(LoKrTrainingStep step, Action<LoKrTrainingStep>? onStep, CancellationToken stop, CancellationToken token)
    {
        bool isBest = false;
        if (_evaluationIsDue)
        {
            if (!Evaluate(ref _last, stop, token))
            {
                return EndReason();
            }

            _evaluationIsDue = false;
            isBest = _best.Add(_last!, step.Step);
            step = step with { EvaluationLoss = _last!.Loss, Accuracy = _last.Accuracy, EntityF1 = _last.EntityF1, Perplexity = _last.Perplexity, NdcgAt10 = _last.NdcgAt10, Spearman = _last.Spearman };
            _history[^1] = step;
        }

        // The journal first: a report that is canceled must not lose the step.
        _journal?.OnStep(step, isBest, Capture);
        onStep?.Invoke(step);
        return EndAfter(step) ?? (IsStopped(stop) ? EndReason() : null);
    }

    // Workers stop together: at what one of them said in the step or the evaluation that they have just ended.
    private bool IsStopped(CancellationToken stop) => _workers is null ? stop.IsCancellationRequested : _gradients.StopReason.Length > 0;

    private string? EndAfter(LoKrTrainingStep step) =>
        step.Step == _schedule.TotalSteps ? StopReasons.Completed : _best.IsExhausted ? StopReasons.EarlyStopped : null;

    private string EndReason() => _gradients.StopReason.Length > 0 ? _gradients.StopReason : OwnReason();

    private string OwnReason() => _timeLimit.IsCancellationRequested ? StopReasons.TimeLimit : _journal!.StopReason;

    private LoKrTrainingStep Step(TrainingBatch[] group, double epoch, CancellationToken stop, CancellationToken token)
    {
        long started = Stopwatch.GetTimestamp();
        int index = _history.Count;
        double learningRate = _schedule.At(index);
        double? ofHead = _headLearningRate is double highest ? _schedule.To(highest).At(index) : null;
        using var scope = NewDisposeScope();
        double all = group.Sum(batch => batch.LossCount);
        Tensor loss = _gradients.Sum(group.Length, i => Backward(group[i], group.Length == 1 ? 1 : group[i].LossCount / all, index, i, token),
            () => stop.IsCancellationRequested ? OwnReason() : "");
        (double lossValue, double norm) = ReadFinite(loss, _optimizer.GradientNorm(), index + 1, learningRate);
        _lastFinite.Store();
        _optimizer.Clip(_options.MaxGradientNorm, norm);
        _optimizer.Step(learningRate, ofHead);
        _throughput.Add(group.Sum(batch => batch.UnitCount), Stopwatch.GetElapsedTime(started));
        return new LoKrTrainingStep
        {
            Step = index + 1,
            TotalSteps = _schedule.TotalSteps,
            Epoch = epoch,
            Loss = lossValue,
            LearningRate = learningRate,
            HeadLearningRate = ofHead,
            GradientNorm = norm,
            TokensPerSecond = _throughput.PerSecond,
            Elapsed = Elapsed,
        };
    }

    /// <summary>Runs the backward pass of a batch, which adds to the gradients.</summary>
    /// <param name="batch">The batch.</param>
    /// <param name="weight">Its share of the tokens or rows with loss of the step: batches count as if they were one.</param>
    /// <param name="step">Index of the step.</param>
    /// <param name="index">Index of the batch in it.</param>
    /// <param name="token">Ends the run.</param>
    /// <returns>The weighted loss, detached.</returns>
    private Tensor Backward(TrainingBatch batch, double weight, int step, int index, CancellationToken token)
    {
        token.ThrowIfCancellationRequested();
        SeedDropout(step, index);
        using var scope = NewDisposeScope();
        Tensor loss = _task.Loss(_model, batch);
        if (step == 0)
        {
            Array.ForEach(_calls, static calls => calls.Require());
        }

        Tensor weighted = weight == 1 ? loss : loss * weight;
        if (loss.requires_grad)
        {
            weighted.backward();
            _checkpoints?.Backward();
        }
        else if (!_dropsModules)
        {
            throw new LoKrException(
                ErrorIds.LossInvalid,
                LoKrErrorKind.InvalidOperation,
                "The loss does not depend on the adapter: it has no gradient.",
                "Compute it from the model's output, with gradients on and without detach() or item().");
        }

        // Without a gradient module dropout left out every layer.
        return zeros([], ScalarType.Float32, _model.Device).add_(weighted.detach().to(ScalarType.Float32, _model.Device)).MoveToOuterDisposeScope();
    }

    /// <summary>
    /// Reads both numbers at once, so that a step waits for the device only once. Throws where one is not finite, before the optimizer
    /// changes the parameters.
    /// </summary>
    private (double Loss, double Norm) ReadFinite(Tensor loss, Tensor norm, int step, double learningRate)
    {
        double[] values = stack([loss.to(ScalarType.Float64), norm.to(ScalarType.Float64, loss.device)]).cpu().data<double>().ToArray();
        if (double.IsFinite(values[0]) && double.IsFinite(values[1]))
        {
            return (values[0], values[1]);
        }

        bool lossIsFinite = double.IsFinite(values[0]);
        throw Diverged(
            lossIsFinite ? ErrorIds.GradientNotFinite : ErrorIds.LossNotFinite,
            string.Create(CultureInfo.InvariantCulture, $"The {(lossIsFinite ? "gradient" : "loss")} became {values[lossIsFinite ? 1 : 0]}"),
            step,
            learningRate);
    }

    /// <summary>Throws where the last step, which no further loss looks at, made a parameter infinite or NaN.</summary>
    private void RequireFiniteParameters(LoKrTrainingStep step)
    {
        if (!_lastFinite.AreCurrentFinite())
        {
            throw Diverged(ErrorIds.LossNotFinite, "A parameter became NaN or infinite", step.Step, step.LearningRate);
        }
    }

    private LoKrException Diverged(string id, string what, int step, double learningRate) => new(
        id,
        LoKrErrorKind.InvalidData,
        string.Create(CultureInfo.InvariantCulture, $"{what} in step {step} of {_schedule.TotalSteps} (learning rate {learningRate:G4})."),
        "The adapter has the values that last gave a finite loss. Use a lower learning rate, a warm-up or clipping, or check the data of that step.") { Target = step };

    /// <summary>
    /// Gives torch's generator a state that depends on the seed, the step and the batch within the step only: dropout, and whatever else draws
    /// from it, draws the same numbers in a run that was continued, with any number of workers.
    /// </summary>
    private void SeedDropout(int step, int batch)
    {
        if (_seedsDropout)
        {
            ulong mixed = TrainingSeeds.Of(_seed, step, batch);
            using Generator generator = random.manual_seed(unchecked((long)(mixed ^ (mixed >> 31))));
        }
    }

    /// <summary>Evaluates; returns false when the run is to end meanwhile.</summary>
    private bool Evaluate(ref LoKrEvaluation? evaluation, CancellationToken stop, CancellationToken token)
    {
        using CancellationTokenSource either = CancellationTokenSource.CreateLinkedTokenSource(stop, token);
        try
        {
            evaluation = _validation is null ? null : Evaluator.Evaluate(
                [.. _trainees.Select(trainee => trainee.Model)], _validation, _options.EvaluationBatchSize ?? _options.BatchSize, _options.Workers, _options.OnEvaluation, either.Token);
            return true;
        }
        catch (WorkersStoppedException exception) when (exception.Reason.Length > 0)
        {
            _gradients.StopReason = exception.Reason;
            return false;
        }
        catch (OperationCanceledException exception) when (exception is not WorkersStoppedException && stop.IsCancellationRequested && !token.IsCancellationRequested)
        {
            _options.Workers?.Stop(OwnReason());
            return false;
        }
    }
}
