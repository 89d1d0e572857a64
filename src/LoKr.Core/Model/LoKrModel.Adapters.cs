using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Factors;
using LoKr.Core.Layers;
using LoKr.Core.Nn;
using LoKr.Core.Targeting;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Model;

public sealed partial class LoKrModel
{
    /// <summary>Adds a fresh adapter; the first one becomes active, later ones by <see cref="SetActiveAdapters"/>.</summary>
    /// <param name="config">Its configuration; a null TargetModules takes the default of the architecture.</param>
    /// <param name="name">Its name.</param>
    /// <param name="seed">Seed of the initialization; null draws from torch's global generator.</param>
    /// <exception cref="LoKrException">The configuration or the name cannot be used; the model is as before.</exception>
    public LoKrAdapter AddAdapter(LoKrConfig config, string name = "default", long? seed = null)
    {
        LoKrConfig named = ModuleAliases.Translate(Module, config, out string[] warnings);
        LoKrAdapter adapter = Build(named, name, warnings);
        adapter.IsTrainable = !config.InferenceMode;
        using (FactorInitializer initializer = new(seed))
        {
            foreach (LoKrLayer layer in adapter.Layers)
            {
                initializer.Fill(layer);
            }
        }

        return Attach(adapter);
    }

    /// <summary>Adds an adapter whose tensors were read from a file; the first one becomes active, later ones by <see cref="SetActiveAdapters"/>.</summary>
    /// <param name="config">Its configuration.</param>
    /// <param name="tensors">Tensors by module name and suffix, without <c>base_model.model.</c>, as <see cref="LoKrAdapter.GetTensors"/> names them, or with the published names of modules (<see cref="Nn.IModuleAliases"/>); they are copied.</param>
    /// <param name="name">Its name.</param>
    /// <param name="trainable">Whether it takes gradients while it is active.</param>
    /// <exception cref="LoKrException">The tensors do not fit the configuration and the model (LoKr.AdapterKeysMismatch, LoKr.AdapterShapeMismatch); the model is as before.</exception>
    public LoKrAdapter LoadAdapter(LoKrConfig config, IReadOnlyDictionary<string, Tensor> tensors, string name = "default", bool trainable = true)
    {
        ArgumentNullException.ThrowIfNull(tensors);
        IReadOnlyDictionary<string, Tensor> named = ModuleAliases.Translate(Module, tensors);
        LoKrConfig translated = ModuleAliases.Translate(Module, config, out _);
        LoKrAdapter adapter = Build(translated, name, [], translated.ShapesFromFile ? (layer, rank) => FileShapes.Read(layer, translated, rank, named) : null);
        adapter.IsTrainable = trainable;
        try
        {
            AdapterLoader.Load(adapter, named);
        }
        catch
        {
            adapter.Release();
            DropUnusedHosts();
            throw;
        }

        return Attach(adapter);
    }

    /// <summary>The adapter of that name; an unknown name is an error that lists the known ones.</summary>
    public LoKrAdapter GetAdapter(string name) => _adapters.Find(adapter => adapter.Name == name) ?? throw new LoKrException(
        ErrorIds.AdapterNotFound,
        LoKrErrorKind.NotFound,
        _adapters.Count == 0 ? $"There is no adapter '{name}': the model has none." : $"There is no adapter '{name}'; the model has {string.Join(", ", _adapters)}.",
        _adapters.Count == 0 ? "Add one with Add-LoKrAdapter or Import-LoKrAdapter." : null)
    { Target = name };

    /// <summary>The adapter that is active alone.</summary>
    /// <exception cref="LoKrException"><see cref="ErrorIds.AdapterAmbiguous"/> for none or several.</exception>
    public LoKrAdapter GetOnlyActiveAdapter() => _active.Count == 1
        ? _active[0]
        : throw NotOneActive($"{Name} has no active adapter.", ActiveAdapters, this);

    internal static LoKrException NotOneActive(string none, IReadOnlyCollection<string> active, object target) => new(
        ErrorIds.AdapterAmbiguous,
        LoKrErrorKind.InvalidArgument,
        active.Count == 0 ? none : $"Several adapters are active: {string.Join(", ", active)}.",
        "Name the one to export with -Name, or add one with Add-LoKrAdapter.")
    { Target = target };

    /// <summary>Makes exactly these adapters active; their contributions are added up in this order. Takes a merge back first, as PEFT does.</summary>
    /// <param name="names">Names; none leaves every adapter idle.</param>
    public void SetActiveAdapters(IReadOnlyList<string> names)
    {
        ArgumentNullException.ThrowIfNull(names);
        List<LoKrAdapter> adapters = [.. names.Distinct(StringComparer.Ordinal).Select(GetAdapter)];
        CheckSavedModules(adapters);
        _merger.Undo();
        _active.Clear();
        _active.AddRange(adapters);
        Apply();
    }

