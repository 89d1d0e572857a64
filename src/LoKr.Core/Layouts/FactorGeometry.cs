using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Factors;
using LoKr.Core.Layouts.Names;
using LoKr.Core.Safetensors;
using LoKr.Core.Targeting;

namespace LoKr.Core.Layouts;

/// <summary>
/// What the shapes of a module's factors say by themselves, without the base layer: w1 is L×M, w2 is K×Columns, where Columns is n
/// times the kernel for a flat low-rank w2 (whose kernel only the base layer knows) and n otherwise.
/// </summary>
/// <param name="L">Rows of w1.</param>
/// <param name="M">Columns of w1.</param>
/// <param name="K">Rows of w2.</param>
/// <param name="Columns">Columns of w2, as the summary says.</param>
/// <param name="Kernel">Kernel size; null where only the base layer knows it.</param>
/// <param name="OuterRank">Inner size of a low-rank w1, or null.</param>
/// <param name="InnerRank">Inner size of a low-rank w2, or null.</param>
/// <param name="Tucker">Whether w2 has a core.</param>
internal sealed record FactorGeometry(long L, long M, long K, long Columns, IReadOnlyList<long>? Kernel, long? OuterRank, long? InnerRank, bool Tucker)
{
    /// <summary>Output size of the layer.</summary>
    public long Out => L * K;

    /// <summary>The rank that alpha is divided by, as every reader infers it; null where both factors are full.</summary>
    public long? Rank => InnerRank ?? OuterRank;

    /// <summary>Reads a module's shapes. What does not fit together is added to the findings, and the result is null.</summary>
    public static FactorGeometry? Read(AdapterFileModule module, List<LoKrAdapterFinding> findings)
    {
        int before = findings.Count;
        Reader reader = new(module, findings);
        FactorGeometry? geometry = reader.Read();
        return findings.Count == before ? geometry : null;
    }

    private sealed class Reader(AdapterFileModule module, List<LoKrAdapterFinding> findings)
    {
        public FactorGeometry? Read()
        {
            // Some programs store alpha as an integer.
            if (module.Tensors.Where(static pair => pair.Key != AdapterSuffixes.Alpha).Select(static pair => pair.Value).FirstOrDefault(static entry => entry.DType is not (SafetensorsDType.F16
                or SafetensorsDType.BF16 or SafetensorsDType.F32 or SafetensorsDType.F64 or SafetensorsDType.F8E4M3 or SafetensorsDType.F8E5M2)) is SafetensorsEntry integers)
            {
                return Problem(ErrorIds.TensorDTypeMismatch, $"'{integers.Name}' holds {SafetensorsDTypes.Name(integers.DType)}, which cannot be a factor", "Quantized adapters are not read.");
            }

            if (module.Alpha is null && module.Tensors.TryGetValue(AdapterSuffixes.Alpha, out SafetensorsEntry? unread) && unread.Shape.All(static size => size == 1))
            {
                return Problem(ErrorIds.TensorDTypeUnsupported, $"'{unread.Name}' holds {SafetensorsDTypes.Name(unread.DType)}, which is not read as one number", "Write alpha as a float or an integer.");
            }

            if (module.Tensors.Values.FirstOrDefault(static entry => entry.Shape.Contains(0)) is SafetensorsEntry empty)
            {
                return Problem(ErrorIds.AdapterShapeMismatch, $"'{empty.Name}' is empty: {Shape(empty)}");
            }

            if (Pair(FactorNames.W1, FactorNames.W1A, FactorNames.W1B) is not bool lowRankW1 || Pair(FactorNames.W2, FactorNames.W2A, FactorNames.W2B) is not bool lowRankW2)
            {
                return null;
            }

            if (module.Tensors.ContainsKey(FactorNames.T2) && !lowRankW2)
            {
                return Problem(ErrorIds.AdapterKeysMismatch, $"it has {FactorNames.T2} beside a full {FactorNames.W2}");
            }

            return Outer(lowRankW1) is not (long l, long m, _) outer || Inner(lowRankW2) is not FactorGeometry inner
                ? null
                : Companions(inner with { L = l, M = m, OuterRank = outer.Rank });
        }

        /// <summary>Whether a factor is a product; null, with a finding, where it is neither a product nor whole.</summary>
        private bool? Pair(string full, string left, string right)
        {
            string[] has = [.. new[] { full, left, right }.Where(module.Tensors.ContainsKey)];
            if (has is [string one] && one == full)
            {
                return false;
            }

            if (has.Length == 2 && !has.Contains(full))
            {
                return true;
            }

            Problem(ErrorIds.AdapterKeysMismatch, has.Length == 0
                ? $"it has neither {full} nor {left} and {right}; there are {string.Join(", ", module.Tensors.Keys)}"
                : $"it has {string.Join(" and ", has)}; a factor is either {full}, or {left} and {right}");
            return null;
        }

