using LoKr.Core.Nn;
using static TorchSharp.torch;

namespace LoKr.Core.Training;

/// <summary>Losses of a sentence encoder over rows of texts.</summary>
public enum EmbeddingLoss
{
    /// <summary>That a text is nearer to its own partner than to those of the other rows of its batch, and to its wrong ones where rows have some.</summary>
    MultipleNegativesRanking,

    /// <summary>That pairs with a higher score are nearer to each other than pairs with a lower one (CoSENT).</summary>
    CoSent,

    /// <summary>That the cosine of a pair is its score.</summary>
    CosineSimilarity,

    /// <summary>That a text is nearer to its partner than to a wrong one, by a margin.</summary>
    Triplet,
}

/// <summary>How <see cref="EmbeddingLoss.Triplet"/> measures distances.</summary>
public enum TripletDistance
{
    /// <summary>Length of the difference.</summary>
    Euclidean,

    /// <summary>1 minus the cosine.</summary>
    Cosine,

    /// <summary>Sum of the absolute differences.</summary>
    Manhattan,
}

/// <summary>The losses of sentence encoders, with the formulas of sentence-transformers. All of them are means over rows, but CoSENT, which compares rows.</summary>
public static class EmbeddingLosses
{
    /// <summary>
    /// The cross entropy of each row of scale · similarity(anchor, candidates) against the candidate of its own index
    /// (<c>MultipleNegativesRankingLoss</c>; van den Oord et al., arXiv:1807.03748).
    /// </summary>
    /// <param name="anchors">[rows, dimension].</param>
    /// <param name="candidates">[rows or more, dimension]: the partner of every row, then wrong ones of any row.</param>
    /// <param name="scale">Factor on the similarities, the inverse of a temperature.</param>
    /// <param name="similarity">How vectors are compared.</param>
    /// <returns>[rows].</returns>
    public static Tensor MultipleNegativesRanking(Tensor anchors, Tensor candidates, double scale = 20, SimilarityFunction similarity = SimilarityFunction.Cosine)
    {
        ArgumentNullException.ThrowIfNull(anchors);
        using var scope = NewDisposeScope();
        Tensor scores = similarity.All(anchors, candidates) * scale;
        Tensor own = arange(anchors.shape[0], ScalarType.Int64, anchors.device);
        return nn.functional.cross_entropy(scores, own, reduction: nn.Reduction.None).MoveToOuterDisposeScope();
    }

    /// <summary>ln(1 + Σ exp(scale · (sᵢ − sⱼ))) over pairs of rows with a score of i below that of j, where s is the cosine of a row (<c>CoSENTLoss</c>).</summary>
    /// <param name="first">[rows, dimension].</param>
    /// <param name="second">[rows, dimension].</param>
    /// <param name="scores">float32 [rows].</param>
    /// <param name="scale">Factor on the cosines.</param>
    /// <returns>A scalar.</returns>
    public static Tensor CoSent(Tensor first, Tensor second, Tensor scores, double scale = 20)
    {
        ArgumentNullException.ThrowIfNull(scores);
        using var scope = NewDisposeScope();
        Tensor cosines = SimilarityFunction.Cosine.Pairs(first, second) * scale;
        Tensor differences = cosines.unsqueeze(1) - cosines.unsqueeze(0);
        Tensor counts = scores.unsqueeze(1).lt(scores.unsqueeze(0));
        Tensor terms = differences.masked_fill(counts.logical_not(), double.NegativeInfinity).flatten();
        return cat([zeros(1, dtype: terms.dtype, device: terms.device), terms], 0).logsumexp(0).MoveToOuterDisposeScope();
    }

    /// <summary>(cosine − score)² of each row (<c>CosineSimilarityLoss</c>).</summary>
    /// <param name="first">[rows, dimension].</param>
    /// <param name="second">[rows, dimension].</param>
    /// <param name="scores">float32 [rows].</param>
    /// <returns>[rows].</returns>
    public static Tensor CosineSimilarity(Tensor first, Tensor second, Tensor scores)
    {
        using var scope = NewDisposeScope();
        return (SimilarityFunction.Cosine.Pairs(first, second) - scores).square().MoveToOuterDisposeScope();
    }

    /// <summary>max(0, d(anchor, positive) − d(anchor, negative) + margin) of each row (<c>TripletLoss</c>).</summary>
    /// <param name="anchors">[rows, dimension].</param>
    /// <param name="positives">[rows, dimension].</param>
    /// <param name="negatives">[rows, dimension].</param>
    /// <param name="distance">How distances are measured.</param>
    /// <param name="margin">The margin.</param>
    /// <returns>[rows].</returns>
    public static Tensor Triplet(Tensor anchors, Tensor positives, Tensor negatives, TripletDistance distance = TripletDistance.Euclidean, double margin = 5)
    {
        using var scope = NewDisposeScope();
        Tensor loss = Distance(distance, anchors, positives) - Distance(distance, anchors, negatives) + margin;
        return nn.functional.relu(loss).MoveToOuterDisposeScope();
    }

    // torch's pairwise_distance adds to every difference, so that a distance of 0 has a gradient.
    private static Tensor Distance(TripletDistance distance, Tensor first, Tensor second)
    {
        const double epsilon = 1e-6;
        return distance switch
        {
            TripletDistance.Cosine => 1 - SimilarityFunction.Cosine.Pairs(first, second),
            TripletDistance.Manhattan => (first - second + epsilon).abs().sum(-1),
            _ => (first - second + epsilon).square().sum(-1).sqrt(),
        };
    }
}
