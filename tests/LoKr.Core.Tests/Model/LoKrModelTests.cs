using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Factors;
using LoKr.Core.Layers;
using LoKr.Core.Model;
using LoKr.Core.Tests.Support;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Model;

public sealed class LoKrModelTests
{
    private static readonly LoKrConfig s_query = new() { R = 2, TargetModules = ModuleSelector.FromNames(["q_proj"]), InitWeights = InitWeights.Random };

    [Fact]
    public void The_first_adapter_freezes_the_base_and_removing_the_last_one_unfreezes_it()
    {
        using LoKrModel model = new(TestNetworks.Decoder());
        TorchSharp.Modules.Parameter[] parameters = [.. model.Module.parameters()];
        parameters[0].requires_grad = false;
        model.AddAdapter(s_query);
        model.AddAdapter(s_query, "second");
        Assert.Equal(["default"], model.ActiveAdapters);
        Assert.All(parameters, static parameter => Assert.False(parameter.requires_grad));
        Assert.All(model.GetAdapter("default").FlatParameters[0].Views, static view => Assert.True(view.requires_grad));
        Assert.All(model.GetAdapter("second").FlatParameters[0].Views, static view => Assert.False(view.requires_grad));

        model.RemoveAdapter("default");
        Assert.Equal(["second"], model.ActiveAdapters);
        Assert.All(model.GetAdapter("second").FlatParameters[0].Views, static view => Assert.True(view.requires_grad));
        model.RemoveAdapter("second");
        Assert.False(parameters[0].requires_grad);
        Assert.All(parameters.Skip(1), static parameter => Assert.True(parameter.requires_grad));
        Assert.Same(parameters[0], model.Module.parameters().First());
    }

    [Fact]
    public void Names_are_checked()
    {
        using LoKrModel model = new(TestNetworks.Decoder());
        model.AddAdapter(s_query);
        Assert.Equal(ErrorIds.AdapterExists, Id(() => model.AddAdapter(s_query)));
        Assert.Equal(ErrorIds.AdapterNameInvalid, Id(() => model.AddAdapter(s_query, "a.b")));
        Assert.Equal(ErrorIds.AdapterNameInvalid, Id(() => model.AddAdapter(s_query, "a/b")));
        Assert.Equal(ErrorIds.AdapterNameInvalid, Id(() => model.AddAdapter(s_query, " ")));
        Assert.Equal(ErrorIds.AdapterNotFound, Id(() => model.RemoveAdapter("other")));
        Assert.Equal(ErrorIds.AdapterNotFound, Id(() => model.SetActiveAdapters(["default", "other"])));
        Assert.Equal(["default"], model.ActiveAdapters);
    }

    [Fact]
    public void Keys_that_do_not_fit_are_named_and_nothing_stays()
    {
        using DisposeScope scope = NewDisposeScope();
        using LoKrModel model = new(TestNetworks.Decoder());
        LoKrConfig config = s_query with { ModulesToSave = ["lm_head"] };
        Dictionary<string, Tensor> tensors;
        using (LoKrModel other = new(TestNetworks.Decoder()))
        {
            tensors = other.AddAdapter(config).GetTensors().ToDictionary(static pair => pair.Key, static pair => pair.Value.clone());
        }

        const string missing = "model.layers.0.self_attn.q_proj.lokr_w1";
        const string misshaped = "model.layers.1.self_attn.q_proj.lokr_w1";
        Dictionary<string, Tensor> broken = new(tensors) { ["extra.lokr_w2"] = zeros(1), [misshaped] = zeros(5, 7) };
        broken.Remove(missing);
        LoKrException error = Assert.Throws<LoKrException>(() => model.LoadAdapter(config, broken));
        Assert.Equal(ErrorIds.AdapterKeysMismatch, error.ErrorId);
        Assert.Contains(missing, error.Message, StringComparison.Ordinal);
        Assert.Contains("extra.lokr_w2", error.Message, StringComparison.Ordinal);
        Assert.Contains(misshaped + " is [5, 7] and must be [3, 3]", error.Message, StringComparison.Ordinal);
        Assert.Equal(ErrorIds.AdapterShapeMismatch, Id(() => model.LoadAdapter(config, new Dictionary<string, Tensor>(tensors) { [misshaped] = zeros(5, 7) })));
        Assert.Empty(model.Adapters);
        Assert.All(model.GetModules(), static module => Assert.Empty(module.SavedBy));

        model.LoadAdapter(config, tensors);
        Assert.All(model.GetAdapter("default").GetTensors(), pair => Assert.True(pair.Value.equal(tensors[pair.Key]).all().ToBoolean()));
    }

