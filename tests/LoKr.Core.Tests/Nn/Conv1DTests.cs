using LoKr.Core.Nn;
using LoKr.Testing;
using TorchSharp;
using TorchSharp.Modules;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Nn;

public sealed class Conv1DTests
{
    [Fact]
    public void Output_and_gradients_are_those_of_a_linear_layer_with_the_transposed_weight()
    {
        using DisposeScope scope = NewDisposeScope();
        using Conv1D layer = Create(3, 5);
        using Linear linear = nn.Linear(3, 5, dtype: ScalarType.Float64);
        using (no_grad())
        {
            linear.weight.copy_(layer.Weight.t());
            linear.bias!.copy_(layer.Bias);
        }

        Tensor x = randn(2, 4, 3, ScalarType.Float64);
        Tensor y = layer.call(x);
        Tensor expected = linear.call(x);
        Assert.Equal([2, 4, 5], y.shape);
        TensorAssert.Close(expected, y, 1e-12, "output");
        Tensor cotangent = randn_like(y);
        (y * cotangent).sum().backward();
        (expected * cotangent).sum().backward();
        TensorAssert.Close(linear.weight.grad!.t(), layer.Weight.grad!, 1e-12, "gradient of the weight");
        TensorAssert.Close(linear.bias!.grad!, layer.Bias.grad!, 1e-12, "gradient of the bias");
    }

    [Fact]
    public void Parameters_are_named_and_shaped_as_in_checkpoints()
    {
        using Conv1D layer = new(3, 5, META);
        Assert.Equal(["weight [3, 5]", "bias [5]"], layer.named_parameters().Select(item => $"{item.name} [{string.Join(", ", item.parameter.shape)}]"));
        Assert.Equal((3, 5), (layer.InFeatures, layer.OutFeatures));
        Assert.All(layer.parameters(), parameter => Assert.Equal(DeviceType.META, parameter.device_type));
    }

    [Fact]
    public void Hooks_see_calls_and_may_replace_the_output()
    {
        using DisposeScope scope = NewDisposeScope();
        using Conv1D layer = Create(3, 5);
        layer.register_forward_hook((_, input, output) => output + input.sum());
        Tensor x = ones(1, 3, ScalarType.Float64);
        TensorAssert.Close(layer.forward(x) + 3, layer.call(x), 1e-12, "hooked output");
    }

    [Fact]
    public void Replaced_parameters_are_used_and_unknown_names_refused()
    {
        using DisposeScope scope = NewDisposeScope();
        using Conv1D layer = Create(3, 5);
        layer.SetParameter("weight", (Parameter)nn.Parameter(zeros(3, 5, ScalarType.Float64), requires_grad: false));
        layer.Bias = (Parameter)nn.Parameter(arange(5, ScalarType.Float64), requires_grad: false);
        TensorAssert.Close(arange(5, ScalarType.Float64).unsqueeze(0), layer.call(randn(1, 3, ScalarType.Float64)), 1e-12, "output");
        Assert.Equal(["weight", "bias"], layer.named_parameters().Select(item => item.name));
        Assert.Throws<ArgumentOutOfRangeException>(() => layer.SetParameter("gain", layer.Bias));
    }

    [Fact]
    public void Moved_layer_computes_in_its_new_type()
    {
        using DisposeScope scope = NewDisposeScope();
        using Conv1D layer = Create(3, 5);
        Tensor x = randn(2, 3, ScalarType.Float64);
        Tensor before = layer.call(x);
        layer.to(ScalarType.Float32);
        Tensor after = layer.call(x.to(ScalarType.Float32));
        Assert.Equal(ScalarType.Float32, after.dtype);
        TensorAssert.Close(before, after, 1e-5, "output");
    }

    private static Conv1D Create(long inputs, long outputs)
    {
        Conv1D layer = new(inputs, outputs, dtype: ScalarType.Float64);
        using IDisposable noGrad = no_grad();
        layer.Weight.normal_();
        layer.Bias.normal_();
        return layer;
    }
}
