using LoKr.Core.Layers;
using LoKr.Core.Model;
using LoKr.Core.Tests.Support;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Layers;

/// <summary>Every network of the reference fixtures against what PEFT computed.</summary>
public sealed class PeftLayersTests
{
    public static TheoryData<string> Cases => Fixtures.Cases("peft-layers");

    [Theory]
    [MemberData(nameof(Cases))]
    public void Outputs_and_delta_weights_agree(string name)
    {
        using DisposeScope scope = NewDisposeScope();
        PeftCase reference = PeftCase.Open("peft-layers", name);
        using LoKrModel model = reference.BuildModel();
        Dictionary<string, Tensor> io = reference.Tensors("io.safetensors");
        TensorAssert.Close(io["base_output"], PeftCase.Run(model, io["input"]), TensorAssert.Layer, "base output");

        LoKrAdapter adapter = model.LoadAdapter(reference.Config, reference.AdapterTensors());
        TensorAssert.Close(io["adapter_output"], PeftCase.Run(model, io["input"]), TensorAssert.Layer, "adapter output");
        using (no_grad())
        {
            TensorAssert.Close(io["adapter_output"], PeftCase.Run(model, io["input"]), TensorAssert.Layer, "adapter output without gradients");
        }

        Assert.Equal(
            io.Keys.Where(static key => key.StartsWith("delta.", StringComparison.Ordinal)).Order(StringComparer.Ordinal),
            adapter.Layers.Select(static layer => "delta." + layer.ModuleName).Order(StringComparer.Ordinal));
        foreach (LoKrLayer layer in adapter.Layers)
        {
            TensorAssert.Close(io["delta." + layer.ModuleName], layer.GetDeltaWeight(), TensorAssert.Layer, "delta of " + layer.ModuleName);
            Assert.True(layer.CallCount > 0);
        }

        model.RemoveAdapter("default");
        TensorAssert.Close(io["base_output"], PeftCase.Run(model, io["input"]), TensorAssert.Layer, "output after removal");
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void A_fresh_adapter_has_exactly_the_tensors_that_PEFT_saves(string name)
    {
        using DisposeScope scope = NewDisposeScope();
        PeftCase reference = PeftCase.Open("peft-layers", name);
        using LoKrModel model = reference.BuildModel();
        IReadOnlyDictionary<string, Tensor> tensors = model.AddAdapter(reference.Config).GetTensors();
        Dictionary<string, Tensor> saved = reference.AdapterTensors();
        Assert.Equal(saved.Keys.Order(StringComparer.Ordinal), tensors.Keys.Order(StringComparer.Ordinal));
        Assert.All(saved, pair => Assert.Equal(pair.Value.shape, tensors[pair.Key].shape));
        Assert.Equal(saved.Values.Sum(static tensor => tensor.numel()), model.CountParameters().Trainable);
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void Gradients_agree(string name)
    {
        using DisposeScope scope = NewDisposeScope();
        PeftCase reference = PeftCase.Open("peft-layers", name);
        using LoKrModel model = reference.BuildModel();
        Dictionary<string, Tensor> io = reference.Tensors("io.safetensors");
        LoKrAdapter adapter = model.LoadAdapter(reference.Config, reference.AdapterTensors());
        for (int round = 0; round < 2; round++)
        {
            // Zeroing the flat gradients is all that is needed between steps.
            adapter.FlatParameters.ToList().ForEach(static flat => flat.Gradient.zero_());
            (PeftCase.Run(model, io["input"]) * io["cotangent"]).sum().backward();
            foreach ((string key, Tensor gradient) in Named(adapter, static flat => flat.GradientViews))
            {
                TensorAssert.Close(io["grad." + PeftCase.InMemoryName(key)], gradient, TensorAssert.Layer, $"gradient of {key}, round {round}");
            }
        }

        Assert.All(model.Module.parameters().Where(parameter => !parameter.requires_grad), static parameter => Assert.Null(parameter.grad));
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void Merging_agrees_and_can_be_taken_back(string name)
    {
        using DisposeScope scope = NewDisposeScope();
        PeftCase reference = PeftCase.Open("peft-layers", name);
        using LoKrModel model = reference.BuildModel();
        Dictionary<string, Tensor> io = reference.Tensors("io.safetensors");
        Dictionary<string, Tensor> before = model.GetBaseState().ToDictionary(static pair => pair.Key, static pair => pair.Value.clone());
        model.LoadAdapter(reference.Config, reference.AdapterTensors());
        model.Merge(safe: true);

        IReadOnlyDictionary<string, Tensor> merged = model.GetBaseState();
        Assert.Equal(io.Keys.Where(static key => key.StartsWith("merged.", StringComparison.Ordinal)).Order(StringComparer.Ordinal), merged.Keys.Select(static key => "merged." + key).Order(StringComparer.Ordinal));
        foreach ((string key, Tensor tensor) in merged)
        {
            TensorAssert.Close(io["merged." + key], tensor, TensorAssert.Layer, key);
        }

        TensorAssert.Close(io["merged_output"], PeftCase.Run(model, io["input"]), TensorAssert.Layer, "merged output");
        model.UndoMerge();
        Assert.All(model.GetBaseState(), pair => Assert.True(pair.Value.equal(before[pair.Key]).all().ToBoolean(), pair.Key));
        TensorAssert.Close(io["adapter_output"], PeftCase.Run(model, io["input"]), TensorAssert.Layer, "output after undo");
    }

    private static IEnumerable<(string Key, Tensor Tensor)> Named(LoKrAdapter adapter, Func<FlatParameter, IReadOnlyList<Tensor>> views)
    {
        IReadOnlyDictionary<string, Tensor> tensors = adapter.GetTensors();
        foreach (FlatParameter flat in adapter.FlatParameters)
        {
            for (int i = 0; i < flat.Views.Count; i++)
            {
                yield return (tensors.First(pair => ReferenceEquals(pair.Value, flat.Views[i])).Key, views(flat)[i]);
            }
        }
    }
}
