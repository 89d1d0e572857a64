using LoKr.Core.Errors;
using LoKr.Core.Nn;
using LoKr.Core.Runtime;
using static TorchSharp.torch;

namespace LoKr.Core.Model;

public sealed partial class LoKrModel
{
    /// <summary>Every adapter with its state, in the order they were added.</summary>
    public IReadOnlyList<LoKrAdapterStatus> GetAdapterStatus() => [.. _adapters.Select(adapter => new LoKrAdapterStatus
    {
        Name = adapter.Name,
        Model = Name,
        IsActive = _active.Contains(adapter),
        IsMerged = _merger.Merged.Contains(adapter),
        IsEnabled = _enabled,
        RequiresGrad = RequiresGrad(adapter.FlatParameters.SelectMany(static flat => flat.Views)),
        Scale = adapter.Scale,
        R = adapter.Config.R,
        Alpha = adapter.Config.Alpha,
        ModuleCount = adapter.Layers.Count,
        SavedModules = adapter.SavedModules,
        ParameterCount = adapter.ParameterCount,
        DTypes = [.. adapter.FlatParameters.Select(static flat => TorchNames.Of(flat.Value.dtype)).Distinct(StringComparer.Ordinal)],
        Devices = DeviceTypes(adapter.FlatParameters.Select(static flat => flat.Value)),
        TargetModules = adapter.Config.TargetModules?.ToString(),
    })];

    /// <summary>Every adapted layer with the states of its adapters (PEFT <c>get_layer_status</c>), in module order.</summary>
    /// <exception cref="LoKrException"><c>LoKr.AdapterNotFound</c>: the model has no adapter.</exception>
    public IReadOnlyList<LoKrLayerStatus> GetLayerStatus()
    {
        if (_adapters.Count == 0)
        {
            throw new LoKrException(ErrorIds.AdapterNotFound, LoKrErrorKind.NotFound, $"{Name} has no adapter, and so no adapted layers.", "Add one with Add-LoKrAdapter or Import-LoKrAdapter.");
        }

        return [.. ModuleTree.Places(Module).Where(place => _layers.ContainsKey(place.Name)).Select(place => Describe(_layers[place.Name]))];
    }

    /// <summary>All adapted layers together (PEFT <c>get_model_status</c>).</summary>
    /// <exception cref="LoKrException"><c>LoKr.AdapterNotFound</c>: the model has no adapter.</exception>
    public LoKrModelStatus GetModelStatus() => LoKrModelStatus.Combine(GetLayerStatus(), Name, [.. _adapters.Select(static adapter => adapter.Name)], CountParameters());

    private LoKrLayerStatus Describe(LayerHost host) => new()
    {
        Name = host.BaseLayer.Name,
        ModuleType = "lokr." + host.BaseLayer.TypeName,
        Enabled = _enabled,
        ActiveAdapters = ActiveAdapters,
        MergedAdapters = [.. _merger.Merged.Where(adapter => host.Layers.Any(entry => ReferenceEquals(entry.Adapter, adapter))).Select(static adapter => adapter.Name)],
        RequiresGrad = host.Layers.ToDictionary(static entry => entry.Adapter.Name, static entry => RequiresGrad(entry.Layer.Factors.Tensors.Values), StringComparer.Ordinal),
        AvailableAdapters = [.. host.Layers.Select(static entry => entry.Adapter.Name).Order(StringComparer.Ordinal)],
        Devices = host.Layers.ToDictionary(static entry => entry.Adapter.Name, static entry => DeviceTypes(entry.Layer.Factors.Tensors.Values), StringComparer.Ordinal),
    };

    private static TriState RequiresGrad(IEnumerable<Tensor> tensors) =>
        LoKrModelStatus.Common(tensors.Select(static tensor => tensor.requires_grad ? TriState.True : TriState.False));

    private static IReadOnlyList<string> DeviceTypes(IEnumerable<Tensor> tensors) =>
        [.. tensors.Select(static tensor => tensor.device_type.ToString().ToLowerInvariant()).Distinct(StringComparer.Ordinal).Order(StringComparer.Ordinal)];
}
