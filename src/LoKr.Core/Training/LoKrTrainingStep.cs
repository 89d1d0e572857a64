namespace LoKr.Core.Training;

/// <summary>One optimiser step. Flat and serialisable.</summary>
public sealed record LoKrTrainingStep
{
    /// <summary>Number of the step, from 1.</summary>
    public required int Step { get; init; }

    /// <summary>Number of steps in all.</summary>
    public required int TotalSteps { get; init; }

    /// <summary>Epoch as a fraction, for example 1.5.</summary>
    public required double Epoch { get; init; }

    /// <summary>Mean loss of the step's batches.</summary>
    public required double Loss { get; init; }

    /// <summary>Learning rate of the step.</summary>
    public required double LearningRate { get; init; }

    /// <summary>Norm of the gradient before clipping.</summary>
    public required double GradientNorm { get; init; }

    /// <summary>Tokens (or rows, for tasks without tokens) a second.</summary>
    public required double TokensPerSecond { get; init; }

    /// <summary>Time since the start of training.</summary>
    public required TimeSpan Elapsed { get; init; }

    /// <summary>Loss on the evaluation data if this step ended with an evaluation.</summary>
    public double? EvaluationLoss { get; init; }

    /// <summary>Accuracy on the evaluation data, for classification.</summary>
    public double? Accuracy { get; init; }

    /// <summary>Perplexity on the evaluation data, for language models.</summary>
    public double? Perplexity { get; init; }

    /// <inheritdoc/>
    public override string ToString() => FormattableString.Invariant($"step {Step}: loss {Loss:F4}");
}
