using System.Diagnostics;
using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Factors;
using LoKr.Core.IO;
using LoKr.Core.Layers;
using LoKr.Core.Nn;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Model;

/// <summary>
/// A model with its adapters: any <c>torch.nn.Module</c>, the folder it came from, adapters by name, which are active, enabled and merged.
/// Owns the module. Several threads may run it at once; while one trains or changes it, every other is refused
/// (<see cref="ErrorIds.ModelBusy"/>), and after <see cref="Dispose"/> everyone is (<see cref="ErrorIds.ModelDisposed"/>).
/// </summary>
public sealed class LoKrModel : IAdaptable
{
    private readonly HostSet _hosts = new();
    private readonly MergeState _merges = new();
    private readonly AdapterSet _adapters;
    private readonly ModelInspector _inspector;

    /// <summary>Wraps a module.</summary>
    /// <param name="module">The model. It is not changed: adapters are attached by hooks.</param>
    /// <param name="sourcePath">Folder it was read from, if any.</param>
    /// <param name="tokenizer">Its tokenizer, if any.</param>
    /// <param name="freshParameters">Full names of the parameters that its checkpoint lacked and that have random values, if any.</param>
    /// <param name="fingerprint">The <see cref="Safetensors.CheckpointFingerprint"/> of its checkpoint, if any.</param>
    public LoKrModel(
        nn.Module module, string? sourcePath = null, ITextTokenizer? tokenizer = null, IReadOnlyList<string>? freshParameters = null, string? fingerprint = null)
    {
        ArgumentNullException.ThrowIfNull(module);
        (Module, SourcePath, Tokenizer) = (module, sourcePath, tokenizer);
        FreshModules = ValueList.Of(Targeting.FreshModules.Of(freshParameters ?? []));
        Identity = new(fingerprint, Pretrained is { } pretrained ? ModelLabels.FindNamed(pretrained.Config) : null);
        Use = new(this);
        _adapters = new(module, _hosts, _merges, Identity, FreshModules);
        _inspector = new(this, _adapters, _hosts, _merges);
    }

    /// <summary>The base module.</summary>
    public nn.Module Module { get; }

    /// <summary>The module as a Hugging Face model, or null for a module made in a script.</summary>
    public IPretrainedModel? Pretrained => Module as IPretrainedModel;

    /// <summary>Class name of the model.</summary>
    public string Name => Pretrained?.Architecture ?? Module.GetType().Name;

    /// <summary><c>model_type</c>, or null.</summary>
    public string? ModelType => Pretrained?.ModelType;

    /// <summary>Folder the model was read from, or null.</summary>
    public string? SourcePath { get; }

    /// <summary>Tokenizer of the folder, or null.</summary>
    public ITextTokenizer? Tokenizer { get; }

    /// <summary>Identity of the model among others of its architecture: the fingerprint of its checkpoint, and its labels.</summary>
    public ModelIdentity Identity { get; }

    /// <summary>
    /// Full names of the modules that the checkpoint lacked and that got random values when the model was loaded, such as a new head. A new
    /// adapter trains and saves them (PEFT <c>modules_to_save</c>), unless its <see cref="LoKrConfig.ModulesToSave"/> is empty, not null.
    /// </summary>
    public IReadOnlyList<string> FreshModules { get; }

    /// <summary>Whether the model was disposed.</summary>
    public bool IsDisposed => Use.IsDisposed;

    /// <summary>Device of the first parameter; the CPU for a model without parameters.</summary>
    public Device Device => Alive.parameters().FirstOrDefault()?.device ?? CPU;

    /// <summary>Type of the first floating-point parameter; float32 for a model without one.</summary>
    public ScalarType DType => Alive.parameters().FirstOrDefault(static parameter => parameter.is_floating_point())?.dtype ?? ScalarType.Float32;

    /// <summary>Adapters in the order they were added.</summary>
    public IReadOnlyList<LoKrAdapter> Adapters => ValueList.Of(_adapters.All);

