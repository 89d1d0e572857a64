namespace LoKr.Core.Training;

/// <summary>What an evaluation reports beside the mean loss.</summary>
public enum TrainingMetric
{
    /// <summary>Only the loss.</summary>
    None,

    /// <summary>Share of right answers.</summary>
    Accuracy,

    /// <summary>exp(loss).</summary>
    Perplexity,
}
