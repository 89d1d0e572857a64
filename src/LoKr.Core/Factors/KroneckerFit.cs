using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Factors;

/// <summary>
/// The factors of given shapes whose product is nearest to a delta in the Frobenius norm. With full factors this is the leading singular
/// pair of the rearranged delta, and optimal. Low-rank factors are refined by turns from there: w2 is the best of its rank for the
/// current w1 (truncated singular values, or Tucker by higher-order orthogonal iteration), then w1 for that w2, as long as the error falls.
/// A large delta, which is held in float32, is searched less closely: each turn takes w2 a step nearer to the best one instead of all the way,
/// and the turns end where the squared error falls by less than a hundred-thousandth of the squared norm, or less where the delta is smaller.
/// </summary>
internal static class KroneckerFit
{
    private const int MostTurns = 500;
    private const int MostTuckerTurns = 100;
    private const double Tolerance = 1e-9;

    // Of a large delta: for turns on one of so many numbers or more, for the direction that they start from, and for several that span it.
    private const double LargeTolerance = 1e-5;
    private const double LargeCount = 1 << 24;
    private const double StartTolerance = 1e-4;
    private const double SpanTolerance = 3e-4;
    private const long SpanVectors = 8;

    // Steps towards the best w2 in the first turn and in each further one.
    private const int FirstSteps = 6;
    private const int StepsOfTurn = 1;

    // Smaller side up to which all singular vectors are computed at once.
    private const long LargestDecomposed = 128;

    /// <summary>Fits the factors.</summary>
    /// <param name="target">The delta, rearranged for these shapes.</param>
    /// <param name="shapes">Shapes of the factors.</param>
    /// <returns>
    /// Factors of equal norms, float64; they belong to the current dispose scope. The error is ‖Δ − w1 ⊗ w2‖ / ‖Δ‖, and 0 for a delta of zeros.
    /// </returns>
    public static FittedFactors Fit(KroneckerTarget target, FactorShapes shapes)
    {
        using IDisposable noGrad = no_grad();
        using DisposeScope scope = NewDisposeScope();
        double norm = target.SquaredNorm;
        Tensor direction = IsLarge(target) && (shapes.LowRankW1 || shapes.LowRankW2) ? Start(target, shapes) : LeadingSubspace.Find(target, 1, target.DType, SearchOf(target)).Vectors;
        (Outer w1, Inner w2) = (shapes.Tucker ? Enum.GetValues<TuckerStart>() : [TuckerStart.Columns])
            .Select(start => Refine(target, shapes, direction.to(float64), start, ToleranceOf(target))).MaxBy(static pair => pair.W2.SquaredNorm);
        double scale = Math.Sqrt(w2.Norm);
        Dictionary<string, Tensor> parts = new(StringComparer.Ordinal);
        w1.AddTo(parts, scale);
        w2.AddTo(parts, scale > 0 ? 1 / scale : 1);
        Dictionary<string, Tensor> factors = shapes.Tensors().ToDictionary(
            static tensor => tensor.Suffix, tensor => parts[tensor.Suffix].reshape(tensor.Shape).MoveToOuterDisposeScope(), StringComparer.Ordinal);
        return new(factors, norm > 0 ? Math.Sqrt(Math.Max(0, 1 - (w2.SquaredNorm / norm))) : 0);
    }

    /// <summary>‖Δ − scale·(w1 ⊗ w2)‖ / ‖Δ‖ for given factors, without their product; 0 for a delta of zeros. Errors below 1e-7 are rounding.</summary>
    public static double Error(KroneckerTarget target, KroneckerFactors factors, double scale)
    {
        using IDisposable noGrad = no_grad();
        using DisposeScope scope = NewDisposeScope();
        double norm = target.SquaredNorm;
        Tensor w1 = factors.W1().to(float64) * scale;
        Tensor w2 = factors.W2().to(float64);
        double inner = (target.Times(w2.reshape(-1, 1).to(target.DType)).to(float64) * w1.reshape(-1, 1)).sum().ToDouble();
        double square = w1.square().sum().ToDouble() * w2.square().sum().ToDouble();
        return norm > 0 ? Math.Sqrt(Math.Max(0, norm - (2 * inner) + square) / norm) : 0;
    }

