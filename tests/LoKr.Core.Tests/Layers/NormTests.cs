using LoKr.Core.Configuration;
using LoKr.Core.Conversion;
using LoKr.Core.Errors;
using LoKr.Core.Layers;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Core.Tests.Support;
using LoKr.Testing;
using TorchSharp;
using TorchSharp.Modules;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Layers;

/// <summary>Trained norms (LyCORIS train_norm): changes of weight and bias beside the adapter.</summary>
public sealed class NormTests
{
    private const double Exact = 1e-10;

    private static readonly LoKrConfig s_config = new() { R = 2, TrainNorm = true, TargetModules = ModuleSelector.FromNames(["linear"]), InitWeights = InitWeights.Random };

    [Theory]
    [InlineData("layer")]
    [InlineData("layer without bias")]
    [InlineData("group")]
    [InlineData("root mean square")]
    public void Changes_equal_those_of_the_weights_themselves(string kind)
    {
        using DisposeScope scope = NewDisposeScope();
        using LoKrModel model = Build(kind, out nn.Module<Tensor, Tensor> norm);
        Dictionary<string, Tensor> state = model.GetBaseState().ToDictionary(static pair => pair.Key, static pair => pair.Value.detach().clone());
        Tensor x = randn([3, 12], dtype: float64).requires_grad_();
        Tensor plain = PeftCase.Run(model, x).detach();
        LoKrAdapter adapter = model.AddAdapter(s_config with { TargetModules = ModuleSelector.FromNames([]) });
        Assert.True(TensorAssert.Same(plain, PeftCase.Run(model, x)));
        Fill(adapter);

        // The plain module with changed weights.
        Tensor weight = (state["norm.weight"] + adapter.Norms[0].Weight).detach().requires_grad_();
        Tensor? bias = kind is "layer without bias" or "root mean square" ? null : (state["norm.bias"] + adapter.Norms[0].Bias!).detach().requires_grad_();
        Tensor hidden = nn.functional.linear(x.detach(), state["linear.weight"], state["linear.bias"]).requires_grad_();
        Tensor expected = norm switch
        {
            GroupNorm group => nn.functional.group_norm(hidden.unsqueeze(-1), group.num_groups, weight, bias, group.eps),
            RmsNorm rms => hidden / (hidden.square().mean([-1], keepdim: true) + rms.Epsilon).sqrt() * weight,
            _ => nn.functional.layer_norm(hidden, [12], weight, bias, ((LayerNorm)norm).eps),
        };

        // A root mean square norm normalizes in float32.
        double tolerance = norm is RmsNorm ? 1e-5 : Exact;
        Tensor output = PeftCase.Run(model, x);
        TensorAssert.Close(expected, output, tolerance, "output");
        Tensor cotangent = randn_like(output);
        (expected * cotangent).sum().backward();
        (output * cotangent).sum().backward();
        TensorAssert.Close(weight.grad!, adapter.Norms[0].Weight.grad!, tolerance, "gradient of the weight");
        if (bias is not null)
        {
            TensorAssert.Close(bias.grad!, adapter.Norms[0].Bias!.grad!, tolerance, "gradient of the bias");
        }

        TensorAssert.Close(hidden.grad!.mm(state["linear.weight"]), x.grad!, tolerance, "gradient of the input");
        AssertSame(state, model);
        model.Merge(safe: true);
        TensorAssert.Close(expected, PeftCase.Run(model, x), tolerance, "merged output");
        TensorAssert.Close(weight, model.GetBaseState()["norm.weight"], tolerance, "merged weight");
        model.UndoMerge();
        AssertSame(state, model);
        model.SetAdapterScale(["default"], 0.5);
        TensorAssert.Close((expected + plain) / 2, PeftCase.Run(model, x), tolerance, "half");
        model.RemoveAdapter("default");
        Assert.True(TensorAssert.Same(plain, PeftCase.Run(model, x)));
    }

    [Fact]
    public void Names_counts_and_files()
    {
        using DisposeScope scope = NewDisposeScope();
        using LoKrModel model = Build("layer", out _);
        LoKrAdapter adapter = model.AddAdapter(s_config);
        Assert.Equal(["linear.lokr_w1", "linear.lokr_w2", "norm.b_norm", "norm.w_norm"], adapter.GetTensors().Keys.Order(StringComparer.Ordinal));
        Assert.Equal(adapter.Layers[0].Factors.ParameterCount + 24, model.CountParameters().Trainable);
        LoKrModuleInfo module = model.GetModules().Single(static module => module.Name == "norm");
        Assert.Equal(("w_norm 12, b_norm 12", 24L), (Assert.Single(module.FactorShapes), module.AdapterParameterCount));
        Fill(adapter);
        Dictionary<string, Tensor> tensors = adapter.GetTensors().ToDictionary(static pair => pair.Key, static pair => pair.Value.clone());
        Tensor x = randn(3, 12, dtype: float64);
        Tensor output = PeftCase.Run(model, x);

        using LoKrModel other = Build("layer", out _);
        other.LoadAdapter(s_config, tensors);
        TensorAssert.Close(output, PeftCase.Run(other, x), Exact, "loaded");
        other.MoveTo(dtype: float32);
        TensorAssert.Close(output, PeftCase.Run(other, x.to(float32)), 1e-5, "moved");

        // A norm that a file leaves out is unchanged; one of another shape, or none at all, is an error.
        tensors.Remove("norm.b_norm");
        LoKrAdapter partial = model.LoadAdapter(s_config, tensors, "partial");
        Assert.Equal(0, partial.Norms[0].Bias!.abs().max().ToDouble());
        tensors["norm.w_norm"] = zeros(5);
        Assert.Equal(ErrorIds.AdapterShapeMismatch, Id(() => model.LoadAdapter(s_config, tensors, "x")));
        tensors.Remove("norm.w_norm");
        Assert.Equal(ErrorIds.AdapterKeysMismatch, Id(() => model.LoadAdapter(s_config, tensors, "x")));
        Assert.Equal(ErrorIds.LoraConversionNotSupported, Id(() => LoraConverter.Convert(adapter, LoraRank.OfSize(1), TestContext.Current.CancellationToken)));
    }

