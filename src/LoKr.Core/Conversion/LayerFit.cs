using LoKr.Core.Configuration;
using LoKr.Core.Factors;
using LoKr.Core.IO;
using LoKr.Core.Layouts;
using LoKr.Core.Safetensors;
using static TorchSharp.torch;

namespace LoKr.Core.Conversion;

/// <summary>The factors of one layer.</summary>
/// <param name="Layer">The layer.</param>
/// <param name="Shapes">Shapes of the factors.</param>
/// <param name="Factors">The factors by suffix.</param>
/// <param name="Scale">Scale of their product.</param>
/// <param name="Error">‖Δ − scale·(w1 ⊗ w2)‖ / ‖Δ‖ with the factors as they are stored.</param>
/// <param name="Norm">‖Δ‖.</param>
internal sealed record LayerFit(FitLayer Layer, FactorShapes Shapes, IReadOnlyDictionary<string, Tensor> Factors, double Scale, double Error, double Norm)
{
    /// <summary>The layer as a module of an adapter file, whose alpha is its rank.</summary>
    public AdapterModule ToModule()
    {
        long? outer = Shapes.LowRankW1 ? Shapes.OuterRank ?? Shapes.Rank : null;
        long? inner = Shapes.LowRankW2 ? Shapes.Rank : null;
        bool flat = Shapes is { LowRankW2: true, Tucker: false };
        FactorGeometry geometry = new(
            Shapes.L, Shapes.M, Shapes.K, flat ? Shapes.N * Shapes.Kernel.Product() : Shapes.N,
            flat ? null : Shapes.Kernel, outer, inner, Shapes.Tucker);
        long rank = geometry.Rank ?? geometry.FullRank;
        return new(Layer.Component, Layer.Name, true, geometry, new(rank, Scale * rank, ScalingConvention.Peft, Scale), Factors)
        {
            WeightShape = Layer.WeightShape,
            IsReversed = Shapes.Reversed,
        };
    }

    /// <summary>The layer for people and scripts.</summary>
    public LoKrLayerFit ToRecord() => new()
    {
        Component = Layer.Component == AdapterComponent.Model ? null : Layer.Component,
        ModuleName = Layer.Name,
        Rank = Shapes.LowRankW2 || Shapes.LowRankW1 ? (int)Shapes.Rank : null,
        W1 = $"{Shapes.L}×{Shapes.M}",
        W2 = string.Join('×', [Shapes.K, Shapes.N, .. Shapes.Kernel]),
        ParameterCount = Shapes.ParameterCount,
        Norm = Norm,
        Error = Error,
    };
}

/// <summary>An adapter that was fitted to deltas: extracted from a pair of models, made smaller, or joined. Flat and serializable.</summary>
public sealed record LoKrFitResult
{
    /// <summary>Full path of the adapter.</summary>
    public required string Path { get; init; }

    /// <summary>Number of layers with factors.</summary>
    public required int ModuleCount { get; init; }

    /// <summary>Number of parameters of all factors.</summary>
    public required long ParameterCount { get; init; }

    /// <summary>Smallest rank of a layer; null where no factor is low-rank.</summary>
    public required int? SmallestRank { get; init; }

    /// <summary>Largest rank of a layer; null where no factor is low-rank.</summary>
    public required int? LargestRank { get; init; }

    /// <summary>√Σ‖Δ‖² over all layers.</summary>
    public required double Norm { get; init; }

    /// <summary>√Σ‖Δ − w1 ⊗ w2‖² / √Σ‖Δ‖² over all layers, with the factors as they are stored. Below 1e-7 it is rounding.</summary>
    public required double Error { get; init; }

    /// <summary>Layers whose delta is zero; they have no factors.</summary>
    public int UnchangedCount { get; init; }

    /// <summary>Names of tensors that differ and that the adapter does not hold: they stay as in the base model.</summary>
    public IReadOnlyList<string> LeftOut { get; init => field = ValueList.Of(value); } = ValueList.Of<string>([]);

    /// <summary>Every layer with its error, in the order of the source.</summary>
    public required IReadOnlyList<LoKrLayerFit> Layers { get; init => field = ValueList.Of(value); }

    /// <inheritdoc/>
    public override string ToString() => Path;

    /// <summary>Describes fits that were written to a path.</summary>
    internal static LoKrFitResult Of(string path, IReadOnlyList<LayerFit> fits)
    {
        long[] ranks = [.. fits.Where(static fit => fit.Shapes.LowRankW1 || fit.Shapes.LowRankW2).Select(static fit => fit.Shapes.Rank)];
        double norm = Math.Sqrt(fits.Sum(static fit => fit.Norm * fit.Norm));
        double distance = Math.Sqrt(fits.Sum(static fit => fit.Error * fit.Error * fit.Norm * fit.Norm));
        return new()
        {
            Path = path,
            ModuleCount = fits.Count,
            ParameterCount = fits.Sum(static fit => fit.Shapes.ParameterCount),
            SmallestRank = ranks.Length == 0 ? null : (int)ranks.Min(),
            LargestRank = ranks.Length == 0 ? null : (int)ranks.Max(),
            Norm = norm,
            Error = norm > 0 ? distance / norm : 0,
            Layers = [.. fits.Select(static fit => fit.ToRecord())],
        };
    }
}

/// <summary>One layer of a fitted adapter. Flat and serializable.</summary>
public sealed record LoKrLayerFit
{
    /// <summary>Part of a pipeline; null for a single model.</summary>
    public AdapterComponent? Component { get; init; }

    /// <summary>Full name of the layer.</summary>
    public required string ModuleName { get; init; }

    /// <summary>Rank of the low-rank factors; null where both are full.</summary>
    public required int? Rank { get; init; }

    /// <summary>Shape of w1, rows×columns.</summary>
    public required string W1 { get; init; }

    /// <summary>Shape of w2, rows×columns×kernel.</summary>
    public required string W2 { get; init; }

    /// <summary>Number of parameters of the factors.</summary>
    public required long ParameterCount { get; init; }

    /// <summary>‖Δ‖, the Frobenius norm of what the factors stand for.</summary>
    public required double Norm { get; init; }

    /// <summary>‖Δ − w1 ⊗ w2‖ / ‖Δ‖ with the factors as they are stored.</summary>
    public required double Error { get; init; }

    /// <inheritdoc/>
    public override string ToString() => ModuleName;
}
