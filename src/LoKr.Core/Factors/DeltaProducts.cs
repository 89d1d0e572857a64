using LoKr.Core.Safetensors;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Factors;

/// <summary>
/// Inner product and distance of two deltas a = s·(w1 ⊗ w2) and b = s'·(w1' ⊗ w2') of one weight, from the factors alone, in double precision
/// on the CPU. Where the factors have the same sizes, ⟨a, b⟩ = ss'·⟨w1, w1'⟩·⟨w2, w2'⟩. Where one splits rows and columns at multiples of
/// the other, both are products over a common refinement, and the sum over it is two small contractions. Sizes that do not divide each
/// other are summed over blocks of rows, so that neither delta is formed whole. The kernel of a convolution counts as columns.
/// </summary>
internal sealed class DeltaProducts
{
    private const long BlockNumbers = 1 << 20;

    private readonly Side _a;
    private readonly Side _b;

    private DeltaProducts(Side a, Side b) => (_a, _b) = (a, b);

    /// <summary>Compares two deltas; null where they are not of weights of one size, or where a factor is not finite.</summary>
    /// <param name="a">Factors of the first.</param>
    /// <param name="scaleA">Scale of the first.</param>
    /// <param name="b">Factors of the second.</param>
    /// <param name="scaleB">Scale of the second.</param>
    public static DeltaComparison? Compare(KroneckerFactors a, double scaleA, KroneckerFactors b, double scaleB)
    {
        using IDisposable noGrad = no_grad();
        using DisposeScope scope = NewDisposeScope();
        Side left = Side.Of(a, scaleA);
        Side right = Side.Of(b, scaleB);
        if (left.Rows != right.Rows || left.Columns != right.Columns || !left.IsFinite || !right.IsFinite)
        {
            return null;
        }

        DeltaProducts products = new(left, right);
        double inner = products.Inner();
        (double normA, double normB) = (left.Norm, right.Norm);
        double squared = left.SameSizes(right) ? products.SquaredDistance() : (normA * normA) + (normB * normB) - (2 * inner);
        return new(normA, normB, inner, Math.Sqrt(Math.Max(0, squared)));
    }

    /// <summary>⟨a, b⟩, the sum of the products of all numbers.</summary>
    private double Inner() => _a.SameSizes(_b) ? Dot(_a.Outer, _b.Outer) * Dot(_a.Inner, _b.Inner)
        : _a.Nests(_b) ? Refined()
        : Streamed();

    /// <summary>
    /// ‖a − b‖² for factors of the same sizes: a − b = (w1 − w1') ⊗ w2 + w1' ⊗ (w2 − w2'), whose terms are small where the deltas are close,
    /// so that nothing cancels.
    /// </summary>
    private double SquaredDistance()
    {
        Tensor outer = _a.Outer - _b.Outer;
        Tensor inner = _a.Inner - _b.Inner;
        return (Dot(outer, outer) * Dot(_a.Inner, _a.Inner)) + (Dot(_b.Outer, _b.Outer) * Dot(inner, inner))
            + (2 * Dot(outer, _b.Outer) * Dot(_a.Inner, inner));
    }

    /// <summary>
    /// Rows are (coarse, between, fine) and so are columns: the side with fewer outer rows has (coarse) outside and (between, fine) inside, the
    /// other one (coarse, between) outside and (fine) inside.
    /// </summary>
    private double Refined()
    {
        long rows = Math.Max(_a.Outer.shape[0], _b.Outer.shape[0]) / Math.Min(_a.Outer.shape[0], _b.Outer.shape[0]);
        long columns = Math.Max(_a.Outer.shape[1], _b.Outer.shape[1]) / Math.Min(_a.Outer.shape[1], _b.Outer.shape[1]);
        bool rowsInA = _a.Outer.shape[0] <= _b.Outer.shape[0];
        bool columnsInA = _a.Outer.shape[1] <= _b.Outer.shape[1];
        Tensor outer = Contract(Split(_a.Outer, outer: true, rowsInA, columnsInA), Split(_b.Outer, outer: true, !rowsInA, !columnsInA), "ad");
        Tensor inner = Contract(Split(_a.Inner, outer: false, rowsInA, columnsInA), Split(_b.Inner, outer: false, !rowsInA, !columnsInA), "cf");
        return (outer * inner).sum().ToDouble();

        // Indices: a b c are the coarse, between and fine rows, d e f the columns; b and e are left over.
        (Tensor Tensor, string Indices) Split(Tensor factor, bool outer, bool rowsInside, bool columnsInside)
        {
            bool splitsRows = outer != rowsInside;
            bool splitsColumns = outer != columnsInside;
            (long height, long width) = (factor.shape[0], factor.shape[1]);
            long[] rowSizes = !splitsRows ? [height] : outer ? [height / rows, rows] : [rows, height / rows];
            long[] columnSizes = !splitsColumns ? [width] : outer ? [width / columns, columns] : [columns, width / columns];
            string rowIndices = !splitsRows ? (outer ? "a" : "c") : outer ? "ab" : "bc";
            string columnIndices = !splitsColumns ? (outer ? "d" : "f") : outer ? "de" : "ef";
            return (factor.reshape([.. rowSizes, .. columnSizes]), rowIndices + columnIndices);
        }

        static Tensor Contract((Tensor Tensor, string Indices) a, (Tensor Tensor, string Indices) b, string summed) =>
            einsum($"{a.Indices},{b.Indices}->{string.Concat((a.Indices + b.Indices).Distinct().Where(index => !summed.Contains(index, StringComparison.Ordinal)).Order())}", a.Tensor, b.Tensor);
    }

