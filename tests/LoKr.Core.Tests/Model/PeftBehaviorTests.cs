using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Layouts;
using LoKr.Core.Model;
using LoKr.Core.Tests.Support;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Model;

/// <summary>How PEFT's own tests expect an adapter to behave, on each of their configurations.</summary>
public sealed class PeftBehaviorTests
{
    public static TheoryData<string, string, string> Configurations => ParameterCountsTests.Configurations;

    [Theory]
    [MemberData(nameof(Configurations))]
    public void Merging_equals_the_forward_pass_and_undoing_the_base(string network, string options, string tensors)
    {
        Assert.NotEmpty(tensors);
        using DisposeScope scope = NewDisposeScope();
        using LoKrModel model = Build(network, out Tensor x);
        Tensor plain = PeftCase.Run(model, x);
        Dictionary<string, Tensor> state = State(model);
        model.AddAdapter(ParameterCountsTests.Parse(options), "fresh", seed: 1);
        TensorAssert.Close(plain, PeftCase.Run(model, x), 1e-6, "fresh adapter");
        model.RemoveAdapter("fresh");

        model.AddAdapter(ParameterCountsTests.Parse(options) with { InitWeights = InitWeights.Random }, seed: 1);
        Tensor adapted = PeftCase.Run(model, x);
        Assert.True((adapted - plain).abs().max().ToDouble() > 1e-6);
        Assert.True(adapted.isfinite().all().ToBoolean());
        model.Merge();
        TensorAssert.Close(adapted, PeftCase.Run(model, x), 1e-4, "merged");
        Assert.Equal(ErrorIds.NothingToMerge, Assert.Throws<LoKrException>(() => model.Merge()).ErrorId);
        TensorAssert.Close(adapted, PeftCase.Run(model, x), 1e-4, "merged once only");
        model.UndoMerge();
        TensorAssert.Close(adapted, PeftCase.Run(model, x), 1e-6, "undone");

        // Dropout never gets into the weights, not in training either.
        model.Module.train();
        model.Merge(safe: true);
        model.Module.eval();
        TensorAssert.Close(adapted, PeftCase.Run(model, x), 1e-4, "merged in training");
        model.UndoMerge();
        model.RemoveAdapter("default");
        Assert.All(model.GetBaseState(), pair => Assert.True(TensorAssert.Same(state[pair.Key], pair.Value), pair.Key));
        Assert.True(TensorAssert.Same(plain, PeftCase.Run(model, x)));
    }

    [Theory]
    [MemberData(nameof(Configurations))]
    public void Training_changes_every_parameter_of_the_adapter_and_no_other(string network, string options, string tensors)
    {
        Assert.NotEmpty(tensors);
        using DisposeScope scope = NewDisposeScope();
        using LoKrModel model = Build(network, out Tensor x);
        Tensor plain = PeftCase.Run(model, x).detach();
        Dictionary<string, Tensor> state = State(model);
        LoKrAdapter adapter = model.AddAdapter(ParameterCountsTests.Parse(options), seed: 1);
        Dictionary<string, Tensor> start = adapter.GetTensors().ToDictionary(static pair => pair.Key, static pair => pair.Value.detach().clone());
        for (int step = 0; step < 3; step++)
        {
            adapter.FlatParameters[0].Gradient.zero_();

            // A loss that no log-softmax turns into a constant.
            PeftCase.Run(model, x)[TensorIndex.Ellipsis, 0].sum().backward();
            Assert.All(model.Module.parameters().Where(static parameter => !parameter.requires_grad), static parameter => Assert.Null(parameter.grad));
            using IDisposable noGrad = no_grad();
            adapter.FlatParameters[0].Value.sub_(adapter.FlatParameters[0].Gradient * 0.5);
        }

        Assert.All(adapter.GetTensors(), pair => Assert.True((pair.Value - start[pair.Key]).abs().max().ToDouble() > 1e-6, pair.Key));
        Assert.All(model.GetBaseState(), pair => Assert.True(TensorAssert.Same(state[pair.Key], pair.Value), pair.Key));
        Tensor trained = PeftCase.Run(model, x).detach();
        Assert.True((trained - plain).abs().max().ToDouble() > 1e-6);
        model.SetAdaptersEnabled(false);
        Assert.True(TensorAssert.Same(plain, PeftCase.Run(model, x)));
        model.SetAdaptersEnabled(true);
        Assert.True(TensorAssert.Same(trained, PeftCase.Run(model, x)));

        // A folder gives the same on another copy of the base model.
        using TempFolder folder = new();
        PeftAdapterFolder.Write(folder["adapter"], adapter.Config, adapter.GetTensors());
        using LoKrModel other = Build(network, out _);
        using PeftAdapterFolder saved = PeftAdapterFolder.Read(folder["adapter"]);
        other.LoadAdapter(saved.Config, saved.Tensors.Entries.Keys.ToDictionary(static name => name, name => saved.Tensors.Read(name), StringComparer.Ordinal));
        TensorAssert.Close(trained, PeftCase.Run(other, x), 1e-6, "loaded");
    }

