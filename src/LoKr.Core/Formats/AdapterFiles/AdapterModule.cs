using LoKr.Core.Adapters;
using TorchSharp;

namespace LoKr.Core.Formats.AdapterFiles;

/// <summary>The factors of one module in memory, whatever file or model they come from.</summary>
/// <param name="Component">Part of the pipeline.</param>
/// <param name="Name">Name of the module.</param>
/// <param name="IsDotted">Whether the name has its dots; otherwise underscores stand in their place.</param>
/// <param name="Geometry">What the shapes say.</param>
/// <param name="Scale">What w1 ⊗ w2 is multiplied with.</param>
/// <param name="Tensors">Tensors by suffix, the alpha as it was stored.</param>
internal sealed record AdapterModule(
    AdapterComponent Component,
    string Name,
    bool IsDotted,
    FactorGeometry Geometry,
    ModuleScale Scale,
    IReadOnlyDictionary<string, torch.Tensor> Tensors)
{
    /// <summary>Shape of the base layer's weight as out×in×kernel; null where it is not known.</summary>
    public IReadOnlyList<long>? WeightShape { get; init; }

    /// <summary>Whether the factors of a one-dimensional convolution with a full w2 mean w2 ⊗ w1.</summary>
    public bool IsReversed { get; init; }

    /// <summary>Kernel size; null where neither the factors nor the base layer tell it.</summary>
    public IReadOnlyList<long>? Kernel => WeightShape is null ? Geometry.Kernel : [.. WeightShape.Skip(2)];

    /// <summary>Axis of DoRA's magnitudes; null without any.</summary>
    public WeightDecomposeAxis? DoraAxis { get; init; }

    /// <inheritdoc/>
    public override string ToString() => Component == AdapterComponent.Model ? Name : $"{Component} {Name}";
}
