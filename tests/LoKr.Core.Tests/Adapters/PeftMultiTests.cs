using LoKr.Core.Adapters;
using LoKr.Core.Merging;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Adapters;

/// <summary>Two adapters on one network against what PEFT computed.</summary>
public sealed class PeftMultiTests
{
    [Fact]
    public void Two_adapters_add_up_scale_merge_and_go_as_in_PEFT()
    {
        using DisposeScope scope = NewDisposeScope();
        PeftCase reference = PeftCase.Open("peft-multi", "wide");
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
        Tensor expected = reference.Tensors("base.safetensors")["lin0.weight"] + model.GetAdapter("b").Layers[0].GetDeltaWeight();
        TensorAssert.Close(expected, model.GetBaseState()["lin0.weight"], TensorAssert.Layer, "lin0 with b merged");
        model.UndoMerge();

        model.SetAdaptersEnabled(false);
        Check("disabled");
        model.SetAdaptersEnabled(true);
        Check("a+b");
        model.RemoveAdapter("b");
        Check("b deleted");
    }
}