    /// <summary>
    /// The w1 from which the turns on a large delta start: that of the nearest full factors, or, where w1 has many numbers, the best one in the span of
    /// several leading vectors, in which turns cost nothing beside a look at all numbers.
    /// </summary>
    private static Tensor Start(KroneckerTarget target, FactorShapes shapes)
    {
        bool isNarrow = LeadingSubspace.TakesSquare(target.Rows, target.Columns, target.DType);
        bool isSpanned = !isNarrow && shapes.LowRankW2 && !shapes.LowRankW1 && !shapes.Tucker;
        SubspaceSearch search = SearchOf(target)! with { Tolerance = isSpanned ? SpanTolerance : StartTolerance };
        Tensor vectors = LeadingSubspace.Find(target, isSpanned ? SpanVectors : 1, target.DType, search).Vectors;
        if (!isSpanned)
        {
            return vectors;
        }

        (KroneckerTarget within, FactorShapes inner) = target.Within(vectors, shapes);
        Tensor first = eye(vectors.shape[1], 1, dtype: float64);
        return vectors.to(float64).mm(Refine(within, inner, first, TuckerStart.Columns, SpanTolerance).W1.Product);
    }

    /// <summary>Low-rank factors by turns; full ones as they are found.</summary>
    private static (Outer W1, Inner W2) Refine(KroneckerTarget target, FactorShapes shapes, Tensor direction, TuckerStart start, double tolerance)
    {
        Outer w1 = Outer.Of(direction, shapes);
        Inner w2 = Inner.Of(target, w1.Product, shapes, start, null);
        double norm = target.SquaredNorm;
        double before = w2.SquaredNorm;
        for (int turn = 0; (shapes.LowRankW1 || shapes.LowRankW2) && turn < MostTurns; turn++)
        {
            using DisposeScope step = NewDisposeScope();
            Outer nextW1 = Outer.Of(target.Times(w2.Product.reshape(-1, 1).to(target.DType)).to(float64), shapes);
            Inner nextW2 = Inner.Of(target, nextW1.Product, shapes, start, w2);
            double gain = nextW2.SquaredNorm - before;
            if (gain <= 0)
            {
                break;
            }

            w1.Dispose();
            w2.Dispose();
            (w1, w2) = (nextW1.MoveToOuterScope(), nextW2.MoveToOuterScope());
            before = w2.SquaredNorm;
            if (gain <= tolerance * norm)
            {
                break;
            }
        }

        return (w1, w2);
    }

    /// <summary>The smallest rank of the nearest full w2, its kernel among the columns, that keeps a share of its squared norm.</summary>
    /// <param name="target">The delta, rearranged for these shapes.</param>
    /// <param name="shapes">Shapes with full factors.</param>
    /// <param name="share">The share, in (0, 1].</param>
    public static int RankFor(KroneckerTarget target, FactorShapes shapes, double share)
    {
        using IDisposable noGrad = no_grad();
        using DisposeScope scope = NewDisposeScope();
        (Tensor outer, _) = LeadingSubspace.Find(target, 1, target.DType, SearchOf(target));
        return (int)SingularValues.CountFor(linalg.svdvals(target.TransposedTimes(outer).to(float64).reshape(shapes.K, -1)), share);
    }

    /// <summary>Where orthogonal iteration starts. It ends in a local optimum, so that every start is tried.</summary>
    private enum TuckerStart
    {
        /// <summary>From the leading vectors of the columns, anew in every turn.</summary>
        Columns,

        /// <summary>From the leading vectors of the rows, anew in every turn.</summary>
        Rows,

        /// <summary>From those of the columns, then from where the turn before ended.</summary>
        ColumnsOnce,

