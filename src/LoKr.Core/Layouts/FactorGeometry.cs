using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Factors;
using LoKr.Core.Layouts.Names;
using LoKr.Core.Safetensors;
using LoKr.Core.Targeting;

namespace LoKr.Core.Layouts;

/// <summary>
/// The shapes of a module's factors, without knowledge of the base layer: w1 is L×M, w2 is K×Columns, where Columns is n times the
/// kernel for a flat low-rank w2 (whose kernel only the base layer determines) and n otherwise.
/// </summary>
/// <param name="L">Rows of w1.</param>
/// <param name="M">Columns of w1.</param>
/// <param name="K">Rows of w2.</param>
/// <param name="Columns">Columns of w2: n, or n times the kernel.</param>
/// <param name="Kernel">Kernel size; null where only the base layer determines it.</param>
/// <param name="OuterRank">Inner size of a low-rank w1, or null.</param>
/// <param name="InnerRank">Inner size of a low-rank w2, or null.</param>
/// <param name="Tucker">Whether w2 has a core.</param>
internal sealed record FactorGeometry(long L, long M, long K, long Columns, IReadOnlyList<long>? Kernel, long? OuterRank, long? InnerRank, bool Tucker)
{
    /// <summary>Output size of the layer.</summary>
    public long Out => L * K;

    /// <summary>The rank that alpha is divided by, as every reader infers it; null where both factors are full.</summary>
    public long? Rank => InnerRank ?? OuterRank;

    /// <summary>The smallest rank at which w2 is full.</summary>
    public long FullRank => (Math.Max(K, Columns) + 1) / 2;

    /// <summary>The shape of a base weight as out×in×kernel; null where the factors do not fit it.</summary>
    /// <param name="weight">The shape as it is stored.</param>
    public IReadOnlyList<long>? Fit(IReadOnlyList<long> weight)
    {
        long columns = M * Columns;
        long kernel = weight.Skip(2).Product();
        bool Fits(long rows, long inputs) => rows == Out
            && (Kernel is null ? columns == inputs * kernel && Columns % kernel == 0 : columns == inputs && SameKernel(Kernel, weight.Skip(2)));
        return weight.Count >= 2 && Fits(weight[0], weight[1]) ? weight

            // GPT-2's Conv1D stores the weight as in×out.
            : weight.Count == 2 && Fits(weight[1], weight[0]) ? [weight[1], weight[0]]
            : null;
    }

    /// <summary>Whether factors may be stored in a type.</summary>
    public static bool IsFactorType(SafetensorsDType type) => type is SafetensorsDType.F16 or SafetensorsDType.BF16 or SafetensorsDType.F32 or SafetensorsDType.F64 or SafetensorsDType.F8E4M3 or SafetensorsDType.F8E5M2;

    /// <summary>The error for factors that do not fit a base weight.</summary>
    public LoKrException Mismatch(AdapterFile file, AdapterFileModule module, IReadOnlyList<long> weight) => new(ErrorIds.AdapterShapeMismatch, LoKrErrorKind.InvalidData,
        $"The factors of '{module}' in '{file.Path}' give [{Out}, {M * Columns}{(Kernel is null ? "" : string.Concat(Kernel.Select(static size => $", {size}")))}], "
        + $"but the weight of the base model is [{string.Join(", ", weight)}].",
        "The adapter was made for another model.") { Target = module.Name };

    // The core of a one-dimensional convolution has a second kernel dimension of 1 in PEFT.
    private static bool SameKernel(IReadOnlyList<long> kernel, IEnumerable<long> weight)
    {
        long[] expected = [.. weight];
        return kernel.SequenceEqual(expected) || (kernel is [_, 1] && expected.Length == 1 && kernel[0] == expected[0])

            // Programs write a kernel of one number with its dimensions, or without.
            || (kernel.Product() == 1 && expected.Product() == 1);
    }

