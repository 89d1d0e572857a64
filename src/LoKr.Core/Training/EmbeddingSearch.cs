using LoKr.Core.Data;
using LoKr.Core.Errors;
using LoKr.Core.Metrics;
using LoKr.Core.Nn;
using static TorchSharp.torch;

namespace LoKr.Core.Training;

/// <summary>What an evaluation of a sentence encoder searches: every query with its relevant documents among all documents, by the numbers of the texts.</summary>
/// <param name="Queries">Each query once.</param>
/// <param name="Documents">Each document once.</param>
/// <param name="Unpaired">Queries and documents that no row to learn from has, of one kind each.</param>
internal sealed record EmbeddingCorpus(IReadOnlyList<EmbeddingQuery> Queries, IReadOnlyList<int> Documents, IReadOnlyList<IReadOnlyList<int>> Unpaired)
{
    /// <summary>Collects the queries and documents of rows.</summary>
    /// <param name="rows">The rows.</param>
    /// <param name="texts">Numbers the texts.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.DataValueInvalid"/>: two documents have one name, or a query names one that is not there.</exception>
    public static EmbeddingCorpus Of(IReadOnlyList<EmbeddingRow> rows, EmbeddingTexts texts)
    {
        HashSet<int> paired = [];
        OrderedDictionary<int, SortedSet<int>> queries = [];
        OrderedDictionary<int, bool> documents = [];
        Dictionary<string, int> names = new(StringComparer.Ordinal);
        foreach (EmbeddingRow row in rows.Where(static row => row.Kind is EmbeddingRowKind.Pair or EmbeddingRowKind.Document))
        {
            bool isPair = row.Kind is EmbeddingRowKind.Pair;
            int[] own = [.. (isPair ? row.Others : [row.First]).Select(text => texts.Add(text, asQuery: false))];
            Array.ForEach(own, text => documents.TryAdd(text, true));
            if (row.DocumentId is string name && !names.TryAdd(name, own[0]) && names[name] != own[0])
            {
                throw Wrong(row, $"has the id '{name}', which another document has");
            }

            if (isPair)
            {
                int query = texts.Add(row.First, asQuery: true);
                Relevant(query).Add(own[0]);
                paired.Add(query);
                paired.UnionWith(own);
            }
        }

        foreach (EmbeddingRow row in rows.Where(static row => row.Kind is EmbeddingRowKind.Search))
        {
            int query = texts.Add(row.First, asQuery: true);
            Relevant(query).UnionWith(row.RelevantIds.Select(id => names.TryGetValue(id, out int text) ? text : throw Wrong(row, $"names the document '{id}', which no row has")));
        }

        int[] unpairedQueries = [.. queries.Keys.Where(text => !paired.Contains(text))];
        int[] unpairedDocuments = [.. documents.Keys.Where(text => !paired.Contains(text) && !unpairedQueries.Contains(text))];
        return new([.. queries.Select(static query => new EmbeddingQuery(query.Key, query.Value))], [.. documents.Keys],
            queries.Count == 0 ? [] : [.. new[] { unpairedQueries, unpairedDocuments }.Where(static group => group.Length > 0)]);

        SortedSet<int> Relevant(int query)
        {
            if (!queries.TryGetValue(query, out SortedSet<int>? relevant))
            {
                queries[query] = relevant = [];
            }

            return relevant;
        }
    }

    private static LoKrException Wrong(EmbeddingRow row, string problem) => new(ErrorIds.DataValueInvalid, LoKrErrorKind.InvalidData,
        $"{row.Origin} {problem}.", "Correct the ids of documents and queries.") { Target = row.Origin };
}

/// <summary>A query and the documents that answer it.</summary>
/// <param name="Text">Number of its text.</param>
/// <param name="Relevant">Numbers of the documents.</param>
internal sealed record EmbeddingQuery(int Text, IReadOnlyCollection<int> Relevant);

/// <summary>Vectors of the texts of a task, and what a search in them finds. On the CPU.</summary>
/// <param name="count">Number of texts.</param>
/// <param name="encoder">The model, which says how vectors are compared.</param>
internal sealed class EmbeddedTexts(int count, ISentenceEncoder encoder)
{
    // Queries that are compared with all documents at once.
    private const int QueriesAtOnce = 64;

    private readonly ReadOnlyMemory<float>[] _vectors = new ReadOnlyMemory<float>[count];

    /// <summary>Takes vectors of texts that follow each other.</summary>
    public void Add(IEnumerable<int> texts, ReadOnlyMemory<float> values)
    {
        foreach ((int place, int text) in texts.Index())
        {
            _vectors[text] = values.Slice(place * encoder.Dimension, encoder.Dimension);
        }
    }

    /// <summary>Ranks all documents for every query.</summary>
    public IReadOnlyList<QueryRanks> Search(EmbeddingCorpus corpus)
    {
        using var noGrad = no_grad();
        using var scope = NewDisposeScope();
        Tensor documents = Stack(corpus.Documents);
        Dictionary<int, int> places = corpus.Documents.Index().ToDictionary(static document => document.Item, static document => document.Index);
        List<QueryRanks> ranks = [];
        foreach (EmbeddingQuery[] queries in corpus.Queries.Chunk(QueriesAtOnce))
        {
            using var chunk = NewDisposeScope();
            Tensor scores = encoder.Sentences.Similarity.All(Stack([.. queries.Select(static query => query.Text)]), documents);
            double[] values = scores.to(ScalarType.Float64).data<double>().ToArray();
            ranks.AddRange(queries.Select((query, i) => QueryRanks.Of(values.AsSpan(i * corpus.Documents.Count, corpus.Documents.Count), query.Relevant.Select(text => places[text]))));
        }

        return ranks;
    }

    /// <summary>How similar the two texts of each row are.</summary>
    public double[] Compare(IReadOnlyList<EmbeddingExample> rows)
    {
        using var noGrad = no_grad();
        using var scope = NewDisposeScope();
        return encoder.Sentences.Similarity.Pairs(Stack([.. rows.Select(static row => row.Texts[0])]), Stack([.. rows.Select(static row => row.Texts[1])]))
            .to(ScalarType.Float64).data<double>().ToArray();
    }

    private Tensor Stack(IReadOnlyList<int> texts)
    {
        float[] values = new float[texts.Count * encoder.Dimension];
        foreach ((int place, int text) in texts.Index())
        {
            _vectors[text].Span.CopyTo(values.AsSpan(place * encoder.Dimension));
        }

        return tensor(values, [texts.Count, encoder.Dimension]);
    }
}
