using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Layers;
using LoKr.Core.Targeting;
using static TorchSharp.torch;

namespace LoKr.Core.Model;

/// <summary>Works out what an adapter changes in a model: its targets, and the factors of each.</summary>
internal static class AdapterPlanner
{
    private static readonly AdaptableKinds s_kinds = new(
        static place => BaseLayer.TryCreate(place) is not null, static place => NormBase.TryCreate(place) is not null, BaseLayer.SupportedTypes);

    /// <summary>Plans an adapter. Nothing is allocated.</summary>
    /// <param name="root">The model.</param>
    /// <param name="config">The configuration, with the module names of the tree.</param>
    /// <param name="tensors">Tensors of the adapter's file where they decide the shapes; null where the configuration does.</param>
    /// <exception cref="LoKrException">The configuration is not valid, or does not fit the model.</exception>
    public static AdapterPlan Plan(nn.Module root, LoKrConfig config, IReadOnlyDictionary<string, Tensor>? tensors = null)
    {
        LoKrConfigValidator.Validate(config);
        TargetResolution targets = TargetResolver.Resolve(root, config, s_kinds);
        return new(
            targets.Config,
            [.. targets.Layers.Select(place => PlanLayer(BaseLayer.TryCreate(place)!, targets.Config, tensors))],
            [.. targets.Norms.Select(static place => NormBase.TryCreate(place)!)],
            targets.SavedModules,
            targets.Warnings);
    }

    private static LayerPlan PlanLayer(BaseLayer layer, LoKrConfig config, IReadOnlyDictionary<string, Tensor>? tensors) =>
        tensors is null ? LayerPlan.Create(layer, config) : LayerPlan.FromFile(layer, config, tensors);
}

/// <summary>The modules that an adapter changes, before anything is allocated.</summary>
/// <param name="Config">The configuration with defaults filled in.</param>
/// <param name="Layers">Adapted layers, in module order.</param>
/// <param name="Norms">Norms whose weights are trained, in module order.</param>
/// <param name="SavedModules">Modules that are trained whole, in module order.</param>
/// <param name="Warnings">Entries of the configuration that are probably a mistake.</param>
internal sealed record AdapterPlan(
    LoKrConfig Config,
    IReadOnlyList<LayerPlan> Layers,
    IReadOnlyList<NormBase> Norms,
    IReadOnlyList<(string Name, nn.Module Module)> SavedModules,
    IReadOnlyList<string> Warnings);