        private (long L, long M, long? Rank)? Outer(bool lowRank)
        {
            if (!lowRank)
            {
                SafetensorsEntry w1 = module.Tensors[FactorNames.W1];
                return w1.Shape.Count == 2 ? (w1.Shape[0], w1.Shape[1], null) : Mismatch(w1, "has two dimensions");
            }

            (SafetensorsEntry a, SafetensorsEntry b) = (module.Tensors[FactorNames.W1A], module.Tensors[FactorNames.W1B]);
            return a.Shape.Count != 2 ? Mismatch(a, "has two dimensions")
                : b.Shape.Count != 2 || b.Shape[0] != a.Shape[1] ? Mismatch(b, $"does not follow {Shape(a)}")
                : (a.Shape[0], b.Shape[1], a.Shape[1]);
        }

        private FactorGeometry? Inner(bool lowRank)
        {
            FactorGeometry whole = new(0, 0, 0, 0, null, null, null, false);
            if (!lowRank)
            {
                SafetensorsEntry w2 = module.Tensors[FactorNames.W2];
                if (w2.Shape.Count is < 2 or > 5)
                {
                    Mismatch(w2, "has two to five dimensions");
                    return null;
                }

                return whole with { K = w2.Shape[0], Columns = w2.Shape[1], Kernel = [.. w2.Shape.Skip(2)] };
            }

            (SafetensorsEntry a, SafetensorsEntry b) = (module.Tensors[FactorNames.W2A], module.Tensors[FactorNames.W2B]);
            if (a.Shape.Count != 2 || b.Shape.Count != 2)
            {
                Mismatch(a.Shape.Count != 2 ? a : b, "has two dimensions");
                return null;
            }

            if (!module.Tensors.TryGetValue(FactorNames.T2, out SafetensorsEntry? core))
            {
                if (a.Shape[1] != b.Shape[0])
                {
                    Mismatch(b, $"does not follow {Shape(a)}");
                    return null;
                }

                return whole with { K = a.Shape[0], Columns = b.Shape[1], InnerRank = a.Shape[1] };
            }

            if (core.Shape.Count is < 3 or > 5 || core.Shape[0] != core.Shape[1] || core.Shape[0] != a.Shape[0] || core.Shape[1] != b.Shape[0])
            {
                Mismatch(core, $"does not lie between {Shape(a)} and {Shape(b)}");
                return null;
            }

            return whole with { K = a.Shape[1], Columns = b.Shape[1], Kernel = [.. core.Shape.Skip(2)], InnerRank = core.Shape[0], Tucker = true };
        }

        private FactorGeometry? Companions(FactorGeometry geometry)
        {
            foreach (string single in (string[])[AdapterSuffixes.Alpha, FactorNames.Scalar])
            {
                if (module.Tensors.TryGetValue(single, out SafetensorsEntry? entry) && entry.Shape.Any(static size => size != 1))
                {
                    Mismatch(entry, "is one number");
                    return null;
                }
            }

            if (module.Tensors.TryGetValue(FactorNames.DoraScale, out SafetensorsEntry? magnitude) && DoraAxis(magnitude, geometry) is null)
            {
                Mismatch(magnitude, $"has one number for each of the {geometry.Out} rows or for each column of the weight");
                return null;
            }

            return geometry;
        }

        private (long L, long M, long? Rank)? Mismatch(SafetensorsEntry entry, string rule)
        {
            Problem(ErrorIds.AdapterShapeMismatch, $"'{entry.Name}' is {Shape(entry)}, which {(rule.StartsWith("does", StringComparison.Ordinal) ? rule : $"is not what it should be: it {rule}")}");
            return null;
        }

        private FactorGeometry? Problem(string id, string what, string advice = "Get the file again, or ask whoever made it.")
        {
            findings.Add(new(LoKrFindingSeverity.Error, id, $"The factors of '{module}' cannot be used: {what}. {advice}", module.Name));
            return null;
        }

        private static string Shape(SafetensorsEntry entry) => $"[{string.Join(", ", entry.Shape)}]";
    }

