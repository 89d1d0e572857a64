using static TorchSharp.torch;

namespace LoKr.Models;

/// <summary>What a builder needs beside the configuration.</summary>
public sealed record ModelBuildOptions
{
    /// <summary>Labels of a classification head in the order of the logits; null takes those of the configuration.</summary>
    public IReadOnlyList<string>? Labels { get; init; }

    /// <summary>Device of the parameters; the loader builds on <c>meta</c>, where they take no memory.</summary>
    public Device Device { get; init; } = META;

    /// <summary>Type of the parameters.</summary>
    public ScalarType DType { get; init; } = ScalarType.Float32;
}
