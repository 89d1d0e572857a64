using LoKr.Core.Safetensors;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Factors;

/// <summary>
/// A delta that is to be a Kronecker product w1 ⊗ w2, rearranged so that such a product has rank 1 (Van Loan and Pitsianis, 1993): one row
/// for each number of w1, in its order, and one column for each number of w2.
/// </summary>
internal abstract class KroneckerTarget : ILinearMap
{
    /// <summary>Takes the shapes of the product.</summary>
    /// <param name="shapes">Shapes of w1 and w2; whether they are low-rank does not matter here.</param>
    protected KroneckerTarget(FactorShapes shapes)
    {
        Rows = shapes.L * shapes.M;
        Columns = shapes.K * shapes.N * shapes.Kernel.Product();
    }

    /// <inheritdoc/>
    public long Rows { get; }

    /// <inheritdoc/>
    public long Columns { get; }

    /// <summary>Type of the numbers: float64, or float32 where they are many.</summary>
    public abstract ScalarType DType { get; }

    /// <summary>The sum of the squares of all numbers of the delta.</summary>
    public abstract double SquaredNorm { get; }

    /// <summary>Rearranges a dense delta.</summary>
    /// <param name="delta">out×in×kernel, finite. Its type is kept.</param>
    /// <param name="shapes">Shapes of w1 and w2.</param>
    public static KroneckerTarget Of(Tensor delta, FactorShapes shapes) => new Dense(Rearranged(delta, shapes), shapes);

    /// <summary>
    /// Rearranges the difference of two dense weights, some rows of w2 at a time, so that neither it nor a converted copy of a weight is formed in
    /// their own order, and the square of a matrix of few rows is summed while its numbers are in the processor's cache.
    /// </summary>
    /// <param name="minuend">out×in×kernel, of any floating-point type.</param>
    /// <param name="subtrahend">Of the same shape.</param>
    /// <param name="memory">Flat memory that the difference is put into, as float32 or float64; it holds it as long as the target is used.</param>
    /// <param name="shapes">Shapes of w1 and w2.</param>
    public static KroneckerTarget OfDifference(Tensor minuend, Tensor subtrahend, Tensor memory, FactorShapes shapes)
    {
        const long block = 1 << 20;
        using DisposeScope scope = NewDisposeScope();
        (Tensor after, Tensor before) = (Split(minuend, shapes), Split(subtrahend, shapes));
        Tensor difference = memory.view(after.shape);
        Tensor matrix = memory.view(shapes.L * shapes.M, -1);
        Tensor? square = LeadingSubspace.TakesSquare(matrix.shape[0], matrix.shape[1], memory.dtype) ? zeros(matrix.shape[0], matrix.shape[0], dtype: float64) : null;
        long width = matrix.shape[1] / shapes.K;
        long step = Math.Max(1, block / (matrix.shape[0] * width));
        for (long start = 0; start < shapes.K; start += step)
        {
            using DisposeScope inner = NewDisposeScope();
            long count = Math.Min(step, shapes.K - start);
            DifferenceKernel.Subtract(difference.narrow(2, start, count), after.narrow(2, start, count), before.narrow(2, start, count));
            Tensor part = matrix.narrow(1, start * width, count * width);
            square?.add_(part.mm(part.t()));
        }

        return new Dense(matrix.MoveToOuterDisposeScope(), shapes, square?.MoveToOuterDisposeScope());
    }

    /// <summary>
    /// A weighted sum of Kronecker products. No dense delta is formed where the sizes of a term's w1 divide those of the wanted one, or the
    /// other way round, for rows and columns alike or in opposite directions.
    /// </summary>
    /// <param name="terms">Factors with their scales; all of one weight.</param>
    /// <param name="shapes">Shapes of w1 and w2.</param>
    public static KroneckerTarget Of(IReadOnlyList<(KroneckerFactors Factors, double Scale)> terms, FactorShapes shapes) => new Sum(terms, shapes);

    /// <inheritdoc/>
    public abstract Tensor Times(Tensor columns);

    /// <inheritdoc/>
    public abstract Tensor TransposedTimes(Tensor rows);

    /// <inheritdoc/>
    public virtual Tensor Square() => Times(TransposedTimes(eye(Rows, dtype: DType)));