    /// <summary>The axis of DoRA's magnitudes by their shape; null where they fit neither. A list without its ones that fits both counts to the rows.</summary>
    public static WeightDecomposeAxis? DoraAxis(SafetensorsEntry magnitude, FactorGeometry geometry)
    {
        long count = magnitude.Shape.Product();
        bool isInput = magnitude.Shape.Count > 1 && magnitude.Shape[0] == 1 && magnitude.Shape[1] == count;
        bool isOutput = magnitude.Shape.Count > 0 && magnitude.Shape[0] == count;
        long columns = geometry.M * geometry.Columns;
        bool fitsInput = geometry.Kernel is null ? columns % count == 0 : columns == count;
        return isOutput && count == geometry.Out ? WeightDecomposeAxis.Output
            : (isInput || magnitude.Shape.Count == 1) && fitsInput ? WeightDecomposeAxis.Input
            : null;
    }
}

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

/// <summary>What w1 ⊗ w2 of one module is multiplied with, and the numbers it comes from.</summary>
/// <param name="Rank">Rank that alpha is divided by; null where nothing gives one.</param>
/// <param name="Alpha">Alpha; null where nothing gives one.</param>
/// <param name="Convention">Convention that applies.</param>
/// <param name="Factor">The product; NaN where it is not known.</param>
internal sealed record ModuleScale(long? Rank, double? Alpha, ScalingConvention Convention, double Factor)
{
    /// <summary>Works it out by the conventions of the file's origin, or by what the reader says. Problems become findings.</summary>
    public static ModuleScale Of(AdapterFile file, AdapterFileModule module, FactorGeometry geometry, AdapterReadOptions options, List<LoKrAdapterFinding> findings)
    {
        // Alpha tensors beside a configuration of this library say the same in the terms of other programs.
        LoKrConfig? config = AdapterLayouts.HasAlphaTensors(file.Layout) || module.Alpha is not null ? null : file.ConfigOf(module.Component);
        bool isPeft = file.Layout is AdapterLayout.Peft or AdapterLayout.PeftInMemory;
        ScalingConvention convention = options.Scaling ?? config?.Scaling ?? (isPeft && module.Alpha is null ? ScalingConvention.Peft : ScalingConvention.Lycoris);
        int? configured = config is null ? null : ModulePatterns.Find(config.RankPattern, module.Name, config.R);
        long? rank = geometry.Rank ?? configured;
        double? alpha = options.Alpha ?? module.Alpha ?? (config is null ? null : ModulePatterns.Find(config.AlphaPattern, module.Name, config.Alpha));
        bool bothFull = geometry.Rank is null;
        if (configured is int given && geometry.Rank is long actual && given != actual)
        {
            Problem(ErrorIds.AdapterShapeMismatch, $"The configuration gives '{module}' rank {given}, but its factors have rank {actual}. Check that adapter_config.json belongs to the file.");
        }

        if (convention == ScalingConvention.None || (convention == ScalingConvention.Lycoris && bothFull))
        {
            return new(rank, alpha, convention, 1);
        }

        if (alpha is null)
        {
            // LyCORIS and ComfyUI take a missing alpha for the rank.
            if (!isPeft)
            {
                return new(rank, rank, convention, 1);
            }

            return Unknown("no adapter_config.json lies beside the file, and PEFT keeps alpha there", "Put it beside the file, or give alpha or the scaling convention.");
        }

        if (!double.IsFinite(alpha.Value))
        {
            Problem(ErrorIds.AlphaInvalid, $"The alpha of '{module}' is {alpha}. The file was stored in too narrow a type; give alpha, or the scaling convention None.");
            return new(rank, alpha, convention, double.NaN);
        }

        if (alpha == 0)
        {
            Problem(ErrorIds.AlphaInvalid, $"The alpha of '{module}' is 0, which LyCORIS takes for the rank and ComfyUI for no effect. Give alpha, or the scaling convention None.");
            return new(rank, alpha, convention, double.NaN);
        }

        if (rank is null)
        {
            return Unknown("both factors are full matrices, so that no tensor tells the rank", "Give the scaling convention Lycoris for a factor of 1.");
        }

        return new(rank, alpha, convention, alpha.Value / (config?.RsLora == true ? Math.Sqrt(rank.Value) : rank.Value));

        ModuleScale Unknown(string why, string advice)
        {
            Problem(ErrorIds.AdapterScaleUnknown, $"Nothing says what the factors of '{module}' are multiplied with: {why}. {advice}");
            return new(rank, alpha, convention, double.NaN);
        }

        void Problem(string id, string message) => findings.Add(new(LoKrFindingSeverity.Error, id, message, module.Name));
    }
}