    /// <summary>Names of the active adapters.</summary>
    public IReadOnlyList<string> ActiveAdapters => ValueList.Of([.. _adapters.Active.Select(static adapter => adapter.Name)]);

    /// <summary>Names of the adapters merged into the base weights, and of the files that were merged without becoming adapters of the model.</summary>
    public IReadOnlyList<string> MergedAdapters => ValueList.Of([.. _merges.Merged.Select(static adapter => adapter.Name), .. _merges.Files.Select(static path => Path.GetFileName(path))]);

    /// <summary>Whether adapters take part in the forward pass.</summary>
    public bool AdaptersEnabled => _adapters.Enabled;

    /// <summary>Result of the last training run on this model, or null.</summary>
    public LoKrTrainingResult? LastTraining { get; set; }

    /// <summary>Result of the last merge, or null.</summary>
    public LoKrMergeResult? LastMerge { get; private set; }

    /// <summary>Who uses the model.</summary>
    internal ModelUse Use { get; }

    private ModelInspector Inspector
    {
        get
        {
            Use.RequireAlive();
            return _inspector;
        }
    }

    private nn.Module Alive
    {
        get
        {
            Use.RequireAlive();
            return Module;
        }
    }

    IReadOnlyDictionary<string, LoKrModel> IAdaptable.Models => ValueList.Of(new Dictionary<string, LoKrModel>(StringComparer.Ordinal) { [""] = this });

    /// <summary>Adds an adapter with initial values; the first one becomes active, later ones by <see cref="SetActiveAdapters"/>.</summary>
    /// <param name="config">Its configuration; a null TargetModules takes the default of the architecture.</param>
    /// <param name="name">Its name.</param>
    /// <param name="seed">Seed of the initialization; null draws from torch's global generator.</param>
    /// <param name="restart">
    /// Whether an adapter of the same name and configuration on which no training has ended well is replaced, so that a program whose training
    /// failed can run again as it stands. Without it every adapter of that name is an error.
    /// </param>
    /// <exception cref="LoKrException">The configuration or the name cannot be used; the model is as before.</exception>
    public LoKrAdapter AddAdapter(LoKrConfig config, string name = "default", long? seed = null, bool restart = false)
    {
        using IDisposable use = Use.Change("changed");
        return _adapters.Add(config, name, seed, restart);
    }

    /// <summary>Throws what <see cref="AddAdapter"/> would throw. Nothing is changed.</summary>
    /// <param name="config">The configuration.</param>
    /// <param name="name">The name.</param>
    /// <param name="restart">As for <see cref="AddAdapter"/>.</param>
    internal void CheckAddAdapter(LoKrConfig config, string name, bool restart)
    {
        using IDisposable use = Use.Change("changed");
        _adapters.CheckAdd(config, name, restart);
    }

    /// <summary>Adds an adapter whose tensors were read from a file; the first one becomes active, later ones by <see cref="SetActiveAdapters"/>.</summary>
    /// <param name="config">Its configuration.</param>
    /// <param name="tensors">Tensors by module name and suffix, without <c>base_model.model.</c>, as <see cref="LoKrAdapter.GetTensors"/> names them, or with the published names of modules (<see cref="IModuleAliases"/>); they are copied.</param>
    /// <param name="name">Its name.</param>
    /// <param name="trainable">Whether it takes gradients while it is active.</param>
    /// <exception cref="LoKrException">The tensors do not fit the configuration and the model (LoKr.AdapterKeysMismatch, LoKr.AdapterShapeMismatch); the model is as before.</exception>
    public LoKrAdapter LoadAdapter(LoKrConfig config, IReadOnlyDictionary<string, Tensor> tensors, string name = "default", bool trainable = true)
    {
        ArgumentNullException.ThrowIfNull(tensors);
        using IDisposable use = Use.Change("changed");
        return _adapters.Load(config, tensors, name, trainable);
    }

    /// <summary>Throws what <see cref="LoadAdapter"/> would throw. Nothing is changed.</summary>
    internal void CheckLoadAdapter(LoKrConfig config, IReadOnlyDictionary<string, Tensor> tensors, string name, bool trainable)
    {
        using IDisposable use = Use.Change("changed");
        _adapters.CheckLoad(config, tensors, name, trainable);
    }

