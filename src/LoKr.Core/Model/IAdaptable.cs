using System.Diagnostics;
using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Factors;
using LoKr.Core.Layers;
using LoKr.Core.Nn;
using LoKr.Core.Targeting;
using static TorchSharp.torch;

namespace LoKr.Core.Model;

/// <summary>
/// One model, or a pipeline of several, that carries adapters. <see cref="AdaptableExtensions"/> adds, activates, merges and removes adapters
/// on all components together, so that callers do not ask which of the two they hold.
/// </summary>
public interface IAdaptable : IDisposable
{
    /// <summary>Class name of the model or the pipeline.</summary>
    string Name { get; }

    /// <summary>Folder that it was read from, or null.</summary>
    string? SourcePath { get; }

    /// <summary>
    /// The models that take adapters, by the names of their folders (<c>text_encoder</c>, <c>unet</c>). A single model is its own only
    /// component, under the empty name.
    /// </summary>
    IReadOnlyDictionary<string, LoKrModel> Models { get; }

    /// <summary>Device of the model, or of the main component.</summary>
    Device Device { get; }

    /// <summary>Element type of the model, or of the main component.</summary>
    ScalarType DType { get; }

    /// <summary>Result of the last training run on its adapters, or null.</summary>
    LoKrTrainingResult? LastTraining { get; set; }

    /// <summary>Trainable and total parameters; the total includes components that take no adapters.</summary>
    ParameterCount CountParameters();
}

/// <summary>
/// Operations on all components of an <see cref="IAdaptable"/>. Adapters of one name on several components belong together; a component
/// without an adapter of a given name is left out. Every operation changes all components or, when it throws, none.
/// </summary>
public static class AdaptableExtensions
{
    /// <summary>Names of all adapters, each once, in the order of components and of addition.</summary>
    public static IReadOnlyList<string> GetAdapterNames(this IAdaptable target) => Distinct(target, static model => model.Adapters.Select(static adapter => adapter.Name));

    /// <summary>Names of the adapters that are active on any component.</summary>
    public static IReadOnlyList<string> GetActiveAdapters(this IAdaptable target) => Distinct(target, static model => model.ActiveAdapters);

    /// <summary>Names of the adapters that are merged into any component.</summary>
    public static IReadOnlyList<string> GetMergedAdapters(this IAdaptable target) => Distinct(target, static model => model.MergedAdapters);

    /// <summary>The adapters of a name, by component.</summary>
    /// <exception cref="LoKrException"><see cref="ErrorIds.AdapterNotFound"/>: no component has one.</exception>
    public static IReadOnlyDictionary<string, LoKrAdapter> GetAdapters(this IAdaptable target, string name)
    {
        CheckNames(target, [name]);
        return target.Models.Where(part => Has(part.Value, name)).ToDictionary(static part => part.Key, part => part.Value.GetAdapter(name), StringComparer.Ordinal);
    }

    /// <summary>The one name that the active adapters of all components have.</summary>
    /// <exception cref="LoKrException"><see cref="ErrorIds.AdapterAmbiguous"/> for none or several.</exception>
    public static string GetOnlyActiveAdapterName(this IAdaptable target)
    {
        IReadOnlyList<string> active = target.GetActiveAdapters();
        return active.Count == 1 ? active[0] : throw ModelErrors.NotOneActive(target.Name, active, target);
    }

    /// <summary>
    /// Adds a fresh adapter to every component in which the configuration targets something. A list of target modules is split: each component
    /// gets the entries that match a module of its own.
    /// </summary>
    /// <param name="target">The model or the pipeline.</param>
    /// <param name="config">The configuration.</param>
    /// <param name="name">Name of the adapters.</param>
    /// <param name="seed">Seed of the initialization of each component; null draws from torch's global generator.</param>
    /// <param name="restart">Whether adapters of this name and configuration on which no training has ended well are replaced.</param>
    /// <returns>The adapters by component.</returns>
    /// <exception cref="LoKrException">As for <see cref="LoKrModel.AddAdapter"/>; that of the first component if nothing is targeted in any.</exception>
    public static IReadOnlyDictionary<string, LoKrAdapter> AddAdapter(
        this IAdaptable target, LoKrConfig config, string name = "default", long? seed = null, bool restart = false)
    {
        ArgumentNullException.ThrowIfNull(target);
        ArgumentNullException.ThrowIfNull(config);
        using ModelUses uses = ModelUses.Change(target.Models.Values, "changed");
        Dictionary<string, LoKrAdapter> added = new(StringComparer.Ordinal);
        try
        {
            InEachComponent(target, config, added, (model, own) => model.AddAdapter(own, name, seed, restart));
            return added;
        }
        catch
        {
            foreach (string component in added.Keys)
            {
                target.Models[component].RemoveAdapter(name);
            }

            throw;
        }
    }

