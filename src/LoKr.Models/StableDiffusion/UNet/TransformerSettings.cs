using static TorchSharp.torch;

namespace LoKr.Models.StableDiffusion.UNet;

/// <summary>What the transformer of a block is made of.</summary>
internal sealed record TransformerSettings
{
    public required int Channels { get; init; }

    public required int HeadCount { get; init; }

    /// <summary>Number of layers.</summary>
    public required int Depth { get; init; }

    /// <summary>Width of the text's hidden states.</summary>
    public required int ContextWidth { get; init; }

    public required int GroupCount { get; init; }

    /// <summary>Whether the projections in and out are linear layers; otherwise convolutions of one pixel.</summary>
    public required bool HasLinearProjection { get; init; }

    public required bool OnlyCrossAttention { get; init; }

    /// <summary>Whether attention runs in single precision under a model of half precision.</summary>
    public required bool Upcasts { get; init; }

    public required Device Device { get; init; }

    public required ScalarType DType { get; init; }
}