        /// <summary>From those of the rows, then from where the turn before ended.</summary>
        RowsOnce,
    }

    /// <summary>w1 with norm 1, or its two parts.</summary>
    private sealed record Outer(Tensor Product, Tensor? Left, Tensor? Right) : IDisposable
    {
        public void Dispose()
        {
            Product.Dispose();
            Left?.Dispose();
            Right?.Dispose();
        }

        /// <summary>The best w1 in a direction.</summary>
        public static Outer Of(Tensor direction, FactorShapes shapes)
        {
            Tensor full = direction.reshape(shapes.L, shapes.M);
            if (!shapes.LowRankW1)
            {
                return new(Unit(full).reshape(-1, 1), null, null);
            }

            (Tensor left, Tensor right) = Truncated(full, shapes.OuterRank ?? shapes.Rank);
            double root = Math.Sqrt(left.mm(right).norm().ToDouble());
            (left, right) = root > 0 ? (left / root, right / root) : (left, right);
            return new(left.mm(right).reshape(-1, 1), left, right);
        }

        public Outer MoveToOuterScope() => new(Product.MoveToOuterDisposeScope(), Left?.MoveToOuterDisposeScope(), Right?.MoveToOuterDisposeScope());

        public void AddTo(Dictionary<string, Tensor> factors, double scale)
        {
            if (Left is null)
            {
                factors.Add(FactorNames.W1, Product * scale);
                return;
            }

            double root = Math.Sqrt(scale);
            factors.Add(FactorNames.W1A, Left * root);
            factors.Add(FactorNames.W1B, Right! * root);
        }

        private static Tensor Unit(Tensor tensor)
        {
            double norm = tensor.norm().ToDouble();
            return norm > 0 ? tensor / norm : tensor;
        }
    }

    /// <summary>w2 with its whole norm, k×(n·kernel), or its parts: a k×r and b r×(n·kernel); for Tucker a r×k, b r×n and the core r×r×kernel.</summary>
    private sealed record Inner(Tensor Product, Tensor? Left, Tensor? Right, Tensor? Core) : IDisposable
    {
        public void Dispose()
        {
            Product.Dispose();
            Left?.Dispose();
            Right?.Dispose();
            Core?.Dispose();
        }

        public double SquaredNorm { get; } = Product.square().sum().ToDouble();

        public double Norm => Math.Sqrt(SquaredNorm);

        /// <summary>The best w2 beside a w1 of norm 1.</summary>
        public static Inner Of(KroneckerTarget target, Tensor outer, FactorShapes shapes, TuckerStart start, Inner? before)
        {
            Tensor full = target.TransposedTimes(outer.to(target.DType)).to(float64).reshape(shapes.K, -1);
            if (!shapes.LowRankW2)
            {
                return new(full, null, null, null);
            }

            if (shapes.Tucker)
            {
                return OfTucker(full.reshape(shapes.K, shapes.N, -1), shapes.Rank, start, before);
            }

            // Beside a large delta the search goes on from the turn before; every step of it captures more.
            (Tensor left, Tensor right) = Truncated(full, shapes.Rank, IsLarge(target) ? new() { Width = 0, Start = before?.Left, MostSteps = before is null ? FirstSteps : StepsOfTurn } : null);
            return new(left.mm(right), left, right, null);
        }

        public Inner MoveToOuterScope() =>
            new(Product.MoveToOuterDisposeScope(), Left?.MoveToOuterDisposeScope(), Right?.MoveToOuterDisposeScope(), Core?.MoveToOuterDisposeScope());

        public void AddTo(Dictionary<string, Tensor> factors, double scale)
        {
            if (Left is null)
            {
                factors.Add(FactorNames.W2, Product * scale);
                return;
            }

            double root = Core is null ? Math.Sqrt(scale) : 1;
            factors.Add(FactorNames.W2A, Left * root);
            factors.Add(FactorNames.W2B, Right! * root);
            if (Core is not null)
            {
                factors.Add(FactorNames.T2, Core * scale);
            }
        }