    /// <summary>The adapter of a name.</summary>
    /// <exception cref="LoKrException"><see cref="ErrorIds.AdapterNotFound"/>, with the names that there are.</exception>
    public LoKrAdapter GetAdapter(string name)
    {
        Use.RequireAlive();
        return _adapters.Get(name);
    }

    /// <summary>The adapter that is the only active one.</summary>
    /// <exception cref="LoKrException"><see cref="ErrorIds.AdapterAmbiguous"/> for none or several.</exception>
    public LoKrAdapter GetOnlyActiveAdapter()
    {
        Use.RequireAlive();
        return _adapters.Active is [LoKrAdapter only] ? only : throw ModelErrors.NotOneActive(Name, ActiveAdapters, this);
    }

    /// <summary>Makes exactly these adapters active; their contributions are added up in this order. Undoes a merge first, as PEFT does.</summary>
    /// <param name="names">Names; none leaves every adapter idle.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.AdapterNotFound"/>, <see cref="ErrorIds.SavedModuleConflict"/>; the model is as before.</exception>
    public void SetActiveAdapters(IReadOnlyList<string> names)
    {
        using IDisposable use = Use.Change("changed");
        _adapters.SetActive(Find(names));
    }

    /// <summary>Removes an adapter; the base weights are as before. If it was the only active one, the first of the others becomes active.</summary>
    /// <exception cref="LoKrException"><see cref="ErrorIds.AdapterNotFound"/>, <see cref="ErrorIds.AdapterMerged"/>.</exception>
    public void RemoveAdapter(string name)
    {
        using IDisposable use = Use.Change("changed");
        _adapters.Remove(_adapters.Get(name));
    }

    /// <summary>Lets adapters take part in the forward pass, or not. Disabling them undoes a merge first, as PEFT does.</summary>
    public void SetAdaptersEnabled(bool enabled)
    {
        using IDisposable use = Use.Change("changed");
        _adapters.SetEnabled(enabled);
    }

    /// <summary>Lets an adapter take gradients while it is active, or not. A new or loaded adapter does, unless its configuration says inference only.</summary>
    /// <exception cref="LoKrException"><see cref="ErrorIds.AdapterNotFound"/>.</exception>
    public void SetAdapterTrainable(string name, bool trainable)
    {
        using IDisposable use = Use.Change("changed");
        _adapters.SetTrainable(_adapters.Get(name), trainable);
    }

    /// <summary>Sets the strength of adapters: 1 as trained, 0.5 half of it (PEFT <c>set_scale</c>). Modules that are saved whole are not scaled.</summary>
    /// <param name="names">Names of the adapters; all are checked before any changes.</param>
    /// <param name="scale">Finite factor.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.AdapterNotFound"/>, <see cref="ErrorIds.AdapterMerged"/>, <see cref="ErrorIds.InvalidArgument"/>.</exception>
    public void SetAdapterScale(IReadOnlyList<string> names, double scale)
    {
        using IDisposable use = Use.Change("changed");
        CheckCanScale(names, scale);
        foreach (LoKrAdapter adapter in Find(names))
        {
            adapter.Scale = scale;
        }
    }

    /// <summary>Adds the deltas of adapters into the base weights. Dropout takes no part. An adapter that is merged already is not merged again.</summary>
    /// <param name="names">Adapters; null for the active ones.</param>
    /// <param name="safe">Refuse results that are not finite and leave the weights unchanged.</param>
    /// <remarks>As in PEFT, a layer with a merged adapter runs on its weight alone: an active adapter that is not merged is idle there.</remarks>
    /// <param name="cancellationToken">Checked before every weight; the weights are as before.</param>
    /// <exception cref="LoKrException">Nothing to merge, a weight is shared, or (safe) a result is not finite; the weights are as before.</exception>
    public LoKrMergeResult Merge(IReadOnlyList<string>? names = null, bool safe = false, CancellationToken cancellationToken = default)
    {
        using IDisposable use = Use.Change("merged");
        return BeginMerge(names, safe, cancellationToken).Commit();
    }