    /// <summary>Throws what <see cref="AddAdapter"/> would throw. Nothing is changed.</summary>
    /// <param name="target">The model or the pipeline.</param>
    /// <param name="config">The configuration.</param>
    /// <param name="name">Name of the adapters.</param>
    /// <param name="restart">As for <see cref="AddAdapter"/>.</param>
    /// <exception cref="LoKrException">As for <see cref="AddAdapter"/>.</exception>
    public static void CheckAddAdapter(this IAdaptable target, LoKrConfig config, string name = "default", bool restart = false)
    {
        ArgumentNullException.ThrowIfNull(target);
        ArgumentNullException.ThrowIfNull(config);
        InEachComponent(target, config, [], (model, own) =>
        {
            model.CheckAddAdapter(own, name, restart);
            return true;
        });
    }

    /// <summary>Makes exactly these adapters active on every component that has them. Takes a merge back first.</summary>
    /// <param name="target">The model or the pipeline.</param>
    /// <param name="names">Names; none leaves every adapter idle.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.AdapterNotFound"/>, <see cref="ErrorIds.SavedModuleConflict"/>.</exception>
    public static void SetActiveAdapters(this IAdaptable target, IReadOnlyList<string> names)
    {
        CheckNames(target, names);
        using ModelUses uses = ModelUses.Change(target.Models.Values, "changed");
        (LoKrModel Model, string[] Names)[] parts = [.. target.Models.Values.Select(model => (model, names.Where(name => Has(model, name)).ToArray()))];
        foreach ((LoKrModel model, string[] own) in parts)
        {
            model.CheckCanActivate(own);
        }

        foreach ((LoKrModel model, string[] own) in parts)
        {
            model.SetActiveAdapters(own);
        }
    }

    /// <summary>Lets adapters take part in the forward pass of every component, or not. Switching them off takes a merge back first.</summary>
    public static void SetAdaptersEnabled(this IAdaptable target, bool enabled)
    {
        ArgumentNullException.ThrowIfNull(target);
        using ModelUses uses = ModelUses.Change(target.Models.Values, "changed");
        foreach (LoKrModel model in target.Models.Values)
        {
            model.SetAdaptersEnabled(enabled);
        }
    }

    /// <summary>Sets the strength of adapters on every component that has them; 1 is as trained.</summary>
    /// <exception cref="LoKrException">As for <see cref="LoKrModel.SetAdapterScale"/>.</exception>
    public static void SetAdapterScale(this IAdaptable target, IReadOnlyList<string> names, double scale)
    {
        CheckNames(target, names);
        using ModelUses uses = ModelUses.Change(target.Models.Values, "changed");
        (LoKrModel Model, string[] Names)[] parts = [.. target.Models.Values.Select(model => (model, names.Where(name => Has(model, name)).ToArray()))];
        foreach ((LoKrModel model, string[] own) in parts)
        {
            model.CheckCanScale(own, scale);
        }

        foreach ((LoKrModel model, string[] own) in parts)
        {
            model.SetAdapterScale(own, scale);
        }
    }

    /// <summary>Sets what the strength of adapters means where they have DoRA, on every component that has them.</summary>
    /// <param name="target">The model or the pipeline.</param>
    /// <param name="names">Names of the adapters; all are checked before any changes.</param>
    /// <param name="strength">The meaning.</param>
    /// <exception cref="LoKrException">
    /// <see cref="ErrorIds.AdapterNotFound"/>, <see cref="ErrorIds.AdapterMerged"/>; <see cref="ErrorIds.InvalidArgument"/> if none of them has DoRA.
    /// </exception>
    public static void SetDoraStrength(this IAdaptable target, IReadOnlyList<string> names, DoraStrength strength)
    {
        CheckNames(target, names);
        using ModelUses uses = ModelUses.Change(target.Models.Values, "changed");
        foreach (LoKrModel model in target.Models.Values)
        {
            model.CheckNotMerged([.. names.Where(name => Has(model, name))]);
        }

        LoKrAdapter[] adapters = [.. names.SelectMany(name => target.GetAdapters(name).Values)];
        if (!adapters.Any(static adapter => adapter.HasDora))
        {
            throw ModelErrors.NoDora(names);
        }

        foreach (LoKrAdapter adapter in adapters)
        {
            adapter.DoraStrength = strength;
        }
    }

