using LoKr.Core.Configuration;
using LoKr.Core.Factors;
using LoKr.Core.IO;
using LoKr.Core.Layers;
using LoKr.Core.Nn;
using TorchSharp;

namespace LoKr.Core.Model;

/// <summary>One named adapter over all its target modules: config, layers, saved modules, one flat parameter and one flat gradient.</summary>
public sealed class LoKrAdapter
{
    private double _scale = 1;
    private DoraStrength _doraStrength;

    /// <summary>Puts an allocated adapter together.</summary>
    /// <param name="name">Its name.</param>
    /// <param name="plan">The modules that it changes.</param>
    /// <param name="originals">Original tensors of the modules that it trains whole.</param>
    /// <param name="warnings">Warnings beside those of the plan.</param>
    internal LoKrAdapter(string name, AdapterPlan plan, IReadOnlyList<ModuleTensors> originals, IReadOnlyList<string> warnings)
    {
        AdapterBuffers buffers = AdapterBuffers.Allocate(plan, originals);
        (Name, Plan, FlatParameters, Copies) = (name, plan, buffers.Flats, buffers.Copies);
        Layers = ValueList.Of([.. plan.Layers.Select(layer => new LoKrLayer(layer, buffers.FactorsOf(layer)))]);
        Norms = ValueList.Of([.. plan.Norms.Select(norm => new LoKrNorm(norm, plan.Config, buffers.WeightOf(norm), buffers.BiasOf(norm)))]);
        Warnings = [.. plan.Warnings, .. warnings];
    }

    /// <summary>Name of the adapter.</summary>
    public string Name { get; }

    /// <summary>Identity of the model that it is on; files of the adapter carry it.</summary>
    public ModelIdentity BaseModel { get; internal init; } = new(null, null);

    /// <summary>Configuration with every default resolved.</summary>
    public LoKrConfig Config => Plan.Config;

    /// <summary>Rank of the configuration.</summary>
    public int R => Config.R;

    /// <summary>Alpha of the configuration.</summary>
    public double Alpha => Config.Alpha;

    /// <summary>Target modules of the configuration as text; empty where it names none.</summary>
    public string TargetModules => Config.TargetModules?.ToString() ?? "";

    /// <summary>Number of adapted layers.</summary>
    public int ModuleCount => Layers.Count;

    /// <summary>Adapted layers by full module name, in module order.</summary>
    public IReadOnlyList<LoKrLayer> Layers { get; }

    /// <summary>Norms whose weights it changes (LyCORIS <c>train_norm</c>), in module order.</summary>
    public IReadOnlyList<LoKrNorm> Norms { get; }

    /// <summary>Full names of the modules that are trained and saved whole.</summary>
    public IReadOnlyList<string> SavedModules => ValueList.Of([.. Plan.SavedModules.Select(static module => module.Name)]);

    /// <summary>
    /// Full names of modules that the adapter does not hold although the checkpoint of the model lacked them (<see cref="LoKrModel.FreshModules"/>):
    /// on a model that is loaded again they have other values. Empty unless the configuration declined to save them, or the adapter was loaded.
    /// </summary>
    public IReadOnlyList<string> UnsavedModules => ValueList.Of(Plan.UnsavedModules);

    /// <summary>The flat buffers that hold every trainable number: one, or one for each element type where saved modules differ from the factors.</summary>
    public IReadOnlyList<FlatParameter> FlatParameters { get; private set => field = ValueList.Of(value); }

    /// <summary>Warnings from when the adapter was added: settings, patterns and targets without effect, tied weights, random modules that are not saved, an adapter that changes nothing.</summary>
    public IReadOnlyList<string> Warnings { get; private set => field = ValueList.Of(value); }

    /// <summary>Number of trainable parameters.</summary>
    public long ParameterCount => FlatParameters.Sum(static flat => flat.ParameterCount);

    /// <summary>Whether the adapter takes gradients while it is active; false for one made for inference only.</summary>
    public bool IsTrainable { get; internal set; } = true;

    /// <summary>Strength of the adapter on every layer, 1 as trained (PEFT <c>set_scale</c>). Saved modules are not scaled.</summary>
    public double Scale
    {
        get => _scale;
        internal set
        {
            _scale = value;
            foreach (LoKrLayer layer in Layers)
            {
                layer.Scale = value;
            }

            foreach (LoKrNorm norm in Norms)
            {
                norm.Scale = value;
            }
        }
    }

