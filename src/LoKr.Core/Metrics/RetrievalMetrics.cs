using System.Globalization;

namespace LoKr.Core.Metrics;

/// <summary>
/// Measures of a search (sentence-transformers' InformationRetrievalEvaluator): the mean over queries. A document is relevant or not. Of equal
/// scores the document ranks first whose index comes first as a text, 17 before 6, because that evaluator orders by names of documents.
/// </summary>
public sealed class RetrievalMetrics
{
    // For each query whether the document at each rank is relevant, and how many relevant ones there are.
    private readonly List<(bool[] Hits, int Relevant)> _queries = [];

    /// <summary>Ranks the documents of every query.</summary>
    /// <param name="scores">The score of every document, by query.</param>
    /// <param name="relevant">Indices of the relevant documents, at least one, by query.</param>
    public RetrievalMetrics(IReadOnlyList<IReadOnlyList<double>> scores, IReadOnlyList<IReadOnlyCollection<int>> relevant)
    {
        ArgumentNullException.ThrowIfNull(scores);
        ArgumentNullException.ThrowIfNull(relevant);
        ArgumentOutOfRangeException.ThrowIfZero(scores.Count);
        ArgumentOutOfRangeException.ThrowIfNotEqual(relevant.Count, scores.Count);
        for (int query = 0; query < scores.Count; query++)
        {
            ArgumentOutOfRangeException.ThrowIfZero(relevant[query].Count);
            IReadOnlyList<double> own = scores[query];
            HashSet<int> wanted = [.. relevant[query]];
            _queries.Add(([.. Enumerable.Range(0, own.Count)
                .OrderByDescending(document => own[document])
                .ThenBy(static document => document.ToString(CultureInfo.InvariantCulture), StringComparer.Ordinal)
                .Select(wanted.Contains)], wanted.Count));
        }
    }

    /// <summary>Share of the relevant documents that are among the first k.</summary>
    public double Recall(int k) => _queries.Average(query => (double)Hits(query.Hits, k) / query.Relevant);

    /// <summary>Relevant documents among the first k, divided by k even where there are fewer documents.</summary>
    public double Precision(int k) => _queries.Average(query => (double)Hits(query.Hits, k) / k);

    /// <summary>Share of the queries with a relevant document among the first k.</summary>
    public double Accuracy(int k) => _queries.Average(query => Hits(query.Hits, k) > 0 ? 1.0 : 0.0);

    /// <summary>Mean reciprocal rank: 1 / rank of the first relevant document, 0 where it is not among the first k.</summary>
    public double MeanReciprocalRank(int k) => _queries.Average(query =>
        Array.IndexOf(query.Hits, true) is int first and >= 0 && first < k ? 1.0 / (first + 1) : 0.0);

    /// <summary>Normalized discounted cumulative gain: 1 / log2(rank + 1) of each relevant document among the first k, divided by the most possible.</summary>
    public double NormalizedGain(int k) => _queries.Average(query =>
        Ranks(query.Hits, k).Sum(Discount) / Enumerable.Range(1, Math.Min(k, query.Relevant)).Sum(Discount));

    /// <summary>Mean average precision: the precision at the rank of each relevant document among the first k.</summary>
    public double MeanAveragePrecision(int k) => _queries.Average(query =>
        Ranks(query.Hits, k).Select((rank, found) => (found + 1.0) / rank).Sum() / Math.Min(k, query.Relevant));

    /// <summary>
    /// Normalized discounted cumulative gain of one query with graded relevance (scikit-learn's <c>ndcg_score</c>): the gain is linear, and
    /// documents of equal scores share the mean gain of their ranks. 0 where nothing is relevant.
    /// </summary>
    /// <param name="relevance">The relevance of every document, 0 or more.</param>
    /// <param name="scores">The score of every document.</param>
    /// <param name="k">Ranks that count; null for all.</param>
    public static double NormalizedGain(IReadOnlyList<double> relevance, IReadOnlyList<double> scores, int? k = null)
    {
        ArgumentNullException.ThrowIfNull(relevance);
        ArgumentNullException.ThrowIfNull(scores);
        ArgumentOutOfRangeException.ThrowIfNotEqual(scores.Count, relevance.Count);
        int ranks = Math.Min(k ?? int.MaxValue, relevance.Count);
        double gain = 0;
        int rank = 1;
        foreach (IGrouping<double, int> tied in Enumerable.Range(0, scores.Count).GroupBy(document => scores[document]).OrderByDescending(static group => group.Key))
        {
            int count = tied.Count();
            gain += tied.Average(document => relevance[document]) * Enumerable.Range(rank, count).Where(place => place <= ranks).Sum(Discount);
            rank += count;
        }

        double best = relevance.OrderDescending().Take(ranks).Select((value, place) => value * Discount(place + 1)).Sum();
        return best == 0 ? 0 : gain / best;
    }

    private static double Discount(int rank) => 1 / Math.Log2(rank + 1);

    private static int Hits(bool[] hits, int k) => Ranks(hits, k).Count();

    private static IEnumerable<int> Ranks(bool[] hits, int k) => Enumerable.Range(0, Math.Min(k, hits.Length)).Where(place => hits[place]).Select(static place => place + 1);
}
