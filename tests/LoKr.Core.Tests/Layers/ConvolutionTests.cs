using LoKr.Core.Configuration;
using LoKr.Core.Factors;
using LoKr.Core.Layers;
using LoKr.Core.Model;
using LoKr.Core.Tests.Support;
using LoKr.Testing;
using TorchSharp;
using TorchSharp.Modules;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Layers;

/// <summary>Factorized convolutions against the dense form in double precision: outputs, gradients, merged weights.</summary>
public sealed class ConvolutionTests
{
    private const double Exact = 1e-10;

    public static TheoryData<string> Cases =>
    [
        "1d", "1d stride", "1d dilation", "1d same", "1d circular", "1d groups", "1d groups cut", "1d groups cut2", "1d depthwise",
        "2d", "2d stride", "2d valid", "2d same even", "2d reflect", "2d replicate", "2d circular", "2d 1x1", "2d asymmetric",
        "2d groups", "2d groups one row each", "2d groups cut", "2d groups within", "2d depthwise", "3d", "3d stride", "3d groups",
    ];

    [Theory]
    [MemberData(nameof(Cases))]
    public void Factorized_equals_dense(string name)
    {
        using DisposeScope scope = NewDisposeScope();
        foreach (LoKrConfig options in Options())
        {
            random.manual_seed(3);
            (nn.Module<Tensor, Tensor> layer, long[] input) = Make(name);
            using LoKrModel model = new(TestNetworks.Network(("conv", layer)));
            model.Module.to(float64);
            LoKrAdapter adapter = model.AddAdapter(options with { TargetModules = ModuleSelector.FromNames(["conv"]), InitWeights = InitWeights.Random }, seed: 7);
            LoKrLayer adapted = adapter.Layers[0];
            if (adapted.Factors.Tensors.TryGetValue(FactorNames.Scalar, out Tensor? scalar))
            {
                using IDisposable noGrad = no_grad();
                scalar.fill_(0.7);
            }

            string what = $"{name}, {adapted.Shapes}{(options.WeightDecompose ? " DoRA " + options.WeightDecomposeAxis : "")}";
            Tensor x = randn(input, dtype: float64).requires_grad_();
            Tensor output = PeftCase.Run(model, x);
            Tensor cotangent = randn_like(output);
            (output * cotangent).sum().backward();
            Tensor xGradient = x.grad!.clone();

            Dictionary<string, Tensor> factors = adapted.Factors.Tensors.ToDictionary(static pair => pair.Key, static pair => pair.Value.detach().clone().requires_grad_());
            Convolution convolution = (Convolution)layer;
            Tensor weight = convolution.weight.detach();
            Tensor delta = DenseForm.Delta(factors.GetValueOrDefault, weight.shape, adapted.Scaling, options.Conv1dLayout);
            TensorAssert.Close(delta, adapted.GetDeltaWeight(), Exact, "delta, " + what);
            Tensor merged = weight + delta;
            if (options.WeightDecompose)
            {
                int kept = options.WeightDecomposeAxis == WeightDecomposeAxis.Output ? 0 : 1;
                Tensor norms = merged.transpose(0, kept).reshape(merged.shape[kept], -1).square().sum(dim: 1L).sqrt().view(factors[FactorNames.DoraScale].shape);
                merged = merged * (factors[FactorNames.DoraScale] / (norms + 2.220446049250313e-16));
            }

            Tensor denseX = x.detach().clone().requires_grad_();
            Tensor expected = DenseForm.Run(layer, denseX, merged, convolution.bias);
            TensorAssert.Close(expected, output, Exact, "output, " + what);
            (expected * cotangent).sum().backward();
            TensorAssert.Close(denseX.grad!, xGradient, Exact, "input gradient, " + what);
            foreach ((string suffix, Tensor factor) in factors)
            {
                TensorAssert.Close(factor.grad!, adapted.Factors.Tensors[suffix].grad!, Exact, $"gradient of {suffix}, {what}");
            }

            Tensor before = weight.clone();
            model.Merge(safe: true);
            TensorAssert.Close(merged, convolution.weight, Exact, "merged, " + what);
            TensorAssert.Close(expected, PeftCase.Run(model, x), Exact, "merged output, " + what);
            model.UndoMerge();
            Assert.True(TensorAssert.Same(before, convolution.weight), what);
        }
    }

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    public void Every_order_of_the_factors_has_the_same_result(long groups)
    {
        using DisposeScope scope = NewDisposeScope();
        foreach (bool tucker in new[] { false, true })
        {
            Tensor R(params long[] shape) => randn(shape, dtype: float64);
            Dictionary<string, Tensor> tensors = new()
            {
                [FactorNames.W1A] = R(4, 2), [FactorNames.W1B] = R(2, 3),
                [FactorNames.W2A] = tucker ? R(2, 5) : R(5, 2), [FactorNames.W2B] = tucker ? R(2, 4) : R(2, 4 * 9),
            };
            if (tucker)
            {
                tensors[FactorNames.T2] = R(2, 2, 3, 3);
            }

            KroneckerFactors factors = new(tensors, [3, 3]);
            ConvolutionGeometry geometry = new([3, 3], [2, 1], [1, 1], [(1, 1), (1, 1)], PaddingModes.Zeros, groups);
            Tensor x = R(2, 12 * groups, 7, 6);
            Tensor expected = nn.functional.conv2d(x, factors.ToDense(0.5), null, [2, 1], [1, 1], [1, 1], groups);
            Tensor sum = randn_like(expected);
            Tensor before = sum.clone();
            int count = 0;
            foreach (bool build1 in new[] { false, true })
            {
                foreach (bool build2 in new[] { false, true })
                {
                    foreach (bool[] steps in ContractionPlan.Interleavings(build1 ? 1 : 2, build2 ? 1 : tucker ? 3 : 2))
                    {
                        ContractionPlan plan = new(build1, build2, steps, false, 0);
                        TensorAssert.Close(expected, factors.Convolution.Contract(x, geometry, 0.5, plan), Exact, string.Join(' ', steps));
                        TensorAssert.Close(sum + expected, factors.Convolution.Contract(x, geometry, 0.5, plan, sum), Exact, "into a sum, " + string.Join(' ', steps));
                        count++;
                    }
                }
            }

            Assert.True(TensorAssert.Same(before, sum));
            Assert.Equal(tucker ? 10 + 4 + 3 + 2 : 6 + 3 + 3 + 2, count);
        }
    }

