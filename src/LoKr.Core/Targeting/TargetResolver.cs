using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Nn;
using static TorchSharp.torch;

namespace LoKr.Core.Targeting;

/// <summary>Finds the modules that a configuration targets, as PEFT does, and reports entries that do not fit the model.</summary>
internal static class TargetResolver
{
    private static readonly string[] s_classifierNames = ["score", "classifier"];

    /// <summary>Resolves a configuration against a model.</summary>
    /// <param name="root">The model.</param>
    /// <param name="config">The configuration.</param>
    /// <param name="kinds">Kinds of modules that can be adapted.</param>
    /// <exception cref="LoKrException">Nothing is targeted, something targeted cannot be adapted, or a module to save does not exist.</exception>
    public static TargetResolution Resolve(nn.Module root, LoKrConfig config, AdaptableKinds kinds)
    {
        IReadOnlyList<ModulePlace> modules = ModuleTree.Places(root);
        IPretrainedModel? pretrained = root as IPretrainedModel;
        LoKrConfig resolved = config with { ModulesToSave = WithTaskHead(config) };
        resolved = resolved with { TargetModules = Targets(modules, pretrained, resolved) };

        TargetMatcher matcher = new(resolved);
        ILookup<TargetMatcher.Verdict, ModulePlace> verdicts = modules.ToLookup(place => matcher.Check(place.Name));
        ModulePlace[] norms = config.TrainNorm ? Norms(modules, matcher, kinds) : [];
        ModulePlace[] layers = [.. verdicts[TargetMatcher.Verdict.Target].Except(norms)];
        if (layers.Length == 0 && !TrainsOthersOnly(config, resolved))
        {
            throw TargetErrors.NothingTargeted(config, resolved, modules.ToLookup(place => matcher.Check(place.Name), static place => place.Name));
        }

        if (Array.Find(layers, place => !kinds.IsLayer(place)) is ModulePlace unsupported)
        {
            throw TargetErrors.NotSupported(unsupported, kinds.LayerTypes);
        }

        IReadOnlyList<(string Name, nn.Module Module)> saved = SavedModules(ModuleTree.Modules(root), resolved, layers);
        List<string> warnings = TargetWarnings.Collect(config, resolved, root, modules, layers, saved, verdicts[TargetMatcher.Verdict.Excluded].Any());
        return new(Minimize(config, resolved, layers, modules), layers, norms, saved, warnings);
    }

    /// <summary>Finds the modules that a configuration targets among names, for a model that is known by its checkpoint only.</summary>
    /// <param name="names">Names of the modules with weights.</param>
    /// <param name="config">The configuration.</param>
    /// <param name="modelType">The architecture, whose default targets count where the configuration has none.</param>
    /// <returns>The targets; null where names alone do not tell them: for all-linear, and for an architecture without defaults.</returns>
    /// <exception cref="LoKrException">Nothing is targeted.</exception>
    public static IReadOnlySet<string>? Resolve(IReadOnlyCollection<string> names, LoKrConfig config, string? modelType)
    {
        LoKrConfig resolved = config with { ModulesToSave = WithTaskHead(config), TargetModules = config.TargetModules ?? DefaultTargets.Find(modelType) };
        if (resolved.TargetModules is null or { IsAllLinear: true })
        {
            return null;
        }

        TargetMatcher matcher = new(resolved);
        ILookup<TargetMatcher.Verdict, string> verdicts = names.ToLookup(matcher.Check);
        return verdicts.Contains(TargetMatcher.Verdict.Target) || TrainsOthersOnly(config, resolved)
            ? verdicts[TargetMatcher.Verdict.Target].ToHashSet(StringComparer.Ordinal)
            : throw TargetErrors.NothingTargeted(config, resolved, verdicts);
    }

    /// <summary>Names that a task adds to modules_to_save.</summary>
    public static IReadOnlyList<string> TaskHead(TaskType? task) => task switch
    {
        TaskType.SequenceClassification or TaskType.TokenClassification => ["classifier", "score"],
        TaskType.QuestionAnswering => ["qa_outputs"],
        _ => [],
    };