    [Fact]
    public void A_model_without_weights_gets_its_tensors_without_memory()
    {
        using LoKrModel model = new(TestNetworks.Network(("q_proj", nn.Linear(1_000_000, 1_000_000, device: META)), ("head", nn.Linear(4096, 16384, device: META))));
        LoKrAdapter adapter = model.AddAdapter(s_query with { ModulesToSave = ["head"] });
        Assert.Equal(
            ["head.bias", "head.weight", "q_proj.lokr_w1", "q_proj.lokr_w2_a", "q_proj.lokr_w2_b"],
            adapter.GetTensors().Keys.Order(StringComparer.Ordinal));
        Assert.Equal([1000L, 2L], adapter.GetTensors()["q_proj.lokr_w2_a"].shape);
        Assert.All(adapter.GetTensors().Values, static tensor => Assert.Equal(DeviceType.META, tensor.device_type));
        Assert.Equal(1_000_000 + 4000 + (4096 * 16384) + 16384, model.CountParameters().Trainable);
        Assert.Equal(ErrorIds.ModelHasNoWeights, Id(() => model.Merge()));
    }

    [Theory]
    [InlineData(ScalarType.BFloat16)]
    [InlineData(ScalarType.Float16)]
    [InlineData(ScalarType.Float64)]
    public void Factors_are_single_precision_under_a_base_of_lower_precision(ScalarType type)
    {
        using DisposeScope scope = NewDisposeScope();
        manual_seed(3);
        TorchSharp.Modules.Linear layer = nn.Linear(12, 24, dtype: type);
        using LoKrModel model = new(TestNetworks.Network(("q_proj", layer)));
        Tensor x = randn([5, 12]).to(type);
        Tensor baseOutput = PeftCase.Run(model, x).detach();
        LoKrAdapter adapter = model.AddAdapter(s_query, seed: 7);
        ScalarType factors = type == ScalarType.Float64 ? ScalarType.Float64 : ScalarType.Float32;
        Assert.Equal(factors, adapter.FlatParameters.Single().Value.dtype);
        Tensor output = PeftCase.Run(model, x);
        Assert.Equal(type, output.dtype);

        // As PEFT: product in the type of the factors, one rounding at the end.
        Tensor expected = (baseOutput.to(factors) + x.to(factors).matmul(adapter.Layers[0].GetDeltaWeight().t())).to(type);
        TensorAssert.Close(expected, output, type == ScalarType.Float64 ? 1e-12 : 1e-2, "output");

        Tensor weight = layer.weight.detach().clone();
        model.Merge();
        Assert.Equal(type, layer.weight.dtype);
        TensorAssert.Close((weight.to(factors) + adapter.Layers[0].GetDeltaWeight()).to(type), layer.weight, type == ScalarType.Float64 ? 1e-12 : 1e-2, "merged");
        model.UndoMerge();
        Assert.True(layer.weight.equal(weight).all().ToBoolean());
    }

    [Fact]
    public void Live_tensors_stay_the_same_over_steps_with_and_without_gradients()
    {
        using LoKrModel model = new(TestNetworks.Decoder());
        model.AddAdapter(s_query with { TargetModules = ModuleSelector.FromPattern("all-linear"), DecomposeBoth = true, R = 1, RankDropout = 0.1, ModuleDropout = 0.2, ModulesToSave = ["lm_head"] });
        LoKrAdapter second = model.AddAdapter(s_query, "second");
        model.SetActiveAdapters(["default", "second"]);
        model.Module.train();
        long live = 0;
        for (int step = 0; step < 23; step++)
        {
            if (step == 3)
            {
                live = Live();
            }

            using DisposeScope scope = NewDisposeScope();
            second.FlatParameters[0].Gradient.zero_();
            PeftCase.Run(model, randn(4, 3, 12)).square().mean().backward();
            using (no_grad())
            {
                PeftCase.Run(model, randn(4, 3, 12));
            }
        }

        Assert.Equal(live, Live());
        Assert.True(second.Layers.All(static layer => layer.CallCount == 46));
    }

    [Fact]
    public void Adding_and_removing_adapters_leaves_no_tensor_behind()
    {
        using LoKrModel model = new(TestNetworks.Decoder());
        long live = 0;
        for (int round = 0; round < 5; round++)
        {
            if (round == 1)
            {
                live = Live();
            }

            using DisposeScope scope = NewDisposeScope();
            model.AddAdapter(s_query with { ModulesToSave = ["lm_head"] });
            PeftCase.Run(model, randn(2, 12)).sum().backward();
            model.Merge();
            model.UndoMerge();
            model.RemoveAdapter("default");
        }

        Assert.Equal(live, Live());
    }

