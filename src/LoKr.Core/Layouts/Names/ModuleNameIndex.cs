using LoKr.Core.Layers;
using LoKr.Core.Nn;
using TorchSharp;

namespace LoKr.Core.Layouts.Names;

/// <summary>
/// Finds the module that a name in a file refers to. No rule turns underscores back into dots, so the names of all modules are
/// enumerated with dots and with underscores, as in the tree and as published; other spellings are found by the tables of names.
/// </summary>
internal sealed class ModuleNameIndex
{
    private readonly Dictionary<AdapterComponent, Scope> _scopes = [];

    private ModuleNameIndex(string target) => Target = target;

    /// <summary>The model or path that has these modules, for messages.</summary>
    public string Target { get; }

    /// <summary>The model, by the names of its denoiser; null where no table has them.</summary>
    public RecognizedModel? Model => field ??= ModelRecognizer.OfCheckpoint(_scopes
        .Where(static scope => !AdapterComponents.IsTextEncoder(scope.Key)).SelectMany(static scope => scope.Value.LocalNames));

    /// <summary>The modules of a model. A tree with children called unet, text_encoder and so on is a pipeline.</summary>
    public static ModuleNameIndex FromModule(torch.nn.Module root, string name)
    {
        ModuleNameIndex index = new(name);
        IReadOnlyList<(string Name, torch.nn.Module Module)> tree = ModuleTree.Modules(root);
        string[] names = [.. tree.Select(static entry => entry.Name)];
        KnownModule[] all = [.. tree
            .Select(static entry => new KnownModule(entry.Name, WeightShape(entry.Name, entry.Module)))
            .Where(static module => module.WeightShape is not null)];
        index._scopes[AdapterComponent.Model] = new("", all, isOfFiles: false, names, root as IModuleAliases);
        foreach ((string folder, AdapterComponent component) in AdapterComponents.ByFolder)
        {
            if (root.named_children().FirstOrDefault(child => child.name == folder).module is torch.nn.Module child)
            {
                string prefix = folder + ".";
                index._scopes[component] = new(prefix, [.. all.Where(module => module.Name.StartsWith(prefix, StringComparison.Ordinal))], isOfFiles: false, names, child as IModuleAliases);
            }
        }

        return index;
    }

    /// <summary>The modules of a base model whose files were read.</summary>
    public static ModuleNameIndex FromFiles(string path, IReadOnlyDictionary<AdapterComponent, IReadOnlyList<KnownModule>> modules)
    {
        ModuleNameIndex index = new(path);
        foreach ((AdapterComponent component, IReadOnlyList<KnownModule> known) in modules)
        {
            index._scopes[component] = new("", known, isOfFiles: true, [.. known.SelectMany(static module => Outer(module.Name)).Distinct(StringComparer.Ordinal)], null);
        }

        return index;
    }

    /// <summary>The module that a name refers to; null where there is none, or more than one.</summary>
    public KnownModule? Find(AdapterComponent component, string name)
    {
        if ((_scopes.GetValueOrDefault(component) ?? _scopes.FirstOrDefault(entry => AdapterComponents.Matches(entry.Key, component)).Value) is Scope scope)
        {
            return scope.Find(name);
        }

        // A file that names no component may be for any of them; a model that is not a pipeline may be any of them.
        return component == AdapterComponent.Model
            ? _scopes.Values.Select(candidate => candidate.Find(name)).OfType<KnownModule>().Distinct().ToArray() is [KnownModule only] ? only : null
            : _scopes.Count == 1 && _scopes.TryGetValue(AdapterComponent.Model, out Scope? whole) ? whole.Find(name) : null;
    }

    /// <summary>All names of a component, for choosing short endings.</summary>
    public IReadOnlyCollection<string> Names(AdapterComponent component) =>
        _scopes.TryGetValue(component, out Scope? scope) || _scopes.TryGetValue(AdapterComponent.Model, out scope) ? scope.Names : [];

    /// <summary>The weight of a layer that can be adapted as out×in×kernel, of any other module as it is; null without one.</summary>
    private static long[]? WeightShape(string name, torch.nn.Module module) => BaseLayer.TryCreate(name, module) is BaseLayer layer
        ? [layer.OutFeatures, layer.InFeatures, .. layer.Kernel]
        : module.named_parameters(recurse: false).FirstOrDefault(static parameter => parameter.name == "weight").parameter?.shape;