    /// <summary>The delta with w1 in the span of some columns: as much of it is explained by w1 in this basis as by w1 itself.</summary>
    /// <param name="basis">Orthonormal columns over the numbers of w1.</param>
    /// <param name="shapes">Shapes of w1 and w2.</param>
    /// <returns>A target whose w1 is a column of coefficients, and its shapes.</returns>
    public (KroneckerTarget Target, FactorShapes Shapes) Within(Tensor basis, FactorShapes shapes)
    {
        using DisposeScope scope = NewDisposeScope();
        FactorShapes inner = shapes with { L = basis.shape[1], M = 1 };
        return (new Dense(TransposedTimes(basis).t().contiguous().MoveToOuterDisposeScope(), inner), inner);
    }

    private static Tensor Rearranged(Tensor delta, FactorShapes shapes) => Split(delta, shapes).reshape(shapes.L * shapes.M, -1);

    /// <summary>A view: the indices of w1, then those of w2 and of the kernel.</summary>
    private static Tensor Split(Tensor delta, FactorShapes shapes)
    {
        (long l, long m, long k, long n) = (shapes.L, shapes.M, shapes.K, shapes.N);
        return shapes.Reversed
            ? delta.reshape(k, l, n, m, -1).permute(1, 3, 0, 2, 4)
            : delta.reshape(l, k, m, n, -1).permute(0, 2, 1, 3, 4);
    }

    private sealed class Dense(Tensor matrix, FactorShapes shapes, Tensor? square = null) : KroneckerTarget(shapes)
    {
        public override ScalarType DType => matrix.dtype;

        public override double SquaredNorm { get; } = square?.trace().ToDouble() ?? SquaredNormOf(matrix);

        public override Tensor Times(Tensor columns) => matrix.mm(columns);

        public override Tensor TransposedTimes(Tensor rows) => matrix.t().mm(rows);

        public override Tensor Square() => square?.alias() ?? matrix.mm(matrix.t());

        // Some rows at a time, so that the squares stay in the processor's cache.
        private static double SquaredNormOf(Tensor matrix)
        {
            const long block = 1 << 18;
            double sum = 0;
            long rows = Math.Max(1, block / Math.Max(1, matrix.shape[1]));
            for (long start = 0; start < matrix.shape[0]; start += rows)
            {
                using DisposeScope scope = NewDisposeScope();
                sum += matrix.narrow(0, start, Math.Min(rows, matrix.shape[0] - start)).square().sum(dim: 1L).sum(float64).ToDouble();
            }

            return sum;
        }
    }

    private sealed class Sum : KroneckerTarget
    {
        private readonly List<ILinearMap> _terms = [];

        public Sum(IReadOnlyList<(KroneckerFactors Factors, double Scale)> terms, FactorShapes shapes)
            : base(shapes)
        {
            double squares = 0;
            for (int i = 0; i < terms.Count; i++)
            {
                (KroneckerFactors factors, double scale) = terms[i];
                _terms.Add(Nested.Fits(factors, shapes) ? new Nested(factors, scale, shapes) : Of(Precise(factors.ToDense(1)) * scale, shapes));
                for (int j = 0; j <= i; j++)
                {
                    DeltaComparison pair = DeltaProducts.Compare(factors, scale, terms[j].Factors, terms[j].Scale)
                        ?? throw new ArgumentException("The terms are not finite, or not of weights of one size.", nameof(terms));
                    squares += (i == j ? 1 : 2) * pair.Inner;
                }
            }

            SquaredNorm = Math.Max(0, squares);
        }

        public override ScalarType DType => float64;

        public override double SquaredNorm { get; }

        public override Tensor Times(Tensor columns) => Total(term => term.Times(columns));

        public override Tensor TransposedTimes(Tensor rows) => Total(term => term.TransposedTimes(rows));

        private Tensor Total(Func<ILinearMap, Tensor> product)
        {
            using DisposeScope scope = NewDisposeScope();
            return _terms.Select(product).Aggregate(static (sum, next) => sum + next).MoveToOuterDisposeScope();
        }

        private static Tensor Precise(Tensor tensor) => tensor.detach().cpu().to(float64);

