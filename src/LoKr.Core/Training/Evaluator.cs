using LoKr.Core.Adapters;

namespace LoKr.Core.Training;

/// <summary>Measures a model on data.</summary>
public static class Evaluator
{
    /// <summary>Mean loss, and accuracy or perplexity, in evaluation mode and without gradients.</summary>
    /// <exception cref="OperationCanceledException">The token was canceled.</exception>
    public static LoKrEvaluation Evaluate(LoKrModel model, ITrainingTask task, int batchSize, CancellationToken cancellationToken = default) =>
        throw new NotImplementedException();
}