    /// <summary>Lets the adapters of a name take gradients while they are active, or not.</summary>
    /// <exception cref="LoKrException"><see cref="ErrorIds.AdapterNotFound"/>.</exception>
    public static void SetAdapterTrainable(this IAdaptable target, string name, bool trainable)
    {
        ArgumentNullException.ThrowIfNull(target);
        using ModelUses uses = ModelUses.Change(target.Models.Values, "changed");
        foreach (string component in target.GetAdapters(name).Keys)
        {
            target.Models[component].SetAdapterTrainable(name, trainable);
        }
    }

    /// <summary>Removes the adapters of a name from every component that has one.</summary>
    /// <exception cref="LoKrException"><see cref="ErrorIds.AdapterNotFound"/>, <see cref="ErrorIds.AdapterMerged"/>.</exception>
    public static void RemoveAdapter(this IAdaptable target, string name)
    {
        ArgumentNullException.ThrowIfNull(target);
        using ModelUses uses = ModelUses.Change(target.Models.Values, "changed");
        LoKrModel[] models = [.. target.GetAdapters(name).Keys.Select(component => target.Models[component])];
        foreach (LoKrModel model in models)
        {
            model.CheckNotMerged([name]);
        }

        foreach (LoKrModel model in models)
        {
            model.RemoveAdapter(name);
        }
    }

    /// <summary>Adds the deltas of adapters into the base weights of every component that has them.</summary>
    /// <param name="target">The model or the pipeline.</param>
    /// <param name="names">Names; null for the adapters that are active on each component.</param>
    /// <param name="safe">Refuse results that are not finite.</param>
    /// <param name="cancellationToken">Checked before every weight; all weights are as before.</param>
    /// <returns>The sums over all components.</returns>
    /// <exception cref="LoKrException">As for <see cref="LoKrModel.Merge"/>.</exception>
    public static LoKrMergeResult Merge(this IAdaptable target, IReadOnlyList<string>? names = null, bool safe = false, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(target);
        using ModelUses uses = ModelUses.Change(target.Models.Values, "merged");
        return MergeAll(ToMerge(target, names).Select(part => part.Model.BeginMerge(part.Names, safe, cancellationToken)));
    }

    /// <summary>Commits merges of several components when all of them have begun, and reverts them when one of them fails.</summary>
    /// <param name="merges">A deferred sequence, each element of which begins a merge.</param>
    internal static LoKrMergeResult MergeAll(IEnumerable<PendingMerge> merges)
    {
        long started = Stopwatch.GetTimestamp();
        List<PendingMerge> pending = [];
        try
        {
            foreach (PendingMerge merge in merges)
            {
                pending.Add(merge);
            }
        }
        catch
        {
            foreach (PendingMerge merge in pending)
            {
                merge.Merge.RollBack();
            }

            throw;
        }

        LoKrMergeResult[] results = [.. pending.Select(static merge => merge.Commit())];
        return new()
        {
            Adapters = [.. results.SelectMany(static result => result.Adapters).Distinct(StringComparer.Ordinal)],
            ModuleCount = results.Sum(static result => result.ModuleCount),
            SavedModuleCount = results.Sum(static result => result.SavedModuleCount),
            Warnings = [.. results.SelectMany(static result => result.Warnings)],
            Elapsed = Stopwatch.GetElapsedTime(started),
        };
    }

    /// <summary>Throws what <see cref="Merge"/> would throw. No weight is changed; with <paramref name="safe"/> every result is computed on a copy.</summary>
    /// <inheritdoc cref="Merge"/>
    public static void CheckMerge(this IAdaptable target, IReadOnlyList<string>? names = null, bool safe = false, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(target);
        using ModelUses uses = ModelUses.Change(target.Models.Values, "merged");
        foreach ((LoKrModel model, string[]? own) in ToMerge(target, names))
        {
            model.CheckMerge(own, safe, cancellationToken);
        }
    }

