using System.Text.Json.Serialization;
using LoKr.Core.Data;
using LoKr.Core.Distributed;
using LoKr.Core.Errors;
using LoKr.Core.Model;

namespace LoKr.Core.Training;

/// <summary>Options of a training run. Defaults follow PEFT's examples and transformers' Trainer where these agree.</summary>
public sealed record TrainingOptions
{
    // Length of the run.

    /// <summary>Number of epochs.</summary>
    public int Epochs { get; init; } = 3;

    /// <summary>Number of optimizer steps, where the schedule ends; overrides <see cref="Epochs"/>. Null for whole epochs.</summary>
    public int? MaxSteps { get; init; }

    // Batches.

    /// <summary>Rows in a batch, or with <see cref="Packing"/> lines of packed rows.</summary>
    public int BatchSize { get; init; } = 16;

    /// <summary>
    /// Batches whose gradients make one step, averaged over their tokens or rows as if they were one batch. Several <see cref="Workers"/> share them;
    /// the numbers of a run depend on this one, not on how many the workers are.
    /// </summary>
    public int GradientAccumulation { get; init; } = 1;

    /// <summary>The processes that share the batches of a step and of an evaluation; null for one process. It does not change the numbers.</summary>
    [JsonIgnore]
    public WorkerGroup? Workers { get; init; }

    /// <summary>Longest sequence in tokens; null for the model's limit. Applied when the rows are tokenized.</summary>
    public int? MaxLength { get; init; }

    /// <summary>
    /// Which tokens of conversations, and of prompts with completions, carry loss. Applied when the rows are tokenized, see
    /// <see cref="DataReading.LossOn"/>.
    /// </summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingDefault)]
    public LossOn LossOn { get; init; }

    /// <summary>Whether rows of similar length, or lines of packed ones, share a batch, which saves padding.</summary>
    public bool LengthBucketing { get; init; } = true;

    /// <summary>
    /// Whether short rows are packed into lines of <see cref="MaxLength"/> tokens (without it, of the longest row), for language models: no row sees
    /// another, so that the loss is that of the same rows without packing. <see cref="BatchSize"/> then counts lines. Evaluations are not packed.
    /// </summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingDefault)]
    public bool Packing { get; init; }

    /// <summary>
    /// Seed of the order of the rows and of dropout. Null draws a new order and leaves torch's generator alone. From a seed, the number of the
    /// step and that of its batch torch's generator, of which a process has one, is seeded before every batch, so that a step draws the same
    /// numbers wherever a run is continued.
    /// </summary>
    public long? Seed { get; init; }

    // AdamW.

    /// <summary>Highest learning rate.</summary>
    public double LearningRate { get; init; } = 1e-3;

    /// <summary>
    /// Highest learning rate of the head: of the modules that the adapter trains whole, embeddings apart. Null for ten times
    /// <see cref="LearningRate"/> where the head is new (the checkpoint lacked it, and nothing has trained it) and is trained beside layers that are
    /// adapted, and for <see cref="LearningRate"/> otherwise.
    /// </summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public double? HeadLearningRate { get; init; }

    /// <summary>Decoupled weight decay of AdamW.</summary>
    public double WeightDecay { get; init; }

    /// <summary>Decay of the running mean of the gradient.</summary>
    public double Beta1 { get; init; } = 0.9;

    /// <summary>Decay of the running mean of the squared gradient.</summary>
    public double Beta2 { get; init; } = 0.999;

    /// <summary>Added to the denominator of AdamW.</summary>
    public double Epsilon { get; init; } = 1e-8;

    /// <summary>Norm to which larger gradients are scaled down; 0 for no clipping.</summary>
    public double MaxGradientNorm { get; init; } = 1;

    // Learning rate schedule.

    /// <summary>Course of the learning rate after the warm-up.</summary>
    public LearningRateSchedule Schedule { get; init; } = LearningRateSchedule.Linear;

    /// <summary>Share of all steps in which the learning rate rises from zero; rounded up to whole steps, as in transformers' Trainer.</summary>
    public double WarmupRatio { get; init; }

    /// <summary>Number of warm-up steps; overrides <see cref="WarmupRatio"/>.</summary>
    public int? WarmupSteps { get; init; }

    // Evaluation.

    /// <summary>Number of steps between evaluations; null evaluates at the end of each epoch.</summary>
    public int? EvaluateEvery { get; init; }

    /// <summary>Whether to evaluate before the first step too.</summary>
    public bool EvaluateBefore { get; init; }

    /// <summary>Rows in a batch of an evaluation; null for <see cref="BatchSize"/>.</summary>
    public int? EvaluationBatchSize { get; init; }

    /// <summary>Called after every batch of an evaluation with the share of it that is done, on the training thread; null for no reports.</summary>
    [JsonIgnore]
    public Action<double>? OnEvaluation { get; init; }

    /// <summary>The measure that decides which evaluation is the best; null for the measure of the task (accuracy, perplexity), or the loss where it has none.</summary>
    public EvaluationMetric? Metric { get; init; }

