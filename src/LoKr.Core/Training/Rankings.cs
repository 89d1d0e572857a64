using LoKr.Core.Metrics;
using LoKr.Core.Model;

namespace LoKr.Core.Training;

/// <summary>A text that a query ranks.</summary>
/// <param name="Query">Index of the query.</param>
/// <param name="IsRelevant">Whether it answers the query.</param>
/// <param name="Score">Score of the model; higher is better.</param>
public readonly record struct RankedText(int Query, bool IsRelevant, double Score);

/// <summary>Queries that rank texts, and the measures of that.</summary>
internal static class Rankings
{
    /// <summary>The ranking of every query that has something to rank: at least two texts, of which one is relevant.</summary>
    /// <param name="texts">The texts, in an order that decides where scores are equal.</param>
    public static IReadOnlyList<RetrievalMetrics> Of(IEnumerable<RankedText> texts) =>
    [
        .. texts.GroupBy(static text => text.Query).OrderBy(static group => group.Key).Select(static group => group.ToArray())
            .Where(static group => group.Length > 1 && group.Any(static text => text.IsRelevant))
            .Select(static group => new RetrievalMetrics(
                [[.. group.Select(static text => text.Score)]], [[.. Enumerable.Range(0, group.Length).Where(place => group[place].IsRelevant)]])),
    ];

    /// <summary>The mean of a metric over queries; null without any.</summary>
    public static double? MeanOf(EvaluationMetric metric, IReadOnlyList<RetrievalMetrics> rankings) =>
        rankings.Count == 0 ? null : rankings.Average(ranking => metric.ValueOf(ranking));
}
