using System.Buffers;
using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Layers;
using LoKr.Core.Nn;
using LoKr.Core.Targeting;
using static TorchSharp.torch;

namespace LoKr.Core.Model;

/// <summary>The adapters of a model: which there are, which are active, whether they are enabled.</summary>
/// <param name="root">The model.</param>
/// <param name="hosts">The modules that carry adapters.</param>
/// <param name="merges">The adapters that are merged into the base weights.</param>
/// <param name="identity">What tells the model apart from others.</param>
/// <param name="fresh">Modules that the checkpoint of the model lacked.</param>
internal sealed class AdapterSet(nn.Module root, HostSet hosts, MergeState merges, ModelIdentity identity, IReadOnlyList<string> fresh) : IDisposable
{
    // Tensors and folders are named after an adapter, and wildcards select adapters by name.
    private static readonly SearchValues<char> s_notInNames = SearchValues.Create("./\\*?[]");

    private readonly List<LoKrAdapter> _adapters = [];
    private readonly List<LoKrAdapter> _active = [];
    private readonly Dictionary<string, bool> _requiredGrad = new(StringComparer.Ordinal);

    /// <summary>All adapters, in the order they were added.</summary>
    public IReadOnlyList<LoKrAdapter> All => _adapters;

    /// <summary>Active adapters, in the order in which their contributions are added.</summary>
    public IReadOnlyList<LoKrAdapter> Active => _active;

    /// <summary>Whether adapters take part in the forward pass.</summary>
    public bool Enabled { get; private set; } = true;

    /// <summary>Adds an adapter with initial values.</summary>
    public LoKrAdapter Add(LoKrConfig config, string name, long? seed, bool restart)
    {
        LoKrConfigValidator.ValidateStored(config);
        LoKrConfig named = ModuleAliases.Translate(root, config, out string[] renamed);
        LoKrConfig complete = FreshModules.Save(root, named, fresh, out string[] savedWhole);
        LoKrAdapter? repeated = restart ? FindRepeated(name, config) : null;
        LoKrAdapter adapter = Create(name, complete, null, [.. IgnoredSettings.Describe(config), .. renamed, .. savedWhole], repeated);
        adapter.IsTrainable = !config.InferenceMode;
        adapter.UntrainedFrom = config;
        using (FactorInitializer initializer = new(seed))
        {
            foreach (LoKrLayer layer in adapter.Layers)
            {
                initializer.Fill(layer);
            }
        }

        return repeated is null ? Attach(adapter) : Replace(repeated, adapter);
    }

    /// <summary>Throws what <see cref="Add"/> would throw. Nothing is allocated or changed.</summary>
    public void CheckAdd(LoKrConfig config, string name, bool restart)
    {
        CheckName(name, restart ? FindRepeated(name, config) : null);
        AdapterPlan plan = AdapterPlanner.PlanNew(root, config, fresh);
        hosts.CheckOverlap(plan);
        Originals(plan);
    }

    /// <summary>Adds an adapter with the values of a file.</summary>
    public LoKrAdapter Load(LoKrConfig config, IReadOnlyDictionary<string, Tensor> tensors, string name, bool trainable) =>
        Attach(Read(config, tensors, name, trainable));

    /// <summary>Throws what <see cref="Load"/> would throw. The adapter is allocated and released; the model is not changed.</summary>
    public void CheckLoad(LoKrConfig config, IReadOnlyDictionary<string, Tensor> tensors, string name, bool trainable) =>
        Read(config, tensors, name, trainable).Release();

    /// <summary>The adapter of a name.</summary>
    /// <exception cref="LoKrException"><see cref="ErrorIds.AdapterNotFound"/>, with the names that there are.</exception>
    public LoKrAdapter Get(string name) => Find(name) ?? throw ModelErrors.NotFound(name, [.. _adapters.Select(static adapter => adapter.Name)]);

    /// <summary>The adapter of a name, or null.</summary>
    public LoKrAdapter? Find(string name) => _adapters.Find(adapter => adapter.Name == name);

    /// <summary>Makes exactly these adapters active.</summary>
    public void SetActive(IReadOnlyList<LoKrAdapter> adapters)
    {
        CheckSavedModules(adapters);
        merges.Undo();
        _active.Clear();
        _active.AddRange(adapters);
        Apply();
    }

    /// <summary>Removes an adapter; if it was the only active one, the first of the others becomes active.</summary>
    public void Remove(LoKrAdapter adapter)
    {
        CheckNotMerged(adapter);
        _adapters.Remove(adapter);
        if (_active.Remove(adapter) && _active.Count == 0 && _adapters.Count > 0)
        {
            _active.Add(_adapters[0]);
        }

        hosts.Remove(adapter);
        Apply();
        hosts.DropUnused();
        adapter.Release();
        if (_adapters.Count == 0)
        {
            Unfreeze();
        }
    }

