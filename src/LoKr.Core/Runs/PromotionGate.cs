using System.Diagnostics;
using LoKr.Core.Data;
using LoKr.Core.Errors;
using LoKr.Core.Layouts;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Core.Training;

namespace LoKr.Core.Runs;

/// <summary>Conditions that a new adapter has to meet.</summary>
public sealed record GateOptions
{
    /// <summary>The metric; null for that of the task: accuracy for classification, perplexity for language models, loss otherwise.</summary>
    public EvaluationMetric? Metric { get; init; }

    /// <summary>How much better the challenger has to be, in units of the metric.</summary>
    public double MinimumImprovement { get; init; }

    /// <summary>How much worse any one label may become, in units of the metric; null for no limit.</summary>
    public double? MaximumRegression { get; init; }

    /// <summary>
    /// How sure it has to be that the difference is not chance: the two-sided p-value is at most 1 − this value. An equal model, which would also
    /// have to differ in the right direction, passes in at most half of 1 − this value of all cases by the exact test, and in about that many by
    /// the bootstrap.
    /// </summary>
    public double Confidence { get; init; } = 0.95;

    /// <summary>Samples of the bootstrap.</summary>
    public int Resamples { get; init; } = 10_000;

    /// <summary>Seed of the bootstrap.</summary>
    public long Seed { get; init; }

    /// <summary>Rows in a batch; affects only speed and memory.</summary>
    public int BatchSize { get; init; } = 16;

    /// <summary>Longest sequence, special tokens included; null for the model's limit.</summary>
    public int? MaxLength { get; init; }

    /// <exception cref="LoKrException"><see cref="ErrorIds.InvalidArgument"/>.</exception>
    internal void Validate()
    {
        Require(Confidence is > 0 and < 1, nameof(Confidence), Confidence, "between 0 and 1");
        Require(MinimumImprovement is >= 0 and < double.PositiveInfinity, nameof(MinimumImprovement), MinimumImprovement, "0 or more");
        Require(MaximumRegression is null or (>= 0 and < double.PositiveInfinity), nameof(MaximumRegression), MaximumRegression ?? 0, "0 or more");
        Require(Resamples >= 100, nameof(Resamples), Resamples, "100 or more");

        static void Require(bool isValid, string name, double value, string expected)
        {
            if (!isValid)
            {
                throw new LoKrException(ErrorIds.InvalidArgument, LoKrErrorKind.InvalidArgument,
                    FormattableString.Invariant($"{name} is {value}; it must be {expected}."), "Correct the value.") { Target = name };
            }
        }
    }
}

/// <summary>Decides whether a new adapter, the challenger, takes the place of the one in use, the champion.</summary>
public static class PromotionGate
{
    /// <summary>Fewer rows than these do not carry a bootstrap.</summary>
    public const int MinimumRows = 20;

    /// <summary>
    /// Lets a model answer the same rows with both adapters, each alone, and compares the answers row by row. Adapters of files are loaded for it
    /// and removed again; afterwards the same adapters are active as before.
    /// </summary>
    /// <param name="model">A text classifier or a causal language model, without merged adapters.</param>
    /// <param name="champion">The adapter in use; null for none: the base model answers.</param>
    /// <param name="challenger">The new adapter.</param>
    /// <param name="rows">Rows as for training; best those that neither of the two was trained on.</param>
    /// <param name="options">What the challenger has to show; null for the defaults.</param>
    /// <param name="onProgress">Called after every batch with the share of the work that is done.</param>
    /// <param name="cancellation">Checked before every batch.</param>
    /// <exception cref="LoKrException">
    /// <see cref="ErrorIds.AdapterMerged"/>, <see cref="ErrorIds.InvalidArgument"/>, <see cref="ErrorIds.MetricUnavailable"/>,
    /// <see cref="ErrorIds.LogitsNotFinite"/>; the errors of loading an adapter and of <see cref="TrainingTaskFactory"/>.
    /// </exception>
    public static LoKrGateResult Evaluate(
        LoKrModel model, AdapterReference? champion, AdapterReference challenger, IReadOnlyList<DataRow> rows, GateOptions? options = null,
        Action<double>? onProgress = null, CancellationToken cancellation = default)
    {
        options ??= new();
        using ITrainingTask task = TrainingTaskFactory.Create(model, rows, options.MaxLength, cancellation);
        return Evaluate(model, champion, challenger, task, options, onProgress, cancellation);
    }

