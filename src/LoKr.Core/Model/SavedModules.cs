using LoKr.Core.Layers;
using LoKr.Core.Nn;
using static TorchSharp.torch;

namespace LoKr.Core.Model;

/// <summary>Tensors of a module and those below it, by local name.</summary>
/// <param name="Parameters">Parameters.</param>
/// <param name="Buffers">Persistent buffers.</param>
internal sealed record ModuleTensors(IReadOnlyDictionary<string, Tensor> Parameters, IReadOnlyDictionary<string, Tensor> Buffers)
{
    /// <summary>The module's own tensors.</summary>
    public static ModuleTensors Of(nn.Module module) => new(
        ModuleTree.Parameters(module).ToDictionary(static entry => entry.Name, static entry => (Tensor)entry.Parameter, StringComparer.Ordinal),
        ModuleTree.Buffers(module).ToDictionary(static entry => entry.Name, static entry => entry.Buffer, StringComparer.Ordinal));

    /// <summary>Tensors that share the memory of these, but not their identity.</summary>
    public ModuleTensors Detach()
    {
        using IDisposable noGrad = no_grad();
        return new(Detach(Parameters), Detach(Buffers));

        static Dictionary<string, Tensor> Detach(IReadOnlyDictionary<string, Tensor> tensors) =>
            tensors.ToDictionary(static entry => entry.Key, static entry => entry.Value.detach().DetachFromDisposeScope(), StringComparer.Ordinal);
    }

    /// <summary>A tensor by its local name, or null.</summary>
    public Tensor? Find(string local) => Parameters.GetValueOrDefault(local) ?? Buffers.GetValueOrDefault(local);
}

/// <summary>One adapter's copy of a module that it trains whole: parameters in the adapter's flat buffers, buffers beside them.</summary>
internal sealed class SavedModuleCopy(string moduleName, IReadOnlyDictionary<string, FlatPlace> parameters, IReadOnlyDictionary<string, Tensor> buffers) : IDisposable
{
    public string ModuleName { get; } = moduleName;

    /// <summary>Local names of all tensors, parameters first.</summary>
    public IEnumerable<string> LocalNames => parameters.Keys.Concat(buffers.Keys);

    public bool IsParameter(string local) => parameters.ContainsKey(local);

    public Tensor Value(string local) => parameters.TryGetValue(local, out FlatPlace? place) ? place.Value : buffers[local];

    public Tensor Gradient(string local) => parameters[local].Gradient;

    /// <summary>Its parameters as parts of the adapter's flat buffers.</summary>
    public IEnumerable<FlatRange> Ranges => parameters.Values.Select(static place => place.Range);

    public void Dispose()
    {
        foreach (Tensor buffer in buffers.Values)
        {
            buffer.Dispose();
        }
    }
}

/// <summary>
/// A module that adapters train whole (modules_to_save). The module object stays: its parameters point at an adapter's trained copy while
/// that adapter runs, and at their original memory otherwise.
/// </summary>
internal sealed class SavedModuleHost(string name, nn.Module module) : IHost
{
    private readonly Dictionary<LoKrAdapter, SavedModuleCopy> _copies = [];

    public string Name { get; } = name;

    public nn.Module Module { get; } = module;

    public IEnumerable<LoKrAdapter> Adapters => _copies.Keys;

    /// <summary>The adapter whose copy is in place, or null.</summary>
    public LoKrAdapter? Current { get; private set; }

    /// <summary>Original tensors.</summary>
    public ModuleTensors Originals { get; private set; } = ModuleTensors.Of(module).Detach();

    /// <summary>Adds an adapter's copy, or replaces it.</summary>
    public void Set(LoKrAdapter adapter, SavedModuleCopy copy) => _copies[adapter] = copy;

    public void Remove(LoKrAdapter adapter)
    {
        if (ReferenceEquals(Current, adapter))
        {
            Show(null);
        }

        _copies.Remove(adapter);
    }

    public void Update(AdapterState state)
    {
        LoKrAdapter? owner = state.Enabled ? _copies.Keys.FirstOrDefault(adapter => state.Active.Contains(adapter) || state.Merged.Contains(adapter)) : null;
        if (!ReferenceEquals(owner, Current))
        {
            Show(owner);
        }
    }

    /// <summary>The module's tensor in the base model: the copy of a merged adapter, or the original.</summary>
    /// <param name="local">Local name.</param>
    /// <param name="merged">Merged adapters.</param>
    public Tensor? BaseTensor(string local, IReadOnlyList<LoKrAdapter> merged) =>
        Originals.Find(local) is Tensor original ? _copies.FirstOrDefault(entry => merged.Contains(entry.Key)).Value?.Value(local) ?? original : null;

    /// <summary>Puts an adapter's copy in place, or the original.</summary>
    public void Show(LoKrAdapter? adapter)
    {
        SavedModuleCopy? copy = adapter is null ? null : _copies[adapter];
        using IDisposable noGrad = no_grad();
        ModuleTensors tensors = ModuleTensors.Of(Module);
        foreach ((string local, Tensor tensor) in tensors.Parameters.Concat(tensors.Buffers))
        {
            // Integer buffers (a batch counter) take no gradient and must not be asked to.
            bool trained = copy is not null && adapter!.IsTrainable && copy.IsParameter(local);
            tensor.grad = null;
            tensor.requires_grad = false;
            tensor.set_(copy is null ? Originals.Find(local)! : copy.Value(local));
            if (trained)
            {
                tensor.requires_grad = true;
                tensor.grad = copy!.Gradient(local);
            }
        }

        Current = adapter;
    }

    /// <summary>Takes the module's present tensors as the originals, after the model was moved while they were in place.</summary>
    public void TakeOriginals()
    {
        ReleaseOriginals();
        Originals = ModuleTensors.Of(Module).Detach();
    }

    public void Dispose()
    {
        if (Current is not null)
        {
            Show(null);
        }

        ReleaseOriginals();
    }

    private void ReleaseOriginals()
    {
        foreach (Tensor original in Originals.Parameters.Values.Concat(Originals.Buffers.Values))
        {
            original.Dispose();
        }
    }
}
