using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Factors;

/// <summary>Multiplies scales into stored matrices.</summary>
internal static class ScaledMatrix
{
    /// <summary>A matrix times a number: in its own type where that holds the result exactly, else at least in float32.</summary>
    /// <param name="matrix">The matrix.</param>
    /// <param name="factor">The number; by a power of two nothing is rounded.</param>
    public static Tensor Times(Tensor matrix, double factor)
    {
        if (factor == 1)
        {
            return matrix;
        }

        Tensor wide = matrix.to(float64) * factor;
        Tensor own = wide.to(matrix.dtype);
        return matrix.dtype == float64 || own.to(float64).eq(wide).all().ToBoolean() ? own : wide.to(float32);
    }
}