    private double Streamed()
    {
        long most = Math.Max(1, BlockNumbers / _a.Columns);
        double sum = 0;
        for (long start = 0; start < _a.Rows; start += most)
        {
            using DisposeScope scope = NewDisposeScope();
            long count = Math.Min(most, _a.Rows - start);
            sum += Dot(_a.Take(start, count), _b.Take(start, count));
        }

        return sum;
    }

    private static double Dot(Tensor a, Tensor b) => (a * b).sum().ToDouble();

    /// <summary>
    /// One delta as Outer ⊗ Inner in float64, the scale in Outer, the kernel among the columns of Inner. With a kernel of more than one number
    /// w2 ⊗ w1 has no such form: its columns are (w2, w1, kernel), and only rows can be taken of it.
    /// </summary>
    private sealed record Side(Tensor Outer, Tensor Inner, long Kernel)
    {
        public long Rows => Outer.shape[0] * Inner.shape[0];

        public long Columns => Outer.shape[1] * Inner.shape[1];

        public double Norm => Math.Sqrt(Dot(Outer, Outer)) * Math.Sqrt(Dot(Inner, Inner));

        public bool IsFinite => Outer.isfinite().all().ToBoolean() && Inner.isfinite().all().ToBoolean();

        public static Side Of(KroneckerFactors factors, double scale)
        {
            Tensor w1 = Precise(factors.W1()) * scale;
            Tensor w2 = Precise(factors.W2()).reshape(factors.K, -1);
            long kernel = factors.Kernel.Product();
            return !factors.IsReversed ? new(w1, w2, 1) : kernel == 1 ? new(w2, w1, 1) : new(w2, w1, kernel);
        }

        public bool SameSizes(Side other) => Kernel == other.Kernel && Outer.shape.AsSpan().SequenceEqual(other.Outer.shape) && Inner.shape.AsSpan().SequenceEqual(other.Inner.shape);

        public bool Nests(Side other) => Kernel == 1 && other.Kernel == 1 && Divides(Outer.shape[0], other.Outer.shape[0]) && Divides(Outer.shape[1], other.Outer.shape[1]);

        /// <summary>Some rows of the delta.</summary>
        public Tensor Take(long start, long count)
        {
            Tensor rows = arange(start, start + count);
            Tensor outer = Outer.index_select(0, rows.div(Inner.shape[0], RoundingMode.floor));
            Tensor inner = Inner.index_select(0, rows.remainder(Inner.shape[0]));
            return (outer.reshape(count, -1, 1, Kernel) * inner.reshape(count, 1, -1, 1)).reshape(count, -1);
        }

        private static bool Divides(long a, long b) => a % b == 0 || b % a == 0;

        private static Tensor Precise(Tensor tensor) => tensor.detach().cpu().to(float64);
    }
}

/// <summary>Two deltas of one weight.</summary>
/// <param name="NormA">‖a‖.</param>
/// <param name="NormB">‖b‖.</param>
/// <param name="Inner">⟨a, b⟩.</param>
/// <param name="Distance">‖a − b‖. Where the factors differ in sizes, distances below 1e-8 of the norms are rounding.</param>
internal readonly record struct DeltaComparison(double NormA, double NormB, double Inner, double Distance);
