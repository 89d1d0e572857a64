using LoKr.Core.Data;
using LoKr.Core.Errors;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Core.Training;

namespace LoKr.Core.Inference;

/// <summary>Orders texts by how well they fit a query, as a classifier of one label scores the pairs of both: sentence-transformers' <c>CrossEncoder.rank</c>.</summary>
public static class Reranker
{
    /// <summary>Whether a model scores pairs of texts with one number.</summary>
    /// <param name="model">The model.</param>
    public static bool Is(LoKrModel model)
    {
        ArgumentNullException.ThrowIfNull(model);
        return model.Pretrained is ISequenceClassifier { Labels.Count: 1 };
    }

    /// <summary>Scores every text of a corpus for a query, which takes a pass of the model for each.</summary>
    /// <param name="model">A classifier of one label with a tokenizer.</param>
    /// <param name="query">The query, the first text of each pair.</param>
    /// <param name="corpus">The texts, at least one; of a pair that is too long the longer text is cut.</param>
    /// <param name="top">Number of results, or fewer where the corpus is smaller.</param>
    /// <param name="batchSize">Pairs in a batch; affects only speed and memory.</param>
    /// <param name="maxLength">Longest pair, special tokens included; null for the model's limit.</param>
    /// <param name="onProgress">Called after every batch with the share of the corpus that is done.</param>
    /// <param name="onCut">Called for each pair that is cut.</param>
    /// <param name="cancellation">Checked before every batch.</param>
    /// <returns>The results, the best first; of equal scores the one that comes first in the corpus.</returns>
    /// <exception cref="LoKrException"><see cref="ErrorIds.TaskUnknown"/>, <see cref="ErrorIds.DataEmpty"/>, and as for <see cref="TextClassifier"/>.</exception>
    public static IReadOnlyList<LoKrSearchResult> Rank(
        LoKrModel model,
        string query,
        IReadOnlyList<SearchDocument> corpus,
        int top = 10,
        int batchSize = 16,
        int? maxLength = null,
        Action<double>? onProgress = null,
        Action<CutText>? onCut = null,
        CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(query);
        ArgumentNullException.ThrowIfNull(corpus);
        ArgumentOutOfRangeException.ThrowIfLessThan(top, 1);
        ArgumentOutOfRangeException.ThrowIfLessThan(batchSize, 1);
        if (!Is(model))
        {
            throw new LoKrException(ErrorIds.TaskUnknown, LoKrErrorKind.InvalidOperation, $"{model.Name} is not a reranker, which is a classifier of pairs with one label.",
                "Load a reranker, or train one with rows of text, text_pair and label.");
        }

        if (corpus.Count == 0)
        {
            throw DataReading.NoRows();
        }

        // Texts of similar length share a batch.
        double[] scores = new double[corpus.Count];
        int done = 0;
        foreach (int[] batch in LengthBuckets.Create([.. corpus.Select(static document => document.Text.Length)], new BatchOrder(batchSize)))
        {
            cancellation.ThrowIfCancellationRequested();
            foreach ((int place, LoKrClassification scored) in TextClassifier.Classify(model, [.. batch.Select(text => new TextInput(query, corpus[text].Text))], maxLength, onCut).Index())
            {
                scores[batch[place]] = scored.Score;
            }

            done += batch.Length;
            onProgress?.Invoke((double)done / corpus.Count);
        }

        return LoKrSearchResult.Best(query, corpus, scores, top);
    }
}
