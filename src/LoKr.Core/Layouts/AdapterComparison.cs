using System.Globalization;
using System.Reflection;
using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Factors;
using LoKr.Core.IO;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Layouts;

/// <summary>Compares two adapters: settings, shapes, and the deltas of every layer from the factors alone.</summary>
public static class AdapterComparer
{
    /// <summary>Compares two adapters. Layers are matched by name; dots and underscores count as the same, so that files of different programs can be compared.</summary>
    /// <param name="reference">The adapter that distances are relative to.</param>
    /// <param name="difference">The other one.</param>
    /// <param name="cancellation">Checked before every layer.</param>
    /// <exception cref="LoKrException">A model has no such adapter, or a file is not valid.</exception>
    public static AdapterComparison Compare(AdapterReference reference, AdapterReference difference, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(reference);
        ArgumentNullException.ThrowIfNull(difference);
        using IDisposable noGrad = no_grad();
        using DisposeScope scope = NewDisposeScope();
        (AdapterDeltas a, AdapterDeltas b) = (reference.Open(), difference.Open());
        List<LoKrLayerComparison> layers = [];
        Sums all = new();
        foreach ((AdapterDelta? left, AdapterDelta? right) in Match(a.Layers, b.Layers, static layer => layer.Component, static layer => layer.LocalName))
        {
            cancellation.ThrowIfCancellationRequested();
            layers.Add(Layer(left, right, all));
        }

        foreach ((TensorDelta? left, TensorDelta? right) in Match(a.Tensors, b.Tensors, static _ => "", static tensor => tensor.Name))
        {
            cancellation.ThrowIfCancellationRequested();
            layers.Add(Whole(left, right));
        }

        IReadOnlyList<LoKrSettingDifference> settings = SettingComparer.Compare(a.Config, b.Config);
        return new(
            new()
            {
                Reference = a.Name,
                Difference = b.Name,
                DifferentSettings = [.. settings.Select(static setting => setting.Setting)],
                CommonCount = layers.Count(static layer => layer.Presence == LoKrPresence.Both),
                ReferenceOnlyCount = layers.Count(static layer => layer.Presence == LoKrPresence.ReferenceOnly),
                DifferenceOnlyCount = layers.Count(static layer => layer.Presence == LoKrPresence.DifferenceOnly),
                DifferentShapeCount = layers.Count(static layer => layer.Presence == LoKrPresence.Both && layer.ReferenceShapes != layer.DifferenceShapes),
                ReferenceNorm = Math.Sqrt(all.SquaresA),
                DifferenceNorm = Math.Sqrt(all.SquaresB),
                Cosine = Cosine(Math.Sqrt(all.SquaresA), Math.Sqrt(all.SquaresB), all.Inner),
                RelativeDistance = Relative(Math.Sqrt(all.SquaresDistance), Math.Sqrt(all.SquaresA)),
                MostDifferent = layers.Where(static layer => layer.RelativeDistance is not null).MaxBy(static layer => layer.RelativeDistance)?.Name,
            },
            layers,
            settings);
    }

    private static LoKrLayerComparison Layer(AdapterDelta? left, AdapterDelta? right, Sums all)
    {
        AdapterDelta one = left ?? right!;
        LoKrLayerComparison row = new()
        {
            Name = one.Name,
            Presence = PresenceOf(left, right),
            ReferenceShapes = left?.Factors.ToString(),
            DifferenceShapes = right?.Factors.ToString(),
            ReferenceScaling = left?.Scale,
            DifferenceScaling = right?.Scale,
        };
        if (left is null || right is null)
        {
            double norm = Math.Abs(one.Scale) * one.Factors.FrobeniusNorm();
            all.Add(left is null ? 0 : norm, right is null ? 0 : norm, 0, norm);
            return row with { ReferenceNorm = left is null ? null : norm, DifferenceNorm = right is null ? null : norm };
        }

        if (DeltaProducts.Compare(left.Factors, left.Scale, right.Factors, right.Scale) is not DeltaComparison values)
        {
            return row with { Presence = LoKrPresence.NotComparable };
        }

        all.Add(values.NormA, values.NormB, values.Inner, values.Distance);
        return With(row, values) with { MagnitudeDistance = Magnitudes(left.Magnitude, right.Magnitude) };
    }

