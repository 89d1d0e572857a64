using LoKr.Core.Errors;
using LoKr.Core.Metrics;
using LoKr.Core.Model;
using static TorchSharp.torch;

namespace LoKr.Core.Training;

/// <summary>How a model did on one row.</summary>
/// <param name="LossSum">Sum of the loss over the tokens of the row (or the loss of the row).</param>
/// <param name="LossCount">Number of tokens with loss, or 1.</param>
/// <param name="Label">Index of the right label, for classification.</param>
/// <param name="Answer">Index of the label that the model gave, for classification.</param>
public readonly record struct RowScore(double LossSum, long LossCount, int? Label = null, int? Answer = null)
{
    /// <summary>Where the relevant documents of a query ended up, for a search; its loss is over the rows of the query.</summary>
    public QueryRanks? Ranks { get; init; }

    /// <summary>The number of the row and that of the model, for pairs with scores.</summary>
    public (double Actual, double Predicted)? Numbers { get; init; }

    /// <summary>The tags of its words, for their classification.</summary>
    public TagScore? Tags { get; init; }

    /// <summary>Whether a language model gives the answers of the row as they are, by greedy decoding; null for a row without answers.</summary>
    public bool? IsExact { get; init; }

    /// <summary>Where a row may have several labels, a decision on each, in their order; null elsewhere.</summary>
    public IReadOnlyList<LabelDecision>? Decisions { get; init; }

    /// <summary>Where texts are ranked, the place of the row in that; null elsewhere.</summary>
    public RankedText? Ranked { get; init; }

    /// <summary>Whether the answer is right as a whole, of several labels every decision; null where the task has no answers.</summary>
    public bool? IsRight => Tags is not null ? Tags.RightWords == Tags.Words
        : Label is not null ? Label == Answer
        : Decisions is not null ? Decisions.All(static decision => decision.IsActual == decision.IsAnswer)
        : IsExact;

    /// <summary>Whether the row has a label, decisions or tags.</summary>
    internal bool HasLabels => Label is not null || Tags is not null || Decisions is not null;
}

/// <summary>How a model did on the words of one row.</summary>
/// <param name="Words">Words with a tag.</param>
/// <param name="RightWords">Those that have the right one.</param>
/// <param name="Entities">Entities by type, as seqeval counts them by default.</param>
/// <param name="StrictEntities">Entities by type, where only <c>B-</c> begins one.</param>
public sealed record TagScore(int Words, int RightWords, IReadOnlyList<EntityCount> Entities, IReadOnlyList<EntityCount> StrictEntities)
{
    /// <summary>Compares the tags of a row.</summary>
    /// <param name="actual">The right tags.</param>
    /// <param name="predicted">The tags that the model gave, as many.</param>
    public static TagScore Of(IReadOnlyList<string> actual, IReadOnlyList<string> predicted)
    {
        ArgumentNullException.ThrowIfNull(actual);
        ArgumentNullException.ThrowIfNull(predicted);
        return new(
            actual.Count,
            actual.Zip(predicted).Count(static pair => pair.First == pair.Second),
            [.. new EntityMetrics([actual], [predicted]).Counts],
            [.. new EntityMetrics([actual], [predicted], isStrict: true).Counts]);
    }

    /// <summary>The entities in the mode of a metric.</summary>
    /// <param name="metric">The metric.</param>
    internal IReadOnlyList<EntityCount> Of(EvaluationMetric metric) => metric.IsStrict() ? StrictEntities : Entities;

    /// <summary>Whether the entities of one type are all found, and no other of it.</summary>
    /// <param name="type">The type.</param>
    internal bool IsRightIn(string type) => Entities.All(count => count.Type != type || (count.Right == count.Answers && count.Right == count.Actual));
}

/// <summary>A decision on one label of a row.</summary>
/// <param name="IsActual">Whether the row has it.</param>
/// <param name="IsAnswer">Whether the model gave it.</param>
public readonly record struct LabelDecision(bool IsActual, bool IsAnswer);

/// <summary>Scores of all rows of a task.</summary>
public static class RowScores
{
    /// <summary>
    /// Scores every row, in evaluation mode and without gradients. The order depends only on the task and the batch size, so that the scores of
    /// two models are those of the same rows. Runs on the calling thread.
    /// </summary>
    /// <param name="model">The model.</param>
    /// <param name="task">The data; all of it is used.</param>
    /// <param name="batchSize">Rows in a batch; affects only speed and memory.</param>
    /// <param name="onProgress">Called after every batch with the share of the batches that are done.</param>
    /// <param name="cancellation">Checked before every batch.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.LogitsNotFinite"/>: a loss is NaN or infinite; <see cref="ErrorIds.MetricUnavailable"/>.</exception>
    public static IReadOnlyList<RowScore> Compute(LoKrModel model, ITrainingTask task, int batchSize, Action<double>? onProgress = null, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(model);
        ArgumentNullException.ThrowIfNull(task);
        ArgumentOutOfRangeException.ThrowIfLessThan(batchSize, 1);
        using EvaluationPass pass = new([model]);
        List<RowScore> scores = [];
        pass.Run(task, batchSize, workers: null, batch =>
        {
            if (task.Collects)
            {
                pass.Collect(task.Score(model, batch));
            }
            else
            {
                scores.AddRange(task.ScoreRows(model, batch));
            }
        }, onProgress, cancellation);
        scores.AddRange(task.Collects ? task.ScoreRows(model, pass.Collected, batchSize) : []);
        return scores.All(static score => double.IsFinite(score.LossSum)) ? scores : throw Evaluator.NotFinite(model);
    }

    /// <summary>Values of a tensor of any element type and device.</summary>
    internal static double[] ToArray(Tensor values) => values.to(ScalarType.Float64).cpu().data<double>().ToArray();
}