    // End of the run.

    /// <summary>Number of evaluations without improvement after which the run ends; null for no early end.</summary>
    public int? Patience { get; init; }

    /// <summary>How much better than the best one an evaluation has to be to count as an improvement for <see cref="Patience"/>, in units of <see cref="Metric"/>.</summary>
    public double MinimumImprovement { get; init; }

    /// <summary>Whether the adapter ends with the values that had the best evaluation, not with those of the last step.</summary>
    public bool KeepBest { get; init; }

    /// <summary>Time after which the run ends with a complete step; null for none. Work before the first step is not counted.</summary>
    public TimeSpan? TimeLimit { get; init; }

    // Sentence encoders.

    /// <summary>The loss of a sentence encoder; null for the one that follows from the columns of the rows: multiple negatives ranking for texts with partners, CoSENT for pairs with scores.</summary>
    public EmbeddingLoss? EmbeddingLoss { get; init; }

    /// <summary>Factor on the cosines in the losses MultipleNegativesRanking and CoSent.</summary>
    public double SimilarityScale { get; init; } = 20;

    /// <summary>How much nearer than a wrong text a partner has to be for the loss Triplet.</summary>
    public double TripletMargin { get; init; } = 5;

    /// <summary>How the loss Triplet measures distances.</summary>
    public TripletDistance TripletDistance { get; init; }

    /// <summary>Whether no text occurs twice in a batch of a sentence encoder, where it would count as a wrong answer to itself.</summary>
    public bool NoDuplicates { get; init; }

    // Adapter and memory.

    /// <summary>Name of the adapter to train; null for the active one.</summary>
    public string? AdapterName { get; init; }

    /// <summary>
    /// Whether the blocks of the model store only their inputs for the backward pass and run a second time there: less memory for about half
    /// as much time again, and the same numbers. Dropout on a GPU draws other numbers than without it.
    /// </summary>
    public bool GradientCheckpointing { get; init; }

    /// <summary>Warnings about options of evaluations that have no effect.</summary>
    /// <param name="hasValidation">Whether there are data to evaluate on.</param>
    public IEnumerable<string> IgnoredOptions(bool hasValidation)
    {
        (bool IsGiven, string Option)[] ofEvaluations =
        [
            (EvaluateEvery is not null, nameof(EvaluateEvery)),
            (EvaluateBefore, nameof(EvaluateBefore)),
            (EvaluationBatchSize is not null, nameof(EvaluationBatchSize)),
            (Metric is not null, nameof(Metric)),
            (Patience is not null, nameof(Patience)),
            (MinimumImprovement > 0, nameof(MinimumImprovement)),
            (KeepBest, nameof(KeepBest)),
        ];
        return hasValidation
            ? Patience is null && MinimumImprovement > 0 ? [$"{nameof(MinimumImprovement)} has no effect without {nameof(Patience)}."] : []
            : ofEvaluations.Where(static option => option.IsGiven).Select(static option => $"{option.Option} has no effect without validation data.");
    }

    /// <summary>Throws for values that are out of range.</summary>
    /// <exception cref="LoKrException"><see cref="ErrorIds.TrainingOptionInvalid"/>, naming the option and its value.</exception>
    public void Validate()
    {
        Require(Epochs >= 1, nameof(Epochs), Epochs, "at least 1");
        Require(MaxSteps is null or >= 1, nameof(MaxSteps), MaxSteps, "at least 1");
        Require(BatchSize >= 1, nameof(BatchSize), BatchSize, "at least 1");
        Require(double.IsFinite(LearningRate) && LearningRate > 0, nameof(LearningRate), LearningRate, "a number above 0");
        Require(HeadLearningRate is null || (double.IsFinite(HeadLearningRate.Value) && HeadLearningRate > 0), nameof(HeadLearningRate), HeadLearningRate, "a number above 0");
        Require(double.IsFinite(WeightDecay) && WeightDecay >= 0, nameof(WeightDecay), WeightDecay, "0 or more");
        Require(Beta1 is >= 0 and < 1, nameof(Beta1), Beta1, "from 0 to below 1");
        Require(Beta2 is >= 0 and < 1, nameof(Beta2), Beta2, "from 0 to below 1");
        Require(double.IsFinite(Epsilon) && Epsilon >= 0, nameof(Epsilon), Epsilon, "0 or more");
        Require(Enum.IsDefined(Schedule), nameof(Schedule), Schedule, "Constant, Linear or Cosine");
        Require(WarmupRatio is >= 0 and <= 1, nameof(WarmupRatio), WarmupRatio, "from 0 to 1");
        Require(WarmupSteps is null or >= 0, nameof(WarmupSteps), WarmupSteps, "0 or more");
        Require(double.IsFinite(MaxGradientNorm) && MaxGradientNorm >= 0, nameof(MaxGradientNorm), MaxGradientNorm, "0 (no clipping) or more");
        Require(GradientAccumulation >= 1, nameof(GradientAccumulation), GradientAccumulation, "at least 1");
        Require(EvaluateEvery is null or >= 1, nameof(EvaluateEvery), EvaluateEvery, "at least 1");
        Require(MaxLength is null or >= 2, nameof(MaxLength), MaxLength, "at least 2 tokens");
        Require(Enum.IsDefined(LossOn), nameof(LossOn), LossOn, "Answers or All");
        Require(EvaluationBatchSize is null or >= 1, nameof(EvaluationBatchSize), EvaluationBatchSize, "at least 1");
        Require(Metric is null || Enum.IsDefined(Metric.Value), nameof(Metric), Metric, string.Join(", ", Enum.GetNames<EvaluationMetric>()));
        Require(Patience is null or >= 1, nameof(Patience), Patience, "at least 1");
        Require(double.IsFinite(MinimumImprovement) && MinimumImprovement >= 0, nameof(MinimumImprovement), MinimumImprovement, "0 or more");
        Require(EmbeddingLoss is null || Enum.IsDefined(EmbeddingLoss.Value), nameof(EmbeddingLoss), EmbeddingLoss, string.Join(", ", Enum.GetNames<EmbeddingLoss>()));
        Require(double.IsFinite(SimilarityScale) && SimilarityScale > 0, nameof(SimilarityScale), SimilarityScale, "a number above 0");
        Require(double.IsFinite(TripletMargin) && TripletMargin >= 0, nameof(TripletMargin), TripletMargin, "0 or more");
        Require(Enum.IsDefined(TripletDistance), nameof(TripletDistance), TripletDistance, string.Join(", ", Enum.GetNames<TripletDistance>()));
        Require(TimeLimit is null || TimeLimit.Value > TimeSpan.Zero, nameof(TimeLimit), TimeLimit, "a time above 0");
    }

