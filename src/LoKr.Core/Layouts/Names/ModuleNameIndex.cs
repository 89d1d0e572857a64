using LoKr.Core.Layers;
using LoKr.Core.Merging.Checkpoints;
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

    /// <summary>Whether the model is one file, whose names alone say what it is.</summary>
    public bool IsSingleFile { get; private init; }

    /// <summary>The model, by the names of its denoiser; null where no table has them.</summary>
    public RecognizedModel? Model => field ??= ModelRecognizer.OfCheckpoint(_scopes
        .Where(static scope => !AdapterComponents.IsTextEncoder(scope.Key)).SelectMany(static scope => scope.Value.LocalNames));

    /// <summary>A name of a module of the model, for messages.</summary>
    public string? Example => _scopes.Values.SelectMany(static scope => scope.LocalNames).FirstOrDefault();

    /// <summary>The modules of a model. A tree with children called unet, text_encoder and so on is a pipeline.</summary>
    public static ModuleNameIndex FromModule(torch.nn.Module root, string name)
    {
        ModuleNameIndex index = new(name);
        IReadOnlyList<(string Name, torch.nn.Module Module)> tree = ModuleTree.Modules(root);
        string[] names = [.. tree.Select(static entry => entry.Name)];
        KnownModule[] all = [.. tree
            .Select(static entry => new KnownModule(entry.Name, WeightShape(entry.Name, entry.Module)))
            .Where(static module => module.WeightShape is not null)];
        index._scopes[AdapterComponent.Model] = new("", all, isOfFiles: false, names, root as IModuleAliases, null);
        foreach ((string folder, AdapterComponent component) in AdapterComponents.ByFolder)
        {
            if (root.named_children().FirstOrDefault(child => child.name == folder).module is torch.nn.Module child)
            {
                string prefix = folder + ".";
                index._scopes[component] = new(prefix, [.. all.Where(module => module.Name.StartsWith(prefix, StringComparison.Ordinal))], isOfFiles: false, names, child as IModuleAliases, null);
            }
        }

        return index;
    }

    /// <summary>The modules of a base model whose files were read.</summary>
    /// <param name="path">Its path.</param>
    /// <param name="isSingleFile">Whether it is one file.</param>
    /// <param name="components">Its components.</param>
    public static ModuleNameIndex FromFiles(string path, bool isSingleFile, IReadOnlyList<StoredComponent> components)
    {
        ModuleNameIndex index = new(path) { IsSingleFile = isSingleFile };
        foreach (StoredComponent stored in components)
        {
            string[] names = [.. stored.Modules.Where(static module => !module.IsParameter).SelectMany(static module => Outer(module.Name)).Distinct(StringComparer.Ordinal)];
            index._scopes[stored.Component] = new("", stored.Modules, isOfFiles: true, names, stored.Aliases, stored.Part);
        }

        return index;
    }

    /// <summary>
    /// Modules whose names differ from the model's by a prefix that all of them share, as those of a bare model and of one with a head do. They keep
    /// the names that were asked for.
    /// </summary>
    /// <param name="names">Dotted names, by component.</param>
    /// <exception cref="Errors.LoKrException"><c>LoKr.AdapterKeysMismatch</c>: they fit several parts of the model.</exception>
    public IReadOnlyDictionary<(AdapterComponent Component, string Name), KnownModule> FindByPrefix(IEnumerable<(AdapterComponent Component, string Name)> names)
    {
        Dictionary<(AdapterComponent, string), KnownModule> found = [];
        foreach (IGrouping<AdapterComponent, (AdapterComponent Component, string Name)> part in names.Distinct().GroupBy(static name => name.Component))
        {
            Scope? scope = Single(part.Key);
            string[] all = [.. part.Select(static name => name.Name)];
            foreach ((string name, KnownModule module) in scope?.FindByPrefix(all) ?? [])
            {
                found.Add((part.Key, name), module);
            }
        }

        return found;
    }

    /// <summary>The module that a name refers to; null where there is none, or more than one.</summary>
    public KnownModule? Find(AdapterComponent component, string name)
    {
        if (Single(component) is Scope scope)
        {
            return scope.Find(name);
        }

        // A file that names no component may be for any of them.
        return component == AdapterComponent.Model
            ? _scopes.Values.Select(candidate => candidate.Find(name)).OfType<KnownModule>().Distinct().ToArray() is [KnownModule only] ? only : null
            : null;
    }

    // A model that is not a pipeline may be any component.
    private Scope? Single(AdapterComponent component) => _scopes.GetValueOrDefault(component) ?? _scopes.FirstOrDefault(entry => AdapterComponents.Matches(entry.Key, component)).Value
        ?? (_scopes.Count == 1 && (component == AdapterComponent.Model || _scopes.ContainsKey(AdapterComponent.Model)) ? _scopes.Values.First() : null);

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
        private readonly Dictionary<WeightPlace, PlacedModule> _byPlace = [];
        private readonly Dictionary<string, KnownModule> _byKey = new(StringComparer.Ordinal);
        private readonly IModuleAliases? _aliases;
        private readonly ModelPart? _part;
        private readonly bool _isOfFiles;

        public Scope(string prefix, IReadOnlyList<KnownModule> modules, bool isOfFiles, IReadOnlyList<string> names, IModuleAliases? aliases, ModelPart? part)
        {
            (Names, _isOfFiles, _aliases) = (names, isOfFiles, aliases);
            LocalNames = [.. modules.Where(static module => !module.IsParameter).Select(module => module.Name[prefix.Length..])];
            _part = part ?? ModelRecognizer.PartOf(LocalNames);
            foreach (KnownModule module in modules)
            {
                string local = module.Name[prefix.Length..];
                Add(_byName, local, module);
                Add(_byAlias, aliases?.Published(local), module);
                _byKey.TryAdd(module.IsParameter ? local : local + ".weight", module);
                foreach (NameMatch match in _part?.Find(SplitName.Of(local), isUnderscored: false) ?? [])
                {
                    _byPlace.TryAdd(match.Place, new(match.Place.Weight.IsTransposed && module.IsParameter ? module with { IsTransposed = true } : module, match));
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

        public IEnumerable<KeyValuePair<string, KnownModule>> FindByPrefix(IReadOnlyCollection<string> names)
        {
            CheckpointNames rule = CheckpointNames.Match(_byKey.Keys, names, _aliases);
            return names.Select(name => KeyValuePair.Create(name, rule.Find(name + ".weight"))).Where(static pair => pair.Value is not null)
                .Select(pair => KeyValuePair.Create(pair.Key, _byKey[pair.Value!] with { Name = pair.Key }));
        }

        private KnownModule? Named(string name) => _byName.GetValueOrDefault(name) is KnownModule named && !(named.IsParameter && _part is not null) ? named : _byAlias.GetValueOrDefault(name);

        // The file says whether underscores stand for dots, and the caller has taken its prefix off. A model in memory has no module for other rows.
        private KnownModule? Placed(PrefixedName name) => ((bool[])[false, true])
            .SelectMany(isUnderscored => _part?.Find(name.Split, isUnderscored) ?? [])
            .Select(match => _byPlace.TryGetValue(match.Place, out PlacedModule? placed) ? _isOfFiles || !placed.Swaps(match) ? placed.As(match) : null : _isOfFiles ? Divided(match.Place) : null)
            .OfType<KnownModule>().DistinctBy(static module => module.Name).ToArray() is [KnownModule only] ? only : null;

        /// <summary>Rows of a fused weight as a module of their own, or a fused weight where the model has its rows; only a model in files can stand for another division.</summary>
        private KnownModule? Divided(WeightPlace place) => Stored(place) is not [KnownModule first, ..] stored ? null
            : place.Rows is WeightRows rows && _byPlace.TryGetValue(place with { Rows = null }, out PlacedModule? whole) && whole.Module.WeightShape is [long height, long width, ..] ? whole.Module.Slice(place.Published ?? place.AllNames().First(), rows.Range(height, width))
            : place.Rows is null ? KnownModule.Join(place.Name(NameSets.File)!, stored)
            : Cut(place, place.Rows, first, stored);

        // The rows that the model stores apart, in the order of the fused weight.
        private KnownModule[] Stored(WeightPlace place)
        {
            if (_byPlace.TryGetValue(place with { Rows = null }, out PlacedModule? whole))
            {
                return [whole.Module];
            }

            KnownModule[] parts = [.. place.Weight.Rows.Where(static rows => !rows.IsBroken && rows.Names.Of(NameSets.Diffusers).Count > 0)
                .Select(rows => _byPlace.GetValueOrDefault(place with { Rows = rows })?.Module).OfType<KnownModule>()];
            return parts.Length > 1 && Array.TrueForAll(parts, static part => part.WeightShape is not null) ? parts : [];
        }

        // Some rows of a fused weight that the model stores in other pieces.
        private static KnownModule? Cut(WeightPlace place, WeightRows rows, KnownModule first, KnownModule[] stored) => place.AllNames().FirstOrDefault() is string name && first.WeightShape is [_, long width, ..]
            ? KnownModule.Join(name, stored).Slice(name, rows.Range(stored.Sum(static part => part.WeightShape![0]), width))
            : null;

        private static void Add(Dictionary<string, KnownModule?> names, string? name, KnownModule module)
        {
            if (name is null)
            {
                return;
            }

            foreach (string form in (string[])[name, name.Replace('.', '_')])
            {
                if (module.IsParameter)
                {
                    names.TryAdd(form, module);
                    continue;
                }

                // Two modules of one name: neither is found.
                names[form] = names.TryGetValue(form, out KnownModule? other) && other?.IsParameter != true && !ReferenceEquals(other, module) ? null : module;
            }
        }

        /// <summary>A module with the name by which the tables know it.</summary>
        private sealed record PlacedModule(KnownModule Module, NameMatch Match)
        {
            /// <summary>Whether another name means the two halves of the module in the other order.</summary>
            public bool Swaps(NameMatch name) => Match.Place.Weight.IsSwapped && name.IsPublished != Match.IsPublished && Module.WeightShape is [long rows, long columns] && rows == 2 * columns;

            /// <summary>The module under another name, which may mean its two halves in the other order.</summary>
            public KnownModule As(NameMatch name) => Swaps(name) && Module.WeightShape is [long rows, ..]
                ? Module with { Swapped = name.Template.Fill(name.Place.Numbers), Places = [.. Module.Places.SelectMany(place => (RowPlace[])[place with { Row = rows / 2, Count = rows / 2 }, place with { TensorRow = place.TensorRow + (rows / 2), Row = 0, Count = rows / 2 }])] }
                : Module;
        }
    }
}

/// <summary>The modules of one component of a model in files.</summary>
/// <param name="Component">The component.</param>
/// <param name="Part">The table that knows its names; null to find it by them.</param>
/// <param name="Modules">The modules.</param>
/// <param name="Aliases">Published names, or null.</param>
internal sealed record StoredComponent(AdapterComponent Component, ModelPart? Part, IReadOnlyList<KnownModule> Modules, IModuleAliases? Aliases = null);

/// <summary>A module of the model that an adapter is for.</summary>
/// <param name="Name">Full dotted name.</param>
/// <param name="WeightShape">Shape of its weight, or null where it is not known.</param>
internal sealed record KnownModule(string Name, IReadOnlyList<long>? WeightShape)
{
    /// <summary>Where the rows of its weight are in the files of the model; empty for a model in memory.</summary>
    public IReadOnlyList<RowPlace> Places { get; init; } = [];

    /// <summary>Folder of the component whose files these are; empty for a model that is not a pipeline.</summary>
    public string Folder { get; init; } = "";

    /// <summary>The name that was asked for, where it means the two halves of the rows in the other order than the model's; null otherwise.</summary>
    public string? Swapped { get; init; }

    /// <summary>Whether it is a parameter, whose name is that of the tensor.</summary>
    public bool IsParameter { get; init; }

    /// <summary>Whether the files hold the weight transposed.</summary>
    public bool IsTransposed { get; init; }

    /// <summary>Some rows of the weight as a module.</summary>
    /// <param name="name">Its name.</param>
    /// <param name="rows">First row and number of rows.</param>
    public KnownModule Slice(string name, (long Start, long Length) rows) => new(name, [rows.Length, .. WeightShape!.Skip(1)])
    {
        Folder = Folder,
        Places = [.. Places.Select(place => Overlap(place, rows)).OfType<RowPlace>()],
    };

    /// <summary>Modules one below the other as a module.</summary>
    /// <param name="name">Its name.</param>
    /// <param name="parts">The modules.</param>
    public static KnownModule Join(string name, IReadOnlyList<KnownModule> parts)
    {
        List<RowPlace> places = [];
        long row = 0;
        foreach (KnownModule part in parts)
        {
            places.AddRange(part.Places.Select(place => place with { Row = place.Row + row }));
            row += part.WeightShape![0];
        }

        return new(name, [row, .. parts[0].WeightShape!.Skip(1)]) { Folder = parts[0].Folder, Places = places };
    }

    private static RowPlace? Overlap(RowPlace place, (long Start, long Length) rows)
    {
        (long from, long to) = (Math.Max(place.Row, rows.Start), Math.Min(place.Row + place.Count, rows.Start + rows.Length));
        return from < to ? new(place.Tensor, place.TensorRow + from - place.Row, from - rows.Start, to - from) : null;
    }
}
