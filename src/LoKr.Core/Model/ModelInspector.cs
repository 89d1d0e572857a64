using LoKr.Core.Layers;
using LoKr.Core.Nn;
using LoKr.Core.Runtime;
using LoKr.Core.Targeting;
using static TorchSharp.torch;

namespace LoKr.Core.Model;

/// <summary>Describes a model and its adapters; changes nothing.</summary>
internal sealed class ModelInspector(LoKrModel model, AdapterSet adapters, HostSet hosts, MergeState merges)
{
    /// <inheritdoc cref="LoKrModel.GetModules"/>
    public IReadOnlyList<LoKrModuleInfo> GetModules()
    {
        List<LoKrModuleInfo> modules = [];
        IReadOnlyList<ModulePlace> places = ModuleTree.Places(model.Module);
        HashSet<nn.Module> fused = new(places.Where(static place => place.IsProjection).Select(static place => place.Module), ReferenceEqualityComparer.Instance);
        foreach (ModulePlace place in places)
        {
            // The parameters of an attention's output projection are listed with that.
            const string projection = AttentionParameters.OutputName + ".";
            (string, TorchSharp.Modules.Parameter)[] own = [.. place.Module.named_parameters(recurse: false)
                .Where(entry => !fused.Contains(place.Module) || entry.name.StartsWith(projection, StringComparison.Ordinal) == place.IsProjection)];
            modules.Add(Describe(place, own));
        }

        return modules;
    }

    /// <inheritdoc cref="LoKrModel.CountParameters"/>
    public ParameterCount CountParameters()
    {
        long total = 0;
        long trainable = 0;
        foreach ((string name, TorchSharp.Modules.Parameter parameter) in ModuleTree.Parameters(model.Module).Where(entry => !IsDuplicate(entry.Name)))
        {
            total += parameter.numel();

            // A saved module's own parameters stand for the adapter's copy, which is counted with the adapter.
            if (parameter.requires_grad && !hosts.All<SavedModuleHost>().Any(host => ModuleTree.IsWithin(name, host.Name)))
            {
                trainable += parameter.numel();
            }
        }

        foreach (LoKrAdapter adapter in adapters.All)
        {
            total += adapter.ParameterCount;
            trainable += adapter.IsTrainable && adapters.Active.Contains(adapter) ? adapter.ParameterCount : 0;
        }

        return new(trainable, total);
    }

    /// <inheritdoc cref="LoKrModel.CountTokens"/>
    public long? CountTokens() => GetBaseState().Where(static pair => pair.Value.dim() == 2 && EmbeddingNames.IsInput(ModuleTree.Parent(pair.Key)))
        .Select(static pair => (long?)pair.Value.shape[0]).FirstOrDefault();

    /// <inheritdoc cref="LoKrModel.GetBaseState"/>
    public IReadOnlyDictionary<string, Tensor> GetBaseState() => ModuleTree.Parameters(model.Module)
        .Select(static entry => (entry.Name, Tensor: (Tensor)entry.Parameter))
        .Concat(ModuleTree.Buffers(model.Module).Select(static entry => (entry.Name, Tensor: entry.Buffer)))
        .Where(entry => !IsDuplicate(entry.Name))
        .ToDictionary(static entry => entry.Name, entry => BaseTensor(entry.Name) ?? entry.Tensor, StringComparer.Ordinal);

    /// <inheritdoc cref="LoKrModel.GetAdapterStatus"/>
    public IReadOnlyList<LoKrAdapterStatus> GetAdapterStatus() => [.. adapters.All.Select(adapter => new LoKrAdapterStatus
    {
        Name = adapter.Name,
        Model = model.Name,
        IsActive = adapters.Active.Contains(adapter),
        IsMerged = merges.Merged.Contains(adapter),
        IsEnabled = adapters.Enabled,
        RequiresGrad = RequiresGrad(adapter.FlatParameters.SelectMany(static flat => flat.Views)),
        Scale = adapter.Scale,
        DoraStrength = adapter.HasDora ? adapter.DoraStrength : null,
        R = adapter.Config.R,
        Alpha = adapter.Config.Alpha,
        ModuleCount = adapter.Layers.Count,
        SavedModules = adapter.SavedModules,
        ParameterCount = adapter.ParameterCount,
        DTypes = [.. adapter.FlatParameters.Select(static flat => TorchNames.Of(flat.Value.dtype)).Distinct(StringComparer.Ordinal)],
        Devices = DeviceTypes(adapter.FlatParameters.Select(static flat => flat.Value)),
        TargetModules = adapter.Config.TargetModules?.ToString(),
    })];

