using System.Globalization;

namespace LoKr.Core.Metrics;

/// <summary>Where the relevant documents of one query ended up in a search. A document is relevant or not.</summary>
public sealed class QueryRanks
{
    private readonly int[] _ranks;

    private QueryRanks(int[] ranks) => _ranks = ranks;

    /// <summary>
    /// Ranks the documents by falling score. Of equal scores the document ranks first whose index comes first as a text, 17 before 6, because
    /// sentence-transformers' InformationRetrievalEvaluator orders by names of documents.
    /// </summary>
    /// <param name="scores">The score of every document.</param>
    /// <param name="relevant">Indices of the relevant documents, at least one; each counts once.</param>
    public static QueryRanks Of(ReadOnlySpan<double> scores, IEnumerable<int> relevant)
    {
        ArgumentNullException.ThrowIfNull(relevant);
        List<int> ranks = [];
        foreach (int wanted in relevant.Distinct())
        {
            string name = Name(wanted);
            int before = 0;
            for (int document = 0; document < scores.Length; document++)
            {
                before += scores[document] > scores[wanted] || (scores[document] == scores[wanted] && string.CompareOrdinal(Name(document), name) < 0) ? 1 : 0;
            }

            ranks.Add(before + 1);
        }

        ArgumentOutOfRangeException.ThrowIfZero(ranks.Count);
        return new([.. ranks.Order()]);
    }

    /// <summary>Share of the relevant documents that are among the first k.</summary>
    public double Recall(int k) => (double)Hits(k) / _ranks.Length;

    /// <summary>Relevant documents among the first k, divided by k even where there are fewer documents.</summary>
    public double Precision(int k) => (double)Hits(k) / k;

    /// <summary>1 where a relevant document is among the first k, otherwise 0.</summary>
    public double Accuracy(int k) => Hits(k) > 0 ? 1 : 0;

    /// <summary>1 / rank of the first relevant document, 0 where it is not among the first k.</summary>
    public double ReciprocalRank(int k) => _ranks[0] <= k ? 1.0 / _ranks[0] : 0;

    /// <summary>Normalized discounted cumulative gain: 1 / log2(rank + 1) of each relevant document among the first k, divided by the most possible.</summary>
    public double NormalizedGain(int k) => _ranks.Where(rank => rank <= k).Sum(Discount) / Enumerable.Range(1, Math.Min(k, _ranks.Length)).Sum(Discount);

    /// <summary>Average precision: the mean of the precision at the rank of each relevant document among the first k.</summary>
    public double AveragePrecision(int k) =>
        _ranks.Where(rank => rank <= k).Select(static (rank, found) => (found + 1.0) / rank).Sum() / Math.Min(k, _ranks.Length);

    internal static double Discount(int rank) => 1 / Math.Log2(rank + 1);

    private static string Name(int document) => document.ToString(CultureInfo.InvariantCulture);

    private int Hits(int k) => _ranks.Count(rank => rank <= k);
}

/// <summary>Measures of a search (sentence-transformers' InformationRetrievalEvaluator): the mean over queries.</summary>
public sealed class RetrievalMetrics
{
    private readonly IReadOnlyList<QueryRanks> _queries;

    /// <summary>Ranks the documents of every query.</summary>
    /// <param name="scores">The score of every document, by query.</param>
    /// <param name="relevant">Indices of the relevant documents, at least one, by query.</param>
    public RetrievalMetrics(IReadOnlyList<IReadOnlyList<double>> scores, IReadOnlyList<IReadOnlyCollection<int>> relevant)
        : this(Rank(scores, relevant))
    {
    }

    /// <summary>Takes queries whose documents are ranked.</summary>
    /// <param name="queries">The queries, at least one.</param>
    public RetrievalMetrics(IReadOnlyList<QueryRanks> queries)
    {
        ArgumentNullException.ThrowIfNull(queries);
        ArgumentOutOfRangeException.ThrowIfZero(queries.Count);
        _queries = queries;
    }

    /// <summary>Share of the relevant documents that are among the first k.</summary>
    public double Recall(int k) => _queries.Average(query => query.Recall(k));

    /// <summary>Relevant documents among the first k, divided by k even where there are fewer documents.</summary>
    public double Precision(int k) => _queries.Average(query => query.Precision(k));

    /// <summary>Share of the queries with a relevant document among the first k.</summary>
    public double Accuracy(int k) => _queries.Average(query => query.Accuracy(k));

    /// <summary>Mean reciprocal rank: 1 / rank of the first relevant document, 0 where it is not among the first k.</summary>
    public double MeanReciprocalRank(int k) => _queries.Average(query => query.ReciprocalRank(k));

    /// <summary>Normalized discounted cumulative gain.</summary>
    public double NormalizedGain(int k) => _queries.Average(query => query.NormalizedGain(k));

    /// <summary>Mean average precision.</summary>
    public double MeanAveragePrecision(int k) => _queries.Average(query => query.AveragePrecision(k));

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
            gain += tied.Average(document => relevance[document]) * Enumerable.Range(rank, count).Where(place => place <= ranks).Sum(QueryRanks.Discount);
            rank += count;
        }

        double best = relevance.OrderDescending().Take(ranks).Select((value, place) => value * QueryRanks.Discount(place + 1)).Sum();
        return best == 0 ? 0 : gain / best;
    }

    private static QueryRanks[] Rank(IReadOnlyList<IReadOnlyList<double>> scores, IReadOnlyList<IReadOnlyCollection<int>> relevant)
    {
        ArgumentNullException.ThrowIfNull(scores);
        ArgumentNullException.ThrowIfNull(relevant);
        ArgumentOutOfRangeException.ThrowIfNotEqual(relevant.Count, scores.Count);
        return [.. scores.Zip(relevant, static (own, wanted) => QueryRanks.Of([.. own], wanted))];
    }
}