    /// <summary>Takes every merged adapter out of the base weights, which are bit for bit as before.</summary>
    /// <exception cref="LoKrException"><see cref="ErrorIds.NothingToMerge"/>: no adapter is merged.</exception>
    public void UndoMerge()
    {
        using IDisposable use = Use.Change("merged");
        CheckUndoMerge();
        _merges.Undo();
        _adapters.Apply();
    }

    /// <summary>
    /// Moves the model and its adapters to a device, and converts floating-point weights to a type. Factors stay in single precision under a
    /// base of lower precision. The buffers of the adapters are other ones afterwards, so an optimizer has to be created again.
    /// </summary>
    /// <param name="device">Device; null leaves it.</param>
    /// <param name="dtype">Floating-point type of the base weights; null leaves it.</param>
    public void MoveTo(Device? device = null, ScalarType? dtype = null)
    {
        using IDisposable use = Use.Change("moved");
        _adapters.Move(() =>
        {
            if (device is not null)
            {
                Module.to(device);
            }

            if (dtype is ScalarType type)
            {
                Module.to(type);
            }
        });
    }

    /// <summary>Every module of the model (without the root), in order, with shapes, counts and adapter state.</summary>
    public IReadOnlyList<LoKrModuleInfo> GetModules() => Inspector.GetModules();

    /// <summary>
    /// Trainable and total parameters as PEFT counts them: the total includes base, adapters and, beside their originals, the trained copies of
    /// saved modules; shared weights count once.
    /// </summary>
    public ParameterCount CountParameters() => Inspector.CountParameters();

    /// <summary>Total parameters, see <see cref="CountParameters"/>.</summary>
    public long ParameterCount => CountParameters().Total;

    /// <summary>Trainable parameters, see <see cref="CountParameters"/>.</summary>
    public long TrainableParameterCount => CountParameters().Trainable;

    /// <summary>Number of rows in the table of the tokens of <see cref="GetBaseState"/>; null for a model without such a table.</summary>
    public long? CountTokens() => Inspector.CountTokens();

    /// <summary>
    /// Tensors of the merged or unadapted base model by the names of the module tree, tied duplicates left out; not copies.
    /// A saved module has the values of its trained copy if its adapter is merged, and of its original otherwise.
    /// </summary>
    public IReadOnlyDictionary<string, Tensor> GetBaseState() => Inspector.GetBaseState();

    /// <summary>Every adapter with its state, in the order they were added.</summary>
    public IReadOnlyList<LoKrAdapterStatus> GetAdapterStatus() => Inspector.GetAdapterStatus();

    /// <summary>Every adapted layer with the states of its adapters (PEFT <c>get_layer_status</c>), in module order.</summary>
    /// <exception cref="LoKrException"><see cref="ErrorIds.AdapterNotFound"/>: the model has no adapter.</exception>
    public IReadOnlyList<LoKrLayerStatus> GetLayerStatus() => Inspector.GetLayerStatus();

    /// <summary>All adapted layers together (PEFT <c>get_model_status</c>).</summary>
    /// <exception cref="LoKrException"><see cref="ErrorIds.AdapterNotFound"/>: the model has no adapter.</exception>
    public LoKrModelStatus GetModelStatus() =>
        LoKrModelStatus.Combine(GetLayerStatus(), Name, [.. Adapters.Select(static adapter => adapter.Name)], CountParameters());

    /// <summary>Throws for a model that was disposed.</summary>
    /// <exception cref="LoKrException"><see cref="ErrorIds.ModelDisposed"/>.</exception>
    public void ThrowIfDisposed() => Use.RequireAlive();

    /// <inheritdoc/>
    public override string ToString() => Name;