    [Fact]
    public void An_image_without_batch_dimension_is_a_batch_of_one()
    {
        using DisposeScope scope = NewDisposeScope();
        using LoKrModel model = new(TestNetworks.Network(("conv", nn.Conv2d(8, 12, 3, padding: 1))));
        model.AddAdapter(new() { R = 2, TargetModules = ModuleSelector.FromNames(["conv"]), InitWeights = InitWeights.Random });
        Tensor x = randn(1, 8, 5, 5);
        TensorAssert.Close(PeftCase.Run(model, x).squeeze(0), PeftCase.Run(model, x.squeeze(0)), 1e-6, "single image");
    }

    private static IEnumerable<LoKrConfig> Options()
    {
        LoKrConfig low = new() { R = 1, Alpha = 3 };
        LoKrConfig full = new() { R = 64, Alpha = 32 };
        yield return low;
        yield return low with { DecomposeBoth = true };
        yield return low with { UseEffectiveConv2d = true };
        yield return low with { UseEffectiveConv2d = true, DecomposeBoth = true, UseScalar = true };
        yield return full;
        yield return full with { Conv1dLayout = Conv1dLayout.Kronecker };
        yield return full with { UnbalancedFactorization = true };
        yield return low with { UnbalancedFactorization = true, FullMatrix = true };
        yield return low with { WeightDecompose = true };
        yield return low with { WeightDecompose = true, WeightDecomposeAxis = WeightDecomposeAxis.Input, UseScalar = true };
        yield return full with { WeightDecompose = true };
        yield return full with { WeightDecompose = true, WeightDecomposeAxis = WeightDecomposeAxis.Input };
    }