    [Fact]
    public void Norms_are_chosen_by_exclusion_and_layer()
    {
        static nn.Module<Tensor, Tensor> Block() => nn.Sequential(("norm", nn.LayerNorm(12)), ("q", nn.Linear(12, 12)));
        using LoKrModel model = new(TestNetworks.Network(
            ("model", nn.Sequential(("layers", nn.Sequential(("0", Block()), ("1", Block()))))), ("last", nn.LayerNorm(12)), ("plain", nn.LayerNorm(12, elementwise_affine: false))));
        string[] Of(LoKrConfig config)
        {
            string[] names = [.. model.AddAdapter(config with { TrainNorm = true, TargetModules = ModuleSelector.FromNames(["q"]) }).Norms.Select(static norm => norm.ModuleName)];
            model.RemoveAdapter("default");
            return names;
        }

        Assert.Equal(["model.layers.0.norm", "model.layers.1.norm", "last"], Of(new()));
        Assert.Equal(["model.layers.0.norm", "last"], Of(new() { ExcludeModules = ModuleSelector.FromNames(["1.norm"]) }));
        Assert.Equal(["model.layers.0.norm", "model.layers.1.norm"], Of(new() { ModulesToSave = ["last"] }));
        Assert.Equal(["model.layers.1.norm"], Of(new() { LayersToTransform = [1] }));
        Assert.Equal(ErrorIds.TargetModuleNotFound, Id(() => Of(new() { ExcludeModules = ModuleSelector.FromPattern(".*(norm|last)") })));
        Assert.Empty(model.Adapters);
    }

    [Fact]
    public void Adapters_add_up_and_train_without_leaving_tensors_behind()
    {
        using DisposeScope outer = NewDisposeScope();
        using LoKrModel model = Build("group", out _);
        Fill(model.AddAdapter(s_config, "a"));
        Fill(model.AddAdapter(s_config, "b"));
        Tensor x = randn(3, 12, dtype: float64);
        LoKrConfig norms = s_config with { TargetModules = ModuleSelector.FromNames([]) };
        Fill(model.AddAdapter(norms, "c"));
        Fill(model.AddAdapter(norms, "d"));
        Tensor Of(params string[] names)
        {
            model.SetActiveAdapters(names);
            return PeftCase.Run(model, x).detach();
        }

        TensorAssert.Close(Of("c") + Of("d") - Of(), Of("c", "d"), Exact, "sum");
        Tensor both = Of("a", "b");
        model.Merge(["a"]);
        model.Merge(["b"]);
        TensorAssert.Close(both, PeftCase.Run(model, x), Exact, "merged one by one");
        model.UndoMerge();
        model.Module.train();
        long live = 0;
        for (int step = 0; step < 6; step++)
        {
            if (step == 2)
            {
                live = DisposeScopeManager.Statistics.TensorStatistics.ThreadTotalLiveCount;
            }

            using DisposeScope scope = NewDisposeScope();
            PeftCase.Run(model, x).square().mean().backward();
        }

        // A thread that disposed tensors of others counts from below zero.
        Assert.InRange(DisposeScopeManager.Statistics.TensorStatistics.ThreadTotalLiveCount, long.MinValue, live);
    }

    private static string Id(Action action) => Assert.Throws<LoKrException>(action).ErrorId;

    private static void AssertSame(Dictionary<string, Tensor> state, LoKrModel model) =>
        Assert.All(model.GetBaseState(), pair => Assert.True(TensorAssert.Same(state[pair.Key], pair.Value), pair.Key));

    private static void Fill(LoKrAdapter adapter)
    {
        using IDisposable noGrad = no_grad();
        foreach (LoKrNorm norm in adapter.Norms)
        {
            norm.Weight.normal_();
            norm.Bias?.normal_();
        }
    }

    private static LoKrModel Build(string kind, out nn.Module<Tensor, Tensor> norm)
    {
        random.manual_seed(9);
        norm = kind switch
        {
            "layer" => nn.LayerNorm(12, 1e-3),
            "layer without bias" => nn.LayerNorm([12], 1e-3, bias: false),
            "root mean square" => new RmsNorm(12, 1e-3),
            _ => nn.GroupNorm(3, 12, 1e-3),
        };
        LoKrModel model = new(TestNetworks.Network([("linear", nn.Linear(12, 12)), .. norm is GroupNorm ? [("channels", nn.Unflatten(1, [12, 1]))] : Array.Empty<(string, nn.Module<Tensor, Tensor>)>(), ("norm", norm)]));
        model.Module.to(float64);
        using IDisposable noGrad = no_grad();
        foreach (Parameter parameter in norm.parameters())
        {
            parameter.normal_();
        }

        return model;
    }
}