    /// <summary>The module that is trained whole and that a tensor belongs to: the outermost one that the configuration, or its task, names; null where there is none.</summary>
    /// <param name="config">The configuration.</param>
    /// <param name="key">Name of the tensor.</param>
    public static string? SavedModule(LoKrConfig config, string key)
    {
        string[] saved = [.. WithTaskHead(config) ?? []];
        for (int dot = key.IndexOf('.', StringComparison.Ordinal); dot >= 0; dot = key.IndexOf('.', dot + 1))
        {
            if (Array.Exists(saved, entry => key.AsSpan(0, dot).EndsWith(entry, StringComparison.Ordinal)))
            {
                return key[..dot];
            }
        }

        return null;
    }

    /// <summary>Every norm of the model that is neither excluded nor trained whole, and that layers_to_transform lets through.</summary>
    private static ModulePlace[] Norms(IReadOnlyList<ModulePlace> modules, TargetMatcher matcher, AdaptableKinds kinds)
    {
        ModulePlace[] norms = [.. modules.Where(place => kinds.IsNorm(place)
            && matcher.Check(place.Name) is TargetMatcher.Verdict.None or TargetMatcher.Verdict.Target
            && matcher.IsChosenLayer(place.Name))];
        return norms.Length > 0 ? norms : throw TargetErrors.NoNorm();
    }

    /// <summary>
    /// An empty list together with norms or modules to save trains only those: the baseline that adapters are compared with. Unlike an omitted
    /// list, which takes the default of the architecture, it is explicit. PEFT has no such adapter.
    /// </summary>
    private static bool TrainsOthersOnly(LoKrConfig given, LoKrConfig resolved) =>
        given.TargetModules is { Names.Count: 0 } && (given.TrainNorm || resolved.ModulesToSave is { Count: > 0 });

    private static IReadOnlyList<string>? WithTaskHead(LoKrConfig config)
    {
        IReadOnlyList<string> head = TaskHead(config.TaskType);
        return head.Count == 0 ? config.ModulesToSave : [.. (config.ModulesToSave ?? []).Union(head, StringComparer.Ordinal)];
    }

