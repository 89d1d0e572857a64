using LoKr.Core.Configuration;
using LoKr.Core.Factors;
using LoKr.Core.Targeting;

namespace LoKr.Core.Layouts;

/// <summary>Infers a configuration from the shapes and scales of modules.</summary>
internal static class AdapterConfigBuilder
{
    /// <summary>Infers the configuration.</summary>
    /// <param name="modules">Modules of one component, with dotted names.</param>
    /// <param name="content">The adapter that they are part of.</param>
    /// <param name="convention">Scaling convention of the result. With <see cref="ScalingConvention.Peft"/> alpha is chosen so that alpha / r is the scale.</param>
    public static LoKrConfig Build(IReadOnlyList<AdapterModule> modules, AdapterContent content, ScalingConvention convention)
    {
        FactorInference? factor = FactorInference.Find(modules.Select(Known), content.FactorHint);
        long[] lowRanks = [.. modules.Where(static module => module.Geometry.Rank is not null).Select(static module => module.Geometry.Rank!.Value)];
        long r = lowRanks.Length > 0 ? Common(lowRanks) : FullRank(modules);
        Dictionary<AdapterModule, (long Rank, double Alpha)> numbers = modules.ToDictionary(static module => module, module =>
        {
            long rank = module.Geometry.Rank ?? Math.Max(r, module.Geometry.FullRank);
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
        return config with { ShapesFromFile = factor is null || axes.Length > 1 || modules.Any(static module => module.Tensors.ContainsKey(FactorNames.Scalar)) != config.UseScalar || !Reproduces(config, modules) };
    }

    /// <summary>Whether a configuration results in factors of exactly these shapes, as far as the base layers are known.</summary>
    public static bool Reproduces(LoKrConfig config, IEnumerable<AdapterModule> modules)
    {
        ModuleRanks ranks = new(config);
        return modules.All(module => Reproduces(ranks, module));
    }

    private static bool Reproduces(ModuleRanks ranks, AdapterModule module)
    {
        LoKrConfig config = ranks.Config;
        FactorGeometry geometry = module.Geometry;
        long rank = ranks.Rank(module.Name);
        if (geometry.Rank is long actual && actual != rank)
        {
            return false;
        }

        IReadOnlyList<long>? kernel = module.Kernel;
        if (kernel is null)
        {
            // Only the base layer determines n: the sizes that do not depend on it are compared.
            bool lowRankW1 = !config.FullMatrix && config.DecomposeBoth && rank < Math.Max(geometry.L, geometry.M) / 2.0;
            return (geometry.OuterRank is not null) == lowRankW1 && (geometry.OuterRank ?? rank) == rank
                && !config.FullMatrix
                && new FactorInference(config.DecomposeFactor, config.Factorization, config.UnbalancedFactorization).Fits(Known(module));
        }

        long inputs = module.WeightShape?[1] ?? geometry.M * geometry.Columns;
        FactorShapes shapes = FactorShapes.Create(geometry.Out, inputs, kernel, (int)rank, config);
        return shapes.L == geometry.L && shapes.M == geometry.M && shapes.K == geometry.K
            && shapes.LowRankW1 == (geometry.OuterRank is not null) && (geometry.OuterRank ?? rank) == rank
            && shapes.LowRankW2 == (geometry.InnerRank is not null) && shapes.Tucker == geometry.Tucker;
    }

    /// <summary>A pattern that matches exactly one module.</summary>
    private static string Exactly(string name) => "^" + name.Replace(".", "\\.", StringComparison.Ordinal);

    /// <summary>Names that target the modules: short endings where all names of the model are known and tell the modules apart.</summary>
    public static IEnumerable<string> Targets(IReadOnlyList<AdapterModule> modules, AdapterContent content)
    {
        HashSet<string> names = [.. modules.Select(static module => module.Name)];
        return content.AllNames.Count > 0 && names.IsSubsetOf(content.AllNames) ? ModuleEndings.Shortest(names, content.AllNames) ?? names.AsEnumerable() : names;
    }

    /// <summary>A rank that results in full factors: the one that LyCORIS stored as alpha, or the smallest possible.</summary>
    private static long FullRank(IReadOnlyList<AdapterModule> modules)
    {
        long required = modules.Count == 0 ? new LoKrConfig().R : modules.Max(static module => module.Geometry.FullRank);
        double[] stored = [.. modules.Select(static module => module.Scale.Rank is long rank ? rank : module.Scale.Alpha ?? 0).Distinct()];
        return stored is [double one] && one == Math.Floor(one) && one >= required && one <= int.MaxValue ? (long)one : required;
    }

    private static KnownGeometry Known(AdapterModule module) => new(module.Geometry, module.WeightShape?[1]);

    private static T Common<T>(IEnumerable<T> values) => values.GroupBy(static value => value).OrderByDescending(static group => group.Count()).First().Key;
}

/// <summary>The configuration under which PEFT computes the shapes and scales of modules: the adapter's own where possible, or an inferred one.</summary>
/// <param name="Config">The configuration.</param>
/// <param name="Modules">The modules; scales that the configuration cannot express are multiplied into w1.</param>
/// <param name="IsPeft">Whether PEFT itself can load the result.</param>
internal sealed record PeftConfigChoice(LoKrConfig Config, IReadOnlyList<AdapterModule> Modules, bool IsPeft)
{
    /// <summary>Chooses the configuration.</summary>
    /// <param name="modules">Modules of one component with dotted names, without alpha.</param>
    /// <param name="content">The adapter that they are part of.</param>
    /// <param name="own">The adapter's own configuration, or null.</param>
    public static PeftConfigChoice Of(IReadOnlyList<AdapterModule> modules, AdapterContent content, LoKrConfig? own) => Targeted(Choose(modules, content, own), content);

    /// <summary>The choice with other targets where a conversion has renamed or divided modules, so that those of the adapter's own configuration are names of others.</summary>
    private static PeftConfigChoice Targeted(PeftConfigChoice choice, AdapterContent content)
    {
        if (choice.Config.TargetModules is null or { IsAllLinear: true })
        {
            return choice;
        }

        TargetMatcher matcher = new(choice.Config);
        return choice.Modules.All(module => matcher.Check(module.Name) == TargetMatcher.Verdict.Target) ? choice : choice with
        {
            Config = choice.Config with { TargetModules = ModuleSelector.FromNames(AdapterConfigBuilder.Targets(choice.Modules, content)), ExcludeModules = null, LayersToTransform = null, LayersPattern = null },
        };
    }

    private static PeftConfigChoice Choose(IReadOnlyList<AdapterModule> modules, AdapterContent content, LoKrConfig? own)
    {
        LoKrConfig? plain = own is null ? null : Plain(own, modules);
        if (plain is not null && Fit(plain, modules) is AdapterModule[] fitted)
        {
            return new(plain, fitted, true);
        }

        LoKrConfig built = AdapterConfigBuilder.Build(modules, content, ScalingConvention.Peft);
        if (own is not null)
        {
            built = built with
            {
                RankDropout = own.RankDropout,
                RankDropoutScale = own.RankDropoutScale,
                ModuleDropout = own.ModuleDropout,
                ModulesToSave = own.ModulesToSave,
                TaskType = own.TaskType,
                AutoMapping = own.AutoMapping,
                BaseModelNameOrPath = own.BaseModelNameOrPath,
                Revision = own.Revision,
                InitWeights = own.InitWeights,
            };
        }

        if (!built.ShapesFromFile && Plain(built, modules) is LoKrConfig plainBuilt)
        {
            return new(plainBuilt, modules, true);
        }

        // Options that PEFT does not know are stored for readers that do. The adapter's own configuration is better than an inferred one.
        LoKrConfig? extended = own is null ? null : own with { Scaling = ScalingConvention.Peft, RsLora = false };
        return extended is not null && AdapterConfigBuilder.Reproduces(extended, modules) && Fit(extended, modules) is AdapterModule[] kept
            ? new(extended, kept, false)
            : new(built, modules, false);
    }

    /// <summary>The configuration without options that PEFT does not know; null where it would mean something else.</summary>
    private static LoKrConfig? Plain(LoKrConfig config, IReadOnlyList<AdapterModule> modules)
    {
        LoKrConfig plain = config with
        {
            Scaling = ScalingConvention.Peft,
            RsLora = false,
            FullMatrix = false,
            UnbalancedFactorization = false,
            Factorization = FactorizationConvention.Peft,
            ShapesFromFile = false,
            Conv1dLayout = Conv1dLayout.Peft,
            TrainNorm = false,
        };
        return !plain.WeightDecompose && !plain.UseScalar && AdapterConfigBuilder.Reproduces(plain, modules)
            && modules.All(static module => module.IsReversed || module.Geometry.InnerRank is not null || module.Geometry.Kernel!.Count != 1)
            ? plain
            : null;
    }

    /// <summary>The modules with scales of alpha / r; null where that would round a factor.</summary>
    private static AdapterModule[]? Fit(LoKrConfig config, IReadOnlyList<AdapterModule> modules)
    {
        ModuleRanks ranks = new(config);
        AdapterModule[] fitted = new AdapterModule[modules.Count];
        for (int i = 0; i < fitted.Length; i++)
        {
            AdapterModule module = modules[i];
            double given = ranks.Alpha(module.Name) / ranks.Rank(module.Name);
            double ratio = module.Scale.Factor / given;

            // The ratio is not exactly 1 where alpha was stored in single precision.
            if (Math.Abs(ratio - 1) < 1e-6)
            {
                fitted[i] = module;
            }
            else if (module.Geometry.Rank is null && IsPowerOfTwo(ratio))
            {
                fitted[i] = AdapterTensors.Scaled(module, ratio) with { Scale = module.Scale with { Factor = given } };
            }
            else
            {
                return null;
            }
        }

        return fitted;
    }

    private static bool IsPowerOfTwo(double value) => double.IsNormal(value) && (BitConverter.DoubleToInt64Bits(value) & 0x000F_FFFF_FFFF_FFFF) == 0;
}
