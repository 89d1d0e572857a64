using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Adapters;

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
