using LoKr.Core.Configuration;
using LoKr.Core.Factors;
using LoKr.Core.Layers;
using LoKr.Core.Targeting;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Model;

/// <summary>Makes an adapter's layers, saved copies and flat buffers for a resolved configuration.</summary>
/// <param name="name">Name of the adapter.</param>
/// <param name="resolution">Configuration and the layers it means.</param>
/// <param name="warnings">Warnings that the adapter keeps.</param>
/// <param name="given">Shapes and configuration of a layer by its rank where the configuration does not decide them; null for all of them.</param>
internal sealed class AdapterBuilder(
    string name,
    TargetResolution resolution,
    IReadOnlyList<string> warnings,
    Func<BaseLayer, int, (FactorShapes Shapes, LoKrConfig Config)?>? given = null)
{
    private readonly List<LoKrLayer> _layers = [];

    /// <summary>Allocates everything; factors are zero, saved copies hold the originals.</summary>
    /// <param name="originals">Original tensors of a module that is saved, by local name; buffers are the second.</param>
    public LoKrAdapter Build(Func<string, nn.Module, (IReadOnlyDictionary<string, Tensor> Parameters, IReadOnlyDictionary<string, Tensor> Buffers)> originals)
    {
        foreach (BaseLayer layer in resolution.Layers)
        {
            int rank = ModulePatterns.Find(resolution.Config.RankPattern, layer.Name, resolution.Config.R);
            LoKrConfigValidator.CheckRank(rank, $"the rank of '{layer.Name}'");
            double alpha = ModulePatterns.Find(resolution.Config.AlphaPattern, layer.Name, resolution.Config.Alpha);
            (FactorShapes Shapes, LoKrConfig Config)? own = given?.Invoke(layer, rank);
            _layers.Add(new(layer, own?.Config ?? resolution.Config, own is null ? rank : (int)own.Value.Shapes.Rank, alpha, own?.Shapes));
        }

        // Slots in a fixed order: factors by module, then saved parameters by module.
        List<(string Module, string Local, long[] Shape, ScalarType DType, Device Device, Tensor? Source)> slots = [];
        List<(string Module, IReadOnlyDictionary<string, Tensor> Buffers)> saved = [];
        foreach (LoKrLayer layer in _layers)
        {
            slots.AddRange(layer.Tensors().Select(tensor =>
                (layer.ModuleName, tensor.Suffix, tensor.Shape, layer.BaseLayer.FactorType, layer.BaseLayer.Weight.device, (Tensor?)null)));
        }

        LoKrNorm[] norms = [.. resolution.Norms.Select(norm => new LoKrNorm(norm, resolution.Config))];
        foreach (LoKrNorm norm in norms)
        {
            slots.AddRange(norm.Shapes.Select(tensor => (norm.ModuleName, tensor.Suffix, tensor.Shape, norm.Target.ChangeType, norm.Target.Weight.device, (Tensor?)null)));
        }

        foreach ((string module, nn.Module instance) in resolution.SavedModules)
        {
            (IReadOnlyDictionary<string, Tensor> parameters, IReadOnlyDictionary<string, Tensor> buffers) = originals(module, instance);
            saved.Add((module, buffers));
            slots.AddRange(parameters.Select(entry => (module, entry.Key, entry.Value.shape, entry.Value.dtype, entry.Value.device, (Tensor?)entry.Value)));
        }

        Dictionary<(string Module, string Local), (FlatParameter Flat, int Index)> places = [];
        List<FlatParameter> flats = [];
        foreach (var group in slots.GroupBy(static slot => (slot.DType, Device: slot.Device.ToString())))
        {
            FlatParameter flat = new([.. group.Select(static slot => slot.Shape)], group.Key.DType, group.First().Device);
            flats.Add(flat);
            int index = 0;
            foreach (var slot in group)
            {
                CopyInto(flat.Views[index], slot.Source);
                places.Add((slot.Module, slot.Local), (flat, index++));
            }
        }

        foreach (LoKrLayer layer in _layers)
        {
            layer.Factors = new(layer.Tensors().ToDictionary(static tensor => tensor.Suffix, tensor => View(places[(layer.ModuleName, tensor.Suffix)])), layer.BaseLayer.Kernel, layer.Shapes.Reversed);
        }

        foreach (LoKrNorm norm in norms)
        {
            norm.Weight = View(places[(norm.ModuleName, LoKrNorm.WeightSuffix)]);
            norm.Bias = places.TryGetValue((norm.ModuleName, LoKrNorm.BiasSuffix), out (FlatParameter Flat, int Index) bias) ? View(bias) : null;
        }

        SavedModuleCopy[] copies = [.. saved.Select(entry => new SavedModuleCopy(
            entry.Module,
            places.Where(place => place.Key.Module == entry.Module).ToDictionary(static place => place.Key.Local, static place => place.Value, StringComparer.Ordinal),
            entry.Buffers.ToDictionary(static buffer => buffer.Key, static buffer => buffer.Value.detach().clone().DetachFromDisposeScope(), StringComparer.Ordinal)))];
        return new(name, resolution.Config, _layers, copies, flats, [.. resolution.Warnings, .. warnings]) { Norms = norms };
    }

    private static Tensor View((FlatParameter Flat, int Index) place) => place.Flat.Views[place.Index];

    private static void CopyInto(Tensor view, Tensor? source)
    {
        if (source is not null)
        {
            using IDisposable noGrad = no_grad();
            view.copy_(source);
        }
    }
}
