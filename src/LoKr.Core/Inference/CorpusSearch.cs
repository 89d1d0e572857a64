using LoKr.Core.Data;
using LoKr.Core.Errors;
using LoKr.Core.Model;

namespace LoKr.Core.Inference;

/// <summary>
/// A corpus, and the model that searches it: a sentence encoder reads the corpus once, for the first query (<see cref="TextSearch"/>); a reranker reads
/// it for every query (<see cref="Reranker"/>).
/// </summary>
/// <param name="model">A sentence encoder, or a classifier of one label, with a tokenizer.</param>
/// <param name="corpus">The texts, at least one.</param>
/// <param name="batchSize">Texts in a batch; affects only speed and memory.</param>
/// <param name="maxLength">Longest sequence, special tokens included; null for the model's limit.</param>
public sealed class CorpusSearch(LoKrModel model, IReadOnlyList<SearchDocument> corpus, int batchSize = 16, int? maxLength = null) : IDisposable
{
    private TextSearch? _vectors;

    /// <summary>Number of texts.</summary>
    public int Count => corpus.Count;

    /// <summary>Finds the best texts for a query.</summary>
    /// <param name="query">The text to search for.</param>
    /// <param name="top">Number of results, or fewer where the corpus is smaller.</param>
    /// <param name="onProgress">Called after every batch with the share of the corpus that is read.</param>
    /// <param name="onCut">Called for each pair that a reranker cuts.</param>
    /// <param name="cancellation">Checked before every batch.</param>
    /// <returns>The results, the best first; of equal scores the one that comes first in the corpus.</returns>
    /// <exception cref="LoKrException">As for <see cref="TextSearch"/> and <see cref="Reranker.Rank"/>.</exception>
    public IReadOnlyList<LoKrSearchResult> Find(
        string query, int top = 10, Action<double>? onProgress = null, Action<CutText>? onCut = null, CancellationToken cancellation = default)
    {
        if (Reranker.Is(model))
        {
            return Reranker.Rank(model, query, corpus, top, batchSize, maxLength, onProgress, onCut, cancellation);
        }

        _vectors ??= new(model, corpus, batchSize, maxLength, onProgress, cancellation);
        return _vectors.Find(query, top);
    }

    /// <inheritdoc/>
    public void Dispose() => _vectors?.Dispose();
}
