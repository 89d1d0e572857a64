using LoKr.Core.Configuration;
using LoKr.Core.Factors;
using LoKr.Core.Model;
using LoKr.Core.Tests.Support;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Layers;

/// <summary>Dropouts and initialization of one adapted layer.</summary>
public sealed class LayerForwardTests
{
    private static readonly LoKrConfig s_config = new() { R = 2, TargetModules = ModuleSelector.FromNames(["q"]), InitWeights = InitWeights.Random };

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Rank_dropout_drops_output_features_in_training_only(bool rescale)
    {
        using DisposeScope scope = NewDisposeScope();
        using LoKrModel model = Build(out TorchSharp.Modules.Linear layer);
        LoKrAdapter adapter = model.AddAdapter(s_config with { RankDropout = 0.4, RankDropoutScale = rescale }, seed: 5);
        Tensor x = randn(7, 24);
        Tensor plain = layer.forward(x);
        Tensor contribution = x.matmul(adapter.Layers[0].GetDeltaWeight().t());
        model.Module.train();
        Tensor output = PeftCase.Run(model, x) - plain;
        Tensor kept = output.abs().sum(dim: 0L).gt(1e-4);
        long count = kept.sum().ToInt64();
        Assert.InRange(count, 10, 46);
        double factor = rescale ? 48.0 / count : 1;
        TensorAssert.Close(contribution * kept * factor, output, 1e-4, "kept rows");

        model.Module.eval();
        TensorAssert.Close(contribution, PeftCase.Run(model, x) - plain, 1e-4, "evaluation");
        model.Module.train();
        Tensor weight = layer.weight.detach().clone();
        model.Merge();
        TensorAssert.Close(weight + adapter.Layers[0].GetDeltaWeight(), layer.weight, 1e-6, "merged in training mode");
    }

    [Fact]
    public void Module_dropout_skips_the_whole_contribution_sometimes()
    {
        using DisposeScope scope = NewDisposeScope();
        using LoKrModel model = Build(out TorchSharp.Modules.Linear layer);
        model.AddAdapter(s_config with { ModuleDropout = 0.5 }, seed: 5);
        Tensor x = randn(2, 24);
        Tensor plain = layer.forward(x);
        model.Module.train();
        int skipped = Enumerable.Range(0, 100).Count(_ => PeftCase.Run(model, x).equal(plain).all().ToBoolean());
        Assert.InRange(skipped, 25, 75);
        model.Module.eval();
        Assert.All(Enumerable.Range(0, 10), _ => Assert.False(PeftCase.Run(model, x).equal(plain).all().ToBoolean()));
    }

    [Fact]
    public void Frozen_layers_below_the_first_adapter_build_no_graph()
    {
        using DisposeScope scope = NewDisposeScope();
        TorchSharp.Modules.Linear below = nn.Linear(6, 8);
        using LoKrModel model = new(nn.Sequential(("below", below), ("q", nn.Linear(8, 4)), ("above", nn.Linear(4, 2))));
        model.AddAdapter(s_config, seed: 5);
        bool? graph = null;
        below.register_forward_hook((_, _, output) =>
        {
            graph = output.requires_grad;
            return output;
        });
        Assert.True(PeftCase.Run(model, randn(3, 6)).requires_grad);
        Assert.False(graph);
    }

    [Theory]
    [InlineData(InitWeights.Default, true)]
    [InlineData(InitWeights.Lycoris, true)]
    [InlineData(InitWeights.Random, false)]
    public void Schemes_are_zero_where_those_of_PEFT_are_and_Kaiming_uniform_elsewhere(InitWeights scheme, bool zeroDelta)
    {
        using DisposeScope scope = NewDisposeScope();
        foreach (bool both in new[] { false, true })
        {
            using LoKrModel model = new(TestNetworks.Network(("q", nn.Linear(4096, 4096))));
            LoKrAdapter adapter = model.AddAdapter(s_config with { R = 8, DecomposeBoth = both, InitWeights = scheme }, seed: 1);
            string[] zeros = scheme switch
            {
                InitWeights.Default => [FactorNames.W1, FactorNames.W1A],
                InitWeights.Lycoris => [FactorNames.W2B],
                _ => [],
            };
            foreach ((string suffix, Tensor tensor) in adapter.Layers[0].Factors.Tensors)
            {
                double bound = 1 / Math.Sqrt(tensor.shape[1]);
                double largest = tensor.abs().max().ToDouble();
                if (zeros.Contains(suffix))
                {
                    Assert.Equal(0, largest);
                }
                else
                {
                    Assert.InRange(largest, bound * 0.97, bound);
                    Assert.InRange(tensor.mean().ToDouble(), -bound * 0.1, bound * 0.1);
                    Assert.InRange(tensor.std().ToDouble(), bound * 0.52, bound * 0.64);
                }
            }

            Assert.Equal(zeroDelta, adapter.Layers[0].Factors.FrobeniusNorm() == 0);
        }
    }

    [Fact]
    public void A_seed_repeats_and_the_global_generator_moves_on()
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor Values(long? seed)
        {
            using LoKrModel model = new(TestNetworks.Network(("q", nn.Linear(24, 48))));
            return model.AddAdapter(s_config, seed: seed).FlatParameters[0].Value.clone();
        }

        Assert.True(Values(3).equal(Values(3)).all().ToBoolean());
        Assert.False(Values(3).equal(Values(4)).all().ToBoolean());
        manual_seed(9);
        Tensor first = Values(null);
        Assert.False(first.equal(Values(null)).all().ToBoolean());
        manual_seed(9);
        Assert.True(first.equal(Values(null)).all().ToBoolean());
    }

    private static LoKrModel Build(out TorchSharp.Modules.Linear layer)
    {
        manual_seed(2);
        layer = nn.Linear(24, 48);
        return new(TestNetworks.Network(("q", layer)));
    }
}
