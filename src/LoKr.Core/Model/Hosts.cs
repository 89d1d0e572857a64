using LoKr.Core.Factors;
using LoKr.Core.Layers;
using LoKr.Core.Nn;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Model;

/// <summary>The one hook on a base layer, and the adapters that stand on it.</summary>
internal sealed class LayerHost
{
    private readonly List<(LoKrAdapter Adapter, LoKrLayer Layer)> _layers = [];

    public LayerHost(BaseLayer baseLayer, ForwardHooks hooks)
    {
        BaseLayer = baseLayer;
        baseLayer.Attach(hooks, this);
    }

    public BaseLayer BaseLayer { get; }

    /// <summary>Adapters on this layer in the order they were added.</summary>
    public IReadOnlyList<(LoKrAdapter Adapter, LoKrLayer Layer)> Layers => _layers;

    /// <summary>Whether any adapter contributes at present.</summary>
    public bool IsRunning => _running.Length > 0;

    /// <summary>Those whose contribution is added, in the order in which they were made active.</summary>
    private (LoKrAdapter Adapter, LoKrLayer Layer)[] _running = [];

    /// <summary>Whether they can be applied in one pass.</summary>
    private bool _onePass;

    public void Add(LoKrAdapter adapter, LoKrLayer layer) => _layers.Add((adapter, layer));

    public void Remove(LoKrAdapter adapter) => _layers.RemoveAll(entry => ReferenceEquals(entry.Adapter, adapter));

    /// <summary>Decides who contributes from now on.</summary>
    public void SetRunning(IEnumerable<LoKrAdapter> adapters)
    {
        _running = [.. adapters.SelectMany(adapter => _layers.Where(entry => ReferenceEquals(entry.Adapter, adapter)))];
        _onePass = _running.Length > 1 && BaseLayer is LinearKindBaseLayer && _running.All(static entry => entry.Layer.IsPlain)
            && StackedContraction.Fits([.. _running.Select(static entry => entry.Layer.Factors)]);
    }

    public void Detach() => BaseLayer.Detach();

    /// <summary>The adapted output, or null where no adapter contributes; then, and only then, the base output lives on.</summary>
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
            sum = LoKrLayer.AddAllTo(output, input, [.. _running.Select(static entry => entry.Layer)]);
        }
        else
        {
            foreach ((_, LoKrLayer layer) in _running)
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

        // Nothing else holds the base output: the layer has just made it. Autograd keeps what it needs by itself.
        output.Dispose();
        return sum.MoveToOuterDisposeScope();
    }
}

/// <summary>The one hook on a norm, and the adapters that change its weights.</summary>
internal sealed class NormHost
{
    private readonly List<(LoKrAdapter Adapter, LoKrNorm Norm)> _norms = [];
    private readonly IDisposable _hook;
    private LoKrNorm[] _running = [];

    public NormHost(NormBase target)
    {
        Target = target;
        _hook = ForwardHooks.OnTensor(target.Module, Adapt);
    }

    public NormBase Target { get; }

    /// <summary>Adapters on this norm in the order they were added.</summary>
    public IReadOnlyList<(LoKrAdapter Adapter, LoKrNorm Norm)> Norms => _norms;

    public void Add(LoKrAdapter adapter, LoKrNorm norm) => _norms.Add((adapter, norm));

    public void Remove(LoKrAdapter adapter) => _norms.RemoveAll(entry => ReferenceEquals(entry.Adapter, adapter));

    /// <summary>Decides who contributes from now on.</summary>
    public void SetRunning(IEnumerable<LoKrAdapter> adapters) => _running = [.. adapters
        .SelectMany(adapter => _norms.Where(entry => ReferenceEquals(entry.Adapter, adapter)).Select(static entry => entry.Norm))];

    public void Detach() => _hook.Dispose();

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

/// <summary>One adapter's copy of a module that it trains whole: parameters in the adapter's flat buffers, buffers beside them.</summary>
internal sealed class SavedModuleCopy(string moduleName, IReadOnlyDictionary<string, (FlatParameter Flat, int Index)> parameters, IReadOnlyDictionary<string, Tensor> buffers) : IDisposable
{
    public string ModuleName { get; } = moduleName;

