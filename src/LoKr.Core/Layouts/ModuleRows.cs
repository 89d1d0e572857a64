using LoKr.Core.Configuration;
using LoKr.Core.Factors;
using LoKr.Core.Layouts.Names;
using static TorchSharp.torch;

namespace LoKr.Core.Layouts;

/// <summary>
/// Rows of the product of a linear module as a module of their own, and modules one below the other as one. The rows s … s + n of w1 ⊗ w2 with k rows in
/// w2 are one Kronecker product if k divides s and n (rows of w1), or if they lie in one block (one row of w1, rows of w2); see docs/files.md.
/// </summary>
internal static class ModuleRows
{
    // Factors that differ less are the same.
    private const double Same = 1e-6;

    // Singular values that are rounding of float32 factors, by the size of the matrix.
    private const double Rounding = 1.2e-7;

    /// <summary>Rows of a module with factors of the same form; null where they are not one Kronecker product, or its magnitudes depend on all rows.</summary>
    /// <param name="module">A linear module.</param>
    /// <param name="start">First row.</param>
    /// <param name="length">Number of rows.</param>
    public static AdapterModule? Slice(AdapterModule module, long start, long length)
    {
        FactorGeometry geometry = module.Geometry;
        Dictionary<string, Tensor> tensors = new(module.Tensors, StringComparer.Ordinal);
        if (module.DoraAxis == WeightDecomposeAxis.Input || module.IsReversed || geometry.Tucker)
        {
            return null;
        }

        if (module.DoraAxis == WeightDecomposeAxis.Output)
        {
            tensors[FactorNames.DoraScale] = tensors[FactorNames.DoraScale].narrow(0, start, length).contiguous();
        }

        void Narrow(string whole, string left, long from, long count)
        {
            string suffix = tensors.ContainsKey(whole) ? whole : left;
            tensors[suffix] = tensors[suffix].narrow(0, from, count).contiguous();
        }

        if (start % geometry.K == 0 && length % geometry.K == 0)
        {
            Narrow(FactorNames.W1, FactorNames.W1A, start / geometry.K, length / geometry.K);
            geometry = geometry with { L = length / geometry.K };
        }
        else if (start / geometry.K == (start + length - 1) / geometry.K)
        {
            Narrow(FactorNames.W1, FactorNames.W1A, start / geometry.K, 1);
            Narrow(FactorNames.W2, FactorNames.W2A, start % geometry.K, length);
            geometry = geometry with { L = 1, K = length };
        }
        else
        {
            return null;
        }

        return module with { Tensors = tensors, Geometry = geometry, WeightShape = Shape(module, length) };
    }

    /// <summary>The module with its two halves of rows in the other order; null where that is not one Kronecker product.</summary>
    /// <param name="module">A linear module with an even number of rows.</param>
    public static AdapterModule? Swap(AdapterModule module)
    {
        FactorGeometry geometry = module.Geometry;
        bool isOuter = geometry.L % 2 == 0;
        if (module.IsReversed || geometry.Tucker || (!isOuter && (geometry.L != 1 || geometry.K % 2 != 0)))
        {
            return null;
        }

        Dictionary<string, Tensor> tensors = new(module.Tensors, StringComparer.Ordinal);
        (string whole, string left) = isOuter ? (FactorNames.W1, FactorNames.W1A) : (FactorNames.W2, FactorNames.W2A);
        string suffix = tensors.ContainsKey(whole) ? whole : left;
        tensors[suffix] = Rolled(tensors[suffix]);
        if (module.DoraAxis == WeightDecomposeAxis.Output)
        {
            tensors[FactorNames.DoraScale] = Rolled(tensors[FactorNames.DoraScale]);
        }

        return module with { Tensors = tensors };
    }

    /// <summary>A matrix with its two halves of rows in the other order.</summary>
    public static Tensor Rolled(Tensor rows) => roll(rows, rows.shape[0] / 2, 0).contiguous();

    /// <summary>A product with its two halves of rows in the other order.</summary>
    public static (Tensor Up, Tensor Down) Rolled((Tensor Up, Tensor Down) product) => (Rolled(product.Up), product.Down);

    /// <summary>scale·(w1 ⊗ w2) in float64.</summary>
    public static Tensor Dense(AdapterModule module)
    {
        using IDisposable noGrad = no_grad();
        Dictionary<string, Tensor> factors = module.Factors.Where(static pair => pair.Key != FactorNames.DoraScale).ToDictionary(static pair => pair.Key, static pair => pair.Value.to(float64), StringComparer.Ordinal);
        return new KroneckerFactors(factors, [], module.IsReversed).ToDense(module.Scale.Factor);
    }

