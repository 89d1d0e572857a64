using LoKr.Core.Factors;
using LoKr.Core.Layers;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Model;

/// <summary>
/// The adapters, and the adapter files, that are merged into the base weights. The original of each changed weight stays on the CPU, so that the merge can
/// be undone bit for bit.
/// </summary>
internal sealed class MergeState : IDisposable
{
    private readonly Dictionary<string, SavedWeight> _originals = new(StringComparer.Ordinal);
    private readonly List<LoKrAdapter> _merged = [];
    private readonly List<string> _files = [];

    /// <summary>Merged adapters, in the order they were merged.</summary>
    public IReadOnlyList<LoKrAdapter> Merged => _merged;

    /// <summary>Full paths of the files and folders that were merged without becoming adapters of the model.</summary>
    public IReadOnlyList<string> Files => _files;

    /// <summary>The value of a weight before any merge, on the CPU; null for a weight that is not changed.</summary>
    /// <param name="name">Full name of the layer.</param>
    public Tensor? Original(string name) => _originals.GetValueOrDefault(name)?.Value;

    /// <summary>Adds changes into the weights, all or none. They count as merged when the result is committed.</summary>
    /// <param name="merged">What is merged, and was not before.</param>
    /// <param name="safe">Refuse results that are not finite.</param>
    /// <param name="cancellationToken">Checked before every weight.</param>
    public WeightMerge Begin(MergedChanges merged, bool safe, CancellationToken cancellationToken)
    {
        WeightMerge merge = new(this, merged);
        using IDisposable noGrad = no_grad();
        try
        {
            foreach ((string name, NamedChange[] changes) in Changes(merged, cancellationToken))
            {
                Tensor weight = changes[0].Change.Weight();
                SavedWeight before = merge.Save(name, changes[0].Change);
                Merge(changes, weight, _originals.GetValueOrDefault(name, before).Value, safe);
                if (!safe && NonFinite.Count(weight) is long count and > 0 && count - NonFinite.Count(before.Value) is long added and > 0)
                {
                    merge.AddWarning(ModelErrors.NotFinite(name, added, weight.dtype));
                }
            }

            return merge;
        }
        catch
        {
            merge.RollBack();
            throw;
        }
    }

    /// <summary>Throws what <see cref="Begin"/> would throw. No weight is changed: a result that has to be finite is computed on a copy.</summary>
    /// <inheritdoc cref="Begin"/>
    public void Check(MergedChanges merged, bool safe, CancellationToken cancellationToken)
    {
        using IDisposable noGrad = no_grad();
        foreach ((string name, NamedChange[] changes) in Changes(merged, cancellationToken))
        {
            if (safe)
            {
                using DisposeScope scope = NewDisposeScope();
                Tensor weight = changes[0].Change.Weight().detach();
                Merge(changes, weight.clone(), _originals.GetValueOrDefault(name)?.Value ?? weight.cpu(), safe);
            }
        }
    }

    /// <summary>Restores every original.</summary>
    public void Undo()
    {
        using IDisposable noGrad = no_grad();
        foreach (SavedWeight original in _originals.Values)
        {
            original.Restore();
        }

        Dispose();
    }

    /// <summary>Forgets the originals.</summary>
    public void Dispose()
    {
        foreach (SavedWeight original in _originals.Values)
        {
            original.Value.Dispose();
        }

        _originals.Clear();
        _merged.Clear();
        _files.Clear();
    }

    /// <summary>Takes over a merge: what was merged, and the originals of weights that were not changed before.</summary>
    internal void Commit(MergedChanges added, IReadOnlyDictionary<string, SavedWeight> changed)
    {
        foreach ((string name, SavedWeight before) in changed)
        {
            if (!_originals.TryAdd(name, before))
            {
                before.Value.Dispose();
            }
        }

        _merged.AddRange(added.Adapters);
        _files.AddRange(added.Files);
    }

    /// <summary>Changes by the name of the weight.</summary>
    private static IEnumerable<(string Name, NamedChange[] Changes)> Changes(MergedChanges added, CancellationToken cancellationToken)
    {
        foreach (IGrouping<string, NamedChange> group in added.Changes.GroupBy(static entry => entry.Change.Name, StringComparer.Ordinal))
        {
            cancellationToken.ThrowIfCancellationRequested();
            yield return group.First().Change.Weight().device_type == DeviceType.META ? throw ModelErrors.NoWeights() : (group.Key, [.. group]);
        }
    }