    private static ModuleSelector Targets(IReadOnlyList<ModulePlace> modules, IPretrainedModel? pretrained, LoKrConfig config)
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
            .Where(entry => (entry.Module is TorchSharp.Modules.Linear or Conv1D || entry.IsProjection) && entry.Name != head && !(config.ModulesToSave ?? []).Any(saved => EndsWithin(entry.Name, saved)))
            .Select(static entry => entry.Name));
    }

    /// <summary>
    /// Whether a name ends in an entry of modules_to_save in the middle of a word, as DistilBERT's pre_classifier does: it is trained whole like any
    /// other, but PEFT takes it for a target of all-linear too, and then refuses it.
    /// </summary>
    private static bool EndsWithin(string name, string saved) => name.Length > saved.Length && name.EndsWith(saved, StringComparison.Ordinal) && name[^(saved.Length + 1)] != '.';

    /// <summary>The layer that all-linear leaves out: the output embeddings, or a classifier's head.</summary>
    private static string? OutputLayer(IReadOnlyList<ModulePlace> modules, IPretrainedModel? pretrained, LoKrConfig config) =>
        pretrained is null ? null
        : pretrained.OutputEmbeddingsName
            ?? (config.TaskType == TaskType.SequenceClassification
                ? s_classifierNames.FirstOrDefault(name => modules.Any(entry => entry.Name == name))
                : null);

    private static List<(string Name, nn.Module Module)> SavedModules(IReadOnlyList<(string Name, nn.Module Module)> modules, LoKrConfig config, ModulePlace[] layers)
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
            if (layers.FirstOrDefault(layer => ModuleTree.IsWithin(layer.Name, name)) is ModulePlace layer)
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
    /// A long list of full names, the result of all-linear, goes into the configuration as the shortest endings that select the same modules,
    /// as PEFT does for 20 names or more.
    /// </summary>
    private static LoKrConfig Minimize(LoKrConfig given, LoKrConfig resolved, ModulePlace[] layers, IReadOnlyList<ModulePlace> modules)
    {
        if (resolved.TargetModules?.Names is not { Count: >= 20 } || given.LayersToTransform is { Count: > 0 })
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

/// <summary>The modules of a model that a configuration selects.</summary>
/// <param name="Config">The configuration with defaults filled in.</param>
/// <param name="Layers">Layers to adapt, in module order.</param>
/// <param name="Norms">Norms whose weights are trained, in module order.</param>
/// <param name="SavedModules">Modules to train whole, in module order.</param>
/// <param name="Warnings">Entries that are probably a mistake.</param>
internal sealed record TargetResolution(
    LoKrConfig Config,
    IReadOnlyList<ModulePlace> Layers,
    IReadOnlyList<ModulePlace> Norms,
    IReadOnlyList<(string Name, nn.Module Module)> SavedModules,
    IReadOnlyList<string> Warnings);

/// <summary>Kinds of modules that can be adapted.</summary>
/// <param name="IsLayer">Whether a module takes factors.</param>
/// <param name="IsNorm">Whether a module is a norm whose weights can be trained.</param>
/// <param name="LayerTypes">The types that take factors, for messages.</param>
internal sealed record AdaptableKinds(Func<ModulePlace, bool> IsLayer, Func<ModulePlace, bool> IsNorm, string LayerTypes);

/// <summary>
/// Target modules by <c>model_type</c> when a configuration names none: as PEFT has them, and for families of which PEFT has none, the
/// projections of the attention that its defaults of like families have.
/// </summary>
public static class DefaultTargets
{
    private static readonly Dictionary<string, ModuleSelector> s_byModelType = Build();

    private static readonly Dictionary<string, ModuleSelector> s_beyondPeft = new(StringComparer.Ordinal)
    {
        ["albert"] = ModuleSelector.FromNames(["query", "value"]),
        ["distilbert"] = ModuleSelector.FromNames(["q_lin", "v_lin"]),
        ["granite"] = ModuleSelector.FromNames(["q_proj", "v_proj"]),
        ["modernbert"] = ModuleSelector.FromNames(["Wqkv"]),
        ["mpnet"] = ModuleSelector.FromNames(["q", "v"]),
        ["olmo2"] = ModuleSelector.FromNames(["q_proj", "v_proj"]),
        ["olmo3"] = ModuleSelector.FromNames(["q_proj", "v_proj"]),
        ["phi3"] = ModuleSelector.FromNames(["qkv_proj", "o_proj"]),
        ["smollm3"] = ModuleSelector.FromNames(["q_proj", "v_proj"]),
    };

    /// <summary>Architectures with a default in PEFT, in alphabetical order.</summary>
    public static IReadOnlyList<string> ModelTypes { get; } = [.. s_byModelType.Keys.Order(StringComparer.Ordinal)];

    /// <summary>Architectures with a default here and none in PEFT, in alphabetical order.</summary>
    public static IReadOnlyList<string> BeyondPeft { get; } = [.. s_beyondPeft.Keys.Order(StringComparer.Ordinal)];

    /// <summary>The default of an architecture, or null.</summary>
    public static ModuleSelector? Find(string? modelType) =>
        modelType is null ? null : s_byModelType.GetValueOrDefault(modelType) ?? s_beyondPeft.GetValueOrDefault(modelType);

    private static Dictionary<string, ModuleSelector> Build()
    {
        Dictionary<string, ModuleSelector> targets = new(StringComparer.Ordinal);
        void Add(string[] modelTypes, params string[] names)
        {
            foreach (string modelType in modelTypes)
            {
                targets.Add(modelType, ModuleSelector.FromNames(names));
            }
        }

        Add(["t5", "mt5"], "q", "v");
        Add(
            [
                "bart", "opt", "gptj", "gpt_neo", "llama", "llama4", "mistral", "mixtral", "stablelm",
                "gemma", "gemma2", "gemma3_text", "qwen2", "qwen3",
            ],
            "q_proj", "v_proj");
        Add(["gpt2", "gpt_bigcode"], "c_attn");
        Add(["bloom", "gpt_neox", "chatglm", "RefinedWebModel", "RefinedWeb", "falcon"], "query_key_value");
        Add(["blip-2"], "q", "v", "q_proj", "v_proj");
        Add(["bert", "roberta", "xlm-roberta", "electra", "layoutlm"], "query", "value");
        Add(["deberta-v2"], "query_proj", "value_proj");
        Add(["deberta"], "in_proj");
        Add(["mpt"], "Wqkv");
        Add(["btlm"], "c_proj", "c_attn");
        Add(["codegen"], "qkv_proj");
        Add(["phi"], "q_proj", "v_proj", "fc1", "fc2");
        Add(["nemotron_h"], "q_proj", "k_proj", "v_proj", "o_proj");
        Add(["rwkv"], "key", "value", "receptance", "output");
        Add(["rwkv7"], "r_proj", "k_proj", "v_proj", "o_proj", "key", "value");
        targets.Add("gemma4", ModuleSelector.FromPattern(@".*language_model\..*\.(q_proj|v_proj)"));
        return targets;
    }
}