    private static void Require(bool condition, string option, object? value, string allowed)
    {
        if (!condition)
        {
            string shown = Convert.ToString(value, System.Globalization.CultureInfo.InvariantCulture) ?? "";
            throw new LoKrException(
                ErrorIds.TrainingOptionInvalid, LoKrErrorKind.InvalidArgument, $"{option} is {shown}.", $"It must be {allowed}.") { Target = option };
        }
    }
}

/// <summary>Course of the learning rate after the warm-up, with the formulas of transformers' <c>get_*_schedule_with_warmup</c>.</summary>
public enum LearningRateSchedule
{
    /// <summary>Stays at the learning rate.</summary>
    Constant,

    /// <summary>Falls in a straight line to zero at the last step.</summary>
    Linear,

    /// <summary>Falls along half a cosine to zero at the last step.</summary>
    Cosine,
}

/// <summary>
/// The learning rate by step, as transformers' <c>get_constant/linear/cosine_schedule_with_warmup</c>: the first step of a warm-up has
/// a learning rate of zero, and the last step of a run is one short of where the curve ends.
/// </summary>
public sealed class Schedule
{
    private readonly LearningRateSchedule _kind;
    private readonly double _learningRate;

    /// <summary>Creates a schedule.</summary>
    /// <param name="kind">Course after the warm-up.</param>
    /// <param name="learningRate">Highest learning rate.</param>
    /// <param name="warmupSteps">Steps in which it rises from zero.</param>
    /// <param name="totalSteps">Steps of the run.</param>
    public Schedule(LearningRateSchedule kind, double learningRate, int warmupSteps, int totalSteps)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(warmupSteps);
        (_kind, _learningRate, WarmupSteps, TotalSteps) = (kind, learningRate, warmupSteps, totalSteps);
    }

    /// <summary>Steps in which the learning rate rises.</summary>
    public int WarmupSteps { get; }

    /// <summary>Steps of the run.</summary>
    public int TotalSteps { get; }

    /// <summary>The schedule of a run; a warm-up ratio is rounded up to whole steps.</summary>
    public static Schedule For(TrainingOptions options, int totalSteps)
    {
        ArgumentNullException.ThrowIfNull(options);
        int warmup = options.WarmupSteps ?? (int)Math.Ceiling(options.WarmupRatio * totalSteps);
        return new Schedule(options.Schedule, options.LearningRate, warmup, totalSteps);
    }

    /// <summary>The same course to another highest learning rate.</summary>
    /// <param name="learningRate">The learning rate.</param>
    public Schedule To(double learningRate) => new(_kind, learningRate, WarmupSteps, TotalSteps);

    /// <summary>Learning rate of a step.</summary>
    /// <param name="index">Index of the step, from 0.</param>
    public double At(int index)
    {
        if (index < WarmupSteps)
        {
            return _learningRate * index / Math.Max(1, WarmupSteps);
        }

        double progress = (double)(index - WarmupSteps) / Math.Max(1, TotalSteps - WarmupSteps);
        return _kind switch
        {
            LearningRateSchedule.Linear => _learningRate * Math.Max(0, 1 - progress),
            LearningRateSchedule.Cosine => _learningRate * Math.Max(0, 0.5 * (1 + Math.Cos(Math.PI * progress))),
            _ => _learningRate,
        };
    }
}
