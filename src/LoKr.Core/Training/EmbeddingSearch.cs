using LoKr.Core.Data;
using LoKr.Core.Errors;
using LoKr.Core.Metrics;
using LoKr.Core.Nn;
using static TorchSharp.torch;

namespace LoKr.Core.Training;

/// <summary>The searches of an evaluation of a sentence encoder: every query with its relevant documents among all documents.</summary>
/// <param name="Queries">Each query once.</param>
/// <param name="Documents">The number of the text of each document: with an id documents are told apart by it, without one by their texts.</param>
/// <param name="Unpaired">Numbers of the queries and of the documents that no row to learn from has.</param>
internal sealed record EmbeddingCorpus(IReadOnlyList<EmbeddingQuery> Queries, IReadOnlyList<int> Documents, IReadOnlyList<IReadOnlyList<int>> Unpaired)
{
    /// <summary>Collects the queries and documents of rows.</summary>
    /// <param name="rows">The rows.</param>
    /// <param name="texts">Numbers the texts.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.DataValueInvalid"/>: two documents have one id, or a query names one that is not there.</exception>
    public static EmbeddingCorpus Of(IReadOnlyList<EmbeddingRow> rows, EmbeddingTexts texts)
    {
        HashSet<int> paired = [];
        OrderedDictionary<int, SortedSet<int>> queries = [];
        DocumentTable documents = new();

        // Documents with ids come first: a text without one is that document.
        foreach (EmbeddingRow row in rows.Where(static row => row.Kind is EmbeddingRowKind.Pair or EmbeddingRowKind.Document).OrderBy(static row => row.DocumentId is null))
        {
            bool isPair = row.Kind is EmbeddingRowKind.Pair;
            int text = texts.Add(isPair ? row.Others[0] : row.First, asQuery: false);
            int document = documents.Add(text, row);
            if (isPair)
            {
                int query = texts.Add(row.First, asQuery: true);
                Relevant(query).Add(document);
                paired.UnionWith([query, text]);
            }
        }

        foreach (string negative in rows.Where(static row => row.Kind is EmbeddingRowKind.Pair).SelectMany(static row => row.Others.Skip(1)))
        {
            int text = texts.Add(negative, asQuery: false);
            documents.Add(text);
            paired.Add(text);
        }

        foreach (EmbeddingRow row in rows.Where(static row => row.Kind is EmbeddingRowKind.Search))
        {
            Relevant(texts.Add(row.First, asQuery: true)).UnionWith(row.RelevantIds.Select(id => documents.Find(id)
                ?? throw DocumentTable.Wrong(row, $"names the document '{id}', which no row has")));
        }

        int[] unpairedQueries = [.. queries.Keys.Where(text => !paired.Contains(text))];
        int[] unpairedDocuments = [.. documents.Texts.Distinct().Where(text => !paired.Contains(text) && !unpairedQueries.Contains(text))];
        return new([.. queries.Select(static query => new EmbeddingQuery(query.Key, query.Value))], documents.Texts,
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

    private sealed class DocumentTable
    {
        private readonly Dictionary<string, int> _byId = new(StringComparer.Ordinal);
        private readonly Dictionary<int, int> _byText = [];

        /// <summary>Number of the text of each document.</summary>
        public List<int> Texts { get; } = [];

        public static LoKrException Wrong(EmbeddingRow row, string problem) => new(ErrorIds.DataValueInvalid, LoKrErrorKind.InvalidData,
            $"{row.Origin} {problem}.", "Correct the ids of documents and queries.") { Target = row.Origin };

        /// <summary>The index of a document with an id; null where there is none.</summary>
        public int? Find(string id) => _byId.TryGetValue(id, out int document) ? document : null;

        /// <summary>The index of the document of a row.</summary>
        public int Add(int text, EmbeddingRow row)
        {
            if (row.DocumentId is not string id)
            {
                return Add(text);
            }

            if (!_byId.TryGetValue(id, out int document))
            {
                document = _byId[id] = New(text);
            }

            return Texts[document] == text ? document : throw Wrong(row, $"has the id '{id}', which another document has");
        }

        /// <summary>The index of a document without an id: that of the first one with its text.</summary>
        public int Add(int text) => _byText.TryGetValue(text, out int document) ? document : New(text);

        private int New(int text)
        {
            _byText.TryAdd(text, Texts.Count);
            Texts.Add(text);
            return Texts.Count - 1;
        }
    }
}

/// <summary>A query and the documents that answer it.</summary>
/// <param name="Text">Number of its text.</param>
/// <param name="Relevant">Indices of the documents.</param>
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
        List<QueryRanks> ranks = [];
        foreach (EmbeddingQuery[] queries in corpus.Queries.Chunk(QueriesAtOnce))
        {
            using var chunk = NewDisposeScope();
            Tensor scores = encoder.Sentences.Similarity.All(Stack([.. queries.Select(static query => query.Text)]), documents);
            double[] values = scores.to(ScalarType.Float64).data<double>().ToArray();
            ranks.AddRange(queries.Select((query, i) => QueryRanks.Of(values.AsSpan(i * corpus.Documents.Count, corpus.Documents.Count), query.Relevant)));
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
