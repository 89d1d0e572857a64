namespace LoKr.Models;

/// <summary>How the keys of a published checkpoint become the parameter names of the model, and which differences are harmless.</summary>
public sealed record CheckpointLayout
{
    /// <summary>Name of the weights file without extension: <c>model</c>, or <c>diffusion_pytorch_model</c> of diffusers.</summary>
    public string WeightsName { get; init; } = "model";

    /// <summary>
    /// Prefix of the bare model inside the model with a head, for example <c>bert.</c>. A checkpoint in which no key has it is a bare model:
    /// every key that is not a head's gets the prefix.
    /// </summary>
    public string BasePrefix { get; init; } = "";

    /// <summary>Prefixes of the task head's parameters (<c>classifier.</c>): made fresh where a checkpoint has none of them, read where it has.</summary>
    public IReadOnlyList<string> HeadPrefixes { get; init; } = [];

    /// <summary>The head's weight with one row per label (<c>classifier.weight</c>); null for a model without labels.</summary>
    public string? LabelWeight { get; init; }

    /// <summary>Prefixes of other parameters that a checkpoint may leave out as a whole (<c>bert.pooler.</c>): made fresh, with a warning.</summary>
    public IReadOnlyList<string> OptionalPrefixes { get; init; } = [];

    /// <summary>Prefixes of weights that the model has no place for (<c>cls.</c>, <c>lm_head.</c>): skipped and reported.</summary>
    public IReadOnlyList<string> SkippedPrefixes { get; init; } = [];

    /// <summary>Ends of keys that hold no weights (<c>.position_ids</c>): skipped without a word.</summary>
    public IReadOnlyList<string> SkippedSuffixes { get; init; } = [];

    /// <summary>Ends of keys with another name today (<c>LayerNorm.gamma</c> → <c>LayerNorm.weight</c>).</summary>
    public IReadOnlyDictionary<string, string> RenamedSuffixes { get; init; } = new Dictionary<string, string>();

    /// <summary>Published names beside those of the module tree; a checkpoint may have either. Null where they are the same.</summary>
    internal PublishedNames? Names { get; init; }
}