    /// <summary>Lets adapters take part in the forward pass, or not.</summary>
    public void SetEnabled(bool enabled)
    {
        if (!enabled)
        {
            merges.Undo();
        }

        Enabled = enabled;
        Apply();
    }

    /// <summary>Lets an adapter take gradients while it is active, or not.</summary>
    public void SetTrainable(LoKrAdapter adapter, bool trainable)
    {
        adapter.IsTrainable = trainable;
        foreach (SavedModuleHost host in hosts.All<SavedModuleHost>().Where(host => ReferenceEquals(host.Current, adapter)))
        {
            host.Show(adapter);
        }

        Apply();
    }

    /// <summary>Allocates the adapters again after the model was moved to a device or converted to a type.</summary>
    /// <param name="move">Moves the model; the originals of all modules are in place.</param>
    public void Move(Action move)
    {
        foreach (SavedModuleHost host in hosts.All<SavedModuleHost>())
        {
            host.Show(null);
        }

        move();
        foreach (SavedModuleHost host in hosts.All<SavedModuleHost>())
        {
            host.TakeOriginals();
        }

        foreach (LoKrAdapter adapter in _adapters)
        {
            adapter.Reallocate(Originals(adapter.Plan));
            foreach (SavedModuleCopy copy in adapter.Copies)
            {
                hosts.Find<SavedModuleHost>(copy.ModuleName)!.Set(adapter, copy);
            }
        }

        Apply();
    }

    /// <summary>Brings hooks, trained copies and gradients in line with which adapters are active, merged and enabled.</summary>
    public void Apply()
    {
        foreach (LoKrAdapter adapter in _adapters)
        {
            bool trains = adapter.IsTrainable && _active.Contains(adapter);
            foreach (FlatParameter flat in adapter.FlatParameters)
            {
                flat.SetRequiresGrad(trains);
            }
        }

        hosts.Update(new(_active, merges.Merged, Enabled));
    }

    /// <summary>An adapter that is merged cannot be removed or scaled: the weights hold it as it was.</summary>
    /// <exception cref="LoKrException"><see cref="ErrorIds.AdapterMerged"/>.</exception>
    public void CheckNotMerged(LoKrAdapter adapter)
    {
        if (merges.Merged.Contains(adapter))
        {
            throw ModelErrors.Merged(adapter.Name);
        }
    }

    /// <summary>Only one trained copy of a module can be in place at a time.</summary>
    /// <exception cref="LoKrException"><see cref="ErrorIds.SavedModuleConflict"/>.</exception>
    public static void CheckSavedModules(IEnumerable<LoKrAdapter> adapters)
    {
        foreach (IGrouping<string, (string Module, LoKrAdapter Adapter)> group in adapters
            .SelectMany(static adapter => adapter.SavedModules.Select(module => (Module: module, Adapter: adapter)))
            .GroupBy(static entry => entry.Module))
        {
            if (group.Count() > 1)
            {
                throw ModelErrors.SeveralSavedCopies(group.Key, group.Select(static entry => entry.Adapter));
            }
        }
    }

    /// <summary>Releases the adapters.</summary>
    public void Dispose()
    {
        foreach (LoKrAdapter adapter in _adapters)
        {
            adapter.Release();
        }
    }

    private LoKrAdapter Create(
        string name, LoKrConfig config, IReadOnlyDictionary<string, Tensor>? tensors, IReadOnlyList<string> warnings, LoKrAdapter? repeated, IReadOnlyList<string>? tables = null)
    {
        warnings = [.. warnings, .. CheckName(name, repeated)];
        AdapterPlan plan = AdapterPlanner.Plan(root, config, fresh, tensors).WithTables(tables ?? []);
        hosts.CheckOverlap(plan);
        IReadOnlyList<ModuleTensors> originals = Originals(plan);
        string? growth = GrownVocabulary.Check(name, TableRows(plan));
        return new(name, plan, originals, [.. warnings, .. growth is null ? (string[])[] : [growth], .. AdapterWarnings.OfScales(plan), .. AdapterWarnings.Unsaved(name, plan.UnsavedModules)]) { BaseModel = identity };
    }

