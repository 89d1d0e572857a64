using LoKr.Core.Modeling;

namespace LoKr.Core.Merging;

/// <summary>What to merge into which checkpoint, and where to write the result.</summary>
public sealed record CheckpointMergeOptions
{
    /// <summary>Folder of the base model: <c>model.safetensors</c> or its shards, or a component of diffusers (<c>diffusion_pytorch_model.safetensors</c>).</summary>
    public required string BasePath { get; init; }

    /// <summary>Adapters in the order in which they are added.</summary>
    public required IReadOnlyList<CheckpointMergeAdapter> Adapters { get; init; }

    /// <summary>Folder to write; it appears complete or not at all.</summary>
    public required string Destination { get; init; }

    /// <summary>Largest file in bytes, tensors alone; null keeps the files of the base.</summary>
    public long? MaxShardBytes { get; init; }

    /// <summary>Replace a folder that is there.</summary>
    public bool Force { get; init; }

    /// <summary>Refuse a result that is not finite.</summary>
    public bool Safe { get; init; }

    /// <summary>Published names of the architecture's modules, where it has two generations of them.</summary>
    public IModuleAliases? Names { get; init; }

    /// <summary>
    /// Class of the architecture with its head, which config.json gets when an adapter brings a head to a bare model and does not say by itself
    /// what it was trained for.
    /// </summary>
    public string? HeadClass { get; init; }
}
