using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Layers;
using LoKr.Core.Nn;
using static TorchSharp.torch;

namespace LoKr.Core.Targeting;

/// <summary>Errors about what a configuration targets; the cases are PEFT's, the texts say what to do.</summary>
internal static class TargetErrors
{
    private const string LookUp = "Get-LoKrModule lists the modules of the model.";

    public static LoKrException TargetsRequired(IPretrainedModel? pretrained) => new(
        ErrorIds.TargetModulesRequired,
        LoKrErrorKind.InvalidArgument,
        pretrained is null
            ? "TargetModules is not given, and a module made in a script has no default."
            : $"TargetModules is not given, and the architecture '{pretrained.ModelType}' has no default.",
        $"Name the modules to adapt, or use 'all-linear'. {LookUp}");

    public static LoKrException NothingTargeted(
        LoKrConfig given,
        LoKrConfig resolved,
        IReadOnlyList<(string Name, nn.Module Module)> modules,
        ILookup<TargetMatcher.Verdict, (string Name, nn.Module Module)> verdicts)
    {
        bool excluded = verdicts[TargetMatcher.Verdict.Excluded].Any() || verdicts[TargetMatcher.Verdict.Saved].Any();
        bool unmatched = verdicts[TargetMatcher.Verdict.None].Any();
        if (excluded && !unmatched)
        {
            return new(ErrorIds.AllModulesExcluded, LoKrErrorKind.InvalidArgument, "All modules of the model were excluded.",
                "Check TargetModules, ExcludeModules and ModulesToSave.");
        }

        if (resolved.TargetModules is { Names.Count: 0 })
        {
            return given.TargetModules is { IsAllLinear: true }
                ? new(ErrorIds.TargetModuleNotFound, LoKrErrorKind.NotFound, "The model has no linear layer to adapt.", LookUp)
                : new(ErrorIds.TargetModulesRequired, LoKrErrorKind.InvalidArgument, "TargetModules is empty.", $"Name the modules to adapt, or use 'all-linear'. {LookUp}");
        }

        string layers = resolved.LayersToTransform is { IsDefaultOrEmpty: false } indices
            ? $" LayersToTransform allows only layers {string.Join(", ", indices)}{(resolved.LayersPattern is { IsDefaultOrEmpty: false } patterns ? $" of {string.Join(", ", patterns)}" : "")}."
            : "";
        if (!excluded)
        {
            string names = string.Join(", ", modules.Select(static entry => entry.Name).Take(12));
            return new(ErrorIds.TargetModuleNotFound, LoKrErrorKind.NotFound,
                $"No module of the model is called {resolved.TargetModules}.{layers} The model has {modules.Count} modules: {names}{(modules.Count > 12 ? ", …" : "")}.", LookUp)
            { Target = resolved.TargetModules!.ToString() };
        }

        return new(ErrorIds.NoModuleTargeted, LoKrErrorKind.InvalidArgument,
            $"No module was left to adapt: what TargetModules ({resolved.TargetModules}) names is excluded, or trained whole by ModulesToSave.{layers}",
            "Check TargetModules, ExcludeModules and ModulesToSave.")
        { Target = resolved.TargetModules!.ToString() };
    }

    public static LoKrException NoNorm() => new(
        ErrorIds.TargetModuleNotFound,
        LoKrErrorKind.NotFound,
        "TrainNorm is set, but there is no LayerNorm or GroupNorm to train: the model has none, or all of them are excluded or trained whole.",
        "Leave TrainNorm out, or check ExcludeModules, ModulesToSave and LayersToTransform.")
    { Target = nameof(LoKrConfig.TrainNorm) };

    public static LoKrException NotSupported(string name, nn.Module module) => new(
        ErrorIds.ModuleTypeNotSupported,
        LoKrErrorKind.NotSupported,
        $"The target module '{name}' is of type {module.GetType().Name}; adapters exist for {BaseLayer.SupportedTypes}.",
        "Target its layers instead, or leave it out with ExcludeModules.")
    { Target = name };

    public static LoKrException SavedModuleNotFound(string entry, IReadOnlyList<(string Name, nn.Module Module)> modules) => new(
        ErrorIds.SavedModuleInvalid,
        LoKrErrorKind.NotFound,
        $"ModulesToSave names '{entry}', but no module's name ends so. The last modules are {string.Join(", ", modules.TakeLast(4).Select(static module => module.Name))}.",
        LookUp)
    { Target = entry };

    public static LoKrException SavedAndAdapted(string saved, string layer) => new(
        ErrorIds.SavedModuleConflict,
        LoKrErrorKind.InvalidArgument,
        $"'{saved}' would be trained whole (ModulesToSave) while '{layer}' in it carries an adapter.",
        "Leave it out with ExcludeModules, or out of ModulesToSave.")
    { Target = saved };

    public static LoKrException SavedModuleType(string name, nn.Module module) => new(
        ErrorIds.SavedModuleInvalid,
        LoKrErrorKind.NotSupported,
        $"ModulesToSave names '{name}', which is a {module.GetType().Name}; only modules with a forward pass can be trained whole.",
        "Name the modules in it.")
    { Target = name };
}

/// <summary>What works but is probably not meant.</summary>
internal static class TargetWarnings
{
    public static List<string> Collect(
        LoKrConfig given,
        LoKrConfig resolved,
        IPretrainedModel? pretrained,
        IReadOnlyList<(string Name, nn.Module Module)> modules,
        IReadOnlyList<BaseLayer> layers,
        IReadOnlyList<(string Name, nn.Module Module)> saved,
        bool anythingExcluded)
    {
        List<string> warnings = [];
        string[] names = [.. layers.Select(static layer => layer.Name)];
        if (given.TargetModules?.Names is IReadOnlyList<string> entries)
        {
            string[] idle = [.. entries.Where(entry => !modules.Any(module => TargetMatcher.MatchesEntry(entry, module.Name)))];
            Add(warnings, idle, "These entries of TargetModules match no module");
        }

        Add(warnings, ModulePatterns.Unmatched(given.RankPattern, names), "These keys of RankPattern match no adapted module and have no effect");
        Add(warnings, ModulePatterns.Unmatched(given.AlphaPattern, names), "These keys of AlphaPattern match no adapted module and have no effect");
        if (given.ExcludeModules is not null && !anythingExcluded)
        {
            warnings.Add($"ExcludeModules ({given.ExcludeModules}) excludes no module.");
        }

        if (pretrained is { TiedParameters.Count: > 0 })
        {
            string[] tied = [.. pretrained.TiedParameters.SelectMany(static pair => new[] { pair.Key, pair.Value }).Distinct()
                .Select(static name => name[..Math.Max(name.LastIndexOf('.'), 0)])
                .Where(module => names.Contains(module) || saved.Any(entry => entry.Name == module))];
            Add(warnings, tied, "These modules share their weight with another one; their adapter changes only one of the two, and cannot be merged");
        }

        return warnings;
    }

    private static void Add(List<string> warnings, IReadOnlyCollection<string> names, string text)
    {
        if (names.Count > 0)
        {
            warnings.Add($"{text}: {string.Join(", ", names)}.");
        }
    }
}
