using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Layers;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Core.Tests.Support;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Model;

/// <summary>Modules trained whole: the module keeps its own parameters, which point at the trained copy while the adapter runs.</summary>
public sealed class SavedModuleTests
{
    private static readonly LoKrConfig s_config = new() { TargetModules = ModuleSelector.FromNames(["query"]), ModulesToSave = ["head"] };

    [Theory]
    [InlineData(ScalarType.Float32)]
    [InlineData(ScalarType.BFloat16)]
    public void Updates_of_the_flat_buffer_change_the_output_and_originals_come_back(ScalarType type)
    {
        using DisposeScope scope = NewDisposeScope();
        using LoKrModel model = Build(type);
        Tensor x = randn([5, 8]).to(type);
        Tensor before = PeftCase.Run(model, x).detach();
        Dictionary<string, Tensor> originals = Snapshot(model);
        TorchSharp.Modules.Parameter[] parameters = [.. model.Module.parameters()];

        LoKrAdapter adapter = model.AddAdapter(s_config);
        Assert.Equal(["head"], adapter.SavedModules);
        Assert.Equal(type == ScalarType.Float32 ? 1 : 2, adapter.FlatParameters.Count);
        Assert.True(PeftCase.Run(model, x).equal(before).all().ToBoolean());

        FlatParameter flat = adapter.FlatParameters.Single(candidate => candidate.Views.Any(view => ReferenceEquals(view, adapter.GetTensors()["head.out.weight"])));
        PeftCase.Run(model, x).sum().backward();
        PeftCase.Run(model, x).sum().backward();
        Tensor once = flat.Gradient.clone() / 2;
        Assert.True(once.abs().sum().ToDouble() > 0);
        flat.Gradient.zero_();
        PeftCase.Run(model, x).sum().backward();
        TensorAssert.Close(once, flat.Gradient, 1e-2, "gradient after zeroing");
        using (no_grad())
        {
            flat.Value.sub_(flat.Gradient * 0.5);
        }

        Tensor trained = PeftCase.Run(model, x).detach();
        Assert.False(trained.equal(before).all().ToBoolean());

        model.SetAdaptersEnabled(false);
        Assert.True(PeftCase.Run(model, x).equal(before).all().ToBoolean());
        AssertSame(originals, Snapshot(model));
        model.SetAdaptersEnabled(true);
        Assert.True(PeftCase.Run(model, x).equal(trained).all().ToBoolean());
        AssertSame(originals, model.GetBaseState());

        model.Merge();
        Assert.True(model.GetBaseState()["head.out.weight"].equal(adapter.GetTensors()["head.out.weight"]).all().ToBoolean());
        TensorAssert.Close(trained, PeftCase.Run(model, x), type == ScalarType.Float32 ? 1e-6 : 2e-2, "merged");
        model.UndoMerge();

        model.RemoveAdapter("default");
        AssertSame(originals, Snapshot(model));
        Assert.True(PeftCase.Run(model, x).equal(before).all().ToBoolean());
        Assert.Equal(parameters, model.Module.parameters());
        Assert.All(parameters, static parameter => Assert.True(parameter.requires_grad));
    }

    [Fact]
    public void Running_statistics_belong_to_the_copy_and_are_not_trained()
    {
        using DisposeScope scope = NewDisposeScope();
        using LoKrModel model = Build(ScalarType.Float32);
        Dictionary<string, Tensor> originals = Snapshot(model);
        LoKrAdapter adapter = model.AddAdapter(s_config);
        Assert.Equal(
            ["head.dense.bias", "head.dense.weight", "head.norm.bias", "head.norm.num_batches_tracked", "head.norm.running_mean", "head.norm.running_var", "head.norm.weight", "head.out.bias", "head.out.weight"],
            adapter.GetTensors().Keys.Where(static key => key.StartsWith("head.", StringComparison.Ordinal)).Order(StringComparer.Ordinal));
        model.Module.train();
        PeftCase.Run(model, randn(16, 8) + 3);
        Assert.False(adapter.GetTensors()["head.norm.running_mean"].equal(originals["head.norm.running_mean"]).all().ToBoolean());
        AssertSame(originals, model.GetBaseState());
        model.RemoveAdapter("default");
        AssertSame(originals, Snapshot(model));
    }