    /// <summary>Removes an adapter; the base weights are as before. If it was the active one, the next one becomes active.</summary>
    public void RemoveAdapter(string name)
    {
        LoKrAdapter adapter = GetAdapter(name);
        if (_merger.Merged.Contains(adapter))
        {
            throw new LoKrException(ErrorIds.AdapterMerged, LoKrErrorKind.InvalidOperation, $"Adapter '{name}' is merged into the weights.", "Take the merge back with Undo-LoKrMerge first.") { Target = name };
        }

        _adapters.Remove(adapter);
        if (_active.Remove(adapter) && _active.Count == 0 && _adapters.Count > 0)
        {
            _active.Add(_adapters[0]);
        }

        foreach (LayerHost host in _layers.Values)
        {
            host.Remove(adapter);
        }

        foreach (NormHost host in _norms.Values)
        {
            host.Remove(adapter);
        }

        foreach (SavedModuleCopy copy in adapter.Copies)
        {
            _saved[copy.ModuleName].Remove(adapter);
        }

        Apply();
        DropUnusedHosts();
        adapter.Release();
        if (_adapters.Count == 0)
        {
            Unfreeze();
        }
    }

    /// <summary>Lets adapters take part in the forward pass, or not. Switching them off takes a merge back first, as PEFT does.</summary>
    public void SetAdaptersEnabled(bool enabled)
    {
        if (!enabled && _merger.Merged.Count > 0)
        {
            UndoMerge();
        }

        _enabled = enabled;
        Apply();
    }

    /// <summary>Lets an adapter take gradients while it is active, or not. A fresh or loaded adapter does, unless its configuration says inference only.</summary>
    public void SetAdapterTrainable(string name, bool trainable)
    {
        LoKrAdapter adapter = GetAdapter(name);
        adapter.IsTrainable = trainable;
        foreach (SavedModuleHost host in _saved.Values.Where(host => ReferenceEquals(host.Current, adapter)))
        {
            host.Show(adapter);
        }

        Apply();
    }

    private LoKrAdapter Build(LoKrConfig config, string name, string[] warnings, Func<BaseLayer, int, (FactorShapes Shapes, LoKrConfig Config)?>? given = null)
    {
        LoKrConfigValidator.Validate(config);
        warnings = [.. warnings, .. CheckName(name)];
        TargetResolution resolution = TargetResolver.Resolve(Module, config);
        CheckOverlap(resolution);
        return new AdapterBuilder(name, resolution, warnings, given).Build(Originals);
    }

    private LoKrAdapter Attach(LoKrAdapter adapter)
    {
        if (_adapters.Count == 0)
        {
            Freeze();
        }

        foreach (LoKrLayer layer in adapter.Layers)
        {
            if (!_layers.TryGetValue(layer.ModuleName, out LayerHost? host))
            {
                _layers.Add(layer.ModuleName, host = new LayerHost(layer.BaseLayer, _hooks));
            }

            host.Add(adapter, layer);
        }

        AttachNorms(adapter);
        foreach (SavedModuleCopy copy in adapter.Copies)
        {
            _saved[copy.ModuleName].Add(adapter, copy);
        }

        _adapters.Add(adapter);
        if (_adapters.Count == 1)
        {
            _active.Add(adapter);
        }

        Apply();
        return adapter;
    }

    /// <summary>Original tensors of a module to save, whatever adapter's copy is in place now.</summary>
    private (IReadOnlyDictionary<string, Tensor> Parameters, IReadOnlyDictionary<string, Tensor> Buffers) Originals(string name, nn.Module module)
    {
        if (!_saved.TryGetValue(name, out SavedModuleHost? host))
        {
            CheckNotTied(name, module);
            _saved.Add(name, host = new SavedModuleHost(name, module));
        }

        HashSet<string> parameters = [.. ModuleTree.Parameters(module).Select(static entry => entry.Name)];
        ILookup<bool, KeyValuePair<string, Tensor>> split = host.Originals.ToLookup(entry => parameters.Contains(entry.Key));
        return (new Dictionary<string, Tensor>(split[true]), new Dictionary<string, Tensor>(split[false]));
    }

    private void Freeze()
    {
        foreach ((string name, TorchSharp.Modules.Parameter parameter) in ModuleTree.Parameters(Module))
        {
            _requiresGrad[name] = parameter.requires_grad;
            parameter.requires_grad = false;
        }
    }

    private void Unfreeze()
    {
        foreach ((string name, TorchSharp.Modules.Parameter parameter) in ModuleTree.Parameters(Module))
        {
            parameter.requires_grad = _requiresGrad.GetValueOrDefault(name);
        }

        _requiresGrad.Clear();
    }

    private void DropUnusedHosts()
    {
        foreach (LayerHost host in _layers.Values.Where(static host => host.Layers.Count == 0).ToArray())
        {
            host.Detach();
            _layers.Remove(host.BaseLayer.Name);
        }

        DropUnusedNorms();
        foreach (SavedModuleHost host in _saved.Values.Where(static host => host.Adapters.Count == 0).ToArray())
        {
            host.Dispose();
            _saved.Remove(host.Name);
        }
    }
}