    /// <summary>Reads a module's shapes. If they do not fit together, the problems are added to the findings, and the result is null.</summary>
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
            if (module.Tensors.Where(static pair => pair.Key != AdapterSuffixes.Alpha).Select(static pair => pair.Value).FirstOrDefault(static entry => !IsFactorType(entry.DType)) is SafetensorsEntry integers)
            {
                return Problem(ErrorIds.TensorDTypeMismatch, $"'{integers.Name}' holds {SafetensorsDTypes.Name(integers.DType)}, which cannot be a factor", "Quantized adapters are not supported.");
            }

            if (module.Alpha is null && module.Tensors.TryGetValue(AdapterSuffixes.Alpha, out SafetensorsEntry? unread) && unread.Shape.All(static size => size == 1))
            {
                return Problem(ErrorIds.TensorDTypeUnsupported, $"'{unread.Name}' holds {SafetensorsDTypes.Name(unread.DType)}, which cannot be read as a number", "Store alpha as a float or an integer.");
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

        /// <summary>Whether a factor is a low-rank product; null, with a finding, where it is neither complete as a product nor full.</summary>
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
                return w1.Shape.Count == 2 ? (w1.Shape[0], w1.Shape[1], null) : Mismatch(w1, "it must have two dimensions");
            }

            (SafetensorsEntry a, SafetensorsEntry b) = (module.Tensors[FactorNames.W1A], module.Tensors[FactorNames.W1B]);
            return a.Shape.Count != 2 ? Mismatch(a, "it must have two dimensions")
                : b.Shape.Count != 2 || b.Shape[0] != a.Shape[1] ? Mismatch(b, $"it does not fit {Shape(a)}")
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
                    Mismatch(w2, "it must have two to five dimensions");
                    return null;
                }

                return whole with { K = w2.Shape[0], Columns = w2.Shape[1], Kernel = [.. w2.Shape.Skip(2)] };
            }

            (SafetensorsEntry a, SafetensorsEntry b) = (module.Tensors[FactorNames.W2A], module.Tensors[FactorNames.W2B]);
            if (a.Shape.Count != 2 || b.Shape.Count != 2)
            {
                Mismatch(a.Shape.Count != 2 ? a : b, "it must have two dimensions");
                return null;
            }

            if (!module.Tensors.TryGetValue(FactorNames.T2, out SafetensorsEntry? core))
            {
                if (a.Shape[1] != b.Shape[0])
                {
                    Mismatch(b, $"it does not fit {Shape(a)}");
                    return null;
                }

                return whole with { K = a.Shape[0], Columns = b.Shape[1], InnerRank = a.Shape[1] };
            }

            if (core.Shape.Count is < 3 or > 5 || core.Shape[0] != core.Shape[1] || core.Shape[0] != a.Shape[0] || core.Shape[1] != b.Shape[0])
            {
                Mismatch(core, $"it does not fit between {Shape(a)} and {Shape(b)}");
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
                    Mismatch(entry, "it must be a single number");
                    return null;
                }
            }

            if (module.Tensors.TryGetValue(FactorNames.DoraScale, out SafetensorsEntry? magnitude) && DoraAxis(magnitude, geometry) is null)
            {
                Mismatch(magnitude, $"it must have one number for each of the {geometry.Out} rows or for each column of the weight");
                return null;
            }

            return geometry;
        }

        private (long L, long M, long? Rank)? Mismatch(SafetensorsEntry entry, string rule)
        {
            Problem(ErrorIds.AdapterShapeMismatch, $"'{entry.Name}' is {Shape(entry)}, but {rule}");
            return null;
        }

        private FactorGeometry? Problem(string id, string what, string advice = "Get the file again, or ask its author.")
        {
            findings.Add(new(LoKrFindingSeverity.Error, id, $"The factors of '{module}' cannot be used: {what}. {advice}", module.Name));
            return null;
        }

        private static string Shape(SafetensorsEntry entry) => $"[{string.Join(", ", entry.Shape)}]";
    }

    /// <summary>The axis of DoRA's magnitudes by their shape; null where they fit neither. A vector that fits both belongs to the rows.</summary>
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

