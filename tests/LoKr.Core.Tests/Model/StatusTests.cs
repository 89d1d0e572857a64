using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Factors;
using LoKr.Core.Model;
using LoKr.Core.Tests.Support;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Model;

/// <summary>States of layers and of the model as PEFT's get_layer_status and get_model_status report them.</summary>
public sealed class StatusTests
{
    private const string Q0 = "model.layers.0.self_attn.q_proj";
    private const string V0 = "model.layers.0.self_attn.v_proj";

    private static readonly LoKrConfig s_query = new() { R = 2, TargetModules = ModuleSelector.FromNames(["q_proj"]), InitWeights = InitWeights.Random };

    [Fact]
    public void Layers_and_model_say_what_is_active_merged_enabled_and_trainable()
    {
        using LoKrModel model = new(TestNetworks.Decoder());
        Assert.Equal(ErrorIds.AdapterNotFound, Assert.Throws<LoKrException>(() => model.GetLayerStatus()).ErrorId);
        Assert.Equal(ErrorIds.AdapterNotFound, Assert.Throws<LoKrException>(() => model.GetModelStatus()).ErrorId);
        Assert.Empty(model.GetAdapterStatus());

        model.AddAdapter(s_query, "b");
        model.AddAdapter(s_query with { TargetModules = ModuleSelector.FromNames(["q_proj", "v_proj"]) }, "a");
        IReadOnlyList<LoKrLayerStatus> layers = model.GetLayerStatus();
        Assert.Equal([Q0, V0, Q0.Replace('0', '1'), V0.Replace('0', '1')], layers.Select(static layer => layer.Name));
        LoKrLayerStatus query = layers[0];
        Assert.Equal("lokr.Linear", query.ModuleType);
        Assert.True(query.Enabled);
        Assert.Equal(["b"], query.ActiveAdapters);
        Assert.Empty(query.MergedAdapters);
        Assert.Equal(["a", "b"], query.AvailableAdapters);
        Assert.Equal((TriState.True, TriState.False), (query.RequiresGrad["b"], query.RequiresGrad["a"]));
        Assert.Equal(["cpu"], query.Devices["a"]);

        // An active adapter that is not on the layer is listed all the same.
        Assert.Equal(["a"], layers[1].AvailableAdapters);
        Assert.Equal(["b"], layers[1].ActiveAdapters);

        LoKrModelStatus status = model.GetModelStatus();
        Assert.Equal(model.CountParameters(), new ParameterCount(status.TrainableParams, status.TotalParams));
        Assert.Equal(("LoKrModel", 4, TriState.True), (status.AdapterModelType, status.NumAdapterLayers, status.Enabled));
        Assert.Equal(["a", "b"], status.PeftTypes.Keys.Order(StringComparer.Ordinal));
        Assert.All(status.PeftTypes.Values, static type => Assert.Equal("LOKR", type));
        Assert.Equal((TriState.True, TriState.False), (status.RequiresGrad["b"], status.RequiresGrad["a"]));

        model.Merge(["a"]);
        Assert.Equal(["a"], model.GetModelStatus().MergedAdapters);
        Assert.Equal(["a"], model.GetLayerStatus()[1].MergedAdapters);
        LoKrAdapterStatus merged = model.GetAdapterStatus()[1];
        Assert.Equal(("a", false, true, 4), (merged.Name, merged.IsActive, merged.IsMerged, merged.ModuleCount));
        model.UndoMerge();
        model.SetAdaptersEnabled(false);
        model.SetActiveAdapters(["a", "b"]);
        status = model.GetModelStatus();
        Assert.Equal(TriState.False, status.Enabled);
        Assert.Equal(["a", "b"], status.ActiveAdapters);
        Assert.Empty(status.MergedAdapters);
    }

    [Fact]
    public void Gradients_switched_by_hand_are_irregular()
    {
        using LoKrModel model = new(TestNetworks.Decoder());
        LoKrAdapter adapter = model.AddAdapter(s_query);
        adapter.Layers[0].Factors.Tensors[FactorNames.W1].requires_grad = false;
        Assert.Equal(TriState.Irregular, model.GetLayerStatus()[0].RequiresGrad["default"]);
        Assert.Equal(TriState.True, model.GetLayerStatus()[1].RequiresGrad["default"]);
        Assert.Equal(TriState.Irregular, model.GetModelStatus().RequiresGrad["default"]);
        Assert.Equal(TriState.Irregular, model.GetAdapterStatus()[0].RequiresGrad);
    }

    [Fact]
    public void Layers_that_disagree_are_irregular()
    {
        static LoKrLayerStatus Layer(bool enabled, string[] available, string[] active, string[] merged) => new()
        {
            Name = "layer",
            ModuleType = "lokr.Linear",
            Enabled = enabled,
            AvailableAdapters = available,
            ActiveAdapters = active,
            MergedAdapters = merged,
            RequiresGrad = available.ToDictionary(static name => name, _ => enabled ? TriState.True : TriState.False),
            Devices = available.ToDictionary(static name => name, IReadOnlyList<string> (_) => [enabled ? "cuda" : "cpu"]),
        };
        static LoKrModelStatus Of(params LoKrLayerStatus[] layers) => LoKrModelStatus.Combine(layers, "Model", ["a", "b"], new(1, 2));

        LoKrModelStatus mixed = Of(Layer(true, ["a", "b"], ["a"], ["a"]), Layer(false, ["a"], ["b"], []));
        Assert.Equal(TriState.Irregular, mixed.Enabled);
        Assert.Equal(["irregular"], mixed.ActiveAdapters);
        Assert.Equal(["irregular"], mixed.MergedAdapters);
        Assert.Equal((TriState.Irregular, TriState.True), (mixed.RequiresGrad["a"], mixed.RequiresGrad["b"]));
        Assert.Equal(["cpu", "cuda"], mixed.Devices["a"]);
        Assert.Equal(["a", "b"], mixed.AvailableAdapters);

        // A layer without the merged adapter does not disagree.
        Assert.Equal(["a"], Of(Layer(true, ["a"], ["a"], ["a"]), Layer(true, ["b"], ["a"], [])).MergedAdapters);
    }
}
