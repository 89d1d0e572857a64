using LoKr.Core.Configuration;
using LoKr.Core.Factors;

namespace LoKr.Core.Layouts;

/// <summary>Options of a factorization that results in the shapes of all modules, found by trying.</summary>
/// <param name="Factor">Decompose factor.</param>
/// <param name="Convention">Rule that splits the sizes.</param>
/// <param name="Unbalanced">Whether the output's factors are swapped.</param>
internal sealed record FactorInference(int Factor, FactorizationConvention Convention, bool Unbalanced)
{
    private const int MostCandidates = 64;
    private const int LargestKernel = 1024;

    // Sizes of usual kernels, for a flat low-rank w2, whose columns are n times the kernel.
    private static readonly long[] s_kernels = [1, 2, 3, 4, 5, 7, 8, 9, 11, 16, 25, 27, 49, 125];

    /// <summary>The first options that result in every shape; null where none do, as for files made by hand.</summary>
    /// <param name="modules">Geometry of the modules.</param>
    /// <param name="hint">A factor that the file's metadata names, or null.</param>
    public static FactorInference? Find(IEnumerable<KnownGeometry> modules, int? hint = null)
    {
        Sizes[] shapes = [.. modules.Select(Sizes.Of).Distinct()];
        if (shapes.Length == 0)
        {
            return null;
        }

        IEnumerable<long> sizes = shapes.SelectMany(static shape => (long[])[shape.L, shape.M, shape.K, shape.Columns]).Where(static size => size <= int.MaxValue).Distinct().Order().Take(MostCandidates);
        foreach ((bool anyKernel, bool unbalanced) in ((bool, bool)[])[(false, false), (false, true), (true, false), (true, true)])
        {
            foreach (FactorizationConvention convention in (FactorizationConvention[])[FactorizationConvention.Peft, FactorizationConvention.Lycoris])
            {
                foreach (long factor in (hint is int given ? (long[])[given, -1] : [-1]).Concat(sizes))
                {
                    if (Array.TrueForAll(shapes, shape => Fits(shape, new((int)factor, convention, unbalanced), anyKernel)))
                    {
                        return new((int)factor, convention, unbalanced);
                    }
                }
            }
        }

        return null;
    }

    /// <summary>Whether the options result in the shapes of one module.</summary>
    public bool Fits(KnownGeometry module) => Fits(Sizes.Of(module), this, anyKernel: true);

    private static bool Fits(Sizes shape, FactorInference options, bool anyKernel)
    {
        (long Rows, long Columns) Split(long size) => Factorization.Split(size, options.Factor, options.Convention);
        (long first, long second) = Split(shape.L * shape.K);
        if ((options.Unbalanced ? second : first) != shape.L)
        {
            return false;
        }

        if (shape.Inputs is long known)
        {
            return Split(known).Rows == shape.M;
        }

        IEnumerable<long> kernels = shape.KernelKnown ? [1] : anyKernel ? Enumerable.Range(1, (int)Math.Min(shape.Columns, LargestKernel)).Select(static size => (long)size) : s_kernels;
        return kernels.Any(kernel => shape.Columns % kernel == 0 && Split(shape.M * (shape.Columns / kernel)).Rows == shape.M);
    }

    /// <summary>The sizes that the options determine; modules with the same sizes are tried once.</summary>
    private sealed record Sizes(long L, long M, long K, long Columns, bool KernelKnown, long? Inputs)
    {
        public static Sizes Of(KnownGeometry module)
        {
            FactorGeometry geometry = module.Geometry;
            return new(geometry.L, geometry.M, geometry.K, geometry.Columns, geometry.Kernel is not null, module.Inputs);
        }
    }
}

/// <summary>The geometry of a module, and the input size of its base layer where that is known.</summary>
/// <param name="Geometry">The geometry.</param>
/// <param name="Inputs">The input size, or null.</param>
internal sealed record KnownGeometry(FactorGeometry Geometry, long? Inputs = null);