    private static LoKrLayerComparison Whole(TensorDelta? left, TensorDelta? right)
    {
        TensorDelta one = left ?? right!;
        LoKrLayerComparison row = new()
        {
            Name = one.Name,
            Presence = PresenceOf(left, right),
            ReferenceShapes = left is null ? null : string.Join('×', left.Value.shape),
            DifferenceShapes = right is null ? null : string.Join('×', right.Value.shape),
            ReferenceScaling = left?.Scale,
            DifferenceScaling = right?.Scale,
        };
        if (left is null || right is null)
        {
            return row;
        }

        if (!left.Value.shape.AsSpan().SequenceEqual(right.Value.shape))
        {
            return row with { Presence = LoKrPresence.NotComparable };
        }

        using DisposeScope scope = NewDisposeScope();
        Tensor a = Precise(left.Value) * left.Scale;
        Tensor b = Precise(right.Value) * right.Scale;
        DeltaComparison values = new(Norm(a), Norm(b), (a * b).sum().ToDouble(), Norm(a - b));
        return With(row, values);
    }

    /// <summary>Pairs of items of both sides, in the order of the first, with those of the second alone at the end.</summary>
    private static IEnumerable<(T? Left, T? Right)> Match<T>(IReadOnlyList<T> left, IReadOnlyList<T> right, Func<T, string> component, Func<T, string> name)
        where T : class
    {
        ILookup<string, T> byName = right.ToLookup(item => name(item).Replace('.', '_'), StringComparer.Ordinal);
        HashSet<T> used = new(ReferenceEqualityComparer.Instance);
        foreach (T item in left)
        {
            T[] candidates = [.. byName[name(item).Replace('.', '_')].Where(other => !used.Contains(other))];
            T? found = Array.Find(candidates, other => component(other) == component(item))
                ?? Array.Find(candidates, other => component(other).Length == 0 || component(item).Length == 0);
            if (found is not null)
            {
                used.Add(found);
            }

            yield return (item, found);
        }

        foreach (T item in right.Where(item => !used.Contains(item)))
        {
            yield return (null, item);
        }
    }

    private static LoKrPresence PresenceOf(object? left, object? right) =>
        left is null ? LoKrPresence.DifferenceOnly : right is null ? LoKrPresence.ReferenceOnly : LoKrPresence.Both;

    private static double? Magnitudes(Tensor? left, Tensor? right) => left is not null && right is not null && left.numel() == right.numel()
        ? Relative(Norm(Precise(left).reshape(-1) - Precise(right).reshape(-1)), Norm(Precise(left)))
        : null;

    private static Tensor Precise(Tensor tensor) => tensor.detach().cpu().to(float64);

    private static double Norm(Tensor tensor) => Math.Sqrt(tensor.square().sum().ToDouble());

    /// <summary>⟨a, b⟩ / (‖a‖·‖b‖), which is not defined for a delta of zeros.</summary>
    private static double? Cosine(double a, double b, double inner) => a > 0 && b > 0 ? Math.Clamp(inner / a / b, -1, 1) : null;

    /// <summary>A distance relative to a norm: 0 for two deltas of zeros, not defined from zero to another one.</summary>
    private static double? Relative(double distance, double norm) => distance == 0 ? 0 : norm > 0 ? distance / norm : null;

    private static LoKrLayerComparison With(LoKrLayerComparison row, DeltaComparison values) => row with
    {
        ReferenceNorm = values.NormA,
        DifferenceNorm = values.NormB,
        Cosine = Cosine(values.NormA, values.NormB, values.Inner),
        RelativeDistance = Relative(values.Distance, values.NormA),
    };

    /// <summary>Sums over all layers.</summary>
    private sealed class Sums
    {
        public double SquaresA { get; private set; }

        public double SquaresB { get; private set; }

        public double Inner { get; private set; }

        public double SquaresDistance { get; private set; }

        public void Add(double a, double b, double inner, double distance)
        {
            SquaresA += a * a;
            SquaresB += b * b;
            Inner += inner;
            SquaresDistance += distance * distance;
        }

    }
}

/// <summary>Compares the settings of two configurations.</summary>
internal static class SettingComparer
{
    // How an adapter was read, and not a setting of it.
    private static readonly string[] s_ignored = [nameof(LoKrConfig.ShapesFromFile), nameof(LoKrConfig.InferenceMode)];

    /// <summary>Settings that differ, by their names in <see cref="LoKrConfig"/>; all are null for a missing configuration.</summary>
    public static IReadOnlyList<LoKrSettingDifference> Compare(LoKrConfig? a, LoKrConfig? b) =>
    [
        .. typeof(LoKrConfig).GetProperties(BindingFlags.Public | BindingFlags.Instance)
            .Where(static property => !s_ignored.Contains(property.Name))
            .Select(property => new LoKrSettingDifference(property.Name, Text(a is null ? null : property.GetValue(a)), Text(b is null ? null : property.GetValue(b))))
            .Where(static setting => setting.Reference != setting.Difference),
    ];