    /// <summary>Local names of all tensors, parameters first.</summary>
    public IEnumerable<string> LocalNames => parameters.Keys.Concat(buffers.Keys);

    public bool IsParameter(string local) => parameters.ContainsKey(local);

    public Tensor Value(string local) => parameters.TryGetValue(local, out (FlatParameter Flat, int Index) place)
        ? place.Flat.Views[place.Index]
        : buffers[local];

    public Tensor Gradient(string local) => parameters[local].Flat.GradientViews[parameters[local].Index];

    public void Dispose()
    {
        foreach (Tensor buffer in buffers.Values)
        {
            buffer.Dispose();
        }
    }
}

/// <summary>
/// A module that adapters train whole (modules_to_save). The module stays what it is: its own parameters are pointed at an
/// adapter's trained copy while that adapter runs, and back at their original memory, which is kept, when it does not.
/// </summary>
internal sealed class SavedModuleHost : IDisposable
{
    private readonly Dictionary<string, Tensor> _originals = new(StringComparer.Ordinal);
    private readonly Dictionary<LoKrAdapter, SavedModuleCopy> _copies = [];

    public SavedModuleHost(string name, nn.Module module)
    {
        Name = name;
        Module = module;
        KeepOriginals();
    }

    public string Name { get; }

    public nn.Module Module { get; }

    /// <summary>Adapters that train a copy of this module.</summary>
    public IReadOnlyCollection<LoKrAdapter> Adapters => _copies.Keys;

    /// <summary>The adapter whose copy is in place, or null.</summary>
    public LoKrAdapter? Current { get; private set; }

    /// <summary>Original tensors by local name.</summary>
    public IReadOnlyDictionary<string, Tensor> Originals => _originals;

    public void Add(LoKrAdapter adapter, SavedModuleCopy copy) => _copies.Add(adapter, copy);

    public void Remove(LoKrAdapter adapter)
    {
        if (ReferenceEquals(Current, adapter))
        {
            Show(null);
        }

        _copies.Remove(adapter);
    }

    /// <summary>Puts an adapter's copy in place, or the original.</summary>
    public void Show(LoKrAdapter? adapter)
    {
        SavedModuleCopy? copy = adapter is null ? null : _copies[adapter];
        using IDisposable noGrad = no_grad();
        foreach ((string local, Tensor tensor) in Tensors())
        {
            // Integer buffers (a batch counter) take no gradient and must not be asked to.
            bool trained = copy is not null && adapter!.IsTrainable && copy.IsParameter(local);
            tensor.grad = null;
            tensor.requires_grad = false;
            tensor.set_(copy is null ? _originals[local] : copy.Value(local));
            if (trained)
            {
                tensor.requires_grad = true;
                tensor.grad = copy!.Gradient(local);
            }
        }

        Current = adapter;
    }

    /// <summary>Whether a full tensor name belongs to this module; gives the local one.</summary>
    public bool TryGetLocalName(string name, out string local)
    {
        bool below = name.StartsWith(Name + ".", StringComparison.Ordinal);
        local = below ? name[(Name.Length + 1)..] : "";
        return below && _originals.ContainsKey(local);
    }

    /// <summary>Makes the module's present tensors its originals, after the model was moved; originals must be in place, and copies be added anew.</summary>
    public void Renew()
    {
        Dispose();
        _copies.Clear();
        KeepOriginals();
    }

    public void Dispose()
    {
        foreach (Tensor original in _originals.Values)
        {
            original.Dispose();
        }
    }

    private void KeepOriginals()
    {
        using IDisposable noGrad = no_grad();
        foreach ((string local, Tensor tensor) in Tensors())
        {
            // Shares the memory, but not the identity, of the module's own tensor.
            _originals[local] = tensor.detach().DetachFromDisposeScope();
        }
    }

    private IEnumerable<(string Local, Tensor Tensor)> Tensors() => ModuleTree.Parameters(Module)
        .Select(static entry => (entry.Name, (Tensor)entry.Parameter))
        .Concat(ModuleTree.Buffers(Module).Select(static entry => (entry.Name, entry.Buffer)));
}
