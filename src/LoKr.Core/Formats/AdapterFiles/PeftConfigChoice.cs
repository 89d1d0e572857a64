using LoKr.Core.Adapters;

namespace LoKr.Core.Formats.AdapterFiles;

/// <summary>The configuration under which PEFT gives modules their shapes and scales: the adapter's own where it does, or one that is inferred.</summary>
/// <param name="Config">The configuration.</param>
/// <param name="Modules">The modules, with scales multiplied into w1 that the configuration does not give.</param>
/// <param name="IsPeft">Whether PEFT itself can load the result.</param>
internal sealed record PeftConfigChoice(LoKrConfig Config, IReadOnlyList<AdapterModule> Modules, bool IsPeft)
{
    /// <summary>Chooses.</summary>
    /// <param name="modules">Modules of one component with dotted names, without alpha.</param>
    /// <param name="content">What they are part of.</param>
    /// <param name="own">The adapter's own configuration, or null.</param>
    public static PeftConfigChoice Of(IReadOnlyList<AdapterModule> modules, AdapterContent content, LoKrConfig? own)
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

        // What PEFT does not know is kept for readers that do; the adapter's own words are better than inferred ones.
        LoKrConfig? extended = own is null ? null : own with { Scaling = ScalingConvention.Peft, RsLora = false };
        return extended is not null && modules.All(module => AdapterConfigBuilder.Gives(extended, module)) && Fit(extended, modules) is AdapterModule[] kept
            ? new(extended, kept, false)
            : new(built, modules, false);
    }

    /// <summary>The configuration in PEFT's terms alone; null where these do not say the same.</summary>
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
        return !plain.WeightDecompose && !plain.UseScalar && modules.All(module =>
            AdapterConfigBuilder.Gives(plain, module) && (module.IsReversed || module.Geometry.InnerRank is not null || module.Geometry.Kernel!.Count != 1))
            ? plain
            : null;
    }

    /// <summary>The modules with the scale that alpha / r gives; null where that would round a factor.</summary>
    private static AdapterModule[]? Fit(LoKrConfig config, IReadOnlyList<AdapterModule> modules)
    {
        AdapterModule[] fitted = new AdapterModule[modules.Count];
        for (int i = 0; i < fitted.Length; i++)
        {
            AdapterModule module = modules[i];
            int rank = ModulePatterns.Find(config.RankPattern, module.Name, config.R);
            double given = ModulePatterns.Find(config.AlphaPattern, module.Name, config.Alpha) / rank;
            double ratio = module.Scale.Factor / given;

            // An alpha in single precision is as close as it can be.
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
