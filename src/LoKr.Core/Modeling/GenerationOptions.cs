namespace LoKr.Core.Modeling;

/// <summary>How a text is generated.</summary>
public sealed record GenerationOptions
{
    /// <summary>Most tokens to generate.</summary>
    public int MaxNewTokens { get; init; } = 64;

    /// <summary>Divides the logits; 0 takes the most likely token (greedy).</summary>
    public double Temperature { get; init; }

    /// <summary>Samples among the most likely tokens only; 0 for no limit.</summary>
    public int TopK { get; init; }

    /// <summary>Samples among the most likely tokens whose probabilities reach this sum; 1 for no limit.</summary>
    public double TopP { get; init; } = 1;

    /// <summary>Seed of the sampling; null takes a fresh one.</summary>
    public long? Seed { get; init; }

    /// <summary>Also stop at these ids, beside the model's own.</summary>
    public IReadOnlyList<int> StopIds { get; init; } = [];
}