    /// <summary>Rows that are not a Kronecker product, as 1 ⊗ w2 with whole matrices: every program that reads LoKr reads them.</summary>
    /// <param name="module">The module whose name and element type they get.</param>
    /// <param name="rows">The rows, scale included.</param>
    /// <param name="magnitude">DoRA's magnitudes of these rows, or null.</param>
    public static AdapterModule Whole(AdapterModule module, Tensor rows, Tensor? magnitude = null)
    {
        ScalarType type = TypeOf(module);
        Dictionary<string, Tensor> tensors = new(StringComparer.Ordinal) { [FactorNames.W1] = ones(1, 1, dtype: type), [FactorNames.W2] = rows.to(type).contiguous() };
        if (magnitude is not null)
        {
            tensors.Add(FactorNames.DoraScale, magnitude);
        }

        return module with
        {
            Tensors = tensors,
            Geometry = new(1, 1, rows.shape[0], rows.shape[1], [], null, null, false),
            Scale = new(null, null, ScalingConvention.Lycoris, 1),
            WeightShape = Shape(module, rows.shape[0]),
            DoraAxis = magnitude is null ? null : WeightDecomposeAxis.Output,
            IsReversed = false,
        };
    }

    /// <summary>Rows as LoRA of the smallest rank that is exact.</summary>
    /// <param name="module">The module whose name and element type they get.</param>
    /// <param name="product">Left and right matrix of the rows in float64, scale included.</param>
    public static AdapterOther Lora(AdapterModule module, (Tensor Up, Tensor Down) product)
    {
        using IDisposable noGrad = no_grad();
        ScalarType type = TypeOf(module);
        (Tensor left, Tensor upper) = linalg.qr(product.Up);
        (Tensor right, Tensor lower) = linalg.qr(product.Down.t());
        (Tensor u, Tensor s, Tensor v) = linalg.svd(upper.mm(lower.t()), fullMatrices: false);
        long rank = Math.Max(1, s.gt(s.max() * (Math.Max(product.Up.shape[0], product.Down.shape[1]) * Rounding)).sum().item<long>());
        Tensor root = s.narrow(0, 0, rank).sqrt();
        return new(module.Component, module.Name, module.IsDotted, new Dictionary<string, Tensor>(StringComparer.Ordinal)
        {
            ["lora_up.weight"] = (left.mm(u.narrow(1, 0, rank)) * root).to(type).contiguous(),
            ["lora_down.weight"] = (root.unsqueeze(1) * v.narrow(0, 0, rank).mm(right.t())).to(type).contiguous(),
            [AdapterSuffixes.Alpha] = tensor((float)rank),
        });
    }

    /// <summary>Rows of scale·(w1 ⊗ w2) as a product of two matrices in float64: (I ⊗ a)(w1 ⊗ b) or (w1 ⊗ a)(I ⊗ b) with w2 = a·b, of the blocks that the rows lie in.</summary>
    /// <param name="module">A linear module.</param>
    /// <param name="start">First row.</param>
    /// <param name="length">Number of rows.</param>
    public static (Tensor Up, Tensor Down) Product(AdapterModule module, long start, long length)
    {
        using IDisposable noGrad = no_grad();
        (Tensor w1, Tensor w2) = Factors(module);
        (long k, long n) = (w2.shape[0], w2.shape[1]);
        (Tensor a, Tensor b) = module.Geometry.InnerRank is not null ? (module.Tensors[FactorNames.W2A].to(float64), module.Tensors[FactorNames.W2B].to(float64))
            : k < n ? (eye(k, dtype: float64), w2) : (w2, eye(n, dtype: float64));
        long first = start / k;
        long blocks = ((start + length - 1) / k) - first + 1;
        Tensor outer = w1.narrow(0, first, blocks) * module.Scale.Factor;
        (Tensor up, Tensor down) = blocks <= w1.shape[1] ? (kron(eye(blocks, dtype: float64), a), kron(outer, b)) : (kron(outer, a), kron(eye(w1.shape[1], dtype: float64), b));
        return (up.narrow(0, start - (first * k), length), down);
    }

    /// <summary>Modules one below the other as a product of two matrices: block-diagonal, and one below the other.</summary>
    /// <param name="parts">The modules with their first rows.</param>
    /// <param name="rows">Number of rows in all.</param>
    public static (Tensor Up, Tensor Down) Product(IReadOnlyList<(AdapterModule Module, long Start)> parts, long rows)
    {
        using IDisposable noGrad = no_grad();
        (Tensor Up, Tensor Down)[] products = [.. parts.Select(static part => Product(part.Module, 0, part.Module.Geometry.Out))];
        Tensor up = zeros(rows, products.Sum(static product => product.Up.shape[1]), dtype: float64);
        long column = 0;
        for (int i = 0; i < parts.Count; i++)
        {
            up.narrow(0, parts[i].Start, products[i].Up.shape[0]).narrow(1, column, products[i].Up.shape[1]).copy_(products[i].Up);
            column += products[i].Up.shape[1];
        }

        return (up, cat([.. products.Select(static product => product.Down)], 0));
    }