    /// <summary>Takes every merged adapter out of every component; the base weights are bit for bit as before.</summary>
    /// <exception cref="LoKrException"><see cref="ErrorIds.NothingToMerge"/>: no adapter is merged.</exception>
    public static void UndoMerge(this IAdaptable target)
    {
        ArgumentNullException.ThrowIfNull(target);
        using ModelUses uses = ModelUses.Change(target.Models.Values, "merged");
        foreach (LoKrModel model in ToUndo(target))
        {
            model.UndoMerge();
        }
    }

    /// <summary>Throws what <see cref="UndoMerge"/> would throw. Nothing is changed.</summary>
    /// <exception cref="LoKrException">As for <see cref="UndoMerge"/>.</exception>
    public static void CheckUndoMerge(this IAdaptable target)
    {
        ArgumentNullException.ThrowIfNull(target);
        using ModelUses uses = ModelUses.Change(target.Models.Values, "merged");
        foreach (LoKrModel model in ToUndo(target))
        {
            model.CheckUndoMerge();
        }
    }

    /// <summary>
    /// Begins to read the weights, to write them to a file, say. Others may read or run the model meanwhile; whoever trains or changes it is
    /// refused, and so is this while it is being trained or changed.
    /// </summary>
    /// <param name="target">The model or the pipeline.</param>
    /// <returns>Ends the reading; to be disposed on the same thread.</returns>
    /// <exception cref="LoKrException"><see cref="ErrorIds.ModelBusy"/>, <see cref="ErrorIds.ModelDisposed"/>.</exception>
    public static IDisposable BeginReading(this IAdaptable target)
    {
        ArgumentNullException.ThrowIfNull(target);
        return ModelUses.Run(target.Models.Values, "read");
    }

    /// <summary>Every adapter of every component with its state.</summary>
    public static IReadOnlyList<LoKrAdapterStatus> GetAdapterStatus(this IAdaptable target)
    {
        ArgumentNullException.ThrowIfNull(target);
        return [.. target.Models.Values.SelectMany(static model => model.GetAdapterStatus())];
    }

    /// <summary>Every adapted layer of every component; names begin with the component.</summary>
    /// <exception cref="LoKrException"><see cref="ErrorIds.AdapterNotFound"/>: no component has an adapter.</exception>
    public static IReadOnlyList<LoKrLayerStatus> GetLayerStatus(this IAdaptable target)
    {
        ArgumentNullException.ThrowIfNull(target);
        if (target.GetAdapterNames().Count == 0)
        {
            throw ModelErrors.NoAdapters(target.Name);
        }

        return [.. target.Models.Where(static part => part.Value.Adapters.Count > 0)
            .SelectMany(static part => part.Value.GetLayerStatus().Select(layer => layer with { Name = ModuleTree.Join(part.Key, layer.Name) }))];
    }

    /// <summary>All adapted layers of all components together.</summary>
    /// <exception cref="LoKrException"><see cref="ErrorIds.AdapterNotFound"/>: no component has an adapter.</exception>
    public static LoKrModelStatus GetModelStatus(this IAdaptable target) =>
        LoKrModelStatus.Combine(target.GetLayerStatus(), target.Name, target.GetAdapterNames(), target.CountParameters());

    /// <summary>Every module of every component with its adapters; names begin with the component.</summary>
    public static IReadOnlyList<LoKrModuleInfo> GetModules(this IAdaptable target)
    {
        ArgumentNullException.ThrowIfNull(target);
        return [.. target.Models.SelectMany(static part => part.Value.GetModules().Select(module => module with { Name = ModuleTree.Join(part.Key, module.Name) }))];
    }

    /// <summary>Names of the modules of all components within their component, without reading any weight; each once.</summary>
    /// <param name="target">The model or the pipeline.</param>
    /// <param name="adaptable">Only modules that can take an adapter.</param>
    public static IReadOnlyList<string> GetModuleNames(this IAdaptable target, bool adaptable = false)
    {
        ArgumentNullException.ThrowIfNull(target);
        return Distinct(target, model => ModuleTree.Places(model.Module).Where(place => !adaptable || BaseLayer.TryCreate(place) is not null).Select(static place => place.Name));
    }

