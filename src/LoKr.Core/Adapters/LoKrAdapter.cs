using TorchSharp;

namespace LoKr.Core.Adapters;

/// <summary>One named adapter over all its target modules: config, layers, saved modules, one flat parameter and one flat gradient.</summary>
public sealed class LoKrAdapter
{
    internal LoKrAdapter() => throw new NotImplementedException();

    /// <summary>Name of the adapter.</summary>
    public string Name => throw new NotImplementedException();

    /// <summary>Configuration with every default resolved.</summary>
    public LoKrConfig Config => throw new NotImplementedException();

    /// <summary>Adapted layers by full module name, in module order.</summary>
    public IReadOnlyList<LoKrLayer> Layers => throw new NotImplementedException();

    /// <summary>Full names of the modules that are trained and saved whole.</summary>
    public IReadOnlyList<string> SavedModules => throw new NotImplementedException();

    /// <summary>The flat buffers that hold every trainable number: one, or one per element type where saved modules differ from the factors.</summary>
    public IReadOnlyList<FlatParameter> FlatParameters => throw new NotImplementedException();

    /// <summary>Number of trainable parameters.</summary>
    public long ParameterCount => throw new NotImplementedException();

    /// <summary>
    /// Tensors by the name they have in a PEFT file without <c>base_model.model.</c>: <c>MODULE.lokr_w1</c>, <c>classifier.weight</c>.
    /// Views of the flat buffers, not copies.
    /// </summary>
    public IReadOnlyDictionary<string, torch.Tensor> GetTensors() => throw new NotImplementedException();
}
