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

    /// <summary>The matrix times its transpose, rows×rows.</summary>
    Tensor Square();
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

    /// <inheritdoc/>
    public Tensor Square() => matrix.mm(matrix.t());
}

/// <summary>How leading vectors are searched. The default finds them to the precision of float64.</summary>
internal sealed record SubspaceSearch
{
    /// <summary>The search in float32, whose sums have no more digits. Wide blocks would cost more than they save where the matrix is large.</summary>
    public static SubspaceSearch Single { get; } = new() { Tolerance = 1e-6, Width = 16 };

    /// <summary>Change of the sum of squared singular values from one step to the next at which the search ends, relative to that sum.</summary>
    public double Tolerance { get; init; } = 1e-10;

    /// <summary>Squared norm of the matrix, where changes that are small beside it do not matter; 0 where they do.</summary>
    public double SquaredNorm { get; init; }

    /// <summary>Least number of vectors in a block.</summary>
    public long Width { get; init; } = 64;

    /// <summary>Most steps.</summary>
    public int MostSteps { get; init; } = 100;

    /// <summary>Columns that are near the leading vectors already; null for none.</summary>
    public Tensor? Start { get; init; }
}

/// <summary>
/// Leading left singular vectors of a matrix by block subspace iteration with a Rayleigh–Ritz step (Halko, Martinsson and Tropp,
/// arXiv:0909.4061, algorithm 4.4). A block as wide as the smaller side of the matrix holds all of them after one step. The start is the
/// same for every call, and the generator of the process is not touched.
/// </summary>
internal static class LeadingSubspace
{
    // Rows up to which the square of a matrix of float32 is cheaper than a search.
    private const long MostSquared = 64;
    private const long SpareVectors = 8;

    /// <summary>Whether <see cref="Find"/> takes the vectors of the square, with all of them at once.</summary>
    public static bool TakesSquare(long rows, long columns, ScalarType dtype) => dtype == float32 && rows <= Math.Min(columns, MostSquared);

    /// <summary>Finds the leading vectors.</summary>
    /// <param name="map">The matrix, finite.</param>
    /// <param name="count">How many vectors; at most the smaller side is returned.</param>
    /// <param name="dtype">Type to compute in: float32 or float64.</param>
    /// <param name="search">Precision and start.</param>
    /// <returns>Orthonormal columns in descending order of their singular values, and these.</returns>
    public static (Tensor Vectors, Tensor Values) Find(ILinearMap map, long count, ScalarType dtype, SubspaceSearch? search = null)
    {
        search ??= new();
        using DisposeScope scope = NewDisposeScope();
        long side = Math.Min(map.Rows, map.Columns);
        count = Math.Min(count, side);
        if (TakesSquare(map.Rows, map.Columns, dtype))
        {
            (Tensor all, Tensor directions) = linalg.eigh(map.Square().to(float64));
            return (directions.flip(1).narrow(1, 0, count).to(dtype).MoveToOuterDisposeScope(), all.flip(0).narrow(0, 0, count).clamp_min(0).sqrt().MoveToOuterDisposeScope());
        }

        long width = Math.Min(side, Math.Max(search.Width, count + SpareVectors));
        using Generator generator = new(0, CPU);
        long known = Math.Min(search.Start?.shape[1] ?? 0, width);
        Tensor block = map.Times(randn([map.Columns, width - known], dtype, generator: generator));
        Tensor basis = Orthonormal(search.Start is Tensor start ? cat([start.narrow(1, 0, known).to(dtype), block], 1) : block);
        double before = 0;
        for (int iteration = 0; ; iteration++)
        {
            using DisposeScope step = NewDisposeScope();
            Tensor projected = map.TransposedTimes(basis);
            (Tensor squares, Tensor vectors) = linalg.eigh(projected.t().mm(projected).to(float64));
            Tensor values = squares.flip(0).narrow(0, 0, count).clamp_min(0);
            double sum = values.sum().ToDouble();
            if (width == side || iteration == search.MostSteps || Math.Abs(sum - before) <= search.Tolerance * Math.Max(sum, search.SquaredNorm))
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
