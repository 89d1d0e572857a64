using LoKr.Core.Layers;
using LoKr.Core.Training;
using LoKr.Testing;
using TorchSharp;
using TorchSharp.Modules;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Training;

/// <summary>Against TorchSharp's own AdamW and clip_grad_norm_, one parameter at a time.</summary>
public sealed class FlatAdamWTests
{
    private static readonly long[][] s_shapes = [[4, 6], [3], [2, 2, 5]];

    [Theory]
    [InlineData(0.0, 1.0)]
    [InlineData(0.05, 1.0)]
    [InlineData(0.05, 0.0)]
    public void Steps_and_clipping_equal_torch(double weightDecay, double maxNorm)
    {
        using var scope = NewDisposeScope();
        random.manual_seed(11);
        using FlatParameter flat = new(s_shapes, ScalarType.Float32, CPU);
        using (no_grad())
        {
            flat.Value.copy_(randn(flat.Value.numel()));
        }

        Parameter[] reference = [.. flat.Views.Select(view => new Parameter(view.detach().clone()))];
        using var expected = optim.AdamW(reference, lr: 1e-2, beta1: 0.8, beta2: 0.95, eps: 1e-6, weight_decay: weightDecay);
        using FlatAdamW actual = new([flat], 0.8, 0.95, 1e-6, weightDecay);
        for (int step = 0; step < 12; step++)
        {
            double learningRate = 1e-2 / (step + 1);
            foreach (var group in expected.ParamGroups)
            {
                group.LearningRate = learningRate;
            }

            // Norms on both sides of the limit.
            Tensor gradient = randn(flat.Value.numel()) * (step % 2 == 0 ? 0.05 : 3);
            using (no_grad())
            {
                flat.Gradient.copy_(gradient);
            }

            int offset = 0;
            foreach (Parameter parameter in reference)
            {
                parameter.grad = gradient.narrow(0, offset, parameter.numel()).view(parameter.shape).clone();
                offset += (int)parameter.numel();
            }

            double norm = actual.GradientNorm().ToDouble();
            double expectedNorm = maxNorm > 0 ? nn.utils.clip_grad_norm_(reference, maxNorm) : gradient.norm().ToDouble();
            TensorAssert.Close(expectedNorm, norm, 1e-6, "norm");
            actual.Clip(maxNorm, norm);
            actual.Step(learningRate);
            expected.step();
            for (int i = 0; i < reference.Length; i++)
            {
                TensorAssert.Close(reference[i].grad!, flat.Gradient.narrow(0, s_shapes[..i].Sum(Count), Count(s_shapes[i])).view(s_shapes[i]), 1e-6, $"gradient {i}");
                TensorAssert.Close(reference[i], flat.Views[i], 1e-6, $"step {step}, parameter {i}");
            }
        }
    }

    [Theory]
    [InlineData(0.0)]
    [InlineData(0.05)]
    public void A_head_steps_with_a_learning_rate_of_its_own(double weightDecay)
    {
        using var scope = NewDisposeScope();
        random.manual_seed(12);
        using FlatParameter flat = new(s_shapes, ScalarType.Float32, CPU);
        using (no_grad())
        {
            flat.Value.copy_(randn(flat.Value.numel()));
        }

        // In the middle: there are parameters on both sides.
        Parameter[] reference = [.. flat.Views.Select(view => new Parameter(view.detach().clone()))];
        Parameter[] others = [reference[0], reference[2]];
        Parameter[] ownHead = [reference[1]];
        using var expected = optim.AdamW(others, weight_decay: weightDecay);
        using var expectedHead = optim.AdamW(ownHead, weight_decay: weightDecay);
        using FlatAdamW actual = new([flat], weightDecay: weightDecay, head: FlatRange.Join([flat.RangeOf(1)]));
        for (int step = 0; step < 6; step++)
        {
            // One rate for both in the third step.
            (double learningRate, double ofHead) = (1e-2 / (step + 1), step == 2 ? 1e-2 / 3 : 0.2 / (step + 1));
            (expected.ParamGroups.Single().LearningRate, expectedHead.ParamGroups.Single().LearningRate) = (learningRate, ofHead);
            using (no_grad())
            {
                flat.Gradient.copy_(randn(flat.Value.numel()));
            }

            foreach ((Parameter parameter, Tensor gradient) in reference.Zip(flat.GradientViews))
            {
                parameter.grad = gradient.clone();
            }

            actual.Step(learningRate, step == 2 ? null : ofHead);
            expected.step();
            expectedHead.step();
            for (int i = 0; i < reference.Length; i++)
            {
                TensorAssert.Close(reference[i], flat.Views[i], 1e-6, $"step {step}, parameter {i}");
            }
        }
    }

    [Fact]
    public void Several_buffers_are_clipped_together()
    {
        using var scope = NewDisposeScope();
        using FlatParameter first = new([[3]], ScalarType.Float32, CPU);
        using FlatParameter second = new([[4]], ScalarType.BFloat16, CPU);
        using FlatAdamW optimizer = new([first, second]);
        using (no_grad())
        {
            first.Gradient.fill_(2);
            second.Gradient.fill_(1);
        }

        double norm = optimizer.GradientNorm().ToDouble();
        Assert.Equal(4, norm, 5);
        optimizer.Clip(1, norm);
        TensorAssert.Close(full(3, 0.5f), first.Gradient, 1e-5, "first");
        TensorAssert.Close(full(4, 0.25f), second.Gradient.to(ScalarType.Float32), 1e-2, "second");
    }

    [Fact]
    public void Half_precision_parameters_do_not_lose_small_steps()
    {
        using var scope = NewDisposeScope();
        using FlatParameter flat = new([[8]], ScalarType.BFloat16, CPU);
        using (no_grad())
        {
            flat.Value.fill_(1);
            flat.Gradient.fill_(1);
        }

        using FlatAdamW optimizer = new([flat]);
        for (int i = 0; i < 100; i++)
        {
            // 1e-4 is far below the spacing of bfloat16 at 1 (0.0078); a hundred of them are not.
            optimizer.Step(1e-4);
        }

        Assert.Equal(0.9900, flat.Value[0].to(ScalarType.Float32).item<float>(), 0.004);
    }

    [Fact]
    public void A_step_allocates_nothing_that_stays()
    {
        using FlatParameter flat = new([[64]], ScalarType.Float32, CPU);
        using FlatAdamW optimizer = new([flat], weightDecay: 0.1);
        optimizer.ZeroGradients();
        optimizer.Step(1e-3);
        long before = TensorCount.Settled();
        for (int i = 0; i < 20; i++)
        {
            using var scope = NewDisposeScope();
            optimizer.Clip(1, optimizer.GradientNorm().ToDouble());
            optimizer.Step(1e-3);
            optimizer.ZeroGradients();
        }

        Assert.Equal(before, TensorCount.Settled());
    }

    private static long Count(long[] shape) => shape.Aggregate(1L, (a, b) => a * b);
}