        private static Inner OfTucker(Tensor full, long rank, TuckerStart start, Inner? before)
        {
            (long k, long n) = (full.shape[0], full.shape[1]);
            Tensor right = before?.Right is Tensor known && (start is TuckerStart.ColumnsOnce or TuckerStart.RowsOnce) ? known.narrow(0, 0, Math.Min(rank, n))
                : start is TuckerStart.Columns or TuckerStart.ColumnsOnce ? Leading(full.permute(1, 0, 2).reshape(n, -1), rank).t()
                : Leading(einsum("pqx,ip->qix", full, Leading(full.reshape(k, -1), rank).t()).reshape(n, -1), rank).t();
            Tensor left = right;
            double norm = -1;
            for (int turn = 0; turn < MostTuckerTurns; turn++)
            {
                left = Leading(einsum("pqx,jq->pjx", full, right).reshape(k, -1), rank).t();
                right = Leading(einsum("pqx,ip->qix", full, left).reshape(n, -1), rank).t();
                double next = einsum("pqx,ip,jq->ijx", full, left, right).square().sum().ToDouble();
                if (next - norm <= Tolerance * next)
                {
                    break;
                }

                norm = next;
            }

            Tensor core = einsum("pqx,ip,jq->ijx", full, left, right);
            Tensor product = einsum("ijx,ip,jq->pqx", core, left, right).reshape(k, -1);

            // A rank above a side of w2 is filled with zeros.
            core = nn.functional.pad(core, [0, 0, 0, rank - right.shape[0], 0, rank - left.shape[0]]);
            return new(product, ZeroPadding.Pad(left, 0, rank), ZeroPadding.Pad(right, 0, rank), core);
        }
    }

    /// <summary>The nearest product of rank r, split evenly; rows and columns beyond the rank of the matrix are zero.</summary>
    private static (Tensor Left, Tensor Right) Truncated(Tensor matrix, long rank, SubspaceSearch? search = null)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor vectors = Leading(matrix, rank, search);
        Tensor right = vectors.t().mm(matrix);
        Tensor roots = right.square().sum(dim: 1L).sqrt().sqrt();
        Tensor inverse = where(roots > 0, roots.reciprocal(), zeros_like(roots));
        return (ZeroPadding.Pad(vectors * roots, 1, rank).MoveToOuterDisposeScope(), ZeroPadding.Pad(right * inverse.unsqueeze(1), 0, rank).MoveToOuterDisposeScope());
    }

    private static bool IsLarge(KroneckerTarget target) => target.DType == float32;

    private static double ToleranceOf(KroneckerTarget target) => IsLarge(target) ? LargeTolerance * Math.Min(1, target.Rows * target.Columns / LargeCount) : Tolerance;

    private static SubspaceSearch? SearchOf(KroneckerTarget target) => IsLarge(target) ? SubspaceSearch.Single with { SquaredNorm = target.SquaredNorm } : null;

    private static Tensor Leading(Tensor matrix, long rank, SubspaceSearch? search = null)
    {
        if (Math.Min(matrix.shape[0], matrix.shape[1]) > LargestDecomposed)
        {
            return search is null ? LeadingSubspace.Find(new MatrixMap(matrix), rank, float64).Vectors
                : LeadingSubspace.Find(new MatrixMap(matrix.to(float32)), rank, float32, search).Vectors.to(matrix.dtype);
        }

        (Tensor vectors, _, _) = linalg.svd(matrix, fullMatrices: false);
        return vectors.narrow(1, 0, Math.Min(rank, vectors.shape[1]));
    }
}

/// <summary>Factors that were fitted to a delta.</summary>
/// <param name="Tensors">Factors by PEFT suffix, float64, in the shapes of a file.</param>
/// <param name="Error">‖Δ − w1 ⊗ w2‖ / ‖Δ‖. Below 1e-8 it is rounding.</param>
internal sealed record FittedFactors(IReadOnlyDictionary<string, Tensor> Tensors, double Error);
