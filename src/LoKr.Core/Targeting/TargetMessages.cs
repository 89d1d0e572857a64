using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Nn;
using static TorchSharp.torch;

namespace LoKr.Core.Targeting;

/// <summary>Errors about the targets of a configuration. The cases are PEFT's.</summary>
internal static class TargetErrors
{
    private const string LookUp = "LoKrModel.GetModules lists the modules of the model.";

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
        ILookup<TargetMatcher.Verdict, string> verdicts)
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

        string layers = resolved.LayersToTransform is { Count: > 0 } indices
            ? $" LayersToTransform allows only layers {string.Join(", ", indices)}{(resolved.LayersPattern is { Count: > 0 } patterns ? $" of {string.Join(", ", patterns)}" : "")}."
            : "";
        if (!excluded || !MatchesAnything(resolved, verdicts))
        {
            string[] modules = [.. verdicts.SelectMany(static names => names)];
            string names = string.Join(", ", modules.Take(12));
            return new(ErrorIds.TargetModuleNotFound, LoKrErrorKind.NotFound,
                $"No module of the model is called {resolved.TargetModules}.{layers} The model has {modules.Length} modules: {names}{(modules.Length > 12 ? ", …" : "")}.", LookUp)
            { Target = resolved.TargetModules!.ToString() };
        }

        return new(ErrorIds.NoModuleTargeted, LoKrErrorKind.InvalidArgument,
            $"No module is left to adapt: those that TargetModules ({resolved.TargetModules}) names are excluded, or trained whole by ModulesToSave.{layers}",
            "Check TargetModules, ExcludeModules and ModulesToSave.")
        { Target = resolved.TargetModules!.ToString() };
    }

    /// <summary>Whether the targets match a module that is then excluded or saved; if not, they are simply not there.</summary>
    private static bool MatchesAnything(LoKrConfig resolved, ILookup<TargetMatcher.Verdict, string> verdicts)
    {
        TargetMatcher matcher = new(resolved with { ExcludeModules = null, ModulesToSave = null });
        return verdicts.SelectMany(static names => names).Any(name => matcher.Check(name) == TargetMatcher.Verdict.Target);
    }

    public static LoKrException NoNorm() => new(
        ErrorIds.TargetModuleNotFound,
        LoKrErrorKind.NotFound,
        "TrainNorm is set, but there is no LayerNorm, GroupNorm or RMSNorm to train: the model has none, or all of them are excluded or trained whole.",
        "Leave TrainNorm out, or check ExcludeModules, ModulesToSave and LayersToTransform.")
    { Target = nameof(LoKrConfig.TrainNorm) };

    public static LoKrException NotSupported(ModulePlace place, string supportedTypes) => new(
        ErrorIds.ModuleTypeNotSupported,
        LoKrErrorKind.NotSupported,
        $"The target module '{place.Name}' is of type {place.Module.GetType().Name}; adapters exist for {supportedTypes}.",
        "Target its layers instead, or leave it out with ExcludeModules.")
    { Target = place.Name };

    public static LoKrException SavedModuleNotFound(string entry, IReadOnlyList<(string Name, nn.Module Module)> modules) => new(
        ErrorIds.SavedModuleInvalid,
        LoKrErrorKind.NotFound,
        $"ModulesToSave names '{entry}', but no name of a module ends with it. The last modules are {string.Join(", ", modules.TakeLast(4).Select(static module => module.Name))}.",
        LookUp)
    { Target = entry };

    public static LoKrException SavedAndAdapted(string saved, string layer) => new(
        ErrorIds.SavedModuleConflict,
        LoKrErrorKind.InvalidArgument,
        $"'{saved}' would be trained whole (ModulesToSave) while '{layer}' in it carries an adapter.",
        "Exclude the layer with ExcludeModules, or leave the module out of ModulesToSave.")
    { Target = saved };

    public static LoKrException SavedModuleType(string name, nn.Module module) => new(
        ErrorIds.SavedModuleInvalid,
        LoKrErrorKind.NotSupported,
        $"ModulesToSave names '{name}', which is a {module.GetType().Name}; only modules with a forward pass can be trained whole.",
        "Name the modules in it.")
    { Target = name };
}

/// <summary>Warnings about configurations that work but are probably a mistake.</summary>
internal static class TargetWarnings
{
    public static List<string> Collect(
        LoKrConfig given,
        LoKrConfig resolved,
        nn.Module root,
        IReadOnlyList<ModulePlace> modules,
        IReadOnlyList<ModulePlace> layers,
        IReadOnlyList<(string Name, nn.Module Module)> saved,
        bool anythingExcluded)
    {
        List<string> warnings = [];
        if (given.TargetModules is null && (root as IPretrainedModel)?.ModelType is string type && DefaultTargets.BeyondPeft.Contains(type))
        {
            warnings.Add($"TargetModules is not given, and PEFT has no default for '{type}': {resolved.TargetModules} are adapted.");
        }

        string[] names = [.. layers.Select(static layer => layer.Name)];
        if (given.TargetModules?.Names is IReadOnlyList<string> entries)
        {
            string[] idle = [.. entries.Where(entry => !modules.Any(module => ModuleSelector.MatchesEntry(entry, module.Name)))];
            Add(warnings, idle, "These entries of TargetModules match no module");
        }

        if (resolved.LayersToTransform is { Count: > 0 } && given.TargetModules?.Pattern is null)
        {
            TargetMatcher matcher = new(resolved);
            string[] unfiltered = [.. names.Where(name => !matcher.IsChosenLayer(name))];
            Add(warnings, unfiltered, "LayersToTransform has no effect on these modules, which TargetModules names in full or by a pattern");
        }

        Add(warnings, new ModulePatterns<int>(given.RankPattern).Unmatched(names), "These keys of RankPattern match no adapted module and have no effect");
        Add(warnings, new ModulePatterns<double>(given.AlphaPattern).Unmatched(names), "These keys of AlphaPattern match no adapted module and have no effect");
        if (given.ExcludeModules is not null && !anythingExcluded)
        {
            warnings.Add($"ExcludeModules ({given.ExcludeModules}) excludes no module.");
        }

        string[] tied = [.. names.Concat(saved.Select(static entry => entry.Name)).Where(name => TiedWeights.PartnerOf(root, name) is not null)];
        Add(warnings, tied, "These modules share their weight with another one; the adapter changes the output of only one of the two, and cannot be merged");
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
