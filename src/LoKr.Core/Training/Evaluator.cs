using System.Diagnostics;
using LoKr.Core.Errors;
using LoKr.Core.Model;
using static TorchSharp.torch;

namespace LoKr.Core.Training;

/// <summary>Measures a model on data.</summary>
public static class Evaluator
{
    /// <summary>
    /// Computes the mean loss, and accuracy and F1 or perplexity, in evaluation mode and without gradients; afterwards every module returns to the
    /// mode it was in. Runs on the calling thread.
    /// </summary>
    /// <param name="model">The model.</param>
    /// <param name="task">The data; all of it is used.</param>
    /// <param name="batchSize">Rows in a batch; affects only speed and memory.</param>
    /// <param name="cancellationToken">Checked before every batch.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.LogitsNotFinite"/>: the loss is NaN or infinite.</exception>
    /// <exception cref="OperationCanceledException">The token was canceled.</exception>
    public static LoKrEvaluation Evaluate(LoKrModel model, ITrainingTask task, int batchSize, CancellationToken cancellationToken = default) =>
        Evaluate([model], task, batchSize, null, cancellationToken);

    /// <inheritdoc cref="Evaluate(LoKrModel, ITrainingTask, int, CancellationToken)"/>
    /// <summary>Measures as the other overload does, and reports how far it is.</summary>
    /// <param name="model">The model.</param>
    /// <param name="task">The data; all of it is used.</param>
    /// <param name="batchSize">Rows in a batch; affects only speed and memory.</param>
    /// <param name="onProgress">Called after every batch with the share of the batches that are done, on this thread.</param>
    /// <param name="cancellationToken">Checked before every batch.</param>
    public static LoKrEvaluation Evaluate(LoKrModel model, ITrainingTask task, int batchSize, Action<double>? onProgress, CancellationToken cancellationToken) =>
        Evaluate([model], task, batchSize, onProgress, cancellationToken);

    /// <summary>Measures models that work together; the task receives the first one.</summary>
    internal static LoKrEvaluation Evaluate(
        IReadOnlyList<LoKrModel> models, ITrainingTask task, int batchSize, Action<double>? onProgress, CancellationToken cancellationToken)
    {
        LoKrModel model = models[0];
        ArgumentNullException.ThrowIfNull(model);
        ArgumentNullException.ThrowIfNull(task);
        ArgumentOutOfRangeException.ThrowIfLessThan(batchSize, 1);
        long started = Stopwatch.GetTimestamp();
        using EvaluationMode modes = new(models);
        using var noGrad = no_grad();
        using var scope = NewDisposeScope();
        Tensor sums = zeros(2, ScalarType.Float64, model.Device);
        (Tensor loss, Tensor correct) = (sums[0], sums[1]);
        List<Tensor> answers = [];
        long count = 0;
        int done = 0;
        int batches = task.CountBatches(batchSize);
        using Prefetch<TrainingBatch> prefetch = new(task.Batches(new BatchOrder(batchSize)));
        foreach (TrainingBatch batch in prefetch.Items())
        {
            cancellationToken.ThrowIfCancellationRequested();
            using var batchScope = NewDisposeScope();
            BatchScore score = task.Score(model, batch);
            loss.add_(score.LossSum.to(ScalarType.Float64, sums.device));
            if (score.Correct is Tensor right)
            {
                correct.add_(right.to(ScalarType.Float64, sums.device));
            }

            if (score.Answers is Tensor both)
            {
                answers.Add(both.MoveToOuterDisposeScope());
            }

            count += batch.LossCount;
            onProgress?.Invoke((double)++done / batches);
        }

        double[] totals = sums.cpu().data<double>().ToArray();
        if (!double.IsFinite(totals[0]))
        {
            throw NotFinite(model);
        }

        double mean = totals[0] / count;
        return new LoKrEvaluation
        {
            RowCount = task.RowCount,
            TokenCount = count,
            Loss = mean,
            Accuracy = task.Metric == TrainingMetric.Accuracy ? totals[1] / count : null,
            F1 = answers.Count > 0 ? MacroF1(cat(answers, 1)) : null,
            Perplexity = task.Metric == TrainingMetric.Perplexity ? Math.Exp(mean) : null,
            Elapsed = Stopwatch.GetElapsedTime(started),
        };
    }

    /// <summary>The error of a loss that is not a number.</summary>
    internal static LoKrException NotFinite(LoKrModel model) => new(ErrorIds.LogitsNotFinite, LoKrErrorKind.InvalidData,
        $"The loss of {model.Name} on the data is NaN or infinite, because its outputs are.",
        "Check the weights and the adapters; in float16 a value may have overflowed.") { Target = model };

    // The labels in the first half, the answers in the second.
    private static double MacroF1(Tensor answers)
    {
        long[] values = answers.cpu().contiguous().data<long>().ToArray();
        int rows = values.Length / 2;
        ConfusionCounts counts = new((int)values.Max() + 1);
        for (int row = 0; row < rows; row++)
        {
            counts.Add((int)values[row], (int)values[rows + row]);
        }

        return counts.MacroF1();
    }
}