    private static (nn.Module<Tensor, Tensor> Layer, long[] Input) Make(string name) => name switch
    {
        "1d" => (nn.Conv1d(12, 20, 3), [2, 12, 9]),
        "1d stride" => (nn.Conv1d(12, 20, 3, stride: 2, padding: 2L), [2, 12, 9]),
        "1d dilation" => (nn.Conv1d(12, 20, 3, dilation: 2), [2, 12, 9]),
        "1d same" => (nn.Conv1d(12, 20, 4, padding: TorchSharp.Padding.Same), [2, 12, 9]),
        "1d circular" => (nn.Conv1d(12, 20, 3, padding: 2L, padding_mode: PaddingModes.Circular), [2, 12, 9]),
        "1d groups" => (nn.Conv1d(12, 24, 3, groups: 2), [2, 12, 9]),
        "1d groups cut" => (nn.Conv1d(12, 30, 3, groups: 3), [2, 12, 9]),
        "1d groups cut2" => (nn.Conv1d(24, 24, 3, groups: 6), [2, 24, 9]),
        "1d depthwise" => (nn.Conv1d(12, 24, 3, groups: 12), [2, 12, 9]),
        "2d" => (nn.Conv2d(12, 20, 3, padding: 1), [2, 12, 6, 7]),
        "2d stride" => (nn.Conv2d(12, 20, (3, 3), stride: (2, 3), padding: (1, 2), dilation: (2, 1)), [2, 12, 8, 9]),
        "2d valid" => (nn.Conv2d(12, 20, 3, padding: TorchSharp.Padding.Valid), [2, 12, 6, 7]),
        "2d same even" => (nn.Conv2d(12, 20, 2, padding: TorchSharp.Padding.Same), [2, 12, 6, 7]),
        "2d reflect" => (nn.Conv2d(12, 20, 3, padding: 2, padding_mode: PaddingModes.Reflect), [2, 12, 6, 7]),
        "2d replicate" => (nn.Conv2d(12, 20, 3, padding: 1, padding_mode: PaddingModes.Replicate), [2, 12, 6, 7]),
        "2d circular" => (nn.Conv2d(12, 20, (3, 5), padding: (1, 2), padding_mode: PaddingModes.Circular), [2, 12, 6, 7]),
        "2d 1x1" => (nn.Conv2d(12, 20, 1), [2, 12, 6, 7]),
        "2d asymmetric" => (nn.Conv2d(12, 20, (1, 5), stride: (1, 2), padding: (0, 2)), [2, 12, 6, 7]),
        "2d groups" => (nn.Conv2d(12, 24, 3, padding: 1, groups: 2), [2, 12, 5, 5]),
        "2d groups one row each" => (nn.Conv2d(12, 24, 3, padding: 1, groups: 4), [2, 12, 5, 5]),
        "2d groups cut" => (nn.Conv2d(12, 24, 3, padding: 1, groups: 3), [2, 12, 5, 5]),
        "2d groups within" => (nn.Conv2d(16, 16, 3, groups: 8), [2, 16, 5, 5]),
        "2d depthwise" => (nn.Conv2d(12, 36, 3, padding: 1, groups: 12), [2, 12, 5, 5]),
        "3d" => (nn.Conv3d(6, 8, 3, padding: 1L), [2, 6, 4, 5, 4]),
        "3d stride" => (nn.Conv3d(6, 8, (3, 2, 3), stride: (1, 2, 1), padding: (1, 0, 1)), [2, 6, 4, 5, 4]),
        "3d groups" => (nn.Conv3d(6, 12, 3, padding: 1L, groups: 3), [2, 6, 4, 4, 4]),
        _ => throw new ArgumentOutOfRangeException(nameof(name), name, null),
    };
}
