using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Factors;
using LoKr.Core.Layers;
using LoKr.Core.Nn;
using LoKr.Core.Targeting;
using static TorchSharp.torch;

namespace LoKr.Core.Model;

/// <summary>Works out what an adapter changes in a model: its targets, and the factors of each.</summary>
internal static class AdapterPlanner
{
    private static readonly AdaptableKinds s_kinds = new(
        static place => BaseLayer.TryCreate(place) is not null, static place => NormBase.TryCreate(place) is not null, BaseLayer.SupportedTypes);

    /// <summary>Plans an adapter. Nothing is allocated.</summary>
    /// <param name="root">The model.</param>
    /// <param name="config">The configuration, with the module names of the tree.</param>
    /// <param name="fresh">Modules that the checkpoint of the model lacked.</param>
    /// <param name="tensors">Tensors of the adapter's file, whose shapes count where the configuration says so; null for a new adapter.</param>
    /// <exception cref="LoKrException">The configuration is not valid, or does not fit the model.</exception>
    public static AdapterPlan Plan(nn.Module root, LoKrConfig config, IReadOnlyList<string> fresh, IReadOnlyDictionary<string, Tensor>? tensors = null)
    {
        LoKrConfigValidator.ValidateStored(config);
        TargetResolution targets = TargetResolver.Resolve(root, config, s_kinds);
        ModuleRanks ranks = new(targets.Config);
        return new(
            targets.Config,
            [.. targets.Layers.Select(place => PlanLayer(BaseLayer.TryCreate(place)!, ranks, tensors))],
            [.. targets.Norms.Select(static place => NormBase.TryCreate(place)!)],
            targets.SavedModules,
            FreshModules.Unsaved(fresh, targets.SavedModules.Select(static module => module.Name)),
            targets.Warnings)
        {
            TableShapes = (tensors ?? new Dictionary<string, Tensor>()).Where(static pair => EmbeddingNames.IsEither(ModuleTree.Parent(pair.Key)))
                .ToDictionary(static pair => pair.Key, static pair => pair.Value.shape, StringComparer.Ordinal),
        };
    }

    /// <summary>Plans a new adapter, with published names translated and fresh modules saved. Nothing is allocated.</summary>
    /// <param name="root">The model.</param>
    /// <param name="config">The configuration.</param>
    /// <param name="fresh">Modules that the checkpoint of the model lacked.</param>
    /// <exception cref="LoKrException">The configuration is not valid, or does not fit the model.</exception>
    public static AdapterPlan PlanNew(nn.Module root, LoKrConfig config, IReadOnlyList<string> fresh)
    {
        LoKrConfigValidator.ValidateStored(config);
        return Plan(root, FreshModules.Save(root, ModuleAliases.Translate(root, config, out _), fresh, out _), fresh);
    }

    private static LayerPlan PlanLayer(BaseLayer layer, ModuleRanks ranks, IReadOnlyDictionary<string, Tensor>? tensors) =>
        LayerPlan.Create(layer, ranks, tensors is null ? null : suffix => tensors.GetValueOrDefault(ModuleTree.Join(layer.Name, suffix))?.shape);
}

/// <summary>The modules that an adapter changes, before anything is allocated.</summary>
/// <param name="Config">The configuration with defaults filled in.</param>
/// <param name="Layers">Adapted layers, in module order.</param>
/// <param name="Norms">Norms whose weights are trained, in module order.</param>
/// <param name="SavedModules">Modules that are trained whole, in module order.</param>
/// <param name="UnsavedModules">Modules that the checkpoint of the model lacked and that the adapter does not hold.</param>
/// <param name="Warnings">Entries of the configuration that are probably a mistake.</param>
internal sealed record AdapterPlan(
    LoKrConfig Config,
    IReadOnlyList<LayerPlan> Layers,
    IReadOnlyList<NormBase> Norms,
    IReadOnlyList<(string Name, nn.Module Module)> SavedModules,
    IReadOnlyList<string> UnsavedModules,
    IReadOnlyList<string> Warnings)
{
    /// <summary>
    /// Embeddings among <see cref="SavedModules"/> that the file has whole although its configuration, as <see cref="Config"/>, does not name them:
    /// a weight that both embeddings of the model share is replaced for both.
    /// </summary>
    public IReadOnlyList<string> Tables { get; private init; } = [];

    /// <summary>Shapes of the tensors of embeddings in the adapter's file, by full name: they may have more rows than the model's.</summary>
    public IReadOnlyDictionary<string, long[]> TableShapes { get; init; } = new Dictionary<string, long[]>();

    /// <summary>The same with tables, which are taken out of the configuration that they were put into for planning.</summary>
    /// <param name="tables">Their names.</param>
    public AdapterPlan WithTables(IReadOnlyList<string> tables) => tables.Count == 0 ? this : this with
    {
        Tables = tables,
        Config = Config with { ModulesToSave = (string[])[.. Config.ModulesToSave!.Except(tables, StringComparer.Ordinal)] is { Length: > 0 } named ? named : null },
    };

    /// <summary>Shape of the adapter's copy of a tensor.</summary>
    /// <param name="name">Full name.</param>
    /// <param name="own">Shape of the model's.</param>
    public long[] ShapeOf(string name, long[] own) =>
        TableShapes.TryGetValue(name, out long[]? given) && GrownVocabulary.Replaces(ModuleTree.Parent(name), own, given) ? given : own;
}

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
            foreach ((string local, Tensor own) in tensors.Parameters)
            {
                string name = ModuleTree.Join(module, local);
                slots.Add(new(name, plan.ShapeOf(name, own.shape), own.dtype, own.device) { Source = own });
            }
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
                    // New rows of a grown table are zero until they are loaded.
                    (source.dim() > 0 ? place.Value.narrow(0, 0, source.shape[0]) : place.Value).copy_(source);
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

    /// <summary>The part of the buffer that it is.</summary>
    public FlatRange Range => Flat.RangeOf(Index);
}
