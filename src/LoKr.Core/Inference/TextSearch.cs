using LoKr.Core.Data;
using LoKr.Core.Errors;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Core.Training;
using static TorchSharp.torch;

namespace LoKr.Core.Inference;

/// <summary>A text that can be found.</summary>
/// <param name="Text">The text.</param>
/// <param name="Id">Its name for whoever searches; null for none.</param>
public sealed record SearchDocument(string Text, string? Id = null)
{
    /// <summary>Columns that a row may have its text in; the first that it has counts.</summary>
    public static IReadOnlyList<string> Columns { get; } = ["text", "document", "passage", "positive"];

    /// <summary>Reads a row: its text in <see cref="Columns"/>, its name in <c>id</c>.</summary>
    /// <exception cref="LoKrException"><see cref="ErrorIds.DataColumnMissing"/> or <see cref="ErrorIds.DataValueInvalid"/>.</exception>
    public static SearchDocument Of(DataRow row)
    {
        const string id = "id";
        string column = Columns.FirstOrDefault(column => RowFields.Has(row, column), Columns[0]);
        return new(
            RowFields.Text(row, column, string.Join(" or ", Columns)),
            RowFields.Has(row, id) && !RowFields.IsNull(row, id) ? RowFields.Label(row, id, id) : null);
    }
}

/// <summary>A corpus whose texts are vectors of a sentence encoder, to be searched for the nearest ones.</summary>
public sealed class TextSearch : IDisposable
{
    private readonly LoKrModel _model;
    private readonly IReadOnlyList<SearchDocument> _corpus;
    private readonly SentenceEncoding _queries;
    private readonly Tensor _vectors;

    /// <summary>Encodes the corpus, with the prompt of documents where the model has one.</summary>
    /// <param name="model">A sentence encoder with a tokenizer.</param>
    /// <param name="corpus">The texts, at least one.</param>
    /// <param name="batchSize">Texts in a batch; affects only speed and memory.</param>
    /// <param name="maxLength">Longest sequence, special tokens included; null for the model's limit.</param>
    /// <param name="onProgress">Called after every batch with the share of the corpus that is done.</param>
    /// <param name="cancellation">Checked before every batch.</param>
    /// <exception cref="LoKrException">As for <see cref="TextEmbedder.Embed(LoKrModel, IReadOnlyList{string}, string, int?, Action{CutText})"/>; <see cref="ErrorIds.DataEmpty"/>.</exception>
    public TextSearch(
        LoKrModel model, IReadOnlyList<SearchDocument> corpus, int batchSize = 16, int? maxLength = null, Action<double>? onProgress = null, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(model);
        ArgumentNullException.ThrowIfNull(corpus);
        ArgumentOutOfRangeException.ThrowIfLessThan(batchSize, 1);
        if (corpus.Count == 0)
        {
            throw DataReading.NoRows();
        }

        (_model, _corpus) = (model, corpus);
        _queries = SentenceEncoding.Of(model, SentenceKind.Query, maxLength);
        SentenceEncoding documents = SentenceEncoding.Of(model, SentenceKind.Document, maxLength);
        _vectors = Embed(documents, [.. corpus.Select(static document => document.Text)], batchSize, onProgress, cancellation).DetachFromDisposeScope();
    }

    /// <summary>Finds the nearest texts of the corpus.</summary>
    /// <param name="query">The text to search for, before which the prompt of queries goes where the model has one.</param>
    /// <param name="top">Number of results, or fewer where the corpus is smaller.</param>
    /// <returns>The results, the nearest first; of equal scores the one that comes first in the corpus.</returns>
    /// <exception cref="LoKrException">As for the constructor.</exception>
    public IReadOnlyList<LoKrSearchResult> Find(string query, int top = 10)
    {
        ArgumentNullException.ThrowIfNull(query);
        ArgumentOutOfRangeException.ThrowIfLessThan(top, 1);
        using var noGrad = no_grad();
        using var scope = NewDisposeScope();
        Tensor vector = Embed(_queries, [query], 1, null, CancellationToken.None);
        float[] scores = SentenceEncoding.EncoderOf(_model).Sentences.Similarity.All(vector, _vectors).data<float>().ToArray();
        return LoKrSearchResult.Best(query, _corpus, scores.Select(static score => (double)score), top);
    }

    /// <inheritdoc/>
    public void Dispose() => _vectors.Dispose();

    // Texts of similar length share a batch; their vectors come back in the order of the corpus.
    private Tensor Embed(SentenceEncoding encoding, IReadOnlyList<string> texts, int batchSize, Action<double>? onProgress, CancellationToken cancellation)
    {
        float[]?[] vectors = new float[texts.Count][];
        int done = 0;
        foreach (int[] batch in LengthBuckets.Create([.. texts.Select(static text => text.Length)], new BatchOrder(batchSize)))
        {
            cancellation.ThrowIfCancellationRequested();
            IReadOnlyList<LoKrEmbedding> embedded = TextEmbedder.Embed(_model, [.. batch.Select(text => texts[text])], encoding, onCut: null);
            foreach ((int place, int text) in batch.Index())
            {
                vectors[text] = embedded[place].Vector;
            }

            done += batch.Length;
            onProgress?.Invoke((double)done / texts.Count);
        }

        float[] values = [.. vectors.SelectMany(static vector => vector!)];
        return tensor(values, [texts.Count, vectors[0]!.Length]);
    }
}

/// <summary>A text of a corpus that was found for a query. Flat and serializable.</summary>
public sealed record LoKrSearchResult
{
    /// <summary>The text that was searched for.</summary>
    public required string Query { get; init; }

    /// <summary>The place among the results, from 1.</summary>
    public required int Rank { get; init; }

    /// <summary>How near it is; higher is nearer.</summary>
    public required double Score { get; init; }

    /// <summary>The text that was found.</summary>
    public required string Text { get; init; }

    /// <summary>Its name in the corpus; null where it has none.</summary>
    public string? Id { get; init; }

    /// <summary>Its place in the corpus, from 0.</summary>
    public required int Index { get; init; }

    /// <inheritdoc/>
    public override string ToString() => FormattableString.Invariant($"{Rank}. {Text} ({Score:F4})");

    /// <summary>The results of a query from the scores of a whole corpus.</summary>
    /// <param name="query">The query.</param>
    /// <param name="corpus">The texts.</param>
    /// <param name="scores">The score of each text, in order; higher is better.</param>
    /// <param name="top">Most results.</param>
    /// <returns>The best ones, the best first; of equal scores the one that comes first in the corpus.</returns>
    public static IReadOnlyList<LoKrSearchResult> Best(string query, IReadOnlyList<SearchDocument> corpus, IEnumerable<double> scores, int top)
    {
        ArgumentNullException.ThrowIfNull(query);
        ArgumentNullException.ThrowIfNull(corpus);
        ArgumentNullException.ThrowIfNull(scores);
        return [.. scores.Index().OrderByDescending(static document => document.Item).ThenBy(static document => document.Index).Take(top)
            .Select((found, place) => new LoKrSearchResult
            {
                Query = query,
                Rank = place + 1,
                Score = found.Item,
                Text = corpus[found.Index].Text,
                Id = corpus[found.Index].Id,
                Index = found.Index,
            })];
    }
}
