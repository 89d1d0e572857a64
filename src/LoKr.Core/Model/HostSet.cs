using LoKr.Core.Errors;
using LoKr.Core.Factors;
using LoKr.Core.Layers;
using LoKr.Core.Nn;
using LoKr.Core.Targeting;
using TorchSharp;
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

/// <summary>Which adapters of a model contribute.</summary>
/// <param name="Active">Active adapters, in the order in which their contributions are added.</param>
/// <param name="Merged">Adapters that are merged into the base weights.</param>
/// <param name="Enabled">Whether adapters take part in the forward pass.</param>
internal sealed record AdapterState(IReadOnlyList<LoKrAdapter> Active, IReadOnlyList<LoKrAdapter> Merged, bool Enabled)
{
    /// <summary>
    /// The adapters that run on a module: active ones that are not merged. As in PEFT, a module with a merged adapter runs on its weight alone.
    /// </summary>
    /// <param name="adapters">Adapters on the module.</param>
    public IEnumerable<LoKrAdapter> Running(IEnumerable<LoKrAdapter> adapters) =>
        Enabled && !adapters.Any(Merged.Contains) ? Active.Except(Merged) : [];
}

/// <summary>A module with adapters on it.</summary>
internal interface IHost : IDisposable
{
    /// <summary>Full name of the module.</summary>
    string Name { get; }

    /// <summary>Adapters on the module, in the order they were added.</summary>
    IEnumerable<LoKrAdapter> Adapters { get; }

    /// <summary>Brings the module in line with the adapters that contribute from now on.</summary>
    void Update(AdapterState state);

    /// <summary>Takes an adapter off the module.</summary>
    void Remove(LoKrAdapter adapter);
}

/// <summary>A base layer with its one hook and the adapters on it.</summary>
internal sealed class LayerHost : IHost, IOutputAdapter
{
    private readonly List<(LoKrAdapter Adapter, LoKrLayer Layer)> _layers = [];
    private LoKrLayer[] _running = [];
    private bool _onePass;

    public LayerHost(BaseLayer baseLayer, ForwardHooks hooks)
    {
        BaseLayer = baseLayer;
        baseLayer.Attach(hooks, this);
    }

    public string Name => BaseLayer.Name;

    public BaseLayer BaseLayer { get; }

    public IReadOnlyList<(LoKrAdapter Adapter, LoKrLayer Layer)> Layers => _layers;

    public IEnumerable<LoKrAdapter> Adapters => _layers.Select(static entry => entry.Adapter);

    public bool IsRunning => _running.Length > 0;

    public void Add(LoKrAdapter adapter, LoKrLayer layer) => _layers.Add((adapter, layer));

    public void Remove(LoKrAdapter adapter) => _layers.RemoveAll(entry => ReferenceEquals(entry.Adapter, adapter));

    public void Update(AdapterState state)
    {
        _running = [.. state.Running(Adapters).SelectMany(adapter => _layers.Where(entry => ReferenceEquals(entry.Adapter, adapter)).Select(static entry => entry.Layer))];
        _onePass = _running.Length > 1 && BaseLayer is LinearKindBaseLayer && _running.All(static layer => layer.IsPlain)
            && StackedContraction.Fits([.. _running.Select(static layer => layer.Factors)]);
    }

    public Tensor? Adapt(Tensor input, Tensor output)
    {
        if (_running.Length == 0)
        {
            return null;
        }

        using DisposeScope scope = NewDisposeScope();
        Tensor sum = output;
        if (_onePass)
        {
            sum = LoKrLayer.AddAllTo(output, input, _running);
        }
        else
        {
            foreach (LoKrLayer layer in _running)
            {
                sum = layer.AddTo(sum, input, output);
            }
        }

        // As in PEFT: sums are taken in the wider type, the result is in the type of the input.
        ScalarType type = BaseLayer.OutputType(input, output);
        if (sum.dtype != type)
        {
            sum = sum.to(type);
        }

        if (ReferenceEquals(sum, output))
        {
            return null;
        }

        // Nothing else refers to the base output, which the layer has just computed; autograd holds what it needs itself.
        output.Dispose();
        return sum.MoveToOuterDisposeScope();
    }

    public void Dispose() => BaseLayer.Detach();
}

/// <summary>A norm with its one hook and the adapters that change its weights.</summary>
internal sealed class NormHost : IHost
{
    private readonly List<(LoKrAdapter Adapter, LoKrNorm Norm)> _norms = [];
    private readonly NormBase _target;
    private readonly IDisposable _hook;
    private LoKrNorm[] _running = [];

    public NormHost(NormBase target)
    {
        _target = target;
        _hook = ForwardHooks.OnTensor(target.Module, Adapt);
    }

    public string Name => _target.Name;

    public IReadOnlyList<(LoKrAdapter Adapter, LoKrNorm Norm)> Norms => _norms;

    public IEnumerable<LoKrAdapter> Adapters => _norms.Select(static entry => entry.Adapter);

    public void Add(LoKrAdapter adapter, LoKrNorm norm) => _norms.Add((adapter, norm));

    public void Remove(LoKrAdapter adapter) => _norms.RemoveAll(entry => ReferenceEquals(entry.Adapter, adapter));

    public void Update(AdapterState state) => _running = [.. state.Running(Adapters)
        .SelectMany(adapter => _norms.Where(entry => ReferenceEquals(entry.Adapter, adapter)).Select(static entry => entry.Norm))];

    public void Dispose() => _hook.Dispose();

    private Tensor? Adapt(Tensor input, Tensor output)
    {
        if (_running.Length == 0)
        {
            return null;
        }

        using DisposeScope scope = NewDisposeScope();
        Tensor sum = _running.Aggregate(output, (sum, norm) => norm.AddTo(sum, input));
        Tensor result = sum.to(output.dtype).MoveToOuterDisposeScope();
        output.Dispose();
        return result;
    }
}
