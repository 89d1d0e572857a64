using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Layers;
using LoKr.Core.Nn;
using static TorchSharp.torch;

namespace LoKr.Core.Targeting;

/// <summary>Finds the modules that a configuration targets, as PEFT does, and says what does not fit.</summary>
internal static class TargetResolver
{
    private static readonly string[] ClassifierNames = ["score", "classifier"];

    /// <summary>Resolves a configuration against a model.</summary>
    /// <exception cref="LoKrException">Nothing is targeted, something targeted cannot be adapted, or a module to save does not exist.</exception>
    public static TargetResolution Resolve(nn.Module root, LoKrConfig config)
    {
        IReadOnlyList<(string Name, nn.Module Module, bool IsProjection)> places = ModuleTree.Places(root);
        HashSet<string> projections = [.. places.Where(static place => place.IsProjection).Select(static place => place.Name)];
        IReadOnlyList<(string Name, nn.Module Module)> modules = [.. places.Select(static place => (place.Name, place.Module))];
        IPretrainedModel? pretrained = root as IPretrainedModel;
        LoKrConfig resolved = config with { ModulesToSave = WithTaskHead(config) };
        resolved = resolved with { TargetModules = Targets(modules, projections, pretrained, resolved) };

        TargetMatcher matcher = new(resolved);
        ILookup<TargetMatcher.Verdict, (string Name, nn.Module Module)> verdicts = modules.ToLookup(entry => matcher.Check(entry.Name));
        NormBase[] norms = config.TrainNorm ? Norms(modules, matcher) : [];
        List<(string Name, nn.Module Module)> targeted = [.. verdicts[TargetMatcher.Verdict.Target].Where(entry => !Array.Exists(norms, norm => norm.Name == entry.Name))];
        if (targeted.Count == 0 && !TrainsOthersOnly(config, resolved))
        {
            throw TargetErrors.NothingTargeted(config, resolved, modules, verdicts);
        }

        BaseLayer[] layers = [.. targeted.Select(entry => projections.Contains(entry.Name)
            ? new AttentionOutputBaseLayer(entry.Name, (TorchSharp.Modules.MultiheadAttention)entry.Module)
            : BaseLayer.TryCreate(entry.Name, entry.Module) ?? throw TargetErrors.NotSupported(entry.Name, entry.Module))];
        IReadOnlyList<(string Name, nn.Module Module)> saved = SavedModules(ModuleTree.Modules(root), resolved, layers);
        List<string> warnings = TargetWarnings.Collect(config, resolved, pretrained, modules, layers, saved, verdicts[TargetMatcher.Verdict.Excluded].Any());
        return new(Minimize(config, resolved, layers, modules), layers, saved, warnings) { Norms = norms };
    }

    /// <summary>Names that a task adds to modules_to_save.</summary>
    public static IReadOnlyList<string> TaskHead(TaskType? task) => task switch
    {
        TaskType.SequenceClassification or TaskType.TokenClassification => ["classifier", "score"],
        TaskType.QuestionAnswering => ["qa_outputs"],
        _ => [],
    };

    /// <summary>Every norm of the model that is neither excluded nor trained whole, and that layers_to_transform lets through.</summary>
    private static NormBase[] Norms(IReadOnlyList<(string Name, nn.Module Module)> modules, TargetMatcher matcher)
    {
        NormBase[] norms = [.. modules
            .Where(entry => matcher.Check(entry.Name) is TargetMatcher.Verdict.None or TargetMatcher.Verdict.Target && matcher.IsChosenLayer(entry.Name))
            .Select(static entry => NormBase.TryCreate(entry.Name, entry.Module))
            .OfType<NormBase>()];
        return norms.Length > 0 ? norms : throw TargetErrors.NoNorm();
    }

    /// <summary>
    /// An empty list beside norms, or modules to save, is the baseline that adapters are compared with: the head alone is trained. Other than
    /// an omitted list, which takes the default of the architecture, it has to be meant. PEFT has no such adapter.
    /// </summary>
    private static bool TrainsOthersOnly(LoKrConfig given, LoKrConfig resolved) =>
        given.TargetModules is { Names.Count: 0 } && (given.TrainNorm || resolved.ModulesToSave is { IsDefaultOrEmpty: false });