    [Theory]
    [MemberData(nameof(Configurations))]
    public void Half_precision_runs_merges_and_undoes(string network, string options, string tensors)
    {
        Assert.NotEmpty(tensors);
        using DisposeScope scope = NewDisposeScope();
        using LoKrModel model = Build(network, out Tensor x);
        model.Module.to(bfloat16);
        Tensor input = x.to(bfloat16);
        model.AddAdapter(ParameterCountsTests.Parse(options) with { InitWeights = InitWeights.Random }, seed: 1);
        Tensor adapted = PeftCase.Run(model, input);
        Assert.Equal(bfloat16, adapted.dtype);
        model.Merge(safe: true);
        TensorAssert.Close(adapted, PeftCase.Run(model, input), 0.1, "merged");
        model.UndoMerge();
        Assert.True(TensorAssert.Same(adapted, PeftCase.Run(model, input)));
    }

    [Theory]
    [InlineData("lin0", "lin0")]
    [InlineData("lin0", "lin1")]
    public void Two_adapters_are_active_together_and_merged_in_any_order(string first, string second)
    {
        using DisposeScope scope = NewDisposeScope();
        using LoKrModel model = Build("mlp", out Tensor x);
        Dictionary<string, Tensor> state = State(model);
        Tensor plain = PeftCase.Run(model, x);
        model.AddAdapter(ParameterCountsTests.Parse(first) with { InitWeights = InitWeights.Random }, "a", seed: 1);
        model.AddAdapter(ParameterCountsTests.Parse(second) with { InitWeights = InitWeights.Random }, "b", seed: 2);
        Tensor Of(params string[] names)
        {
            model.SetActiveAdapters(names);
            return PeftCase.Run(model, x).detach();
        }

        (Tensor a, Tensor b, Tensor both) = (Of("a"), Of("b"), Of("a", "b"));
        foreach ((Tensor left, Tensor right) in new[] { (a, b), (a, both), (b, both), (plain, a), (plain, b) })
        {
            Assert.True((left - right).abs().max().ToDouble() > 1e-5);
        }

        TensorAssert.Close(both, Of("b", "a"), 1e-5, "other order");
        model.Merge(["a", "b"]);
        TensorAssert.Close(both, PeftCase.Run(model, x), 1e-4, "together");
        model.UndoMerge();
        model.Merge(["a"]);
        Assert.Equal(ErrorIds.AdapterMerged, Assert.Throws<LoKrException>(() => model.RemoveAdapter("a")).ErrorId);
        Assert.Equal(["a", "b"], model.Adapters.Select(static adapter => adapter.Name));
        model.Merge(["b"]);
        TensorAssert.Close(both, PeftCase.Run(model, x), 1e-4, "one after the other");
        model.UndoMerge();
        Assert.All(model.GetBaseState(), pair => Assert.True(TensorAssert.Same(state[pair.Key], pair.Value), pair.Key));

        // The last ones go as well, and the next becomes active.
        model.SetActiveAdapters(["a"]);
        model.RemoveAdapter("a");
        Assert.Equal(["b"], model.ActiveAdapters);
        TensorAssert.Close(b, PeftCase.Run(model, x), 1e-6, "b alone");
        model.RemoveAdapter("b");
        Assert.Empty(model.ActiveAdapters);
        Assert.True(TensorAssert.Same(plain, PeftCase.Run(model, x)));
        Assert.Equal(ErrorIds.AdapterNotFound, Assert.Throws<LoKrException>(() => model.RemoveAdapter("unknown-adapter")).ErrorId);
    }

    [Fact]
    public void Names_that_contain_each_other_are_kept_apart_and_make_no_difference()
    {
        using DisposeScope scope = NewDisposeScope();
        using LoKrModel model = Build("mlp", out Tensor x);
        LoKrConfig config = ParameterCountsTests.Parse("lin0 save=lin1") with { InitWeights = InitWeights.Random };
        string[] names = ["default", "default2", "other_default", "foodefault_bar", "efaul"];
        List<Tensor> outputs = [];
        foreach (string name in names)
        {
            LoKrAdapter adapter = model.AddAdapter(config, name, seed: 3);
            Assert.Equal(["lin0.lokr_w1", "lin0.lokr_w2", "lin1.bias", "lin1.weight"], adapter.GetTensors().Keys.Order(StringComparer.Ordinal));
            model.SetActiveAdapters([name]);
            outputs.Add(PeftCase.Run(model, x));
        }

        Assert.All(outputs, output => Assert.True(TensorAssert.Same(outputs[0], output)));
        Assert.Equal(ErrorIds.SavedModuleConflict, Assert.Throws<LoKrException>(() => model.SetActiveAdapters(["default", "default2"])).ErrorId);
        Assert.Equal(["efaul"], model.ActiveAdapters);
    }

