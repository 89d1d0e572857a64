using System.Collections.ObjectModel;
using System.Text.Json.Serialization;
using LoKr.Core.Errors;
using LoKr.Core.Model;
using static TorchSharp.torch;

namespace LoKr.Core.Training;

/// <summary>Follows a run: says where it goes on, learns of every step, and can ask for an orderly end.</summary>
public interface ITrainingJournal
{
    /// <summary>Seed of a run without one of its own; a run with a journal always has a seed.</summary>
    long Seed { get; }

    /// <summary>The state in which the run goes on; null from the beginning. Read once, before the first step.</summary>
    TrainingState? Start { get; }

    /// <summary>Asks for the end of the run after the current step. An evaluation is not finished; it is done when the run goes on.</summary>
    CancellationToken Stop { get; }

    /// <summary>Why <see cref="Stop"/> was canceled: a value of <see cref="LoKrTrainingResult.StopReason"/>; empty before. A run that is canceled meanwhile has it too.</summary>
    string StopReason { get; }

    /// <summary>Called on the thread that trains, before the first step of a run and of its continuation.</summary>
    /// <param name="capture">Gives the state of now; see <see cref="TrainingState.Tensors"/>.</param>
    void OnStart(Func<TrainingState> capture);

    /// <summary>Called on the thread that trains, after every step and its evaluation.</summary>
    /// <param name="step">The step.</param>
    /// <param name="isBest">Whether its evaluation is the best up to now.</param>
    /// <param name="capture">Gives the state of now; see <see cref="TrainingState.Tensors"/>.</param>
    void OnStep(LoKrTrainingStep step, bool isBest, Func<TrainingState> capture);

    /// <summary>Called on the thread that trains when the run ended, except by an exception other than a divergence.</summary>
    /// <param name="result">The run up to its end.</param>
    /// <param name="capture">Gives the state of the last complete step; see <see cref="TrainingState.Tensors"/>.</param>
    void OnEnd(LoKrTrainingResult result, Func<TrainingState> capture);
}

/// <summary>All that the next step of a run depends on, beside the data, the base model and the options.</summary>
public sealed record TrainingState
{
    /// <summary>Seed of the run.</summary>
    public required long Seed { get; init; }

    /// <summary>Highest learning rate of the head; null where it is that of all parameters, also in runs that an earlier version began.</summary>
    public double? HeadLearningRate { get; init; }

    /// <summary>Number of steps of the whole run.</summary>
    public required int TotalSteps { get; init; }

    /// <summary>The complete steps, each with its evaluation if it had one.</summary>
    public required IReadOnlyList<LoKrTrainingStep> History { get; init; }

    /// <summary>Whether the evaluation after the last step of <see cref="History"/> is still to be done.</summary>
    public bool EvaluationIsDue { get; init; }

    /// <summary>The evaluation before the first step.</summary>
    public LoKrEvaluation? Before { get; init; }

    /// <summary>The last evaluation.</summary>
    public LoKrEvaluation? Last { get; init; }

    /// <summary>The best evaluation.</summary>
    public LoKrEvaluation? Best { get; init; }

    /// <summary>The step of the best evaluation.</summary>
    public int? BestStep { get; init; }

    /// <summary>Number of evaluations since the last improvement.</summary>
    public int EvaluationsWithoutImprovement { get; init; }

    /// <summary>Time of training up to now, over all continuations.</summary>
    public required TimeSpan Elapsed { get; init; }

    /// <summary>
    /// Trained values, optimizer state and kept copies by name. In a captured state they are the live tensors, not copies: use them before
    /// the call that got them returns. JSON leaves them out.
    /// </summary>
    [JsonIgnore]
    public IReadOnlyDictionary<string, Tensor> Tensors { get; init; } = ReadOnlyDictionary<string, Tensor>.Empty;
}

/// <summary>The tensors of a run by the names they have in a <see cref="TrainingState"/>.</summary>
/// <param name="tensors">The live tensors.</param>
internal sealed class TrainingTensors(IEnumerable<(string Name, Tensor Tensor)> tensors)
{
    private readonly Dictionary<string, Tensor> _live = tensors.ToDictionary(static pair => pair.Name, static pair => pair.Tensor, StringComparer.Ordinal);