    /// <inheritdoc cref="LoKrModel.GetLayerStatus"/>
    public IReadOnlyList<LoKrLayerStatus> GetLayerStatus() => adapters.All.Count == 0
        ? throw ModelErrors.NoAdapters(model.Name)
        : [.. ModuleTree.Places(model.Module).Select(place => hosts.Find<LayerHost>(place.Name)).OfType<LayerHost>().Select(Describe)];

    private LoKrModuleInfo Describe(ModulePlace place, (string Name, TorchSharp.Modules.Parameter Parameter)[] own)
    {
        TorchSharp.Modules.Parameter? weight = own.FirstOrDefault(static entry => entry.Name.Split('.')[^1] == "weight").Parameter ?? own.FirstOrDefault().Parameter;
        IReadOnlyList<(LoKrAdapter Adapter, LoKrLayer Layer)> layers = hosts.Find<LayerHost>(place.Name)?.Layers ?? [];
        IReadOnlyList<(LoKrAdapter Adapter, LoKrNorm Norm)> norms = hosts.Find<NormHost>(place.Name)?.Norms ?? [];
        string[] names = [.. layers.Select(static entry => entry.Adapter.Name), .. norms.Select(static entry => entry.Adapter.Name)];
        return new()
        {
            Name = place.Name,
            ModuleType = place.IsProjection ? nameof(TorchSharp.Modules.Linear) : place.Module.GetType().Name.Split('`')[0],
            Shape = weight?.shape ?? [],
            ParameterCount = own.Sum(static entry => entry.Parameter.numel()),
            DType = weight is null ? null : TorchNames.Of(weight.dtype),
            Device = weight is null ? null : TorchNames.Of(weight.device),
            IsSupported = BaseLayer.TryCreate(place) is not null,
            IsAdapted = names.Length > 0,
            Adapters = names,
            ActiveAdapters = [.. names.Intersect(adapters.Active.Select(static adapter => adapter.Name))],
            MergedAdapters = [.. names.Intersect(merges.Merged.Select(static adapter => adapter.Name))],
            FactorShapes =
            [
                .. layers.Select(static entry => entry.Layer.Shapes.ToString()),
                .. norms.Select(static entry => string.Join(", ", entry.Norm.Target.Tensors.Select(static tensor => $"{tensor.Suffix} {string.Join('×', tensor.Shape)}"))),
            ],
            AdapterParameterCount = layers.Sum(static entry => entry.Layer.Factors.ParameterCount) + norms.Sum(static entry => entry.Norm.Tensors.Sum(static tensor => tensor.Tensor.numel())),
            SavedBy = [.. (hosts.Find<SavedModuleHost>(place.Name)?.Adapters ?? []).Select(static adapter => adapter.Name)],
        };
    }

    private LoKrLayerStatus Describe(LayerHost host) => new()
    {
        Name = host.Name,
        ModuleType = "lokr." + host.BaseLayer.TypeName,
        Enabled = adapters.Enabled,
        ActiveAdapters = model.ActiveAdapters,
        MergedAdapters = [.. merges.Merged.Where(host.Adapters.Contains).Select(static adapter => adapter.Name)],
        RequiresGrad = host.Layers.ToDictionary(static entry => entry.Adapter.Name, static entry => RequiresGrad(entry.Layer.Factors.Tensors.Values), StringComparer.Ordinal),
        AvailableAdapters = [.. host.Adapters.Select(static adapter => adapter.Name).Order(StringComparer.Ordinal)],
        Devices = host.Layers.ToDictionary(static entry => entry.Adapter.Name, static entry => DeviceTypes(entry.Layer.Factors.Tensors.Values), StringComparer.Ordinal),
    };

    /// <summary>Whether a parameter is the duplicate of one that is saved under another name.</summary>
    private bool IsDuplicate(string name) => model.Pretrained?.TiedParameters.ContainsKey(name) == true;

    /// <summary>A tensor of a saved module in the base model; null for any other tensor.</summary>
    private Tensor? BaseTensor(string name) => hosts.All<SavedModuleHost>()
        .Where(host => name.StartsWith(host.Name + ".", StringComparison.Ordinal))
        .Select(host => host.BaseTensor(name[(host.Name.Length + 1)..], merges.Merged))
        .FirstOrDefault(static tensor => tensor is not null);

    private static TriState RequiresGrad(IEnumerable<Tensor> tensors) =>
        LoKrModelStatus.Common(tensors.Select(static tensor => tensor.requires_grad ? TriState.True : TriState.False));

    private static IReadOnlyList<string> DeviceTypes(IEnumerable<Tensor> tensors) =>
        [.. tensors.Select(static tensor => tensor.device_type.ToString().ToLowerInvariant()).Distinct(StringComparer.Ordinal).Order(StringComparer.Ordinal)];
}
