using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Factors;

/// <summary>A matrix that is known by its products.</summary>
internal interface ILinearMap
{
    /// <summary>Number of rows.</summary>
    long Rows { get; }

    /// <summary>Number of columns.</summary>
    long Columns { get; }

    /// <summary>The matrix times columns×b, rows×b.</summary>
    Tensor Times(Tensor columns);

    /// <summary>The transposed matrix times rows×b, columns×b.</summary>
    Tensor TransposedTimes(Tensor rows);
}

/// <summary>A matrix that is held as it is.</summary>
internal sealed class MatrixMap(Tensor matrix) : ILinearMap
{
    /// <inheritdoc/>
    public long Rows => matrix.shape[0];

    /// <inheritdoc/>
    public long Columns => matrix.shape[1];

    /// <inheritdoc/>
    public Tensor Times(Tensor columns) => matrix.mm(columns);

    /// <inheritdoc/>
    public Tensor TransposedTimes(Tensor rows) => matrix.t().mm(rows);
}

/// <summary>
/// Leading left singular vectors of a matrix by block subspace iteration with a Rayleigh–Ritz step (Halko, Martinsson and Tropp,
/// arXiv:0909.4061, algorithm 4.4). A block as wide as the smaller side of the matrix holds all of them after one step. The start is the
/// same for every call, and the generator of the process is not touched.
/// </summary>
internal static class LeadingSubspace
{
    private const long WidestBlock = 64;
    private const long SpareVectors = 8;
    private const int MostIterations = 100;
    private const double Tolerance = 1e-10;

    /// <summary>Finds the leading vectors.</summary>
    /// <param name="map">The matrix, finite.</param>
    /// <param name="count">How many vectors; at most the smaller side is returned.</param>
    /// <param name="dtype">Type to compute in: float32 or float64.</param>
    /// <returns>Orthonormal columns in descending order of their singular values, and these.</returns>
    public static (Tensor Vectors, Tensor Values) Find(ILinearMap map, long count, ScalarType dtype)
    {
        using DisposeScope scope = NewDisposeScope();
        long side = Math.Min(map.Rows, map.Columns);
        count = Math.Min(count, side);
        long width = Math.Min(side, Math.Max(WidestBlock, count + SpareVectors));
        using Generator generator = new(0, CPU);
        Tensor basis = Orthonormal(map.Times(randn([map.Columns, width], dtype, generator: generator)));
        double before = 0;
        for (int iteration = 0; ; iteration++)
        {
            using DisposeScope step = NewDisposeScope();
            Tensor projected = map.TransposedTimes(basis);
            (Tensor squares, Tensor vectors) = linalg.eigh(projected.t().mm(projected).to(float64));
            Tensor values = squares.flip(0).narrow(0, 0, count).clamp_min(0);
            double sum = values.sum().ToDouble();
            if (width == side || iteration == MostIterations || Math.Abs(sum - before) <= Tolerance * sum)
            {
                Tensor leading = basis.mm(vectors.flip(1).narrow(1, 0, count).to(dtype));
                return (leading.MoveToOuterDisposeScope().MoveToOuterDisposeScope(), values.sqrt().MoveToOuterDisposeScope().MoveToOuterDisposeScope());
            }

            before = sum;
            Tensor last = basis;
            basis = Orthonormal(map.Times(projected)).MoveToOuterDisposeScope();
            last.Dispose();
        }
    }

    private static Tensor Orthonormal(Tensor columns)
    {
        (Tensor basis, _) = linalg.qr(columns);
        return basis;
    }
}