    [Fact]
    public void Only_active_trainable_adapters_take_gradients_whatever_the_base_calls_its_modules()
    {
        using DisposeScope scope = NewDisposeScope();
        using LoKrModel model = new(TestNetworks.Network(("lokr_foobar", nn.Linear(10, 10)), ("lin0", nn.Linear(10, 20)), ("lin1", nn.Linear(20, 4))));
        model.AddAdapter(ParameterCountsTests.Parse("lin0"), "a");
        model.AddAdapter(ParameterCountsTests.Parse("lin1"), "b");
        string[] Trained() => [.. model.Adapters.SelectMany(static adapter => adapter.GetTensors().Where(static pair => pair.Value.requires_grad).Select(pair => $"{pair.Key}.{adapter.Name}"))];
        Assert.Equal(["lin0.lokr_w1.a", "lin0.lokr_w2.a"], Trained());
        model.SetActiveAdapters(["b"]);
        Assert.Equal(["lin1.lokr_w1.b", "lin1.lokr_w2.b"], Trained());
        model.SetActiveAdapters(["a", "b"]);
        model.SetAdapterTrainable("b", false);
        Assert.Equal(["lin0.lokr_w1.a", "lin0.lokr_w2.a"], Trained());
        Assert.All(model.Module.parameters(), static parameter => Assert.False(parameter.requires_grad));
        Assert.DoesNotContain(model.Adapters.SelectMany(static adapter => adapter.GetTensors().Keys), static name => name.Contains("foobar", StringComparison.Ordinal));
        string line = model.CountParameters().ToString();
        Assert.Matches(@"^trainable params: [\d,]+ \|\| all params: [\d,]+ \|\| trainable%: \d+\.\d{4}$", line);
        Assert.Equal("trainable params: 1,234,567 || all params: 98,765,432 || trainable%: 1.2500", new ParameterCount(1_234_567, 98_765_432).ToString());
    }

    private static Dictionary<string, Tensor> State(LoKrModel model) =>
        model.GetBaseState().ToDictionary(static pair => pair.Key, static pair => pair.Value.detach().clone());

    private static LoKrModel Build(string name, out Tensor x)
    {
        random.manual_seed(2);
        static (string, nn.Module<Tensor, Tensor>) Flat() => ("flatten", nn.Flatten());
        static (string, nn.Module<Tensor, Tensor>) Last() => ("softmax", nn.LogSoftmax(-1));
        Tensor grid = arange(90).to(float32).view(9, 10) / 90;
        (x, nn.Module<Tensor, Tensor> network) = name switch
        {
            "mlp" => (grid, TestNetworks.Network(("lin0", nn.Linear(10, 20)), ("relu", nn.ReLU()), ("drop", nn.Dropout(0.5)), ("lin1", nn.Linear(20, 2)), Last())),
            "conv1d" => (grid.view(-1, 1, 10), TestNetworks.Network(("conv1d", nn.Conv1d(1, 1, 2L)), Flat(), ("lin0", nn.Linear(9, 2)), Last())),
            "conv1d bigger" => (grid.view(-1, 1, 10).repeat(1, 64, 1), TestNetworks.Network(("conv1d", nn.Conv1d(64, 16, 2L)), Flat(), ("lin0", nn.Linear(144, 2)), Last())),
            "conv1d groups" => (grid.view(-1, 1, 10).repeat(1, 8, 1), TestNetworks.Network(("conv1d", nn.Conv1d(8, 8, 3L, groups: 2)), Flat(), ("lin0", nn.Linear(64, 2)), Last())),
            "conv2d" => (grid.view(-1, 5, 3, 3), TestNetworks.Network(("conv2d", nn.Conv2d(5, 10, 3L)), Flat(), ("lin0", nn.Linear(10, 2)), Last())),
            "conv2d 1x1" => (grid.view(-1, 1, 3, 3), TestNetworks.Network(("conv2d", nn.Conv2d(1, 10, 1L)), Flat(), ("lin0", nn.Linear(90, 2)), Last())),
            "conv2d groups" => (grid.view(1, 90), TestNetworks.Network(
                ("lin0", nn.Linear(90, 144)), ("image", nn.Unflatten(1, [16, 3, 3])), ("conv2d", nn.Conv2d(16, 16, 3L, groups: 8)), Flat(), ("lin1", nn.Linear(16, 2)), Last())),
            "conv2d groups2" => (arange(2 * 16 * 400).to(float32).view(2, 16, 20, 20) / 12800, TestNetworks.Network(
                ("conv2d", nn.Conv2d(16, 32, 3L, padding: 1, groups: 2)), Flat(), ("lin0", nn.Linear(12800, 2)), Last())),
            _ => throw new ArgumentOutOfRangeException(nameof(name), name, null),
        };
        network.eval();
        return new(network);
    }
}