    [Fact]
    public void Two_adapters_have_their_own_copies_of_the_original_and_take_turns()
    {
        using DisposeScope scope = NewDisposeScope();
        using LoKrModel model = Build(ScalarType.Float32);
        Tensor x = randn(5, 8);
        Tensor before = PeftCase.Run(model, x).detach();
        model.AddAdapter(s_config, "a");
        using (no_grad())
        {
            model.GetAdapter("a").FlatParameters[0].Value.add_(0.1);
        }

        Tensor a = PeftCase.Run(model, x).detach();
        model.AddAdapter(s_config, "b");
        Assert.True(PeftCase.Run(model, x).equal(a).all().ToBoolean());
        Assert.Equal(ErrorIds.SavedModuleConflict, Assert.Throws<LoKrException>(() => model.SetActiveAdapters(["a", "b"])).ErrorId);
        Assert.Equal(ErrorIds.SavedModuleConflict, Assert.Throws<LoKrException>(() => model.Merge(["b"])).ErrorId);
        model.SetActiveAdapters(["b"]);
        Assert.True(PeftCase.Run(model, x).equal(before).all().ToBoolean());
        model.SetActiveAdapters(["a"]);
        Assert.True(PeftCase.Run(model, x).equal(a).all().ToBoolean());
        model.SetActiveAdapters([]);
        Assert.True(PeftCase.Run(model, x).equal(before).all().ToBoolean());
    }

    [Fact]
    public void A_module_is_not_trained_whole_and_adapted_at_once()
    {
        using LoKrModel model = Build(ScalarType.Float32);
        model.AddAdapter(s_config, "a");
        Assert.Equal(ErrorIds.SavedModuleConflict, Assert.Throws<LoKrException>(() => model.AddAdapter(new() { TargetModules = ModuleSelector.FromNames(["dense"]) }, "b")).ErrorId);
        Assert.Equal(ErrorIds.SavedModuleConflict, Assert.Throws<LoKrException>(() => model.AddAdapter(s_config with { ModulesToSave = ["head.dense"] }, "b")).ErrorId);
        Assert.Equal(ErrorIds.SavedModuleConflict, Assert.Throws<LoKrException>(() => model.AddAdapter(s_config with { ModulesToSave = ["query"], TargetModules = ModuleSelector.FromNames([]) }, "b")).ErrorId);
        Assert.Single(model.Adapters);
    }

    [Fact]
    public void A_norm_is_not_trained_whole_and_changed_at_once()
    {
        using LoKrModel model = new(TestNetworks.Network(("query", nn.Linear(8, 8)), ("norm", nn.LayerNorm(8))));
        LoKrConfig norms = s_config with { ModulesToSave = null, TrainNorm = true };
        LoKrConfig whole = s_config with { ModulesToSave = ["norm"] };
        model.AddAdapter(norms, "a");
        Assert.Equal(ErrorIds.SavedModuleConflict, Assert.Throws<LoKrException>(() => model.AddAdapter(whole, "b")).ErrorId);
        model.RemoveAdapter("a");
        model.AddAdapter(whole, "b");
        Assert.Equal(ErrorIds.SavedModuleConflict, Assert.Throws<LoKrException>(() => model.AddAdapter(norms, "a")).ErrorId);
        Assert.Equal(["b"], model.Adapters.Select(static adapter => adapter.Name));
    }

    [Fact]
    public void A_shared_weight_cannot_be_trained_as_a_copy()
    {
        TorchSharp.Modules.Linear first = nn.Linear(8, 8);
        TorchSharp.Modules.Linear second = nn.Linear(8, 8);
        second.weight = first.weight;
        using LoKrModel model = new(TestNetworks.Network(("query", nn.Linear(8, 8)), ("embed", first), ("head", second)));
        Assert.Equal(ErrorIds.TiedWeight, Assert.Throws<LoKrException>(() => model.AddAdapter(s_config)).ErrorId);
    }

    private static LoKrModel Build(ScalarType type)
    {
        manual_seed(11);
        LoKrModel model = new(TestNetworks.Network(
            ("query", nn.Linear(8, 8, dtype: type)),
            ("head", nn.Sequential(("dense", nn.Linear(8, 8, dtype: type)), ("norm", nn.BatchNorm1d(8, dtype: type)), ("act", nn.Tanh()), ("out", nn.Linear(8, 3, dtype: type))))));
        model.Module.eval();
        return model;
    }

    private static Dictionary<string, Tensor> Snapshot(LoKrModel model) => ModuleTree.Parameters(model.Module)
        .Select(static entry => (entry.Name, (Tensor)entry.Parameter))
        .Concat(ModuleTree.Buffers(model.Module))
        .ToDictionary(static entry => entry.Name, static entry => entry.Item2.detach().clone(), StringComparer.Ordinal);

    private static void AssertSame(IReadOnlyDictionary<string, Tensor> expected, IReadOnlyDictionary<string, Tensor> actual)
    {
        Assert.Equal(expected.Keys.Order(StringComparer.Ordinal), actual.Keys.Order(StringComparer.Ordinal));
        Assert.All(expected, pair => Assert.True(pair.Value.equal(actual[pair.Key]).all().ToBoolean(), pair.Key));
    }
}
