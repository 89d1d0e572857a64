using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Factors;

/// <summary>Norms of tensors of any floating-point type in double precision, in pieces, so that no second copy of a large weight is made.</summary>
internal static class TensorNorm
{
    private const long BlockNumbers = 4 << 20;

    /// <summary>Square root of the sum of all squares.</summary>
    public static double Frobenius(Tensor tensor)
    {
        using IDisposable noGrad = no_grad();
        using DisposeScope scope = NewDisposeScope();
        Tensor flat = tensor.detach().reshape(-1);
        double squares = 0;
        for (long start = 0; start < flat.numel(); start += BlockNumbers)
        {
            using DisposeScope block = NewDisposeScope();
            squares += flat.narrow(0, start, Math.Min(BlockNumbers, flat.numel() - start)).to(float64).square().sum().ToDouble();
        }

        return Math.Sqrt(squares);
    }
}
