using static TorchSharp.torch;

namespace LoKr.Models.StableDiffusion;

/// <summary>What a residual block is made of.</summary>
internal sealed record ResnetSettings
{
    public required int InChannels { get; init; }

    public required int OutChannels { get; init; }

    /// <summary>Width of the time embedding; null in an autoencoder, which has no time.</summary>
    public int? TimeWidth { get; init; }

    public required int GroupCount { get; init; }

    public required double NormEpsilon { get; init; }

    public required Func<Tensor, Tensor> Activate { get; init; }

    public double Dropout { get; init; }

    /// <summary>What the sum of both branches is divided by.</summary>
    public double Scale { get; init; } = 1;

    /// <summary>Whether the time scales and shifts the normalised features; otherwise it is added to them.</summary>
    public bool TimeScaleShift { get; init; }

    public required Device Device { get; init; }

    public required ScalarType DType { get; init; }
}