    /// <summary>The live tensors.</summary>
    public IReadOnlyDictionary<string, Tensor> Live => _live;

    /// <summary>Gives the live tensors the values of others.</summary>
    /// <exception cref="LoKrException"><see cref="ErrorIds.CheckpointMismatch"/>: names, shapes or element types differ; nothing has changed then.</exception>
    public void Restore(IReadOnlyDictionary<string, Tensor> values)
    {
        foreach ((string name, Tensor live) in _live)
        {
            if (!values.TryGetValue(name, out Tensor? value) || value.dtype != live.dtype || !value.shape.SequenceEqual(live.shape))
            {
                throw Mismatch($"'{name}' of the run has {live.numel()} values of {live.dtype}, that of the checkpoint {(value is null ? "none" : $"{value.numel()} of {value.dtype}")}");
            }
        }

        if (values.Keys.FirstOrDefault(name => !_live.ContainsKey(name)) is string unknown)
        {
            throw Mismatch($"the checkpoint has '{unknown}', the run does not");
        }

        using var noGrad = no_grad();
        foreach ((string name, Tensor live) in _live)
        {
            live.copy_(values[name]);
        }
    }

    private static LoKrException Mismatch(string why) => new(
        ErrorIds.CheckpointMismatch, LoKrErrorKind.InvalidData, $"The checkpoint does not fit the run: {why}.",
        "Use the model, the configuration and the options that the run began with, or start a new run.");
}

/// <summary>Follows the evaluations of a run: the best one, the values that gave it, and how long ago it was.</summary>
internal sealed class BestEvaluation : IDisposable
{
    private readonly TrainingOptions _options;
    private readonly EvaluationMetric _metric;
    private readonly KeptValues? _values;

    /// <summary>Starts without an evaluation.</summary>
    /// <param name="options">The metric, the patience, and whether values are kept.</param>
    /// <param name="metric">Metric of the task.</param>
    /// <param name="values">The values of now, to keep those of the best evaluation; owned by this object. Null where none are kept.</param>
    public BestEvaluation(TrainingOptions options, TrainingMetric metric, KeptValues? values)
    {
        (_options, _values) = (options, values);
        _metric = options.Metric ?? metric.ToEvaluationMetric();
    }

    /// <summary>The best evaluation.</summary>
    public LoKrEvaluation? Evaluation { get; private set; }

    /// <summary>Its step.</summary>
    public int? Step { get; private set; }

    /// <summary>Evaluations since then.</summary>
    public int WithoutImprovement { get; private set; }

    /// <summary>Whether the patience has run out.</summary>
    public bool IsExhausted => WithoutImprovement >= _options.Patience;

    /// <summary>The kept values by name.</summary>
    public IEnumerable<(string Name, Tensor Tensor)> State => _values?.State ?? [];

    /// <summary>Goes on from a state.</summary>
    public void Resume(TrainingState state) => (Evaluation, Step, WithoutImprovement) = (state.Best, state.BestStep, state.EvaluationsWithoutImprovement);

    /// <summary>Adds the evaluation of a step.</summary>
    /// <returns>Whether it is the best one.</returns>
    /// <exception cref="LoKrException"><c>LoKr.MetricUnavailable</c>.</exception>
    public bool Add(LoKrEvaluation evaluation, int step)
    {
        double value = evaluation.ValueOf(_metric);
        double gain = Evaluation is null ? double.PositiveInfinity : _metric.Improvement(value, Evaluation.ValueOf(_metric));

        // Patience counts gains that matter; what is kept is the best, however little better.
        WithoutImprovement = gain > _options.MinimumImprovement ? 0 : WithoutImprovement + 1;
        if (gain <= 0)
        {
            return false;
        }

        (Evaluation, Step) = (evaluation, step);
        _values?.Store();
        return true;
    }

    /// <summary>Puts the kept values back, if there are any.</summary>
    /// <returns>Whether values were kept.</returns>
    public bool Restore()
    {
        if (_values is null || Evaluation is null)
        {
            return false;
        }

        _values.Restore();
        return true;
    }

    /// <inheritdoc/>
    public void Dispose() => _values?.Dispose();
}