    /// <summary>A module and those around it.</summary>
    private static IEnumerable<string> Outer(string name)
    {
        for (int dot = name.IndexOf('.', StringComparison.Ordinal); dot >= 0; dot = name.IndexOf('.', dot + 1))
        {
            yield return name[..dot];
        }

        yield return name;
    }

    private sealed class Scope
    {
        private readonly Dictionary<string, KnownModule?> _byName = new(StringComparer.Ordinal);
        private readonly Dictionary<string, KnownModule?> _byAlias = new(StringComparer.Ordinal);
        private readonly Dictionary<WeightPlace, KnownModule> _byPlace = [];
        private readonly ModelPart? _part;
        private readonly bool _isOfFiles;

        public Scope(string prefix, IReadOnlyList<KnownModule> modules, bool isOfFiles, IReadOnlyList<string> names, IModuleAliases? aliases)
        {
            (Names, _isOfFiles) = (names, isOfFiles);
            LocalNames = [.. modules.Select(module => module.Name[prefix.Length..])];
            _part = ModelRecognizer.PartOf(LocalNames);
            foreach (KnownModule module in modules)
            {
                string local = module.Name[prefix.Length..];
                Add(_byName, local, module);
                Add(_byAlias, aliases?.Published(local), module);
                foreach (NameMatch match in _part?.Find(SplitName.Of(local), isUnderscored: false) ?? [])
                {
                    _byPlace.TryAdd(match.Place, module);
                }
            }
        }

        /// <summary>Names of the modules with weights, without the prefix.</summary>
        public IReadOnlyList<string> LocalNames { get; }

        /// <summary>Every module, containers too.</summary>
        public IReadOnlyList<string> Names { get; }

        public KnownModule? Find(string name) => Named(name)

            // A name in another spelling, or wrapped more than once.
            ?? ModelRecognizer.Variants(name).Select(variant => Named(variant.Name) ?? Placed(variant)).FirstOrDefault(static module => module is not null);

        private KnownModule? Named(string name) => _byName.GetValueOrDefault(name) ?? _byAlias.GetValueOrDefault(name);

        // The file says whether underscores stand for dots, and the caller has taken its prefix off.
        private KnownModule? Placed(PrefixedName name) => ((bool[])[false, true])
            .SelectMany(isUnderscored => _part?.Find(name.Split, isUnderscored) ?? [])
            .Select(match => _byPlace.GetValueOrDefault(match.Place) ?? (_isOfFiles ? Divided(match.Place) : null)).OfType<KnownModule>().Distinct().ToArray() is [KnownModule only] ? only : null;

        /// <summary>Rows of a fused weight as a module of their own, or a fused weight where the model has its rows; only a model in files can stand for another division.</summary>
        private KnownModule? Divided(WeightPlace place)
        {
            if (place.Rows is WeightRows rows)
            {
                return _byPlace.TryGetValue(place with { Rows = null }, out KnownModule? whole) && whole.WeightShape is [long height, long width, ..]
                    ? new(place.Published!, [rows.Range(height, width).Length, .. whole.WeightShape.Skip(1)])
                    : null;
            }

            KnownModule[] parts = [.. place.Weight.Rows.Where(static rows => !rows.IsBroken && rows.Names.Of(NameSets.Diffusers).Count > 0)
                .Select(rows => _byPlace.GetValueOrDefault(place with { Rows = rows })).OfType<KnownModule>()];
            return parts.Length > 1 && Array.TrueForAll(parts, static part => part.WeightShape is not null)
                ? new(place.Name(NameSets.File)!, [parts.Sum(static part => part.WeightShape![0]), .. parts[0].WeightShape!.Skip(1)])
                : null;
        }

        private static void Add(Dictionary<string, KnownModule?> names, string? name, KnownModule module)
        {
            if (name is null)
            {
                return;
            }

            foreach (string form in (string[])[name, name.Replace('.', '_')])
            {
                // Two modules of one name: neither is found.
                names[form] = names.TryGetValue(form, out KnownModule? other) && !ReferenceEquals(other, module) ? null : module;
            }
        }
    }
}

/// <summary>A module of the model that an adapter is for.</summary>
/// <param name="Name">Full dotted name.</param>
/// <param name="WeightShape">Shape of its weight, or null where it is not known.</param>
internal sealed record KnownModule(string Name, IReadOnlyList<long>? WeightShape);
