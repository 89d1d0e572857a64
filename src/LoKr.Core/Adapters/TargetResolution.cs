using static TorchSharp.torch;

namespace LoKr.Core.Adapters;

/// <summary>What a configuration means on a model.</summary>
/// <param name="Config">The configuration with defaults filled in.</param>
/// <param name="Layers">Layers to adapt, in module order.</param>
/// <param name="SavedModules">Modules to train whole, in module order.</param>
/// <param name="Warnings">What looks odd, for people.</param>
internal sealed record TargetResolution(
    LoKrConfig Config,
    IReadOnlyList<BaseLayer> Layers,
    IReadOnlyList<(string Name, nn.Module Module)> SavedModules,
    IReadOnlyList<string> Warnings)
{
    /// <summary>Norms whose weights are trained, in module order.</summary>
    public IReadOnlyList<NormBase> Norms { get; init; } = [];
}