    /// <summary>
    /// Modules one below the other with factors of the same form: where all have the same w2 up to a factor, or w1 of one row that is the same; rows
    /// without a module are zero. Null where that is not one Kronecker product.
    /// </summary>
    /// <param name="parts">The modules with their first rows, in ascending order.</param>
    /// <param name="rows">Number of rows in all.</param>
    public static AdapterModule? Stack(IReadOnlyList<(AdapterModule Module, long Start)> parts, long rows)
    {
        AdapterModule first = parts[0].Module;
        FactorGeometry geometry = first.Geometry;
        if (parts.Any(part => part.Module.DoraAxis is not null || part.Module.IsReversed || part.Module.Geometry.Tucker || part.Module.Geometry.M != geometry.M))
        {
            return null;
        }

        using IDisposable noGrad = no_grad();
        (Tensor W1, Tensor W2)[] factors = [.. parts.Select(static part => Factors(part.Module))];
        ScalarType type = TypeOf(first);
        if (parts.All(part => part.Module.Geometry.K == geometry.K && part.Start % geometry.K == 0) && rows % geometry.K == 0
            && Factors(factors.Select(static pair => pair.W2)) is double[] ratios)
        {
            Tensor w1 = zeros(rows / geometry.K, geometry.M, dtype: float64);
            for (int i = 0; i < parts.Count; i++)
            {
                w1.narrow(0, parts[i].Start / geometry.K, factors[i].W1.shape[0]).copy_(factors[i].W1 * ratios[i] * parts[i].Module.Scale.Factor / first.Scale.Factor);
            }

            Dictionary<string, Tensor> tensors = new(first.Tensors, StringComparer.Ordinal) { [FactorNames.W1] = w1.to(type) };
            tensors.Remove(FactorNames.W1A);
            tensors.Remove(FactorNames.W1B);
            tensors.Remove(FactorNames.Scalar);
            AdapterModule stacked = first with { Tensors = tensors, Geometry = geometry with { L = rows / geometry.K, OuterRank = null }, WeightShape = Shape(first, rows) };

            // Without a low-rank factor programs apply no scale.
            return geometry.InnerRank is null && first.Scale.Factor != 1 ? AdapterTensors.WithoutAlpha(AdapterTensors.Scaled(stacked, first.Scale.Factor)) with { Scale = first.Scale with { Factor = 1 } } : stacked;
        }

        if (parts.All(static part => part.Module.Geometry.L == 1) && Factors(factors.Select(static pair => pair.W1)) is double[] outer)
        {
            Tensor w2 = zeros(rows, geometry.Columns, dtype: float64);
            for (int i = 0; i < parts.Count; i++)
            {
                w2.narrow(0, parts[i].Start, factors[i].W2.shape[0]).copy_(factors[i].W2 * outer[i] * parts[i].Module.Scale.Factor);
            }

            return Whole(first, w2) with
            {
                Tensors = new Dictionary<string, Tensor>(StringComparer.Ordinal) { [FactorNames.W1] = factors[0].W1.to(type), [FactorNames.W2] = w2.to(type) },
                Geometry = new(1, geometry.M, rows, geometry.Columns, [], null, null, false),
            };
        }

        return null;
    }

    private static (Tensor W1, Tensor W2) Factors(AdapterModule module)
    {
        KroneckerFactors factors = new(module.Factors.ToDictionary(static pair => pair.Key, static pair => pair.Value.to(float64), StringComparer.Ordinal), []);
        return (factors.W1(), factors.W2());
    }

    /// <summary>The factors c with matrix = c · first matrix; null where one is not a multiple of the first.</summary>
    private static double[]? Factors(IEnumerable<Tensor> matrices)
    {
        Tensor[] all = [.. matrices];
        if (all.Any(matrix => !matrix.shape.SequenceEqual(all[0].shape)))
        {
            return null;
        }

        double square = all[0].square().sum().item<double>();
        double[] ratios = [.. all.Select(matrix => square == 0 ? 1 : (matrix * all[0]).sum().item<double>() / square)];
        return all.Zip(ratios).All(pair => (pair.First - (all[0] * pair.Second)).abs().max().item<double>() <= Same * Math.Max(double.Epsilon, pair.First.abs().max().item<double>())) ? ratios : null;
    }

    private static ScalarType TypeOf(AdapterModule module) => (module.Tensors.GetValueOrDefault(FactorNames.W1) ?? module.Tensors[FactorNames.W1A]).dtype;

    private static IReadOnlyList<long>? Shape(AdapterModule module, long rows) => module.WeightShape is null ? null : [rows, .. module.WeightShape.Skip(1)];
}