    /// <summary>Removes every hook, releases the adapters and the module.</summary>
    /// <exception cref="LoKrException"><see cref="ErrorIds.ModelBusy"/>: another thread uses the model.</exception>
    public void Dispose()
    {
        if (Use.TryDispose())
        {
            _hosts.Dispose();
            _adapters.Dispose();
            _merges.Dispose();
            Module.Dispose();
        }
    }

    /// <summary>‖W‖ of the weight of a layer without any adapter; null for a model without weights.</summary>
    internal double? BaseWeightNorm(LoKrLayer layer)
    {
        Use.RequireAlive();
        Tensor weight = _merges.Original(layer.ModuleName) ?? layer.BaseLayer.Weight;
        return weight.device_type == DeviceType.META ? null : TensorNorm.Frobenius(weight);
    }

    /// <summary>Whether there is an adapter of a name.</summary>
    internal bool HasAdapter(string name) => _adapters.Find(name) is not null;

    /// <summary>Throws what <see cref="SetActiveAdapters"/> would.</summary>
    internal void CheckCanActivate(IReadOnlyList<string> names) => AdapterSet.CheckSavedModules(Find(names));

    /// <summary>Throws what <see cref="SetAdapterScale"/> would.</summary>
    internal void CheckCanScale(IReadOnlyList<string> names, double scale)
    {
        if (!double.IsFinite(scale))
        {
            throw ModelErrors.ScaleNotFinite(scale);
        }

        CheckNotMerged(names);
    }

    /// <summary>Throws for an adapter that is merged.</summary>
    internal void CheckNotMerged(IReadOnlyList<string> names)
    {
        foreach (LoKrAdapter adapter in Find(names))
        {
            _adapters.CheckNotMerged(adapter);
        }
    }

    /// <summary>Throws what <see cref="UndoMerge"/> would.</summary>
    internal void CheckUndoMerge()
    {
        if (_merges.Merged.Count + _merges.Files.Count == 0)
        {
            throw ModelErrors.NothingMerged();
        }
    }

    /// <summary>Throws what <see cref="Merge"/> would. The weights are not changed.</summary>
    internal void CheckMerge(IReadOnlyList<string>? names, bool safe, CancellationToken cancellationToken) =>
        _merges.Check(MergedChanges.Of(RequireMergeable(names)), safe, cancellationToken);

    /// <summary>Throws what <see cref="BeginMerge(MergedChanges, int, bool, CancellationToken)"/> would. The weights are not changed.</summary>
    internal void CheckMerge(MergedChanges files, bool safe, CancellationToken cancellationToken)
    {
        CheckMergeable(files);
        _merges.Check(files, safe, cancellationToken);
    }

    /// <summary>Merges what files change, in a way that can still be reverted.</summary>
    /// <param name="files">The files and their changes.</param>
    /// <param name="savedModules">Number of modules that are replaced whole.</param>
    /// <param name="safe">Refuse results that are not finite.</param>
    /// <param name="cancellationToken">Checked before every weight.</param>
    internal PendingMerge BeginMerge(MergedChanges files, int savedModules, bool safe, CancellationToken cancellationToken)
    {
        long started = Stopwatch.GetTimestamp();
        CheckMergeable(files);
        WeightMerge merge = _merges.Begin(files, safe, cancellationToken);
        return new(merge, () =>
        {
            merge.Commit();
            return LastMerge = new()
            {
                Adapters = [.. files.Files.Select(static path => Path.GetFileName(path))],
                ModuleCount = merge.WeightCount,
                SavedModuleCount = savedModules,
                Warnings = merge.Warnings,
                Elapsed = Stopwatch.GetElapsedTime(started),
            };
        });
    }

    /// <summary>The value of a weight without any adapter, by the name of its layer or of the parameter.</summary>
    internal Tensor? Unmerged(string name) => _merges.Original(name);

