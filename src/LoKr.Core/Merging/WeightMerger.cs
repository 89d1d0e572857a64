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
            foreach (IGrouping<string, (LoKrAdapter Adapter, LoKrLayer Layer)> module in adapters
                .SelectMany(static adapter => adapter.Layers.Select(layer => (Adapter: adapter, Layer: layer))).GroupBy(static entry => entry.Layer.ModuleName, StringComparer.Ordinal))
            {
                BaseLayer layer = module.First().Layer.BaseLayer;
                if (layer.Weight.device_type == DeviceType.META)
                {
                    throw new LoKrException(ErrorIds.ModelHasNoWeights, LoKrErrorKind.InvalidOperation, "The model was built without weights; there is nothing to merge into.", "Import it with its weights.");
                }

                Tensor before = Keep(layer.Weight);
                changed.Add(module.Key, (layer, before));
                Merge([.. module], layer.Weight, _originals.TryGetValue(module.Key, out (BaseLayer Layer, Tensor Original) kept) ? kept.Original : before, safe);
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

    /// <summary>Several deltas add up in the type of the factors, so that a weight of lower precision is rounded once.</summary>
    private static void Merge((LoKrAdapter Adapter, LoKrLayer Layer)[] layers, Tensor weight, Tensor original, bool safe)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor sum = layers.Length > 1 ? weight.to(layers[0].Layer.Factors.DType) : weight;
        foreach ((LoKrAdapter adapter, LoKrLayer layer) in layers)
        {
            layer.MergeInto(sum, original);
            if (safe && !IsFinite(sum))
            {
                throw NotFinite(adapter, layer);
            }
        }

        if (!ReferenceEquals(sum, weight) && sum.dtype != weight.dtype)
        {
            weight.copy_(sum);
            if (safe && !IsFinite(weight))
            {
                throw NotFinite(layers[^1].Adapter, layers[^1].Layer);
            }
        }
    }

    private static LoKrException NotFinite(LoKrAdapter adapter, LoKrLayer layer) => new(ErrorIds.MergeNotFinite, LoKrErrorKind.InvalidData,
        $"Merging adapter '{adapter.Name}' would put NaN or infinity into '{layer.ModuleName}'; no weight was changed.", "The adapter seems to be broken; train it again with a lower learning rate.")
    { Target = layer.ModuleName };

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