    /// <summary>Meaning of <see cref="Scale"/> on layers with DoRA.</summary>
    public DoraStrength DoraStrength
    {
        get => _doraStrength;
        internal set
        {
            _doraStrength = value;
            foreach (LoKrLayer layer in Layers)
            {
                layer.DoraStrength = value;
            }
        }
    }

    /// <summary>Whether any of its layers has DoRA.</summary>
    public bool HasDora => Layers.Any(static layer => layer.Config.WeightDecompose);

    /// <summary>
    /// The configuration that an adapter without values worth keeping was added with: none are until a run of training ends without an error.
    /// Null for adapters that were trained or loaded.
    /// </summary>
    internal LoKrConfig? UntrainedFrom { get; set; }

    /// <summary>The modules that it changes.</summary>
    internal AdapterPlan Plan { get; }

    /// <summary>Its copies of the modules that it trains whole, in the order of the plan.</summary>
    internal IReadOnlyList<SavedModuleCopy> Copies { get; private set; }

    /// <summary>
    /// Tensors by the name they have in a PEFT file without <c>base_model.model.</c>: <c>MODULE.lokr_w1</c>, <c>classifier.weight</c>.
    /// Views of the flat buffers, not copies.
    /// </summary>
    public IReadOnlyDictionary<string, torch.Tensor> GetTensors()
    {
        Dictionary<string, torch.Tensor> tensors = new(StringComparer.Ordinal);
        foreach (LoKrLayer layer in Layers)
        {
            foreach ((string suffix, torch.Tensor tensor) in layer.Factors.Tensors)
            {
                tensors.Add(ModuleTree.Join(layer.ModuleName, suffix), tensor);
            }
        }

        foreach (LoKrNorm norm in Norms)
        {
            foreach ((string suffix, torch.Tensor tensor) in norm.Tensors)
            {
                tensors.Add(ModuleTree.Join(norm.ModuleName, suffix), tensor);
            }
        }

        foreach (SavedModuleCopy copy in Copies)
        {
            foreach (string local in copy.LocalNames)
            {
                tensors.Add(ModuleTree.Join(copy.ModuleName, local), copy.Value(local));
            }
        }

        return tensors;
    }

    /// <inheritdoc/>
    public override string ToString() => Name;

    /// <summary>Allocates the buffers again on the devices and for the types that the model has now, with the same values.</summary>
    /// <param name="originals">Original tensors of the modules that it trains whole.</param>
    internal void Reallocate(IReadOnlyList<ModuleTensors> originals)
    {
        LoKrAdapter moved = new(Name, Plan, originals, []);
        AdapterLoader.Load(moved, GetTensors());
        Release();
        (FlatParameters, Copies) = (moved.FlatParameters, moved.Copies);
        foreach ((LoKrLayer mine, LoKrLayer theirs) in Layers.Zip(moved.Layers))
        {
            mine.ReplaceFactors(theirs.Factors);
        }

        foreach ((LoKrNorm mine, LoKrNorm theirs) in Norms.Zip(moved.Norms))
        {
            mine.Replace(theirs.Weight, theirs.Bias);
        }
    }

    /// <summary>Whether it changes nothing: factors whose product is zero on every layer, no other change.</summary>
    internal bool IsZero() => Layers.Count > 0 && Copies.Count == 0
        && Norms.All(static norm => norm.Tensors.All(static pair => ZeroFactors.IsZero(pair.Tensor)))
        && Layers.All(static layer => ZeroFactors.IsProductZero(layer.Factors.Tensors.Select(static pair => (pair.Key, new Func<torch.Tensor>(() => pair.Value)))));

    /// <summary>Adds a warning if it changes nothing.</summary>
    internal void WarnIfZero()
    {
        if (IsZero())
        {
            Warnings = [.. Warnings, AdapterWarnings.Zero(Name)];
        }
    }

    /// <summary>Adds warnings about the file that the adapter was loaded from.</summary>
    internal void AddWarnings(IEnumerable<string> warnings) => Warnings = [.. Warnings, .. warnings];

    /// <summary>Releases the buffers; no module may use them any more.</summary>
    internal void Release()
    {
        foreach (SavedModuleCopy copy in Copies)
        {
            copy.Dispose();
        }

        foreach (FlatParameter flat in FlatParameters)
        {
            flat.Dispose();
        }
    }
}