    /// <summary>Merges as <see cref="Merge"/> does, in a way that can still be reverted.</summary>
    internal PendingMerge BeginMerge(IReadOnlyList<string>? names, bool safe, CancellationToken cancellationToken)
    {
        long started = Stopwatch.GetTimestamp();
        LoKrAdapter[] adapters = RequireMergeable(names);
        WeightMerge merge = _merges.Begin(MergedChanges.Of(adapters), safe, cancellationToken);
        return new(merge, () =>
        {
            merge.Commit();
            _adapters.Apply();
            return LastMerge = new()
            {
                Adapters = [.. adapters.Select(static adapter => adapter.Name)],
                ModuleCount = merge.WeightCount,
                SavedModuleCount = adapters.Sum(static adapter => adapter.SavedModules.Count),
                Warnings = [.. merge.Warnings, .. adapters.Where(static adapter => adapter.IsZero()).Select(static adapter => AdapterWarnings.Zero(adapter.Name)), .. _adapters.Active.Where(IsIdleSomewhere)
                    .Select(static adapter => $"Adapter '{adapter.Name}' is active but not merged; as in PEFT it is idle on layers into which another adapter is merged.")],
                Elapsed = Stopwatch.GetElapsedTime(started),
            };
        });
    }

    /// <summary>The adapters of a merge that nothing about the model stands against.</summary>
    private LoKrAdapter[] RequireMergeable(IReadOnlyList<string>? names)
    {
        LoKrAdapter[] adapters = [.. (names is null ? _adapters.Active : Find(names)).Except(_merges.Merged)];
        if (adapters.Length == 0)
        {
            throw ModelErrors.NothingToMerge(Adapters.Count > 0, _merges.Merged.Count > 0);
        }

        if (!AdaptersEnabled)
        {
            throw ModelErrors.Disabled();
        }

        AdapterSet.CheckSavedModules(_adapters.Active.Union(_merges.Merged).Union(adapters));
        ILookup<nint, (string Name, nn.Module Module)> owners = TiedWeights.Owners(Module);
        foreach ((string name, nn.Module module) in adapters.SelectMany(static adapter =>
            adapter.Layers.Select(static layer => (layer.ModuleName, layer.Module)).Concat(adapter.Norms.Select(static norm => (norm.ModuleName, Module: (nn.Module)norm.Target.Module)))))
        {
            if (TiedWeights.PartnerOf(Module, name, module, owners) is string partner)
            {
                throw ModelErrors.TiedMerge(name, partner);
            }
        }

        return adapters;
    }

    private void CheckMergeable(MergedChanges files)
    {
        if (files.Files.Intersect(_merges.Files).Any())
        {
            throw ModelErrors.NothingToMerge(hasAdapters: true, hasMerged: true);
        }

        ILookup<nint, (string Name, nn.Module Module)> owners = TiedWeights.Owners(Module);
        Dictionary<string, nn.Module> modules = ModuleTree.Modules(Module).ToDictionary(static entry => entry.Name, static entry => entry.Module, StringComparer.Ordinal);
        foreach (string name in files.Changes.Select(static change => change.Change.Name))
        {
            (string owner, nn.Module? module) = modules.TryGetValue(name, out nn.Module? layer) ? (name, layer) : (ModuleTree.Parent(name), modules.GetValueOrDefault(ModuleTree.Parent(name)));
            if (module is not null && TiedWeights.PartnerOf(Module, owner, module, owners) is string partner)
            {
                throw ModelErrors.TiedMerge(owner, partner);
            }
        }
    }

    /// <summary>Whether an adapter that is not merged is on a layer into which another one is.</summary>
    private bool IsIdleSomewhere(LoKrAdapter adapter) => !_merges.Merged.Contains(adapter)
        && adapter.Layers.Any(layer => _hosts.Find<LayerHost>(layer.ModuleName)!.Adapters.Any(_merges.Merged.Contains));

    private LoKrAdapter[] Find(IReadOnlyList<string> names)
    {
        ArgumentNullException.ThrowIfNull(names);
        return [.. names.Distinct(StringComparer.Ordinal).Select(_adapters.Get)];
    }
}

/// <summary>A merge of one component that waits until those of all components have succeeded.</summary>
internal sealed record PendingMerge(WeightMerge Merge, Func<LoKrMergeResult> Commit);
