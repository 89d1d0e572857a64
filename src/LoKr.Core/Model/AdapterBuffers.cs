using LoKr.Core.Factors;
using LoKr.Core.Layers;
using LoKr.Core.Nn;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Model;

/// <summary>
/// The flat buffers of an adapter, one for each element type and device, with the place of every tensor in them: factors by layer, then
/// changes of norms, then the parameters of saved modules.
/// </summary>
internal sealed class AdapterBuffers
{
    private readonly Dictionary<string, FlatPlace> _places;

    private AdapterBuffers(IReadOnlyList<FlatParameter> flats, Dictionary<string, FlatPlace> places, AdapterPlan plan, IReadOnlyList<ModuleTensors> originals)
    {
        (Flats, _places) = (flats, places);
        Copies = [.. plan.SavedModules.Zip(originals, (module, tensors) => CopyOf(module.Name, tensors))];
    }

    /// <summary>The buffers.</summary>
    public IReadOnlyList<FlatParameter> Flats { get; }

    /// <summary>The copies of the modules that are trained whole, with the values of the originals.</summary>
    public IReadOnlyList<SavedModuleCopy> Copies { get; }

    /// <summary>Allocates buffers on the devices and for the types that the model has now. Factors and changes of norms are zero.</summary>
    /// <param name="plan">The modules that the adapter changes.</param>
    /// <param name="originals">Original tensors of the modules that are trained whole, in the order of the plan.</param>
    public static AdapterBuffers Allocate(AdapterPlan plan, IReadOnlyList<ModuleTensors> originals)
    {
        List<Slot> slots = [];
        foreach (LayerPlan layer in plan.Layers)
        {
            slots.AddRange(layer.Tensors.Select(tensor => new Slot(ModuleTree.Join(layer.Base.Name, tensor.Suffix), tensor.Shape, layer.Base.FactorType, layer.Base.Weight.device)));
        }

        foreach (NormBase norm in plan.Norms)
        {
            slots.AddRange(norm.Tensors.Select(tensor => new Slot(ModuleTree.Join(norm.Name, tensor.Suffix), tensor.Shape, norm.ChangeType, norm.Weight.device)));
        }

        foreach (((string module, _), ModuleTensors tensors) in plan.SavedModules.Zip(originals))
        {
            slots.AddRange(tensors.Parameters.Select(entry => new Slot(ModuleTree.Join(module, entry.Key), entry.Value.shape, entry.Value.dtype, entry.Value.device) { Source = entry.Value }));
        }

        List<FlatParameter> flats = [];
        Dictionary<string, FlatPlace> places = new(StringComparer.Ordinal);
        using IDisposable noGrad = no_grad();
        foreach (IGrouping<(ScalarType DType, string), Slot> group in slots.GroupBy(static slot => (slot.DType, slot.Device.ToString())))
        {
            FlatParameter flat = new([.. group.Select(static slot => slot.Shape)], group.Key.DType, group.First().Device);
            flats.Add(flat);
            int index = 0;
            foreach (Slot slot in group)
            {
                FlatPlace place = new(flat, index++);
                places.Add(slot.Name, place);
                if (slot.Source is Tensor source)
                {
                    place.Value.copy_(source);
                }
            }
        }

        return new(flats, places, plan, originals);
    }

    /// <summary>The factors of a layer.</summary>
    public KroneckerFactors FactorsOf(LayerPlan layer) => layer.Factors(suffix => Find(layer.Base.Name, suffix)!);

    /// <summary>The change of the weight of a norm.</summary>
    public Tensor WeightOf(NormBase norm) => Find(norm.Name, LoKrNorm.WeightSuffix)!;

    /// <summary>The change of the bias of a norm; null for a norm without one.</summary>
    public Tensor? BiasOf(NormBase norm) => Find(norm.Name, LoKrNorm.BiasSuffix);

    private Tensor? Find(string module, string suffix) => _places.GetValueOrDefault(ModuleTree.Join(module, suffix))?.Value;

    private SavedModuleCopy CopyOf(string module, ModuleTensors originals) => new(
        module,
        originals.Parameters.Keys.ToDictionary(static local => local, local => _places[ModuleTree.Join(module, local)], StringComparer.Ordinal),
        originals.Buffers.ToDictionary(static buffer => buffer.Key, static buffer => buffer.Value.detach().clone().DetachFromDisposeScope(), StringComparer.Ordinal));

    private sealed record Slot(string Name, long[] Shape, ScalarType DType, Device Device)
    {
        public Tensor? Source { get; init; }
    }
}

/// <summary>The place of a tensor in a flat buffer.</summary>
internal sealed record FlatPlace(FlatParameter Flat, int Index)
{
    /// <summary>The tensor.</summary>
    public Tensor Value => Flat.Views[Index];

    /// <summary>Its gradient.</summary>
    public Tensor Gradient => Flat.GradientViews[Index];
}