    // Rows of all embeddings of the model, whatever copies are in place now, and those that they have with an adapter.
    private IEnumerable<(string Name, long Before, long After)> TableRows(AdapterPlan plan)
    {
        ILookup<nint, (string Name, nn.Module Module)> owners = TiedWeights.Owners(root);
        foreach ((string module, nn.Module embeddings) in ModuleTree.Modules(root).Where(static entry => EmbeddingNames.IsEither(entry.Name)))
        {
            // A table that shares its weight with one that grows grows with it.
            bool isSaved = plan.SavedModules.Any(saved => ModuleTree.IsWithin(module, saved.Name));
            if (!isSaved && TiedWeights.PartnerOf(root, module, embeddings, owners) is string partner && plan.Tables.Contains(partner))
            {
                continue;
            }

            ModuleTensors own = hosts.Find<SavedModuleHost>(module)?.Originals ?? ModuleTensors.Of(embeddings);
            foreach ((string local, Tensor tensor) in own.Parameters.Where(static entry => entry.Value.dim() is 1 or 2))
            {
                string name = ModuleTree.Join(module, local);
                yield return (name, tensor.shape[0], isSaved ? plan.ShapeOf(name, tensor.shape)[0] : tensor.shape[0]);
            }
        }
    }

    private LoKrAdapter Read(LoKrConfig config, IReadOnlyDictionary<string, Tensor> tensors, string name, bool trainable)
    {
        IReadOnlyDictionary<string, Tensor> named = ModuleAliases.Translate(root, tensors);
        (SavedEmbeddings tables, named) = TiedTables.Join(root, name, SavedEmbeddings.Find(ModuleAliases.Translate(root, config, out _), named.Keys), named);
        LoKrAdapter adapter = Create(name, tables.Config, named, tables.Warnings, null, tables.Modules);
        adapter.IsTrainable = trainable;
        try
        {
            AdapterLoader.Load(adapter, named);
            adapter.WarnIfZero();
            if (merges.Merged.Count == 0)
            {
                adapter.AddWarnings(BaseCopies.Warnings(adapter, named));
            }

            return adapter;
        }
        catch
        {
            adapter.Release();
            throw;
        }
    }

    private LoKrAdapter Attach(LoKrAdapter adapter)
    {
        if (_adapters.Count == 0)
        {
            Freeze();
        }

        hosts.Add(adapter);
        _adapters.Add(adapter);
        if (_adapters.Count == 1)
        {
            _active.Add(adapter);
        }

        Apply();
        return adapter;
    }

    /// <summary>
    /// The adapter that an addition repeats: one of this name and configuration on which no training has ended well, so that a program whose
    /// training failed can run again as it stands.
    /// </summary>
    private LoKrAdapter? FindRepeated(string name, LoKrConfig config) =>
        Find(name) is { UntrainedFrom: LoKrConfig former } adapter && !merges.Merged.Contains(adapter) && LoKrConfigJson.Write(former) == LoKrConfigJson.Write(config)
            ? adapter
            : null;

    private LoKrAdapter Replace(LoKrAdapter former, LoKrAdapter adapter)
    {
        LoKrAdapter[] active = [.. _active.Select(other => ReferenceEquals(other, former) ? adapter : other)];
        Remove(former);
        Attach(adapter);
        SetActive(active);
        return adapter;
    }

    private string[] CheckName(string name, LoKrAdapter? repeated)
    {
        if (string.IsNullOrWhiteSpace(name) || name.AsSpan().ContainsAny(s_notInNames))
        {
            throw ModelErrors.NameInvalid(name);
        }

        if (Find(name) is LoKrAdapter other && !ReferenceEquals(other, repeated))
        {
            throw ModelErrors.Exists(name);
        }

        return "lokr_".Contains(name, StringComparison.Ordinal)
            ? [$"The adapter name '{name}' is part of the prefix 'lokr_'; PEFT may reset such an adapter when it loads it."]
            : [];
    }

    /// <summary>Original tensors of the modules that an adapter trains whole, whatever copy is in place now.</summary>
    private IReadOnlyList<ModuleTensors> Originals(AdapterPlan plan)
    {
        ILookup<nint, (string Name, nn.Module Module)> owners = TiedWeights.Owners(root);
        return [.. plan.SavedModules.Select(module => hosts.Find<SavedModuleHost>(module.Name)?.Originals ?? Untied(module.Name, module.Module))];

        // Training a copy of a module whose weight another module shares would change that one too.
        ModuleTensors Untied(string name, nn.Module module) => !plan.Tables.Contains(name) && TiedWeights.PartnerOf(root, name, module, owners) is string partner
            ? throw ModelErrors.TiedSavedModule(name, partner)
            : ModuleTensors.Of(module);
    }

    private void Freeze()
    {
        foreach ((string name, TorchSharp.Modules.Parameter parameter) in ModuleTree.Parameters(root))
        {
            _requiredGrad[name] = parameter.requires_grad;
            parameter.requires_grad = false;
        }
    }

    private void Unfreeze()
    {
        foreach ((string name, TorchSharp.Modules.Parameter parameter) in ModuleTree.Parameters(root))
        {
            parameter.requires_grad = _requiredGrad.GetValueOrDefault(name);
        }

        _requiredGrad.Clear();
    }
}
