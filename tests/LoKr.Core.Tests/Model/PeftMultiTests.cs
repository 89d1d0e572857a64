using LoKr.Core.Layers;
using LoKr.Core.Model;
using LoKr.Core.Tests.Support;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Model;

/// <summary>Two adapters on one network against what PEFT computed.</summary>
public sealed class PeftMultiTests
{
    public static TheoryData<string> Cases => Fixtures.Cases("peft-multi");

    [Theory]
    [MemberData(nameof(Cases))]
    public void Two_adapters_add_up_scale_merge_and_go_as_in_PEFT(string name)
    {
        using DisposeScope scope = NewDisposeScope();
        PeftCase reference = PeftCase.Open("peft-multi", name);
        using LoKrModel model = reference.BuildModel();
        Dictionary<string, Tensor> io = reference.Tensors("io.safetensors");
        void Check(string key) => TensorAssert.Close(io[key], PeftCase.Run(model, io["input"]), TensorAssert.Layer, key);

        Check("base");
        model.LoadAdapter(reference.ConfigOf("a"), reference.AdapterTensors("a"), "a");
        model.LoadAdapter(reference.ConfigOf("b"), reference.AdapterTensors("b"), "b");
        Assert.Equal(["a"], model.ActiveAdapters);
        Check("a");
        model.SetActiveAdapters(["b"]);
        Check("b");
        model.SetActiveAdapters(["a", "b"]);
        Check("a+b");
        model.SetAdapterScale(["a"], 0.5);
        Check("0.5a+b");
        model.SetAdapterScale(["a"], 1);
        Check("a+b again");

        LoKrMergeResult result = model.Merge(["b"]);
        Check("b merged, a active");
        Assert.Contains("'a'", Assert.Single(result.Warnings), StringComparison.Ordinal);
        Dictionary<string, Tensor> original = reference.Tensors("base.safetensors");
        foreach (string key in io.Keys.Where(static key => key.StartsWith("merged b.", StringComparison.Ordinal)))
        {
            string weight = key["merged b.".Length..] + ".weight";
            Tensor merged = model.GetBaseState()[weight];
            LoKrLayer? layer = model.GetAdapter("b").Layers.FirstOrDefault(layer => layer.ModuleName + ".weight" == weight);
            TensorAssert.Close(layer is null ? original[weight] : original[weight] + layer.GetDeltaWeight(), merged, TensorAssert.Layer, key);

            // A tensor of the reference that is the base weight was written after the merge had been taken back; it says nothing.
            if (layer is null || (io[key] - original[weight]).abs().max().ToDouble() > TensorAssert.Layer * original[weight].abs().max().ToDouble())
            {
                TensorAssert.Close(io[key], merged, TensorAssert.Layer, key + " of the reference");
            }
        }

        model.UndoMerge();
        Assert.All(original, pair => Assert.True(TensorAssert.Same(pair.Value, model.GetBaseState()[pair.Key]), pair.Key));

        model.SetAdaptersEnabled(false);
        Check("disabled");
        model.SetAdaptersEnabled(true);
        Check("a+b");
        model.RemoveAdapter("b");
        Check("b deleted");
    }
}
