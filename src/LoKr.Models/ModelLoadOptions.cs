using static TorchSharp.torch;

namespace LoKr.Models;

/// <summary>How a model folder is read.</summary>
public sealed record ModelLoadOptions
{
    /// <summary>Labels of the classification head in the order of the logits; null takes those of the checkpoint.</summary>
    public IReadOnlyList<string>? Labels { get; init; }

    /// <summary>
    /// Float32, BFloat16 or Float16; null takes the checkpoint's type on a GPU and float32 on the CPU, where half precision is many times slower.
    /// </summary>
    public ScalarType? DType { get; init; }

    /// <summary>Device of the model; null for the CPU.</summary>
    public Device? Device { get; init; }

    /// <summary>Whether the folder's tokenizer is read too.</summary>
    public bool WithTokenizer { get; init; } = true;

    /// <summary>Seed of weights that the checkpoint lacks (a new head); null draws from torch's global generator.</summary>
    public long? Seed { get; init; }
}