    /// <summary>Compares on rows that are tokenized already, or on any other task with scores of single rows.</summary>
    /// <param name="model">The model, without merged adapters.</param>
    /// <param name="champion">The adapter in use; null for none: the base model answers.</param>
    /// <param name="challenger">The new adapter.</param>
    /// <param name="task">The data.</param>
    /// <param name="options">What the challenger has to show; null for the defaults.</param>
    /// <param name="onProgress">Called after every batch with the share of the work that is done.</param>
    /// <param name="cancellation">Checked before every batch.</param>
    /// <exception cref="LoKrException">As for the other overload.</exception>
    public static LoKrGateResult Evaluate(
        LoKrModel model, AdapterReference? champion, AdapterReference challenger, ITrainingTask task, GateOptions? options = null,
        Action<double>? onProgress = null, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(model);
        ArgumentNullException.ThrowIfNull(challenger);
        ArgumentNullException.ThrowIfNull(task);
        options ??= new();
        options.Validate();
        options = options with { Metric = options.Metric ?? task.Metric.ToEvaluationMetric() };
        long started = Stopwatch.GetTimestamp();
        IReadOnlyList<RowScore> first;
        IReadOnlyList<RowScore> second;
        using (AdapterTrials trials = new(model))
        {
            string? old = champion is null ? null : trials.Add(champion);
            string own = trials.Add(challenger);
            trials.Use(old);
            first = RowScores.Compute(model, task, options.BatchSize, share => onProgress?.Invoke(share / 2), cancellation);
            trials.Use(own);
            second = RowScores.Compute(model, task, options.BatchSize, share => onProgress?.Invoke((1 + share) / 2), cancellation);
        }

        return Decide(first, second, options, (model.Pretrained as IClassifier)?.Labels, cancellation) with
        {
            Model = model.Name,
            Champion = champion?.Name,
            Challenger = challenger.Name,
            Warnings = [.. task.Warnings, .. Ignored(options, second)],
            Elapsed = Stopwatch.GetElapsedTime(started),
        };
    }

    /// <summary>Decides by scores of the same rows: the statistics alone.</summary>
    /// <param name="champion">Scores with the adapter in use.</param>
    /// <param name="challenger">Scores of the same rows with the new one.</param>
    /// <param name="options">What the challenger has to show; null for the defaults.</param>
    /// <param name="labels">Names of the labels; null for their indices.</param>
    /// <param name="cancellation">Stops it.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.InvalidArgument"/>, <see cref="ErrorIds.MetricUnavailable"/>.</exception>
    public static LoKrGateResult Decide(
        IReadOnlyList<RowScore> champion, IReadOnlyList<RowScore> challenger, GateOptions? options = null, IReadOnlyList<string>? labels = null, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(champion);
        ArgumentNullException.ThrowIfNull(challenger);
        options ??= new();
        options.Validate();
        EvaluationMetric metric = options.Metric ?? (challenger[0].Tags is not null ? EvaluationMetric.EntityF1 : challenger[0].HasLabels ? EvaluationMetric.Accuracy : EvaluationMetric.Loss);
        (RowMetric first, RowMetric second) = (new(metric, champion), new(metric, challenger));
        PairedBootstrap bootstrap = PairedBootstrap.Compare(first, second, options.Confidence, options.Resamples, options.Seed, cancellation);
        bool hasAnswers = challenger[0].IsRight is not null;

        // Only of rows of one label is the micro F1 the accuracy.
        bool isExact = metric is EvaluationMetric.ExactMatch || (metric is EvaluationMetric.Accuracy && challenger[0].Tags is null) || (metric is EvaluationMetric.MicroF1 && challenger[0].Label is not null);
        (int corrected, int broken) = Changes(champion, challenger, static row => row.IsRight);
        LoKrGateResult result = new()
        {
            Metric = metric,
            RowCount = first.UnitCount,
            ChampionValue = first.Value,
            ChallengerValue = second.Value,
            Improvement = metric.Improvement(second.Value, first.Value),
            LowerBound = bootstrap.LowerBound,
            UpperBound = bootstrap.UpperBound,
            Test = isExact ? "McNemar" : "Bootstrap",
            PValue = isExact ? McNemarTest.PValue(broken, corrected) : bootstrap.PValue,
            CorrectedCount = hasAnswers ? corrected : null,
            BrokenCount = hasAnswers ? broken : null,
            Confidence = options.Confidence,
            MinimumImprovement = options.MinimumImprovement,
            MaximumRegression = options.MaximumRegression,
            Labels = [.. ByLabel(champion, challenger, first, second, options, labels)],
            Time = DateTime.UtcNow,
        };
        (string[] objections, string praise) = GateReasons.Of(result);
        return result with { Passed = objections.Length == 0, Reasons = objections.Length == 0 ? [praise] : objections };
    }

