using LoKr.Core.Errors;
using LoKr.Core.Layers;
using LoKr.Core.Nn;
using LoKr.Core.Targeting;
using static TorchSharp.torch;

namespace LoKr.Core.Model;

/// <summary>The modules of a model that carry adapters: layers, norms, and modules that are trained whole.</summary>
internal sealed class HostSet : IDisposable
{
    private readonly Dictionary<string, IHost> _hosts = new(StringComparer.Ordinal);
    private readonly ForwardHooks _hooks = new();

    /// <summary>The host of a module, if it is of that kind; null otherwise.</summary>
    public T? Find<T>(string name)
        where T : class, IHost => _hosts.GetValueOrDefault(name) as T;

    /// <summary>All hosts of a kind.</summary>
    public IEnumerable<T> All<T>()
        where T : class, IHost => _hosts.Values.OfType<T>();

    /// <summary>Puts an adapter on its modules.</summary>
    public void Add(LoKrAdapter adapter)
    {
        foreach (LoKrLayer layer in adapter.Layers)
        {
            Get(layer.ModuleName, () => new LayerHost(layer.BaseLayer, _hooks)).Add(adapter, layer);
        }

        foreach (LoKrNorm norm in adapter.Norms)
        {
            Get(norm.ModuleName, () => new NormHost(norm.Target)).Add(adapter, norm);
        }

        foreach (((string name, nn.Module module), SavedModuleCopy copy) in adapter.Plan.SavedModules.Zip(adapter.Copies))
        {
            Get(name, () => new SavedModuleHost(name, module)).Set(adapter, copy);
        }
    }

    /// <summary>Takes an adapter off its modules.</summary>
    public void Remove(LoKrAdapter adapter)
    {
        foreach (IHost host in _hosts.Values)
        {
            host.Remove(adapter);
        }
    }

    /// <summary>Brings every module in line with the adapters that contribute.</summary>
    public void Update(AdapterState state)
    {
        foreach (IHost host in _hosts.Values)
        {
            host.Update(state);
        }
    }

    /// <summary>Releases the hosts that no adapter is on.</summary>
    public void DropUnused()
    {
        foreach (IHost host in _hosts.Values.Where(static host => !host.Adapters.Any()).ToArray())
        {
            host.Dispose();
            _hosts.Remove(host.Name);
        }
    }

    /// <summary>A module must not be trained whole by one adapter while another adapter changes a layer or a norm in it.</summary>
    /// <exception cref="LoKrException"><see cref="ErrorIds.SavedModuleConflict"/>.</exception>
    public void CheckOverlap(AdapterPlan plan)
    {
        string[] changed = [.. plan.Layers.Select(static layer => layer.Base.Name), .. plan.Norms.Select(static norm => norm.Name)];
        foreach (SavedModuleHost host in All<SavedModuleHost>())
        {
            if (Array.Find(changed, name => ModuleTree.IsWithin(name, host.Name)) is string name)
            {
                throw TargetErrors.SavedAndAdapted(host.Name, name);
            }
        }

        foreach ((string saved, _) in plan.SavedModules)
        {
            foreach (IHost host in _hosts.Values)
            {
                if (host is not SavedModuleHost)
                {
                    if (ModuleTree.IsWithin(host.Name, saved))
                    {
                        throw TargetErrors.SavedAndAdapted(saved, host.Name);
                    }
                }
                else if (host.Name != saved && (ModuleTree.IsWithin(host.Name, saved) || ModuleTree.IsWithin(saved, host.Name)))
                {
                    throw ModelErrors.NestedSavedModules(saved, host.Name);
                }
            }
        }
    }

    /// <summary>Releases every host: hooks are removed, originals are in place.</summary>
    public void Dispose()
    {
        foreach (IHost host in _hosts.Values)
        {
            host.Dispose();
        }

        _hosts.Clear();
    }

    private T Get<T>(string name, Func<T> create)
        where T : IHost
    {
        if (!_hosts.TryGetValue(name, out IHost? host))
        {
            _hosts.Add(name, host = create());
        }

        return (T)host;
    }
}
