using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Layers;
using LoKr.Core.Model;
using LoKr.Models.Diffusion;
using LoKr.Models.Loading;
using LoKr.Models.Tests.Support;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Models.Tests.Diffusion;

/// <summary>Adapters on all components of a pipeline through the interface that single models share.</summary>
public sealed class PipelineOperationsTests : IDisposable
{
    private static readonly LoKrConfig s_config = new() { R = 2, TargetModules = ModuleSelector.FromNames(["to_q", "q_proj"]), InitWeights = InitWeights.Random };
    private readonly TempFolder _folder = new();
    private readonly SingleThread _thread = new();
    private readonly IAdaptable _target;

    public PipelineOperationsTests()
    {
        ModelFolderResult loaded = ModelFolder.Load(TinyPipeline.Write(_folder["sd"], large: false));
        Assert.IsType<StableDiffusionPipeline>(loaded.Model);
        _target = loaded.Model;
    }

    public void Dispose()
    {
        _target.Dispose();
        _thread.Dispose();
        _folder.Dispose();
    }

    [Fact]
    public void A_list_of_targets_is_split_between_the_components()
    {
        IReadOnlyDictionary<string, LoKrAdapter> added = _target.AddAdapter(s_config, seed: 1);
        Assert.Equal(["text_encoder", "unet"], added.Keys);
        Assert.Equal("q_proj", added["text_encoder"].Config.TargetModules?.ToString());
        Assert.Equal("to_q", added["unet"].Config.TargetModules?.ToString());
        Assert.All(added.Values, adapter => Assert.Empty(adapter.Warnings));
        Assert.Equal(added, _target.GetAdapters("default"));
        Assert.Equal(["default"], _target.GetAdapterNames());
        Assert.Equal("default", _target.GetOnlyActiveAdapterName());
        Assert.Equal(2, _target.GetAdapterStatus().Count);
        Assert.Equal(added.Values.Sum(adapter => adapter.Layers.Count), _target.GetModelStatus().NumAdapterLayers);
        Assert.All(_target.GetLayerStatus(), layer => Assert.Matches(@"^(text_encoder|unet)\.", layer.Name));
        Assert.Equal(_target.GetLayerStatus().Select(layer => layer.Name), _target.GetModules().Where(module => module.IsAdapted).Select(module => module.Name));
        Assert.Equal(added.Values.Sum(adapter => adapter.ParameterCount), _target.CountParameters().Trainable);
    }

    [Fact]
    public void Components_without_a_target_are_left_out_and_entries_without_a_module_are_reported()
    {
        IReadOnlyDictionary<string, LoKrAdapter> added = _target.AddAdapter(s_config with { TargetModules = ModuleSelector.FromNames(["to_q", "to_nowhere"]) });
        Assert.Equal(["unet"], added.Keys);
        Assert.Contains("to_nowhere", Assert.Single(added["unet"].Warnings));
        ErrorAssert.Throws(
            ErrorIds.TargetModuleNotFound, () => _target.AddAdapter(s_config with { TargetModules = ModuleSelector.FromNames(["to_nowhere"]) }, "second"), "to_nowhere");
        Assert.Equal(["default"], _target.GetAdapterNames());
    }

    [Fact]
    public void An_error_in_one_component_leaves_no_adapter_on_the_others()
    {
        _target.Models["unet"].AddAdapter(s_config with { TargetModules = ModuleSelector.FromNames(["to_k"]) });
        ErrorAssert.Throws(ErrorIds.AdapterExists, () => _target.AddAdapter(s_config), "default");
        Assert.Empty(_target.Models["text_encoder"].Adapters);
        Assert.Single(_target.Models["unet"].Adapters);
    }

    [Fact]
    public void A_merge_changes_every_component_and_undoing_it_restores_every_weight()
    {
        _target.AddAdapter(s_config, seed: 1);
        Dictionary<string, Tensor> before = State();
        LoKrMergeResult result = _target.Merge();
        Assert.Equal(["default"], result.Adapters);
        Assert.Equal(_target.GetModelStatus().NumAdapterLayers, result.ModuleCount);
        Assert.Equal(["default"], _target.GetMergedAdapters());
        Dictionary<string, Tensor> merged = State();
        Assert.Equal(result.ModuleCount, before.Count(entry => !TensorAssert.Same(entry.Value, merged[entry.Key])));
        ErrorAssert.Throws(ErrorIds.NothingToMerge, () => _target.Merge(), "merged already");
        ErrorAssert.Throws(ErrorIds.AdapterMerged, () => _target.RemoveAdapter("default"), "default");
        _target.UndoMerge();
        Dictionary<string, Tensor> after = State();
        Assert.All(before, entry => Assert.True(TensorAssert.Same(entry.Value, after[entry.Key]), entry.Key));
        ErrorAssert.Throws(ErrorIds.NothingToMerge, () => _target.UndoMerge(), "No adapter is merged");
    }