    private static IEnumerable<LoKrLabelChange> ByLabel(
        IReadOnlyList<RowScore> champion, IReadOnlyList<RowScore> challenger, RowMetric first, RowMetric second, GateOptions options, IReadOnlyList<string>? labels)
    {
        foreach ((string type, long count) in champion[0].Tags is null ? [] : first.Types)
        {
            yield return Change(type, (int)count, first.ValueOf(type), second.ValueOf(type), Changes(champion, challenger, row => row.Tags!.IsRightIn(type)));
        }

        int[] known = first.Metric.IsOfSearch() ? []
            : champion[0].Decisions is { } decisions ? [.. Enumerable.Range(0, decisions.Count)]
            : [.. champion.Where(static row => row.Label is not null).Select(static row => row.Label!.Value).Distinct().Order()];
        foreach (int label in known)
        {
            if (champion.Count(row => RowMetric.Has(row, label)) is int rows and > 0)
            {
                yield return Change(
                    labels is not null && label < labels.Count ? labels[label] : FormattableString.Invariant($"{label}"),
                    rows,
                    first.ValueOf(label),
                    second.ValueOf(label),
                    Changes(champion, challenger, row => RowMetric.IsRightIn(row, label)));
            }
        }

        LoKrLabelChange Change(string label, int rows, double old, double now, (int Corrected, int Broken) changes)
        {
            double improvement = first.Metric.Improvement(now, old);
            return new()
            {
                Label = label,
                RowCount = rows,
                ChampionValue = old,
                ChallengerValue = now,
                Improvement = improvement,
                CorrectedCount = changes.Corrected,
                BrokenCount = changes.Broken,
                IsRegression = -improvement > options.MaximumRegression + GateReasons.Rounding,
            };
        }
    }

    // Rows that only the challenger gets right, and rows that only the champion gets right.
    private static (int Corrected, int Broken) Changes(IReadOnlyList<RowScore> champion, IReadOnlyList<RowScore> challenger, Func<RowScore, bool?> isRight)
    {
        (int corrected, int broken) = (0, 0);
        for (int i = 0; i < champion.Count; i++)
        {
            (bool? old, bool? now) = (isRight(champion[i]), isRight(challenger[i]));
            corrected += old == false && now == true ? 1 : 0;
            broken += old == true && now == false ? 1 : 0;
        }

        return (corrected, broken);
    }

    private static IEnumerable<string> Ignored(GateOptions options, IReadOnlyList<RowScore> rows) =>
        options.MaximumRegression is not null && (rows[0] is { Label: null, Tags: null, Decisions: null } || options.Metric?.IsOfSearch() == true)
            ? ["The limit for regressions of labels has no effect: the metric is none of labels."] : [];
}
