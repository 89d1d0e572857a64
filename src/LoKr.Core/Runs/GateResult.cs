using System.Globalization;
using LoKr.Core.IO;
using LoKr.Core.Model;

namespace LoKr.Core.Runs;

/// <summary>The verdict of a gate, with its reasons. Flat and serializable.</summary>
public sealed record LoKrGateResult
{
    /// <summary>Whether the challenger takes the place of the champion.</summary>
    public bool Passed { get; init; }

    /// <summary>Why, in sentences: all objections, or what speaks for it.</summary>
    public IReadOnlyList<string> Reasons { get; init => field = ValueList.Of(value); } = ValueList.Of<string>([]);

    /// <summary>Name of the model.</summary>
    public string Model { get; init; } = "";

    /// <summary>The adapter in use; null for the base model.</summary>
    public string? Champion { get; init; }

    /// <summary>The new adapter.</summary>
    public string Challenger { get; init; } = "";

    /// <summary>The metric.</summary>
    public required EvaluationMetric Metric { get; init; }

    /// <summary>Rows that both answered; for a metric of rankings the queries.</summary>
    public required int RowCount { get; init; }

    /// <summary>Value of the metric with the champion.</summary>
    public required double ChampionValue { get; init; }

    /// <summary>Value of the metric with the challenger.</summary>
    public required double ChallengerValue { get; init; }

    /// <summary>How much better the challenger is, in units of the metric; negative where it is worse.</summary>
    public required double Improvement { get; init; }

    /// <summary>Lower end of the interval of the improvement at <see cref="Confidence"/>, from a paired bootstrap.</summary>
    public required double LowerBound { get; init; }

    /// <summary>Upper end of the interval.</summary>
    public required double UpperBound { get; init; }

    /// <summary><c>McNemar</c>, the exact test, for accuracy and micro F1, which is the same; <c>Bootstrap</c>, the paired one, for every other metric.</summary>
    public required string Test { get; init; }

    /// <summary>The two-sided p-value: how often models that are equally good differ as much by chance.</summary>
    public required double PValue { get; init; }

    /// <summary>Rows that only the challenger gets right; null without labels.</summary>
    public int? CorrectedCount { get; init; }

    /// <summary>Rows that only the champion gets right; null without labels.</summary>
    public int? BrokenCount { get; init; }

    /// <summary>The confidence that was asked for.</summary>
    public required double Confidence { get; init; }

    /// <summary>The improvement that was asked for.</summary>
    public required double MinimumImprovement { get; init; }

    /// <summary>How much worse a label may become; null for no limit.</summary>
    public double? MaximumRegression { get; init; }

    /// <summary>The change for each label, in the order of the model's labels; empty without labels.</summary>
    public IReadOnlyList<LoKrLabelChange> Labels { get; init => field = ValueList.Of(value); } = ValueList.Of<LoKrLabelChange>([]);

    /// <summary>Warnings about the data.</summary>
    public IReadOnlyList<string> Warnings { get; init => field = ValueList.Of(value); } = ValueList.Of<string>([]);

    /// <summary>When it was decided, in UTC.</summary>
    public DateTime Time { get; init; }

    /// <summary>How long it took.</summary>
    public TimeSpan Elapsed { get; init; }

    /// <summary>The exit code of a process that only asks the gate: 0 passed, 4 not passed.</summary>
    public int ExitCode => Passed ? RunExitCodes.Success : RunExitCodes.NotBetter;

    /// <inheritdoc/>
    public override string ToString() => $"{(Passed ? "passed" : "not passed")}: {string.Join(" ", Reasons)}";
}

/// <summary>The change for one label between two adapters. Flat and serializable.</summary>
public sealed record LoKrLabelChange
{
    /// <summary>Name of the label, or of the type of entities.</summary>
    public required string Label { get; init; }

    /// <summary>Rows that have it, or entities of the type.</summary>
    public required int RowCount { get; init; }

    /// <summary>
    /// Value of the metric over these rows with the champion; for precision and recall that of the label, and for F1 of every kind and the
    /// correlation of Matthews the label's own F1. For a type of entities its precision or recall, or for every other metric its F1.
    /// </summary>
    public required double ChampionValue { get; init; }

    /// <summary>The same with the challenger.</summary>
    public required double ChallengerValue { get; init; }

    /// <summary>How much better the challenger is; negative where it is worse.</summary>
    public required double Improvement { get; init; }

    /// <summary>Rows that only the challenger gets right; of a type those whose entities of it are all found, and no others.</summary>
    public required int CorrectedCount { get; init; }

    /// <summary>Rows that only the champion gets right.</summary>
    public required int BrokenCount { get; init; }

    /// <summary>Whether the label became worse by more than is allowed.</summary>
    public required bool IsRegression { get; init; }

    /// <inheritdoc/>
    public override string ToString() => string.Create(CultureInfo.InvariantCulture, $"{Label} {Improvement:+0.0000;-0.0000;0}");
}

/// <summary>The reasons of a verdict in words.</summary>
internal static class GateReasons
{
    /// <summary>Slack for limits such as 0.005, which are not binary fractions.</summary>
    public const double Rounding = 1e-12;

    /// <summary>Reasons against a challenger, and for it.</summary>
    public static (string[] Objections, string Praise) Of(LoKrGateResult result)
    {
        string change = string.Create(CultureInfo.InvariantCulture,
            $"The {result.Metric.ToText()} went from {result.ChampionValue:0.0000} to {result.ChallengerValue:0.0000} on {Count(result)}");
        return ([.. Objections(result, change)], string.Create(CultureInfo.InvariantCulture,
            $"{change}, better by {result.Improvement:0.0000} (p = {result.PValue:0.0000}, {result.Confidence:0.##%} interval {result.LowerBound:0.0000} to {result.UpperBound:0.0000})."));
    }

    private static string Count(LoKrGateResult result) => FormattableString.Invariant($"{result.RowCount} {(result.Metric.IsOfSearch() ? "queries" : "rows")}");

    private static IEnumerable<string> Objections(LoKrGateResult result, string change)
    {
        bool isBetter = result.Improvement > 0;
        if (!isBetter)
        {
            yield return change + (result.Improvement < 0 ? ": it is worse." : ": it is no better.");
        }
        else if (result.Improvement < result.MinimumImprovement - Rounding)
        {
            yield return string.Create(CultureInfo.InvariantCulture, $"{change}, better by {result.Improvement:0.0000} where {result.MinimumImprovement:0.0000} is asked for.");
        }

        if (result.Test == "Bootstrap" && result.RowCount < PromotionGate.MinimumRows)
        {
            yield return FormattableString.Invariant($"{Count(result)} are too few to tell: at least {PromotionGate.MinimumRows} are needed.");
        }
        else if (isBetter && !(result.PValue <= 1 - result.Confidence + Rounding))
        {
            yield return string.Create(CultureInfo.InvariantCulture,
                $"The difference may be chance: p = {result.PValue:0.0000} is above {1 - result.Confidence:0.####}; more rows would tell.");
        }

        foreach (LoKrLabelChange label in result.Labels.Where(static label => label.IsRegression))
        {
            yield return string.Create(CultureInfo.InvariantCulture,
                $"The {result.Metric.ToText()} of '{label.Label}' went from {label.ChampionValue:0.0000} to {label.ChallengerValue:0.0000} on {label.RowCount} rows, worse by more than {result.MaximumRegression:0.0000}.");
        }
    }
}