    private static string? Text(object? value)
    {
        string? text = value switch
        {
            null => null,

            // The order of names has no meaning, and PEFT writes them in any.
            ModuleSelector { Names: { } names } => string.Join(", ", names.Order(StringComparer.Ordinal)),
            _ => Convert.ToString(value, CultureInfo.InvariantCulture),
        };
        return text?.Length > 0 ? text : null;
    }
}

/// <summary>Two adapters compared.</summary>
/// <param name="Total">All layers together.</param>
/// <param name="Layers">Every layer, and every tensor of norms and of modules that were trained whole.</param>
/// <param name="Settings">Settings that differ.</param>
public sealed record AdapterComparison(LoKrAdapterComparison Total, IReadOnlyList<LoKrLayerComparison> Layers, IReadOnlyList<LoKrSettingDifference> Settings);

/// <summary>A comparison of two adapters in numbers. Flat and serializable.</summary>
public sealed record LoKrAdapterComparison
{
    /// <summary>Name of the adapter that distances are relative to.</summary>
    public required string Reference { get; init; }

    /// <summary>Name of the other one.</summary>
    public required string Difference { get; init; }

    /// <summary>Names of the settings that differ.</summary>
    public required IReadOnlyList<string> DifferentSettings { get; init => field = ValueList.Of(value); }

    /// <summary>Layers and tensors that both have.</summary>
    public required int CommonCount { get; init; }

    /// <summary>Those that only the reference has.</summary>
    public required int ReferenceOnlyCount { get; init; }

    /// <summary>Those that only the other one has.</summary>
    public required int DifferenceOnlyCount { get; init; }

    /// <summary>Layers of both whose factors have different shapes.</summary>
    public required int DifferentShapeCount { get; init; }

    /// <summary>‖a‖ over all layers.</summary>
    public required double ReferenceNorm { get; init; }

    /// <summary>‖b‖ over all layers.</summary>
    public required double DifferenceNorm { get; init; }

    /// <summary>Cosine of the angle between the deltas of all layers: 1 for the same direction; null for a delta of zeros.</summary>
    public double? Cosine { get; init; }

    /// <summary>‖b − a‖ / ‖a‖ over all layers; a layer that one of them lacks counts as zeros there.</summary>
    public double? RelativeDistance { get; init; }

    /// <summary>The layer with the largest relative distance.</summary>
    public string? MostDifferent { get; init; }

    /// <inheritdoc/>
    public override string ToString() => FormattableString.Invariant($"{Reference} and {Difference}: cosine {Cosine:F4}, relative distance {RelativeDistance:F4}");
}

/// <summary>A comparison of two adapters on one layer. Flat and serializable.</summary>
public sealed record LoKrLayerComparison
{
    /// <summary>Full name of the layer, or of a tensor of a norm or of a module that was trained whole.</summary>
    public required string Name { get; init; }

    /// <summary>Which of the two have it.</summary>
    public required LoKrPresence Presence { get; init; }

    /// <summary>Cosine of the angle between the deltas; null where it is not defined.</summary>
    public double? Cosine { get; init; }

    /// <summary>‖b − a‖ / ‖a‖; null where it is not defined.</summary>
    public double? RelativeDistance { get; init; }

    /// <summary>‖a‖ of the reference, with its scale.</summary>
    public double? ReferenceNorm { get; init; }

    /// <summary>‖b‖ of the other one, with its scale.</summary>
    public double? DifferenceNorm { get; init; }

    /// <summary>Relative distance of DoRA's magnitudes, which the deltas leave out; null without them.</summary>
    public double? MagnitudeDistance { get; init; }

    /// <summary>Shapes of the factors of the reference.</summary>
    public string? ReferenceShapes { get; init; }

    /// <summary>Shapes of the factors of the other one.</summary>
    public string? DifferenceShapes { get; init; }

    /// <summary>Scale of the reference.</summary>
    public double? ReferenceScaling { get; init; }

    /// <summary>Scale of the other one.</summary>
    public double? DifferenceScaling { get; init; }

    /// <inheritdoc/>
    public override string ToString() => Name;
}

/// <summary>A setting in which two adapters differ. Flat and serializable.</summary>
/// <param name="Setting">Name of the setting.</param>
/// <param name="Reference">Its value in the reference; null where it has none.</param>
/// <param name="Difference">Its value in the other one.</param>
public sealed record LoKrSettingDifference(string Setting, string? Reference, string? Difference);

/// <summary>Which of two adapters have a layer.</summary>
public enum LoKrPresence
{
    /// <summary>Both.</summary>
    Both,

    /// <summary>Only the reference.</summary>
    ReferenceOnly,

    /// <summary>Only the other one.</summary>
    DifferenceOnly,

    /// <summary>Both, but for weights of different sizes, or with numbers that are not finite.</summary>
    NotComparable,
}
