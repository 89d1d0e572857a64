using LoKr.Core.Configuration;
using LoKr.Core.Factors;
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

/// <summary>Embeddings, linear layers of either orientation and DoRA on them, against the dense form in double precision.</summary>
public sealed class OtherLayerTests
{
    private const double Exact = 1e-10;

    public static TheoryData<string, int, bool, bool, WeightDecomposeAxis?> Cases
    {
        get
        {
            TheoryData<string, int, bool, bool, WeightDecomposeAxis?> cases = [];
            foreach (string kind in new[] { "embedding", "TorchSharp embedding", "linear", "Conv1D" })
            {
                foreach ((int rank, bool both, bool scalar) in new[] { (2, false, false), (1, true, true), (50, false, true) })
                {
                    foreach (WeightDecomposeAxis? axis in new WeightDecomposeAxis?[] { null, WeightDecomposeAxis.Output, WeightDecomposeAxis.Input })
                    {
                        cases.Add(kind, rank, both, scalar, axis);
                    }
                }
            }

            return cases;
        }
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void Factorized_equals_dense(string kind, int rank, bool both, bool scalar, WeightDecomposeAxis? axis)
    {
        using DisposeScope scope = NewDisposeScope();
        random.manual_seed(5);
        using LoKrModel model = new(TestNetworks.Network(("layer", Make(kind))));
        model.Module.to(float64);
        LoKrAdapter adapter = model.AddAdapter(
            new()
            {
                R = rank,
                Alpha = 3,
                DecomposeBoth = both,
                UseScalar = scalar,
                WeightDecompose = axis is not null,
                WeightDecomposeAxis = axis ?? WeightDecomposeAxis.Output,
                TargetModules = ModuleSelector.FromNames(["layer"]),
                InitWeights = InitWeights.Random,
            },
            seed: 3);
        LoKrLayer layer = adapter.Layers[0];
        using (no_grad())
        {
            foreach (Tensor tensor in layer.Factors.Tensors.Values)
            {
                tensor.add_(randn_like(tensor) * 0.1);
            }
        }

        bool looksUp = kind.EndsWith("embedding", StringComparison.Ordinal);
        Tensor x = looksUp ? randint(0, 30, [4, 7], dtype: int64) : randn(3, 5, 12, dtype: float64);
        Tensor output = PeftCase.Run(model, x);
        Tensor cotangent = randn_like(output);
        (output * cotangent).sum().backward();

        Dictionary<string, Tensor> state = model.GetBaseState().ToDictionary(static pair => pair.Key, static pair => pair.Value.detach().clone());
        Dictionary<string, Tensor> factors = layer.Factors.Tensors.ToDictionary(static pair => pair.Key, static pair => pair.Value.detach().clone().requires_grad_());
        bool transposed = kind == "Conv1D";
        Tensor weight = transposed ? state["layer.weight"].t() : state["layer.weight"];
        Tensor merged = weight + DenseForm.Delta(factors.GetValueOrDefault, weight.shape, layer.Scaling);
        if (axis is not null)
        {
            merged = merged * (factors[FactorNames.DoraScale] / (merged.square().sum(dim: axis == WeightDecomposeAxis.Output ? 1L : 0L, keepdim: true).sqrt() + 2.220446049250313e-16));
        }

        Tensor expected = looksUp ? merged[x] : nn.functional.linear(x, merged, state["layer.bias"]);
        TensorAssert.Close(expected, output, Exact, "output");
        (expected * cotangent).sum().backward();
        Assert.All(factors, pair => TensorAssert.Close(pair.Value.grad!, layer.Factors.Tensors[pair.Key].grad!, Exact, pair.Key));
        model.Merge(safe: true);
        TensorAssert.Close(transposed ? merged.t() : merged, model.GetBaseState()["layer.weight"], Exact, "merged");
        TensorAssert.Close(expected, PeftCase.Run(model, x), Exact, "merged output");
        model.UndoMerge();
        Assert.True(TensorAssert.Same(state["layer.weight"], model.GetBaseState()["layer.weight"]));
    }

    [Fact]
    public void An_embedding_takes_only_the_rows_it_needs()
    {
        using DisposeScope scope = NewDisposeScope();

        // The dense table would take 4 TiB: only rows by token id can work.
        Dictionary<string, Tensor> tensors = new() { [FactorNames.W1] = randn(1000, 32), [FactorNames.W2A] = randn(1_000_000, 2), [FactorNames.W2B] = randn(2, 32) };
        KroneckerFactors factors = new(tensors);
        Tensor ids = tensor(new long[] { 0, 999_999_999, 123_456_789 });
        Tensor rows = factors.Rows(ids, 0.5);
        Tensor w2 = tensors[FactorNames.W2A][tensor(new long[] { 0, 999_999, 456_789 })].mm(tensors[FactorNames.W2B]);
        Tensor w1 = tensors[FactorNames.W1][tensor(new long[] { 0, 999, 123 })];
        TensorAssert.Close(stack([.. Enumerable.Range(0, 3).Select(i => kron(w1[i], w2[i]) * 0.5)]), rows, 1e-6, "rows");
    }

    [Fact]
    public void Rank_dropout_on_an_embedding_drops_whole_rows_of_the_table()
    {
        using DisposeScope scope = NewDisposeScope();
        TorchSharp.Modules.Embedding embedding = nn.Embedding(30, 12);
        using LoKrModel model = new(TestNetworks.Network(("layer", embedding)));
        model.AddAdapter(new() { R = 2, RankDropout = 0.5, TargetModules = ModuleSelector.FromNames(["layer"]), InitWeights = InitWeights.Random }, seed: 3);
        Tensor ids = cat([arange(30), arange(30)]);
        model.Module.train();
        Tensor delta = PeftCase.Run(model, ids) - embedding.weight![ids];
        Tensor kept = delta.abs().sum(dim: 1L).gt(1e-6);
        Assert.InRange(kept.sum().ToInt64(), 10, 50);
        Assert.True(kept[TensorIndex.Slice(null, 30)].equal(kept[TensorIndex.Slice(30)]).all().ToBoolean());
    }

    [Fact]
    public void DoRA_leaves_no_tensor_behind_and_two_adapters_add_up()
    {
        using DisposeScope scope = NewDisposeScope();
        using LoKrModel model = new(TestNetworks.Network(("layer", nn.Linear(12, 30))));
        LoKrConfig config = new() { R = 2, WeightDecompose = true, TargetModules = ModuleSelector.FromNames(["layer"]), InitWeights = InitWeights.Random };
        model.AddAdapter(config, "a", seed: 1);
        model.AddAdapter(config with { WeightDecomposeAxis = WeightDecomposeAxis.Input }, "b", seed: 2);
        Tensor x = randn(3, 12);
        Tensor plain = ((Linear)model.Module.named_children().First().module).forward(x);
        Tensor Delta(params string[] names)
        {
            model.SetActiveAdapters(names);
            return PeftCase.Run(model, x) - plain;
        }

        (Tensor a, Tensor b) = (Delta("a"), Delta("b"));
        TensorAssert.Close(a + b, Delta("a", "b"), 1e-5, "sum");
        model.Merge(["b"]);
        model.Merge(["a"]);
        TensorAssert.Close(a + b, PeftCase.Run(model, x) - plain, 1e-5, "merged one after the other");
        model.UndoMerge();
        long Step()
        {
            using DisposeScope step = NewDisposeScope();
            PeftCase.Run(model, x).sum().backward();
            return DisposeScopeManager.Statistics.ThreadTotalLiveCount;
        }

        Step();
        long first = Step();
        Assert.Equal(first, Step());
    }

    private static nn.Module<Tensor, Tensor> Make(string kind)
    {
        nn.Module<Tensor, Tensor> layer = kind switch
        {
            "embedding" => new Core.Nn.Embedding(30, 12),
            "TorchSharp embedding" => nn.Embedding(30, 12),
            "linear" => nn.Linear(12, 30),
            _ => new Conv1D(12, 30),
        };
        using IDisposable noGrad = no_grad();
        foreach (Parameter parameter in layer.parameters())
        {
            parameter.normal_();
        }

        return layer;
    }
}