        /// <summary>
        /// One product A ⊗ B over a refinement that it shares with w1 ⊗ w2: rows are (coarse, between, fine) and so are columns. Where A has
        /// the coarser rows, w1 has (coarse, between) and B (between, fine); otherwise A has (coarse, between) and w2 (between, fine).
        /// </summary>
        private sealed class Nested : ILinearMap
        {
            private readonly Tensor _a;
            private readonly Tensor _b;
            private readonly long[] _outerShape;
            private readonly long[] _innerShape;
            private readonly string _aIndices;
            private readonly string _bIndices;
            private readonly string _outerIndices;
            private readonly string _innerIndices;

            public Nested(KroneckerFactors factors, double scale, FactorShapes shapes)
            {
                Rows = shapes.L * shapes.M;
                Columns = shapes.K * shapes.N * shapes.Kernel.Product();
                Axis rows = Axis.Of(factors.L, factors.K, shapes.L, shapes.K, "abc");
                Axis columns = Axis.Of(factors.M, factors.N, shapes.M, shapes.N, "def");
                _a = (Precise(factors.W1()) * scale).reshape([.. rows.A, .. columns.A]);
                _b = Precise(factors.W2()).reshape([.. rows.B, .. columns.B, -1]);
                long kernel = shapes.Kernel.Product();
                _outerShape = [.. rows.Outer, .. columns.Outer];
                _innerShape = [.. rows.Inner, .. columns.Inner, kernel];
                (_aIndices, _bIndices) = (rows.AIndices + columns.AIndices, rows.BIndices + columns.BIndices + "t");
                (_outerIndices, _innerIndices) = (rows.OuterIndices + columns.OuterIndices, rows.InnerIndices + columns.InnerIndices + "t");
            }

            public long Rows { get; }

            public long Columns { get; }

            public static bool Fits(KroneckerFactors factors, FactorShapes shapes) =>
                !shapes.Reversed && (!factors.IsReversed || (factors.L == 1 && factors.M == 1)) && Divides(factors.L, shapes.L) && Divides(factors.M, shapes.M);

            public Tensor Times(Tensor columns) =>
                Chain(_b, _bIndices, columns.reshape([.. _innerShape, -1]), _innerIndices, _a, _aIndices, _outerIndices).reshape(Rows, -1);

            public Tensor TransposedTimes(Tensor rows) =>
                Chain(_a, _aIndices, rows.reshape([.. _outerShape, -1]), _outerIndices, _b, _bIndices, _innerIndices).reshape(Columns, -1);

            public Tensor Square() => Times(TransposedTimes(eye(Rows, dtype: float64)));

            /// <summary>Multiplies by one factor, then by the other, so that their product is never formed. Index z counts the columns.</summary>
            private static Tensor Chain(Tensor first, string firstIndices, Tensor operand, string operandIndices, Tensor second, string secondIndices, string result)
            {
                using DisposeScope scope = NewDisposeScope();
                string between = string.Concat((firstIndices + operandIndices).Distinct().Where(index => secondIndices.Contains(index, StringComparison.Ordinal) || result.Contains(index, StringComparison.Ordinal)));
                Tensor once = einsum($"{firstIndices},{operandIndices}z->{between}z", first, operand);
                return einsum($"{secondIndices},{between}z->{result}z", second, once).MoveToOuterDisposeScope();
            }

            private static bool Divides(long a, long b) => a % b == 0 || b % a == 0;

            /// <summary>Sizes and indices of rows, or of columns, in the four factors.</summary>
            private sealed record Axis(long[] A, string AIndices, long[] B, string BIndices, long[] Outer, string OuterIndices, long[] Inner, string InnerIndices)
            {
                public static Axis Of(long a, long b, long outer, long inner, string indices)
                {
                    (string coarse, string between, string fine) = (indices[..1], indices[1..2], indices[2..]);
                    return outer % a == 0
                        ? new([a], coarse, [outer / a, inner], between + fine, [a, outer / a], coarse + between, [inner], fine)
                        : new([outer, a / outer], coarse + between, [b], fine, [outer], coarse, [a / outer, b], between + fine);
                }
            }
        }
    }
}
