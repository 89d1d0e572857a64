using LoKr.Core.Adapters;

namespace LoKr.Core.Formats.AdapterFiles;

/// <summary>The options of a factorization that gives the shapes of all modules, found by trying.</summary>
/// <param name="Factor">Decompose factor.</param>
/// <param name="Convention">Whose rule splits.</param>
/// <param name="Unbalanced">Whether the output's factors are swapped.</param>
internal sealed record FactorInference(int Factor, FactorizationConvention Convention, bool Unbalanced)
{
    private const int MostCandidates = 64;
    private const int LargestKernel = 1024;

    // Sizes of usual kernels, for a flat low-rank w2, whose columns are n times the kernel.
    private static readonly long[] s_kernels = [1, 2, 3, 4, 5, 7, 8, 9, 11, 16, 25, 27, 49, 125];

    /// <summary>The first options that give every shape; null where none do, as for files made by hand.</summary>
    /// <param name="modules">Geometry of the modules, and their input size where the base layer is known.</param>
    /// <param name="hint">A factor that the file's metadata names, or null.</param>
    public static FactorInference? Find(IEnumerable<(FactorGeometry Geometry, long? In)> modules, int? hint = null)
    {
        (long L, long M, long K, long Columns, bool KernelKnown, long? In)[] shapes =
            [.. modules.Select(static entry => (entry.Geometry.L, entry.Geometry.M, entry.Geometry.K, entry.Geometry.Columns, entry.Geometry.Kernel is not null, entry.In)).Distinct()];
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
                    if (Array.TrueForAll(shapes, shape => Fits(shape, factor, convention, unbalanced, anyKernel)))
                    {
                        return new((int)factor, convention, unbalanced);
                    }
                }
            }
        }

        return null;
    }

    /// <summary>Whether options give the shapes of one module.</summary>
    public static bool Fits(FactorGeometry geometry, long? inputs, long factor, FactorizationConvention convention, bool unbalanced) =>
        Fits((geometry.L, geometry.M, geometry.K, geometry.Columns, geometry.Kernel is not null, inputs), factor, convention, unbalanced, anyKernel: true);

    private static bool Fits((long L, long M, long K, long Columns, bool KernelKnown, long? In) shape, long factor, FactorizationConvention convention, bool unbalanced, bool anyKernel)
    {
        (long first, long second) = Factorization.Split(shape.L * shape.K, factor, convention);
        if ((unbalanced ? second : first) != shape.L)
        {
            return false;
        }

        if (shape.In is long known)
        {
            return Factorization.Split(known, factor, convention).First == shape.M;
        }

        return (shape.KernelKnown ? [1L] : anyKernel ? Enumerable.Range(1, (int)Math.Min(shape.Columns, LargestKernel)).Select(static size => (long)size) : s_kernels).Any(kernel =>
            shape.Columns % kernel == 0 && Factorization.Split(shape.M * (shape.Columns / kernel), factor, convention).First == shape.M);
    }
}
