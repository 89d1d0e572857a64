using TorchSharp;
using Xunit;

namespace LoKr.Testing;

/// <summary>Comparisons of tensors with the tolerances of the fixtures.</summary>
public static class TensorAssert
{
    /// <summary>Tolerance for single layers, relative to the largest absolute value of the reference.</summary>
    public const double Layer = 1e-5;

    /// <summary>Tolerance for whole models, losses and images.</summary>
    public const double Model = 1e-4;

    /// <summary>Asserts equal shapes and a largest difference within a tolerance relative to the reference's largest absolute value.</summary>
    public static void Close(torch.Tensor expected, torch.Tensor actual, double tolerance, string what)
    {
        using var scope = torch.NewDisposeScope();
        Assert.True(expected.shape.SequenceEqual(actual.shape),
            $"{what}: expected shape [{string.Join(", ", expected.shape)}], got [{string.Join(", ", actual.shape)}].");
        if (expected.numel() == 0)
        {
            return;
        }

        torch.Tensor e = expected.detach().cpu().to(torch.ScalarType.Float64);
        torch.Tensor a = actual.detach().cpu().to(torch.ScalarType.Float64);
        double difference = (e - a).abs().max().ToDouble();
        double limit = tolerance * Math.Max(e.abs().max().ToDouble(), double.Epsilon);
        Assert.True(difference <= limit, $"{what}: largest difference {difference:G4}, allowed {limit:G4}.");
    }

    /// <summary>Whether two tensors have the same type, shape and values, bit for bit but for the sign of zero.</summary>
    public static bool Same(torch.Tensor first, torch.Tensor second)
    {
        using var scope = torch.NewDisposeScope();
        return first.dtype == second.dtype && first.shape.SequenceEqual(second.shape) && first.eq(second).all().item<bool>();
    }

    /// <summary>Asserts two numbers agree within a relative tolerance.</summary>
    public static void Close(double expected, double actual, double tolerance, string what) =>
        Assert.True(Math.Abs(expected - actual) <= tolerance * Math.Abs(expected), $"{what}: expected {expected:G9}, got {actual:G9}.");
}
