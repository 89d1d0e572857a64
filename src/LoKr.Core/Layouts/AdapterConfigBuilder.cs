using LoKr.Core.Configuration;
using LoKr.Core.Factors;
using LoKr.Core.Targeting;

namespace LoKr.Core.Layouts;

/// <summary>Finds the configuration that the shapes and scales of modules ask for.</summary>
internal static class AdapterConfigBuilder
{
    /// <summary>Builds a configuration.</summary>
    /// <param name="modules">Modules of one component, with dotted names.</param>
    /// <param name="content">What they are part of.</param>
    /// <param name="convention">Scaling convention of the result. With <see cref="ScalingConvention.Peft"/> alpha is chosen so that alpha / r is the scale.</param>
    public static LoKrConfig Build(IReadOnlyList<AdapterModule> modules, AdapterContent content, ScalingConvention convention)
    {
        FactorInference? factor = FactorInference.Find(modules.Select(static module => (module.Geometry, (long?)module.WeightShape?[1])), content.FactorHint);
        long[] lowRanks = [.. modules.Where(static module => module.Geometry.Rank is not null).Select(static module => module.Geometry.Rank!.Value)];
        long r = lowRanks.Length > 0 ? Common(lowRanks) : FullRank(modules);
        Dictionary<AdapterModule, (long Rank, double Alpha)> numbers = modules.ToDictionary(static module => module, module =>
        {
            long rank = module.Geometry.Rank ?? Math.Max(r, Required(module));
            double alpha = convention == ScalingConvention.Peft ? module.Scale.Factor * rank
                : module.Scale.Alpha is double stored && double.IsFinite(stored) && stored < int.MaxValue ? stored : rank;
            return (rank, alpha);
        });
        double common = Common(numbers.Values.Select(static number => number.Alpha));
        WeightDecomposeAxis?[] axes = [.. modules.Select(static module => module.DoraAxis).Distinct()];
        LoKrConfig config = new()
        {
            R = (int)r,
            Alpha = common,
            RankPattern = [.. modules.Where(module => numbers[module].Rank != r).Select(module => KeyValuePair.Create(Exactly(module.Name), (int)numbers[module].Rank))],
            AlphaPattern = [.. modules.Where(module => numbers[module].Alpha != common).Select(module => KeyValuePair.Create(Exactly(module.Name), numbers[module].Alpha))],
            TargetModules = ModuleSelector.FromNames(Targets(modules, content)),
            DecomposeFactor = factor?.Factor ?? -1,
            Factorization = factor?.Convention ?? FactorizationConvention.Peft,
            UnbalancedFactorization = factor?.Unbalanced ?? false,
            DecomposeBoth = modules.Any(static module => module.Geometry.OuterRank is not null),
            UseEffectiveConv2d = modules.Any(static module => module.Geometry.Tucker),
            WeightDecompose = axes is not [null],
            WeightDecomposeAxis = axes.FirstOrDefault(static axis => axis is not null) ?? WeightDecomposeAxis.Output,
            UseScalar = modules.All(static module => module.Tensors.ContainsKey(FactorNames.Scalar)),
            Scaling = convention,
            Conv1dLayout = modules.Any(static module => module.Kernel?.Count == 1) && !modules.Any(static module => module.IsReversed) ? Conv1dLayout.Kronecker : Conv1dLayout.Peft,
            BaseModelNameOrPath = content.Configs.Values.FirstOrDefault()?.BaseModelNameOrPath,
        };
        return config with { ShapesFromFile = factor is null || axes.Length > 1 || modules.Any(static module => module.Tensors.ContainsKey(FactorNames.Scalar)) != config.UseScalar || !modules.All(module => Gives(config, module)) };
    }

    /// <summary>Whether a configuration makes factors of exactly these shapes, as far as the base layer is known.</summary>
    public static bool Gives(LoKrConfig config, AdapterModule module)
    {
        FactorGeometry geometry = module.Geometry;
        long rank = ModulePatterns.Find(config.RankPattern, module.Name, config.R);
        if (geometry.Rank is long actual && actual != rank)
        {
            return false;
        }

        IReadOnlyList<long>? kernel = module.Kernel;
        if (kernel is null)
        {
            // Only the base layer tells n: what does not need it is compared.
            bool lowRankW1 = !config.FullMatrix && config.DecomposeBoth && rank < Math.Max(geometry.L, geometry.M) / 2.0;
            return (geometry.OuterRank is not null) == lowRankW1 && (geometry.OuterRank ?? rank) == rank
                && !config.FullMatrix
                && FactorInference.Fits(geometry, module.WeightShape?[1], config.DecomposeFactor, config.Factorization, config.UnbalancedFactorization);
        }

        long inputs = module.WeightShape?[1] ?? geometry.M * geometry.Columns;
        FactorShapes shapes = FactorShapes.Create(geometry.Out, inputs, kernel, (int)rank, config);
        return shapes.L == geometry.L && shapes.M == geometry.M && shapes.K == geometry.K
            && shapes.LowRankW1 == (geometry.OuterRank is not null) && (geometry.OuterRank ?? rank) == rank
            && shapes.LowRankW2 == (geometry.InnerRank is not null) && shapes.Tucker == geometry.Tucker;
    }

    /// <summary>A pattern that means one module only.</summary>
    private static string Exactly(string name) => "^" + name.Replace(".", "\\.", StringComparison.Ordinal);

    private static IEnumerable<string> Targets(IReadOnlyList<AdapterModule> modules, AdapterContent content)
    {
        HashSet<string> names = [.. modules.Select(static module => module.Name)];
        return content.AllNames.Count > 0 && names.IsSubsetOf(content.AllNames) ? ModuleEndings.Shortest(names, content.AllNames) ?? names.AsEnumerable() : names;
    }

    /// <summary>A rank that gives full factors: the alpha that LyCORIS wrote in its place, or the smallest that does.</summary>
    private static long FullRank(IReadOnlyList<AdapterModule> modules)
    {
        long required = modules.Count == 0 ? new LoKrConfig().R : modules.Max(Required);
        double[] noted = [.. modules.Select(static module => module.Scale.Rank is long rank ? rank : module.Scale.Alpha ?? 0).Distinct()];
        return noted is [double one] && one == Math.Floor(one) && one >= required && one <= int.MaxValue ? (long)one : required;
    }

    private static long Required(AdapterModule module) => (Math.Max(module.Geometry.K, module.Geometry.Columns) + 1) / 2;

    private static T Common<T>(IEnumerable<T> values) => values.GroupBy(static value => value).OrderByDescending(static group => group.Count()).First().Key;
}
