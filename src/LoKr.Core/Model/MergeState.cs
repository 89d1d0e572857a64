using LoKr.Core.Errors;
using LoKr.Core.Layers;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Model;

/// <summary>Adds deltas into base weights and keeps the original of each changed weight on the CPU, so that a merge can be taken back bit for bit.</summary>
internal sealed class WeightMerger : IDisposable
{
    private readonly Dictionary<string, (WeightChange Target, Tensor Original)> _originals = new(StringComparer.Ordinal);
    private readonly List<LoKrAdapter> _merged = [];

    /// <summary>Merged adapters in the order they were merged.</summary>
    public IReadOnlyList<LoKrAdapter> Merged => _merged;

    /// <summary>Merges adapters, all or none.</summary>
    /// <returns>Number of weights that changed.</returns>
    public int Merge(IReadOnlyList<LoKrAdapter> adapters, bool safe)
    {
        Dictionary<string, (WeightChange Target, Tensor Before)> changed = new(StringComparer.Ordinal);
        using IDisposable noGrad = no_grad();
        try
        {
            foreach (IGrouping<string, (LoKrAdapter Adapter, WeightChange Target)> group in adapters
                .SelectMany(static adapter => WeightChange.Of(adapter).Select(target => (Adapter: adapter, Target: target))).GroupBy(static entry => entry.Target.Name, StringComparer.Ordinal))
            {
                WeightChange target = group.First().Target;
                Tensor weight = target.Weight();
                if (weight.device_type == DeviceType.META)
                {
                    throw new LoKrException(ErrorIds.ModelHasNoWeights, LoKrErrorKind.InvalidOperation, "The model was built without weights; there is nothing to merge into.", "Import it with its weights.");
                }

                Tensor before = Keep(weight);
                changed.Add(group.Key, (target, before));
                Merge([.. group], weight, _originals.TryGetValue(group.Key, out (WeightChange Target, Tensor Original) kept) ? kept.Original : before, safe);
            }
        }
        catch
        {
            foreach ((WeightChange target, Tensor before) in changed.Values)
            {
                target.Weight().copy_(before);
                before.Dispose();
            }

            throw;
        }

        foreach ((string name, (WeightChange Target, Tensor Before) entry) in changed)
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
        foreach ((WeightChange target, Tensor original) in _originals.Values)
        {
            target.Weight().copy_(original);
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

    /// <summary>Several changes add up in their own type, so that a weight of lower precision is rounded once.</summary>
    private static void Merge((LoKrAdapter Adapter, WeightChange Target)[] changes, Tensor weight, Tensor original, bool safe)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor sum = changes.Length > 1 ? weight.to(changes[0].Target.DType) : weight;
        foreach ((LoKrAdapter adapter, WeightChange target) in changes)
        {
            target.MergeInto(sum, original);
            if (safe && !IsFinite(sum))
            {
                throw NotFinite(adapter, target);
            }
        }

        if (!ReferenceEquals(sum, weight) && sum.dtype != weight.dtype)
        {
            weight.copy_(sum);
            if (safe && !IsFinite(weight))
            {
                throw NotFinite(changes[^1].Adapter, changes[^1].Target);
            }
        }
    }

    private static LoKrException NotFinite(LoKrAdapter adapter, WeightChange target) => new(ErrorIds.MergeNotFinite, LoKrErrorKind.InvalidData,
        $"Merging adapter '{adapter.Name}' would put NaN or infinity into '{target.Name}'; no weight was changed.", "The adapter seems to be broken; train it again with a lower learning rate.")
    { Target = target.Name };

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

/// <summary>One base weight that an adapter changes.</summary>
/// <param name="Name">What tells it from the others: the full name of the layer, or of the parameter of a norm.</param>
/// <param name="Weight">The weight; looked up each time, because moving a model replaces parameters.</param>
/// <param name="DType">Type in which the change is held.</param>
/// <param name="MergeInto">Adds the change to the weight (first), in place, given the weight without any adapter (second).</param>
internal sealed record WeightChange(string Name, Func<TorchSharp.Modules.Parameter> Weight, ScalarType DType, Action<Tensor, Tensor> MergeInto)
{
    /// <summary>All that an adapter changes.</summary>
    public static IEnumerable<WeightChange> Of(LoKrAdapter adapter)
    {
        foreach (LoKrLayer layer in adapter.Layers)
        {
            yield return new(layer.ModuleName, () => layer.BaseLayer.Weight, layer.Factors.DType, layer.MergeInto);
        }

        foreach (LoKrNorm norm in adapter.Norms)
        {
            yield return new(norm.ModuleName + ".weight", () => norm.Target.Weight, norm.Weight.dtype, (weight, _) => Add(weight, norm.Weight, norm.Scale));
            if (norm.Bias is Tensor change)
            {
                yield return new(norm.ModuleName + ".bias", () => norm.Target.Bias!, change.dtype, (bias, _) => Add(bias, change, norm.Scale));
            }
        }
    }

    private static void Add(Tensor weight, Tensor change, double scale)
    {
        using Tensor scaled = change * scale;
        using Tensor sum = weight + scaled;
        weight.copy_(sum);
    }
}