    /// <summary>Lists what <see cref="AddAdapter"/> would change in each component. Nothing is allocated.</summary>
    /// <exception cref="LoKrException">As for <see cref="AddAdapter"/>.</exception>
    internal static IReadOnlyDictionary<string, AdapterPlan> PlanAdapter(this IAdaptable target, LoKrConfig config)
    {
        Dictionary<string, AdapterPlan> plans = new(StringComparer.Ordinal);
        InEachComponent(target, config, plans, static (model, own) => AdapterPlanner.PlanNew(model.Module, own, model.FreshModules));
        return plans;
    }

    /// <summary>Does something in every component in which a configuration targets something; nothing in any is an error.</summary>
    /// <param name="target">The model or the pipeline.</param>
    /// <param name="config">The configuration.</param>
    /// <param name="done">Takes the results by component as they come, so that a caller can revert them after an error.</param>
    /// <param name="apply">The work, with the configuration of a component.</param>
    private static void InEachComponent<T>(IAdaptable target, LoKrConfig config, Dictionary<string, T> done, Func<LoKrModel, LoKrConfig, T> apply)
    {
        LoKrException? nothing = null;
        foreach ((string component, LoKrModel model) in target.Models)
        {
            if (ForComponent(target, model, config) is not LoKrConfig own)
            {
                continue;
            }

            try
            {
                done.Add(component, apply(model, own));
            }
            catch (LoKrException exception) when (exception.ErrorId is ErrorIds.TargetModuleNotFound or ErrorIds.TargetModulesRequired)
            {
                nothing ??= exception;
            }
        }

        if (done.Count == 0)
        {
            throw target.Models.Count > 1 && nothing!.ErrorId == ErrorIds.TargetModulesRequired ? ModelErrors.TargetsRequired(target) : nothing!;
        }
    }

    // A component that has nothing left to merge is left out, unless none has: its own error then says why.
    private static (LoKrModel Model, string[]? Names)[] ToMerge(IAdaptable target, IReadOnlyList<string>? names)
    {
        if (names is not null)
        {
            CheckNames(target, names);
        }

        (LoKrModel Model, string[]? Names)[] all = [.. target.Models.Values.Select(model => (model, names?.Where(name => Has(model, name)).ToArray()))];
        (LoKrModel Model, string[]? Names)[] some = [.. all.Where(static part => (part.Names ?? part.Model.ActiveAdapters).Except(part.Model.MergedAdapters, StringComparer.Ordinal).Any())];
        return some.Length > 0 ? some : all;
    }

    // As for a merge.
    private static LoKrModel[] ToUndo(IAdaptable target)
    {
        LoKrModel[] merged = [.. target.Models.Values.Where(static model => model.MergedAdapters.Count > 0)];
        return merged.Length > 0 ? merged : [.. target.Models.Values];
    }

    private static string[] Distinct(IAdaptable target, Func<LoKrModel, IEnumerable<string>> names)
    {
        ArgumentNullException.ThrowIfNull(target);
        return [.. target.Models.Values.SelectMany(names).Distinct(StringComparer.Ordinal)];
    }

    private static bool Has(LoKrModel model, string name) => model.HasAdapter(name);

    private static void CheckNames(IAdaptable target, IReadOnlyList<string> names)
    {
        ArgumentNullException.ThrowIfNull(target);
        ArgumentNullException.ThrowIfNull(names);
        IReadOnlyList<string> known = target.GetAdapterNames();
        if (names.FirstOrDefault(name => !known.Contains(name, StringComparer.Ordinal)) is string unknown)
        {
            throw ModelErrors.NotFound(unknown, known);
        }
    }

    /// <summary>
    /// The configuration with the entries that match a module of a component, or null where no target is left. An entry that matches in no
    /// component stays, so that it is reported.
    /// </summary>
    private static LoKrConfig? ForComponent(IAdaptable target, LoKrModel model, LoKrConfig config)
    {
        if (target.Models.Count == 1)
        {
            return config;
        }

        bool Belongs(string entry) =>
            ModuleAliases.Matches(model.Module, entry) || !target.Models.Values.Any(part => ModuleAliases.Matches(part.Module, entry));
        ModuleSelector? targets = config.TargetModules?.Names is { Count: > 0 } names ? ModuleSelector.FromNames(names.Where(Belongs)) : config.TargetModules;
        return targets is { Names.Count: 0 } && config.TargetModules is { Names.Count: > 0 } ? null : config with
        {
            TargetModules = targets,
            ModulesToSave = config.ModulesToSave is { Count: > 0 } saved ? [.. saved.Where(Belongs)] : config.ModulesToSave,
        };
    }
}
