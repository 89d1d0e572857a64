using LoKr.Core.Errors;
using LoKr.Core.Factors;
using LoKr.Core.IO;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Layouts;

/// <summary>Measures what trained factors hold, layer by layer, from the factors alone.</summary>
public static class AdapterValues
{
    /// <summary>
    /// Computes norms, singular values and effective rank of the delta of every layer, with its scale and the strength of the adapter. With DoRA
    /// it is the delta before the magnitudes are applied. The kernel of a convolution counts as columns of the weight.
    /// </summary>
    /// <param name="adapter">The adapter.</param>
    /// <param name="cancellation">Checked before every layer.</param>
    /// <returns>The layers in their order.</returns>
    /// <exception cref="LoKrException">The model has no such adapter, or the file is not valid.</exception>
    public static IReadOnlyList<LoKrLayerValues> Measure(AdapterReference adapter, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(adapter);
        using DisposeScope scope = NewDisposeScope();
        AdapterDeltas deltas = adapter.Open();
        List<LoKrLayerValues> layers = [];
        foreach (AdapterDelta layer in deltas.Layers)
        {
            cancellation.ThrowIfCancellationRequested();
            layers.Add(Describe(deltas.Name, layer));
        }

        return layers;
    }

    private static LoKrLayerValues Describe(string adapter, AdapterDelta layer)
    {
        DeltaSpectrum spectrum = DeltaSpectrum.Of(layer.Factors, layer.Scale);
        double? weight = layer.BaseNorm();
        return new()
        {
            Adapter = adapter,
            Component = layer.Component,
            Name = layer.Name,
            R = layer.Rank,
            Scaling = layer.Scale,
            OutFeatures = layer.OutFeatures,
            InFeatures = layer.Columns,
            FactorShapes = layer.Factors.ToString(),
            WeightDecompose = layer.Magnitude is not null,
            FrobeniusNorm = spectrum.FrobeniusNorm,
            BaseNorm = weight,
            RelativeNorm = weight > 0 ? spectrum.FrobeniusNorm / weight : null,
            SpectralNorm = spectrum.SpectralNorm,
            EffectiveRank = spectrum.EffectiveRank,
            Rank90 = spectrum.Rank90,
            Rank99 = spectrum.Rank99,
            EnergyShares = spectrum.EnergyShares,
        };
    }
}

/// <summary>Measures of the delta of one layer. Flat and serializable.</summary>
public sealed record LoKrLayerValues
{
    /// <summary>Name of the adapter or of its file.</summary>
    public required string Adapter { get; init; }

    /// <summary>Component of the pipeline; empty for a single model.</summary>
    public required string Component { get; init; }

    /// <summary>Full name of the layer; it begins with the component.</summary>
    public required string Name { get; init; }

    /// <summary>Rank; null where both factors are full and no configuration names one.</summary>
    public long? R { get; init; }

    /// <summary>Scale of w1 ⊗ w2, the strength of the adapter included; every norm has it.</summary>
    public required double Scaling { get; init; }

    /// <summary>Rows of the delta.</summary>
    public required long OutFeatures { get; init; }

    /// <summary>Columns of the delta, the kernel of a convolution included.</summary>
    public required long InFeatures { get; init; }

    /// <summary>Shapes of the factors, for example <c>w1 16×16, w2_a 24×8, w2_b 8×24</c>.</summary>
    public required string FactorShapes { get; init; }

    /// <summary>Whether DoRA's magnitudes are applied after the delta, which these measures leave out.</summary>
    public required bool WeightDecompose { get; init; }

    /// <summary>‖Δ‖: square root of the sum of all squares. NaN where a factor is not finite, as for the other measures.</summary>
    public required double FrobeniusNorm { get; init; }

    /// <summary>‖W‖ of the base weight; null where it is not known.</summary>
    public double? BaseNorm { get; init; }

    /// <summary>‖Δ‖ / ‖W‖; null where the base weight is not known.</summary>
    public double? RelativeNorm { get; init; }

    /// <summary>The largest singular value.</summary>
    public required double SpectralNorm { get; init; }

    /// <summary>‖Δ‖² over the square of the largest singular value; 0 for a delta of zeros.</summary>
    public double StableRank => SpectralNorm == 0 ? 0 : FrobeniusNorm * FrobeniusNorm / (SpectralNorm * SpectralNorm);

    /// <summary>exp(entropy of the singular values): how many of them matter (Roy and Vetterli, EUSIPCO 2007).</summary>
    public required double EffectiveRank { get; init; }

    /// <summary>The fewest singular values with 90% of the squared norm.</summary>
    public required long Rank90 { get; init; }

    /// <summary>The fewest singular values with 99% of the squared norm.</summary>
    public required long Rank99 { get; init; }

    /// <summary>Shares of the squared norm of the largest singular values, at most eight, in descending order.</summary>
    public required IReadOnlyList<double> EnergyShares { get; init => field = ValueList.Of(value); }

    /// <inheritdoc/>
    public override string ToString() => FormattableString.Invariant($"{Name}: norm {FrobeniusNorm:G4}");
}