    /// <summary>Several changes add up in their own type, so that a weight of lower precision is rounded once.</summary>
    private static void Merge(NamedChange[] changes, Tensor weight, Tensor original, bool safe)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor sum = changes.Length > 1 ? weight.to(changes[0].Change.DType) : weight;
        foreach ((string adapter, WeightChange change) in changes)
        {
            change.MergeInto(sum, original);
            if (safe && !IsFinite(sum))
            {
                throw ModelErrors.MergeNotFinite(adapter, change.Name, weight.dtype, "no weight was changed");
            }
        }

        if (!ReferenceEquals(sum, weight) && sum.dtype != weight.dtype)
        {
            weight.copy_(sum);
            if (safe && !IsFinite(weight))
            {
                throw ModelErrors.MergeNotFinite(changes[^1].Adapter, changes[^1].Change.Name, weight.dtype, "no weight was changed");
            }
        }
    }

    private static bool IsFinite(Tensor weight)
    {
        using DisposeScope scope = NewDisposeScope();
        return weight.isfinite().all().ToBoolean();
    }
}

/// <summary>A finished change of base weights that can still be reverted.</summary>
internal sealed class WeightMerge(MergeState state, MergedChanges added)
{
    private readonly Dictionary<string, SavedWeight> _changed = new(StringComparer.Ordinal);
    private readonly List<string> _warnings = [];

    /// <summary>Warnings about the result.</summary>
    public IReadOnlyList<string> Warnings => _warnings;

    /// <summary>Number of weights that changed.</summary>
    public int WeightCount => _changed.Count;

    /// <summary>Counts the adapters as merged.</summary>
    public void Commit() => state.Commit(added, _changed);

    /// <summary>Restores the weights as they were before.</summary>
    public void RollBack()
    {
        using IDisposable noGrad = no_grad();
        foreach (SavedWeight before in _changed.Values)
        {
            before.Restore();
            before.Value.Dispose();
        }

        _changed.Clear();
    }

    /// <summary>Adds a warning about the result.</summary>
    internal void AddWarning(string warning) => _warnings.Add(warning);

    /// <summary>Saves a weight before it is changed.</summary>
    internal SavedWeight Save(string name, WeightChange change)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor detached = change.Weight().detach();
        Tensor value = (detached.device_type == DeviceType.CPU ? detached.clone() : detached.cpu()).DetachFromDisposeScope();
        return _changed[name] = new(change, value);
    }
}

/// <summary>Changes that a merge adds to the weights of a model.</summary>
/// <param name="Changes">The changes, each with the name of the adapter that makes it.</param>
internal sealed record MergedChanges(IReadOnlyList<NamedChange> Changes)
{
    /// <summary>Adapters of the model.</summary>
    public IReadOnlyList<LoKrAdapter> Adapters { get; init; } = [];

    /// <summary>Full paths of files and folders that do not become adapters of the model.</summary>
    public IReadOnlyList<string> Files { get; init; } = [];

    /// <summary>The changes of adapters of a model.</summary>
    public static MergedChanges Of(IReadOnlyList<LoKrAdapter> adapters) =>
        new([.. adapters.SelectMany(static adapter => WeightChange.Of(adapter).Select(change => new NamedChange(adapter.Name, change)))]) { Adapters = adapters };
}

/// <summary>A change of a weight.</summary>
/// <param name="Adapter">Name of the adapter, or of the file.</param>
/// <param name="Change">The change.</param>
internal readonly record struct NamedChange(string Adapter, WeightChange Change);

/// <summary>The value of a weight before a change, on the CPU.</summary>
internal sealed record SavedWeight(WeightChange Change, Tensor Value)
{
    /// <summary>Copies the value back.</summary>
    public void Restore() => Change.Weight().copy_(Value);
}

/// <summary>One base weight that an adapter changes.</summary>
/// <param name="Name">The full name of the layer, or of the parameter of a norm.</param>
/// <param name="Weight">The weight; looked up each time, because moving a model replaces parameters.</param>
/// <param name="DType">Type in which the change is held.</param>
/// <param name="MergeInto">Adds the change to the weight (first), in place, given the weight without any adapter (second).</param>
internal sealed record WeightChange(string Name, Func<TorchSharp.Modules.Parameter> Weight, ScalarType DType, Action<Tensor, Tensor> MergeInto)
{
    /// <summary>All weights that an adapter changes.</summary>
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
