using LoKr.Core.Adapters;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Merging;

/// <summary>Adds deltas into base weights and keeps the original of each changed weight on the CPU, so that a merge can be taken back bit for bit.</summary>
internal sealed class WeightMerger : IDisposable
{
    private readonly Dictionary<string, (BaseLayer Layer, Tensor Original)> _originals = new(StringComparer.Ordinal);
    private readonly List<LoKrAdapter> _merged = [];

    /// <summary>Merged adapters in the order they were merged.</summary>
    public IReadOnlyList<LoKrAdapter> Merged => _merged;

    /// <summary>Merges adapters, all or none.</summary>
    /// <returns>Number of weights that changed.</returns>
    public int Merge(IReadOnlyList<LoKrAdapter> adapters, bool safe)
    {
        Dictionary<string, (BaseLayer Layer, Tensor Before)> changed = new(StringComparer.Ordinal);
        using IDisposable noGrad = no_grad();
        try
        {
            foreach ((LoKrAdapter adapter, LoKrLayer layer) in adapters.SelectMany(static adapter => adapter.Layers.Select(layer => (adapter, layer))))
            {
                Tensor weight = layer.BaseLayer.Weight;
                if (weight.device_type == DeviceType.META)
                {
                    throw new LoKrException(ErrorIds.ModelHasNoWeights, LoKrErrorKind.InvalidOperation, "The model was built without weights; there is nothing to merge into.", "Import it with its weights.");
                }

                if (!changed.ContainsKey(layer.ModuleName))
                {
                    changed.Add(layer.ModuleName, (layer.BaseLayer, Keep(weight)));
                }

                layer.MergeInto(weight, _originals.TryGetValue(layer.ModuleName, out (BaseLayer Layer, Tensor Original) kept) ? kept.Original : changed[layer.ModuleName].Before);
                if (safe && !IsFinite(weight))
                {
                    throw new LoKrException(ErrorIds.MergeNotFinite, LoKrErrorKind.InvalidData,
                        $"Merging adapter '{adapter.Name}' would put NaN or infinity into '{layer.ModuleName}'; no weight was changed.", "The adapter seems to be broken; train it again with a lower learning rate.")
                    { Target = layer.ModuleName };
                }
            }
        }
        catch
        {
            foreach ((BaseLayer layer, Tensor before) in changed.Values)
            {
                layer.Weight.copy_(before);
                before.Dispose();
            }

            throw;
        }

        foreach ((string name, (BaseLayer Layer, Tensor Before) entry) in changed)
        {
            if (!_originals.TryAdd(name, entry))
            {
                // An earlier merge has kept the original; this one's starting point is not needed any more.
                entry.Before.Dispose();
            }
        }

        _merged.AddRange(adapters);
        return changed.Count;
    }

    /// <summary>Puts every original back.</summary>
    public void Undo()
    {
        using IDisposable noGrad = no_grad();
        foreach ((BaseLayer layer, Tensor original) in _originals.Values)
        {
            layer.Weight.copy_(original);
        }

        Clear();
    }

    /// <inheritdoc/>
    public void Dispose() => Clear();

    private void Clear()
    {
        foreach ((_, Tensor original) in _originals.Values)
        {
            original.Dispose();
        }

        _originals.Clear();
        _merged.Clear();
    }

    private static Tensor Keep(Tensor weight)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor detached = weight.detach();
        return (detached.device_type == DeviceType.CPU ? detached.clone() : detached.cpu()).DetachFromDisposeScope();
    }

    private static bool IsFinite(Tensor weight)
    {
        using DisposeScope scope = NewDisposeScope();
        return weight.isfinite().all().ToBoolean();
    }
}
