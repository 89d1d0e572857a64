using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Testing;
using TorchSharp;
using TorchSharp.Modules;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Layers;

/// <summary>The projections inside torch.nn.MultiheadAttention against the module itself with a dense weight, in double precision.</summary>
public sealed class AttentionTests
{
    private const double Exact = 1e-10;

    private static readonly LoKrConfig s_both = new() { R = 2, Alpha = 3, TargetModules = ModuleSelector.FromNames(["attention", "out_proj"]), InitWeights = InitWeights.Random };

    /// <summary>Embedding, heads; bias, extra key, zero key; whether queries, keys and values are one tensor, or two, or three.</summary>
    public static TheoryData<int, int, bool, bool, bool, int> Cases
    {
        get
        {
            TheoryData<int, int, bool, bool, bool, int> cases = [];
            foreach (int inputs in new[] { 1, 2, 3 })
            {
                cases.Add(12, 3, true, false, false, inputs);
                cases.Add(10, 5, false, true, false, inputs);
                cases.Add(16, 1, true, false, true, inputs);
                cases.Add(8, 8, true, true, true, inputs);
            }

            return cases;
        }
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void Factorized_equals_dense(int embed, int heads, bool bias, bool extraKey, bool zeroKey, int inputs)
    {
        using DisposeScope scope = NewDisposeScope();
        foreach (LoKrConfig config in new[]
        {
            s_both, s_both with { R = 50 }, s_both with { R = 1, DecomposeBoth = true, DecomposeFactor = 2 },
            s_both with { WeightDecompose = true }, s_both with { WeightDecompose = true, WeightDecomposeAxis = WeightDecomposeAxis.Input },
            s_both with { TargetModules = ModuleSelector.FromNames(["attention"]) }, s_both with { TargetModules = ModuleSelector.FromNames(["out_proj"]) },
        })
        {
            random.manual_seed(7);
            MultiheadAttention attention = nn.MultiheadAttention(embed, heads, bias: bias, add_bias_kv: extraKey, add_zero_attn: zeroKey);
            using LoKrModel model = new(new Wrapper(attention));
            model.Module.to(float64);
            using (no_grad())
            {
                foreach (Parameter parameter in attention.parameters())
                {
                    parameter.normal_(0, 0.5);
                }
            }

            model.Module.eval();
            (Tensor q, Tensor k, Tensor v, Tensor padding, Tensor mask) = Inputs(embed, inputs);
            Tensor plain = attention.forward(q, k, v, padding, true, mask).Item1.detach();
            Dictionary<string, Tensor> state = model.GetBaseState().ToDictionary(static pair => pair.Key, static pair => pair.Value.detach().clone());
            LoKrAdapter adapter = model.AddAdapter(config, seed: 5);
            Assert.Equal(config.TargetModules!.Names!.Count, adapter.Layers.Count);
            Assert.All(adapter.Layers, layer => Assert.Equal(layer.ModuleName == "attention" ? 3 * embed : embed, layer.BaseLayer.OutFeatures));

            (Tensor output, Tensor weights) = attention.call(q, k, v, padding, true, mask);
            Tensor cotangent = randn_like(output);
            (output * cotangent).sum().backward();
            Assert.All(adapter.Layers, static layer => Assert.Equal(1, layer.CallCount));
            Assert.NotEqual(0, (output - plain).abs().max().ToDouble());
            Dictionary<string, Tensor> gradients = adapter.GetTensors().ToDictionary(static pair => pair.Key, static pair => pair.Value.grad!.clone());
            AssertSame(state, model);

            // Merged, the module computes by itself.
            model.Merge(safe: true);
            (Tensor merged, Tensor mergedWeights) = attention.call(q, k, v, padding, true, mask);
            TensorAssert.Close(merged, output, Exact, "output");
            TensorAssert.Close(mergedWeights, weights, Exact, "weights");
            foreach (string layer in embed == 12 || config.WeightDecompose ? adapter.Layers.Select(static layer => layer.ModuleName) : [])
            {
                AssertGradients(model, adapter, layer, state, gradients, () => (attention.forward(q, k, v, padding, true, mask).Item1 * cotangent).sum());
            }

            model.UndoMerge();
            AssertSame(state, model);
            TensorAssert.Close(output, attention.call(q, k, v, padding, need_weights: false, mask).Item1, Exact, "output without weights");
            model.SetAdaptersEnabled(false);
            Assert.True(TensorAssert.Same(plain, attention.call(q, k, v, padding, true, mask).Item1));
            model.RemoveAdapter("default");
            Assert.True(TensorAssert.Same(plain, attention.call(q, k, v, padding, true, mask).Item1));
        }
    }

    [Theory]
    [InlineData(0.0)]
    [InlineData(0.25)]
    [InlineData(0.9)]
    public void Dropout_is_that_of_the_module(double dropout)
    {
        using DisposeScope scope = NewDisposeScope();
        MultiheadAttention attention = nn.MultiheadAttention(12, 3, dropout);
        random.manual_seed(1);
        attention.train();
        using Tensor before = random.get_rng_state();
        AttentionTraits traits = new(attention);
        Assert.Equal(dropout, traits.Dropout, 1e-4);
        Assert.Equal((3, false), traits.Structure);
        Assert.True(attention.training);
        Assert.True(TensorAssert.Same(before, random.get_rng_state()));

        using LoKrModel model = new(new Wrapper(attention));
        model.AddAdapter(s_both, seed: 2);
        Tensor x = randn(40, 6, 12);
        Tensor weights = attention.call(x, x, x).Item2.detach();
        attention.eval();
        Tensor steady = attention.call(x, x, x).Item2.detach();
        Assert.Equal(dropout == 0, (weights - steady).abs().max().ToSingle() < 1e-6f);

        // Dropped and divided: the mean stays.
        Assert.Equal(1, (weights.mean() / steady.mean()).ToDouble(), 0.2);
    }

    [Theory]
    [InlineData(ScalarType.BFloat16)]
    [InlineData(ScalarType.Float32)]
    public void Structure_is_found_in_any_precision_and_with_weights_that_say_nothing(ScalarType type)
    {
        foreach (long heads in new long[] { 1, 2, 8, 64 })
        {
            using DisposeScope scope = NewDisposeScope();
            MultiheadAttention attention = nn.MultiheadAttention(64, heads, 0.1);
            attention.to(type);
            using (no_grad())
            {
                attention.get_parameter("in_proj_weight")!.zero_();
            }

            attention.train();
            AttentionTraits traits = new(attention);
            Assert.Equal((heads, false), traits.Structure);
            Assert.Equal(0.1, traits.Dropout, type == ScalarType.BFloat16 ? 0.011 : 1e-4);
        }
    }

    [Fact]
    public void Training_changes_the_adapter_only_and_leaves_nothing_behind()
    {
        random.manual_seed(3);
        MultiheadAttention attention = nn.MultiheadAttention(12, 3, 0.1);
        using LoKrModel model = new(new Wrapper(attention));
        LoKrAdapter adapter = model.AddAdapter(s_both, seed: 2);
        Assert.Equal(adapter.ParameterCount, model.CountParameters().Trainable);
        model.Module.train();
        Dictionary<string, Tensor> state = model.GetBaseState().ToDictionary(static pair => pair.Key, static pair => pair.Value.detach().clone());
        Tensor start = adapter.FlatParameters[0].Value.clone();
        long live = 0;
        for (int step = 0; step < 8; step++)
        {
            if (step == 3)
            {
                live = DisposeScopeManager.Statistics.TensorStatistics.ThreadTotalLiveCount;
            }

            using DisposeScope scope = NewDisposeScope();
            adapter.FlatParameters[0].Gradient.zero_();
            ((nn.Module<Tensor, Tensor>)model.Module).call(randn(5, 2, 12)).square().mean().backward();
            using (no_grad())
            {
                adapter.FlatParameters[0].Value.sub_(adapter.FlatParameters[0].Gradient);
            }
        }

        // A thread that disposed tensors of others counts from below zero.
        Assert.InRange(DisposeScopeManager.Statistics.TensorStatistics.ThreadTotalLiveCount, long.MinValue, live);
        AssertSame(state, model);
        using Tensor difference = adapter.FlatParameters[0].Value - start;
        Assert.True(difference.abs().min().ToSingle() > 0);
    }

    [Fact]
    public void Both_projections_are_modules_with_names_of_PyTorch()
    {
        using LoKrModel model = new(new Wrapper(nn.MultiheadAttention(12, 3)));
        Assert.Equal(
            [("attention", "MultiheadAttention", 36 * 13), ("attention.out_proj", "Linear", 12 * 13)],
            model.GetModules().Select(static module => (module.Name, module.ModuleType, (int)module.ParameterCount)));
        Assert.All(model.GetModules(), static module => Assert.True(module.IsSupported));
        Assert.Equal(
            ["attention.lokr_w1", "attention.lokr_w2_a", "attention.lokr_w2_b", "attention.out_proj.lokr_w1", "attention.out_proj.lokr_w2"],
            model.AddAdapter(s_both).GetTensors().Keys.Order(StringComparer.Ordinal));
        Assert.Equal("attention.out_proj", Assert.Single(model.AddAdapter(s_both with { TargetModules = ModuleSelector.FromPattern("all-linear") }, "linear").Layers).ModuleName);
        Assert.Equal(ErrorIds.SavedModuleInvalid, Assert.Throws<LoKrException>(() => model.AddAdapter(s_both with { ModulesToSave = ["out_proj"] }, "saved")).ErrorId);

        using LoKrModel other = new(new Wrapper(nn.MultiheadAttention(12, 3, kdim: 8, vdim: 8)));
        LoKrException error = Assert.Throws<LoKrException>(() => other.AddAdapter(s_both with { TargetModules = ModuleSelector.FromNames(["attention"]) }));
        Assert.Equal(ErrorIds.ModuleTypeNotSupported, error.ErrorId);
    }

    [Fact]
    public void A_wrong_input_is_the_modules_own_error_and_harms_nothing()
    {
        using DisposeScope scope = NewDisposeScope();
        MultiheadAttention attention = nn.MultiheadAttention(12, 3);
        using LoKrModel model = new(new Wrapper(attention));
        model.AddAdapter(s_both);
        Dictionary<string, Tensor> state = model.GetBaseState().ToDictionary(static pair => pair.Key, static pair => pair.Value.detach().clone());
        Tensor x = randn(5, 2, 12);
        Assert.ThrowsAny<Exception>(() => attention.call(randn(5, 12), x, x));
        Assert.ThrowsAny<Exception>(() => attention.call(randn(5, 2, 7), x, x));
        Assert.ThrowsAny<Exception>(() => attention.call(x, x, x, attn_mask: zeros(4, 4)));
        AssertSame(state, model);
        Assert.Equal([5L, 2, 12], attention.call(x, x, x).Item1.shape);
    }

    private static void AssertSame(Dictionary<string, Tensor> state, LoKrModel model) =>
        Assert.All(model.GetBaseState(), pair => Assert.True(TensorAssert.Same(state[pair.Key], pair.Value), pair.Key));

    /// <summary>Gradients of the factors from that of the dense weight of the merged module, by finite differences along a direction.</summary>
    private static void AssertGradients(LoKrModel model, LoKrAdapter adapter, string layer, Dictionary<string, Tensor> state, Dictionary<string, Tensor> gradients, Func<Tensor> loss)
    {
        using IDisposable noGrad = no_grad();
        model.UndoMerge();
        foreach ((string name, Tensor tensor) in adapter.GetTensors().Where(pair => pair.Key.StartsWith(layer + ".lokr", StringComparison.Ordinal) || pair.Key == layer + ".dora_scale"))
        {
            Tensor direction = randn_like(tensor);
            double At(double step)
            {
                tensor.add_(direction * step);
                model.Merge();
                double value = loss().ToDouble();
                model.UndoMerge();
                tensor.sub_(direction * step);
                return value;
            }

            const double h = 1e-5;
            double expected = (At(h) - At(-h)) / (2 * h);
            double actual = (gradients[name] * direction).sum().ToDouble();
            Assert.True(Math.Abs(expected - actual) <= 1e-5 * Math.Max(1, Math.Abs(expected)), $"{name}: {expected} and {actual}");
        }

        AssertSame(state, model);
        model.Merge();
    }

    private static (Tensor Query, Tensor Key, Tensor Value, Tensor Padding, Tensor Mask) Inputs(int embed, int inputs)
    {
        Tensor query = randn(5, 2, embed, dtype: float64);
        Tensor key = inputs == 1 ? query : randn(7, 2, embed, dtype: float64);
        Tensor value = inputs == 3 ? randn(7, 2, embed, dtype: float64) : key;
        Tensor padding = zeros([2, key.shape[0]], dtype: @bool);
        padding[1, 3] = true;
        return (query, key, value, padding, randn(5, key.shape[0], dtype: float64));
    }

    private sealed class Wrapper : nn.Module<Tensor, Tensor>
    {
        private readonly MultiheadAttention _attention;

        public Wrapper(MultiheadAttention attention)
            : base("wrapper")
        {
            _attention = attention;
            register_module("attention", _attention);
        }

        public override Tensor forward(Tensor input)
        {
            (Tensor output, Tensor weights) = _attention.call(input, input, input);
            weights.Dispose();
            return output;
        }
    }
}
