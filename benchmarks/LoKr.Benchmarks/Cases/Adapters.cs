using LoKr.Core.Configuration;
using LoKr.Core.Layers;
using LoKr.Core.Model;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Benchmarks.Cases;

/// <summary>Models with adapters whose factors are small numbers instead of zeros, so that nothing is cheaper than in training.</summary>
internal static class Adapters
{
    /// <summary>Makes a model of one layer and adds an adapter to it.</summary>
    public static LoKrModel Add(nn.Module<Tensor, Tensor> layer, LoKrConfig config)
    {
        LoKrModel model = new(nn.Sequential(("layer", layer)));
        Fill(model.AddAdapter(config with { TargetModules = ModuleSelector.FromNames(["layer"]) }));
        return model;
    }

    /// <summary>Fills the factors.</summary>
    public static void Fill(LoKrAdapter adapter)
    {
        using IDisposable noGrad = no_grad();
        foreach (FlatParameter flat in adapter.FlatParameters)
        {
            flat.Value.normal_(0, 0.02);
        }
    }

    /// <summary>The factors of a model that is a single layer, by suffix, as leaves of their own.</summary>
    public static Dictionary<string, Tensor> CopyFactors(LoKrModel model) => model.Adapters[0].Layers[0].Factors.Tensors
        .ToDictionary(static entry => entry.Key, static entry => entry.Value.detach().clone().requires_grad_(true).DetachFromDisposeScope());
}
