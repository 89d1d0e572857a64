using LoKr.Core.Configuration;
using LoKr.Core.Layers;
using LoKr.Core.Nn;
using TorchSharp;

namespace LoKr.Core.Model;

/// <summary>One named adapter over all its target modules: config, layers, saved modules, one flat parameter and one flat gradient.</summary>
public sealed class LoKrAdapter
{
    private IReadOnlyList<SavedModuleCopy> _copies;
    private double _scale = 1;

    internal LoKrAdapter(
        string name,
        LoKrConfig config,
        IReadOnlyList<LoKrLayer> layers,
        IReadOnlyList<SavedModuleCopy> copies,
        IReadOnlyList<FlatParameter> flatParameters,
        IReadOnlyList<string> warnings)
    {
        Name = name;
        Config = config;
        Layers = layers;
        _copies = copies;
        FlatParameters = flatParameters;
        Warnings = warnings;
    }

    /// <summary>Name of the adapter.</summary>
    public string Name { get; }

    /// <summary>Configuration with every default resolved.</summary>
    public LoKrConfig Config { get; }

    /// <summary>Adapted layers by full module name, in module order.</summary>
    public IReadOnlyList<LoKrLayer> Layers { get; }

    /// <summary>Norms whose weights it changes (LyCORIS <c>train_norm</c>), in module order.</summary>
    public IReadOnlyList<LoKrNorm> Norms { get; internal init; } = [];

    /// <summary>Full names of the modules that are trained and saved whole.</summary>
    public IReadOnlyList<string> SavedModules => [.. _copies.Select(static copy => copy.ModuleName)];

    /// <summary>The flat buffers that hold every trainable number: one, or one per element type where saved modules differ from the factors.</summary>
    public IReadOnlyList<FlatParameter> FlatParameters { get; private set; }

    /// <summary>What looked odd when the adapter was added, for people: patterns and targets without effect, tied weights.</summary>
    public IReadOnlyList<string> Warnings { get; }

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

    internal IReadOnlyList<SavedModuleCopy> Copies => _copies;

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

        foreach (SavedModuleCopy copy in _copies)
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

    /// <summary>Takes the buffers of another adapter of the same configuration, on another device or in another type, with the own values.</summary>
    internal void TakeBuffers(LoKrAdapter other)
    {
        AdapterLoader.Load(other, GetTensors());
        Release();
        (_copies, FlatParameters) = (other._copies, other.FlatParameters);
        foreach ((LoKrLayer mine, LoKrLayer theirs) in Layers.Zip(other.Layers))
        {
            mine.Factors = theirs.Factors;
        }

        foreach ((LoKrNorm mine, LoKrNorm theirs) in Norms.Zip(other.Norms))
        {
            (mine.Weight, mine.Bias) = (theirs.Weight, theirs.Bias);
        }
    }

    /// <summary>Releases the buffers; nothing may point at them any more.</summary>
    internal void Release()
    {
        foreach (SavedModuleCopy copy in _copies)
        {
            copy.Dispose();
        }

        foreach (FlatParameter flat in FlatParameters)
        {
            flat.Dispose();
        }
    }
}