    [Fact]
    public void Modules_show_shapes_counts_and_state()
    {
        using LoKrModel model = new(TestNetworks.Decoder());
        model.AddAdapter(s_query with { ModulesToSave = ["lm_head"] }, "a");
        model.AddAdapter(s_query, "b");
        model.Merge(["b"]);
        IReadOnlyList<LoKrModuleInfo> modules = model.GetModules();
        Assert.Equal("model", modules[0].Name);
        LoKrModuleInfo query = modules.Single(static module => module.Name == "model.layers.0.self_attn.q_proj");
        Assert.Equal(("Linear", 156L, "float32", "cpu"), (query.ModuleType, query.ParameterCount, query.DType, query.Device));
        Assert.Equal([12L, 12L], query.Shape);
        Assert.True(query.IsSupported && query.IsAdapted);
        Assert.Equal(["a", "b"], query.Adapters);
        Assert.Equal(["a"], query.ActiveAdapters);
        Assert.Equal(["b"], query.MergedAdapters);
        Assert.Equal(["w1 3×3, w2 4×4", "w1 3×3, w2 4×4"], query.FactorShapes);
        Assert.Equal(50, query.AdapterParameterCount);
        Assert.Equal(["a"], modules.Single(static module => module.Name == "lm_head").SavedBy);

        // a: two layers of 25 and a head of 144; b has the layers only.
        Assert.Equal(new ParameterCount(194, model.Module.parameters().Sum(static parameter => parameter.numel()) + 194 + 50), model.CountParameters());
    }

    [Fact]
    public void An_adapter_for_inference_takes_no_gradient_until_it_is_told_to()
    {
        using DisposeScope scope = NewDisposeScope();
        using LoKrModel model = new(TestNetworks.Decoder());
        model.AddAdapter(s_query with { InferenceMode = true, ModulesToSave = ["lm_head"] });
        Assert.Equal(0, model.CountParameters().Trainable);
        Assert.False(PeftCase.Run(model, randn(2, 12)).requires_grad);
        model.SetAdapterTrainable("default", true);
        Assert.All(((nn.Module)model.Module.named_children().Last().module).parameters(), static parameter => Assert.True(parameter.requires_grad));
        Assert.True(PeftCase.Run(model, randn(2, 12)).requires_grad);
        Assert.Equal(194, model.CountParameters().Trainable);
    }

    [Fact]
    public void Moving_to_another_type_takes_the_adapters_along()
    {
        using DisposeScope scope = NewDisposeScope();
        using LoKrModel model = new(TestNetworks.Decoder());
        LoKrAdapter adapter = model.AddAdapter(s_query with { ModulesToSave = ["lm_head"] });
        using (no_grad())
        {
            adapter.FlatParameters[0].Value.add_(0.1);
        }

        Tensor x = randn(5, 12);
        Tensor expected = PeftCase.Run(model, x).detach();
        Tensor head = model.GetBaseState()["lm_head.weight"].clone();
        (LoKrLayer layer, KroneckerFactors factors, long calls) = (adapter.Layers[0], adapter.Layers[0].Factors, adapter.Layers[0].CallCount);
        model.MoveTo(dtype: float64);
        Assert.Same(layer, adapter.Layers[0]);
        Assert.NotSame(factors, layer.Factors);
        Assert.Equal(calls, layer.CallCount);
        Assert.Equal(ScalarType.Float64, model.DType);
        Assert.All(adapter.GetTensors().Values, static tensor => Assert.Equal(ScalarType.Float64, tensor.dtype));
        TensorAssert.Close(expected, PeftCase.Run(model, x.to(float64)), 1e-5, "moved");
        PeftCase.Run(model, x.to(float64)).sum().backward();
        Assert.All(adapter.FlatParameters.Single().GradientViews, static view => Assert.NotEqual(0, view.abs().sum().ToDouble()));

        model.MoveTo(CPU, bfloat16);
        Assert.Equal([ScalarType.Float32, ScalarType.BFloat16], adapter.FlatParameters.Select(static flat => flat.Value.dtype));
        model.MoveTo(dtype: float32);
        TensorAssert.Close(expected, PeftCase.Run(model, x), 5e-2, "and back");
        model.RemoveAdapter("default");
        TensorAssert.Close(head, model.GetBaseState()["lm_head.weight"], 1e-2, "head");
        Assert.All(model.Module.parameters(), static parameter => Assert.True(parameter.requires_grad));
    }

    private static long Live() => DisposeScopeManager.Statistics.TensorStatistics.ThreadTotalLiveCount;

    private static string Id(Action action) => Assert.Throws<LoKrException>(action).ErrorId;
}
