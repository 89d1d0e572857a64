namespace LoKr.Core.Inference;

/// <summary>What a language model makes of one prompt (<c>Invoke-LoKrModel</c>). Flat and serialisable.</summary>
public sealed record LoKrCompletion
{
    /// <summary>The prompt.</summary>
    public required string Prompt { get; init; }

    /// <summary>The generated text, without the prompt and without the end-of-text token.</summary>
    public required string Completion { get; init; }

    /// <summary>Tokens of the prompt.</summary>
    public required int PromptTokenCount { get; init; }

    /// <summary>Generated tokens.</summary>
    public required int TokenCount { get; init; }

    /// <summary>How long it took.</summary>
    public required TimeSpan Elapsed { get; init; }

    /// <inheritdoc/>
    public override string ToString() => Completion;
}
