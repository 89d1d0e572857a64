using LoKr.Core.Modeling;
using static TorchSharp.torch;

namespace LoKr.Core.Adapters;

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