    private static System.Collections.Immutable.ImmutableArray<string>? WithTaskHead(LoKrConfig config)
    {
        IReadOnlyList<string> head = TaskHead(config.TaskType);
        return head.Count == 0 ? config.ModulesToSave : [.. (config.ModulesToSave ?? []).Union(head, StringComparer.Ordinal)];
    }

    private static ModuleSelector Targets(IReadOnlyList<(string Name, nn.Module Module)> modules, HashSet<string> projections, IPretrainedModel? pretrained, LoKrConfig config)
    {
        if (config.TargetModules is null)
        {
            return DefaultTargets.Find(pretrained?.ModelType) ?? throw TargetErrors.TargetsRequired(pretrained);
        }

        if (!config.TargetModules.IsAllLinear)
        {
            return config.TargetModules;
        }

        string? head = OutputLayer(modules, pretrained, config);
        return ModuleSelector.FromNames(modules
            .Where(entry => (entry.Module is TorchSharp.Modules.Linear || projections.Contains(entry.Name)) && entry.Name != head)
            .Select(static entry => entry.Name));
    }

    /// <summary>The layer that all-linear leaves out: the output embeddings, or a classifier's head.</summary>
    private static string? OutputLayer(IReadOnlyList<(string Name, nn.Module Module)> modules, IPretrainedModel? pretrained, LoKrConfig config) =>
        pretrained is null ? null
        : pretrained.OutputEmbeddingsName
            ?? (config.TaskType == TaskType.SequenceClassification
                ? ClassifierNames.FirstOrDefault(name => modules.Any(entry => entry.Name == name))
                : null);

    private static List<(string Name, nn.Module Module)> SavedModules(IReadOnlyList<(string Name, nn.Module Module)> modules, LoKrConfig config, BaseLayer[] layers)
    {
        IReadOnlyList<string> head = TaskHead(config.TaskType);
        List<(string Name, nn.Module Module)> saved = [];
        foreach ((string name, nn.Module module) in modules)
        {
            // As in PEFT, the end of the name counts, with or without a dot before it. A module below a saved one is part of it.
            if ((config.ModulesToSave ?? []).Any(entry => name.EndsWith(entry, StringComparison.Ordinal))
                && !saved.Any(outer => name.StartsWith(outer.Name + ".", StringComparison.Ordinal)))
            {
                saved.Add((name, module));
            }
        }

        foreach (string entry in config.ModulesToSave ?? [])
        {
            if (!head.Contains(entry) && !modules.Any(module => module.Name.EndsWith(entry, StringComparison.Ordinal)))
            {
                throw TargetErrors.SavedModuleNotFound(entry, modules);
            }
        }

        foreach ((string name, nn.Module module) in saved)
        {
            if (layers.FirstOrDefault(layer => layer.Name == name || layer.Name.StartsWith(name + ".", StringComparison.Ordinal)) is BaseLayer layer)
            {
                throw TargetErrors.SavedAndAdapted(name, layer.Name);
            }

            if (module is TorchSharp.Modules.ModuleList<nn.Module> or TorchSharp.Modules.ModuleDict<nn.Module> or TorchSharp.Modules.ParameterList or TorchSharp.Modules.ParameterDict)
            {
                throw TargetErrors.SavedModuleType(name, module);
            }
        }

        return saved;
    }

    /// <summary>
    /// A long list of full names, as all-linear gives, is written to the configuration as the shortest endings
    /// that mean the same modules, as PEFT does from 20 names on.
    /// </summary>
    private static LoKrConfig Minimize(LoKrConfig given, LoKrConfig resolved, BaseLayer[] layers, IReadOnlyList<(string Name, nn.Module Module)> modules)
    {
        if (resolved.TargetModules?.Names is not { Count: >= 20 } || given.LayersToTransform is { IsDefaultOrEmpty: false })
        {
            return resolved;
        }

        HashSet<string> targets = [.. layers.Select(static layer => layer.Name)];
        return ModuleEndings.Shortest(targets, [.. modules.Select(static entry => entry.Name)]) is string[] shortest
            && shortest.Length < resolved.TargetModules.Names.Count
            ? resolved with { TargetModules = ModuleSelector.FromNames(shortest) }
            : resolved;
    }
}

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
