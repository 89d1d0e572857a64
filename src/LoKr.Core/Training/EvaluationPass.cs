using LoKr.Core.Distributed;
using LoKr.Core.Errors;
using LoKr.Core.Model;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Training;

/// <summary>
/// A walk over the data of a task that measures models and does not change them: in evaluation mode and without gradients until it is disposed;
/// then every module returns to the mode it was in.
/// </summary>
internal sealed class EvaluationPass : IDisposable
{
    private readonly EvaluationMode _modes;
    private readonly IDisposable _noGrad;
    private readonly DisposeScope _scope;
    private readonly List<float[]> _collected = [];

    /// <summary>Begins.</summary>
    /// <param name="models">The models.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.ModelBusy"/>, <see cref="ErrorIds.ModelDisposed"/>.</exception>
    public EvaluationPass(IEnumerable<LoKrModel> models)
    {
        _modes = new(models);
        _noGrad = no_grad();
        _scope = NewDisposeScope();
    }

    /// <summary>Number of batches, those of other workers included.</summary>
    public int BatchCount { get; private set; }

    /// <summary>Rows or tokens with a loss, those of other workers included.</summary>
    public long LossCount { get; private set; }

    /// <summary>Rows that can be right as a whole, those of other workers included.</summary>
    public long AnswerCount { get; private set; }

    /// <summary>Collections of the task (<see cref="ITrainingTask.Collects"/>) from each batch of this worker, in their order.</summary>
    public IReadOnlyList<float[]> Collected => _collected;

    /// <summary>Goes through all batches, in the order that depends only on the task and the batch size.</summary>
    /// <param name="task">The data.</param>
    /// <param name="batchSize">Rows in a batch.</param>
    /// <param name="workers">Each takes every batch whose index has its rank as remainder; null for one process.</param>
    /// <param name="take">Gets each batch of this worker, in a dispose scope of its own within that of the pass.</param>
    /// <param name="onProgress">Called after every batch with the share of the batches that are done.</param>
    /// <param name="cancellation">Checked before every batch.</param>
    public void Run(ITrainingTask task, int batchSize, WorkerGroup? workers, Action<TrainingBatch> take, Action<double>? onProgress, CancellationToken cancellation)
    {
        int expected = task.CountEvaluationBatches(batchSize);
        using Prefetch<TrainingBatch> prefetch = new(task.EvaluationBatches(new BatchOrder(batchSize)));
        foreach (TrainingBatch batch in prefetch.Items())
        {
            LossCount += batch.LossCount;
            AnswerCount += batch.AnswerCount;
            int index = BatchCount++;
            if (workers is not null && index % workers.Size != workers.Rank)
            {
                continue;
            }

            cancellation.ThrowIfCancellationRequested();
            using DisposeScope scope = NewDisposeScope();
            take(batch);
            onProgress?.Invoke((double)BatchCount / expected);
        }
    }

    /// <summary>Keeps what the task collects of a batch.</summary>
    /// <param name="score">The score of the batch.</param>
    public void Collect(BatchScore score) => _collected.Add(score.Collected!.cpu().data<float>().ToArray());

    /// <inheritdoc/>
    public void Dispose()
    {
        _scope.Dispose();
        _noGrad.Dispose();
        _modes.Dispose();
    }
}