    [Fact]
    public void A_merge_that_fails_in_one_component_changes_none()
    {
        IReadOnlyDictionary<string, LoKrAdapter> added = _target.AddAdapter(s_config, seed: 1);
        foreach (FlatParameter flat in added["unet"].FlatParameters)
        {
            flat.Value.fill_(double.NaN);
        }

        Dictionary<string, Tensor> before = State();
        ErrorAssert.Throws(ErrorIds.MergeNotFinite, () => _target.Merge(safe: true), "default");
        Dictionary<string, Tensor> after = State();
        Assert.All(before, entry => Assert.True(TensorAssert.Same(entry.Value, after[entry.Key]), entry.Key));
        Assert.Empty(_target.GetMergedAdapters());
    }

    [Fact]
    public void Adapters_of_a_name_are_activated_scaled_frozen_and_removed_together()
    {
        _target.AddAdapter(s_config, seed: 1);
        _target.AddAdapter(s_config with { TargetModules = ModuleSelector.FromNames(["to_k"]) }, "other");
        _target.SetActiveAdapters(["other"]);
        Assert.Equal(["other"], _target.GetActiveAdapters());
        Assert.Empty(_target.Models["text_encoder"].ActiveAdapters);
        _target.SetActiveAdapters(["default", "other"]);
        ErrorAssert.Throws(ErrorIds.AdapterAmbiguous, () => _target.GetOnlyActiveAdapterName(), "default", "other");
        _target.SetAdapterScale(["default"], 0.5);
        Assert.All(_target.GetAdapters("default").Values, adapter => Assert.Equal(0.5, adapter.Scale));
        _target.SetAdapterTrainable("default", trainable: false);
        Assert.All(_target.GetAdapters("default").Values, adapter => Assert.False(adapter.IsTrainable));
        _target.SetAdaptersEnabled(enabled: false);
        Assert.All(_target.GetAdapterStatus(), status => Assert.False(status.IsEnabled));
        ErrorAssert.Throws(ErrorIds.AdapterNotFound, () => _target.SetActiveAdapters(["none"]), "none", "default, other");
        ErrorAssert.Throws(ErrorIds.AdapterNotFound, () => _target.SetAdapterScale(["default", "none"], 2), "none");
        _target.RemoveAdapter("default");
        Assert.Equal(["other"], _target.GetAdapterNames());
        _target.RemoveAdapter("other");
        ErrorAssert.Throws(ErrorIds.AdapterNotFound, () => _target.GetLayerStatus(), _target.Name);
        ErrorAssert.Throws(ErrorIds.NothingToMerge, () => _target.Merge(), "no adapter");
    }

    [Fact]
    public void A_single_model_is_its_own_only_component()
    {
        IAdaptable model = _target.Models["text_encoder"];
        Assert.Equal([""], model.Models.Keys);
        Assert.Same(model, model.Models[""]);
        LoKrAdapter adapter = Assert.Single(model.AddAdapter(s_config with { TargetModules = ModuleSelector.FromNames(["q_proj"]) })).Value;
        Assert.Equal(adapter.Layers.Select(layer => layer.ModuleName), model.GetLayerStatus().Select(layer => layer.Name));
        Assert.Equal(adapter.Layers.Count, model.Merge().ModuleCount);
        model.UndoMerge();
        ErrorAssert.Throws(ErrorIds.TargetModuleNotFound, () => model.AddAdapter(s_config with { TargetModules = ModuleSelector.FromNames(["to_q"]) }, "second"), "to_q");
    }

    private Dictionary<string, Tensor> State() => _target.Models
        .SelectMany(part => part.Value.GetBaseState().Select(entry => (Name: $"{part.Key}.{entry.Key}", entry.Value)))
        .ToDictionary(entry => entry.Name, entry => entry.Value.detach().clone(), StringComparer.Ordinal);
}