/// <summary>The scale of w1 ⊗ w2 of one module, and the numbers it is computed from.</summary>
/// <param name="Rank">Rank that alpha is divided by; null where it is not known.</param>
/// <param name="Alpha">Alpha; null where it is not known.</param>
/// <param name="Convention">Convention that applies.</param>
/// <param name="Factor">The scale; NaN where it is not known.</param>
internal sealed record ModuleScale(long? Rank, double? Alpha, ScalingConvention Convention, double Factor)
{
    /// <summary>Computes the scale by the conventions of the file's origin, or as the caller overrides them. Problems are added to the findings.</summary>
    public static ModuleScale Of(AdapterFile file, AdapterFileModule module, FactorGeometry geometry, AdapterReadOptions options, Func<LoKrConfig, ModuleRanks> ranks, List<LoKrAdapterFinding> findings)
    {
        // Alpha tensors beside a configuration of this library express the same in the terms of other programs.
        LoKrConfig? config = AdapterLayouts.HasAlphaTensors(file.Layout) || module.Alpha is not null ? null : file.ConfigOf(module.Component);
        bool isPeft = file.FollowsPeft;
        ScalingConvention convention = options.Scaling ?? config?.Scaling ?? (isPeft && module.Alpha is null ? ScalingConvention.Peft : ScalingConvention.Lycoris);
        int? configured = config is null ? null : ranks(config).Rank(module.Name);
        long? rank = geometry.Rank ?? configured;
        double? alpha = options.Alpha ?? module.Alpha ?? (config is null ? null : ranks(config).Alpha(module.Name));
        bool bothFull = geometry.Rank is null;
        if (configured is int given && geometry.Rank is long actual && given != actual)
        {
            Problem(ErrorIds.AdapterShapeMismatch, $"'{module}' has rank {given} in the configuration, but its factors have rank {actual}. Check that adapter_config.json belongs to the file.");
        }

        if (convention == ScalingConvention.None || (convention == ScalingConvention.Lycoris && bothFull))
        {
            return new(rank, alpha, convention, 1);
        }

        if (alpha is null)
        {
            // LyCORIS and ComfyUI take the rank for a missing alpha.
            if (!isPeft)
            {
                return new(rank, rank, convention, 1);
            }

            return Unknown("PEFT stores alpha in adapter_config.json, which is not beside the file", "Put it beside the file, or give alpha or the scaling convention.");
        }

        if (!double.IsFinite(alpha.Value))
        {
            Problem(ErrorIds.AlphaInvalid, $"The alpha of '{module}' is {alpha}. The file was stored in too narrow a type; give alpha, or the scaling convention None.");
            return new(rank, alpha, convention, double.NaN);
        }

        if (alpha == 0)
        {
            Problem(ErrorIds.AlphaInvalid, $"The alpha of '{module}' is 0, which LyCORIS replaces by the rank, and with which ComfyUI applies nothing. Give alpha, or the scaling convention None.");
            return new(rank, alpha, convention, double.NaN);
        }

        rank ??= options.Rank ?? file.NetworkRank;
        if (rank is null)
        {
            return Unknown("both factors are full matrices, so no tensor has the rank", "Give the rank, or the scaling convention Lycoris for a scale of 1.");
        }

        return new(rank, alpha, convention, alpha.Value / (config?.RsLora == true ? Math.Sqrt(rank.Value) : rank.Value));

        ModuleScale Unknown(string why, string advice)
        {
            Problem(ErrorIds.AdapterScaleUnknown, $"The scale of '{module}' is not known: {why}. {advice}");
            return new(rank, alpha, convention, double.NaN);
        }

        void Problem(string id, string message) => findings.Add(new(LoKrFindingSeverity.Error, id, message, module.Name));
    }
}
