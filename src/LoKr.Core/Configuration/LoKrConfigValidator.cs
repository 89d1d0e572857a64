using LoKr.Core.Errors;

namespace LoKr.Core.Configuration;

/// <summary>Checks a configuration on its own, before any model is involved.</summary>
public static class LoKrConfigValidator
{
    /// <summary>
    /// Throws for the first value of a configuration that a person makes that cannot be used, is not supported, or contradicts another one.
    /// </summary>
    /// <exception cref="LoKrException">With the id of the problem and the field as its target.</exception>
    public static void Validate(LoKrConfig config)
    {
        ValidateStored(config);
        if (IgnoredSettings.HasLayerFilterWithPattern(config))
        {
            throw Invalid(ErrorIds.LayersPatternInvalid, nameof(config.LayersToTransform),
                $"LayersToTransform is given together with '{config.TargetModules}' as TargetModules; a layer filter applies to names, not to a pattern.",
                "Write the layers into the pattern, or name the modules.");
        }
    }

    /// <summary>
    /// Throws for the first value of a configuration that comes from elsewhere. Unlike <see cref="Validate"/> it accepts settings that have no effect, as
    /// PEFT does when it loads or adds such an adapter; the reader of the file, and the adapter that is added, report them.
    /// </summary>
    internal static void ValidateStored(LoKrConfig config)
    {
        ArgumentNullException.ThrowIfNull(config);
        CheckRank(config.R, nameof(config.R));
        CheckAlpha(config.Alpha, nameof(config.Alpha));
        foreach ((string pattern, int rank) in config.RankPattern)
        {
            PythonRegex.Check(pattern);
            CheckRank(rank, $"{nameof(config.RankPattern)} '{pattern}'");
        }

        foreach ((string pattern, double alpha) in config.AlphaPattern)
        {
            PythonRegex.Check(pattern);
            CheckAlpha(alpha, $"{nameof(config.AlphaPattern)} '{pattern}'");
        }

        CheckDropout(config.RankDropout, nameof(config.RankDropout));
        CheckDropout(config.ModuleDropout, nameof(config.ModuleDropout));
        if (config.DecomposeFactor is 0 or < -1)
        {
            throw Invalid(ErrorIds.DecomposeFactorInvalid, nameof(config.DecomposeFactor),
                $"DecomposeFactor is {config.DecomposeFactor}.", "Use -1 for the most square split, or a positive number.");
        }

        CheckTargets(config);
        CheckSupported(config);
    }

    /// <summary>Throws unless a rank is positive.</summary>
    internal static void CheckRank(int rank, string field)
    {
        if (rank <= 0)
        {
            throw Invalid(ErrorIds.RankInvalid, field, $"{field} is {rank}; a rank is a positive number.", "Use 4, 8 or 16 to begin with.");
        }
    }

    private static void CheckAlpha(double alpha, string field)
    {
        if (!double.IsFinite(alpha))
        {
            throw Invalid(ErrorIds.AlphaInvalid, field, $"{field} is {alpha}; alpha is a finite number.", "Use the rank or twice the rank to begin with.");
        }
    }

    private static void CheckDropout(double dropout, string field)
    {
        if (dropout is not (>= 0 and < 1))
        {
            throw Invalid(ErrorIds.DropoutInvalid, field, $"{field} is {dropout}; a dropout probability is at least 0 and less than 1.", null);
        }
    }

    private static void CheckTargets(LoKrConfig config)
    {
        if (config.LayersPattern is { Count: > 0 } && config.LayersToTransform is not { Count: > 0 })
        {
            throw Invalid(ErrorIds.LayersPatternInvalid, nameof(config.LayersPattern),
                "LayersPattern is given without LayersToTransform.", "Say which layers to adapt with LayersToTransform, or leave LayersPattern out.");
        }

        foreach ((ModuleSelector? selector, string field) in new[] { (config.TargetModules, nameof(config.TargetModules)), (config.ExcludeModules, nameof(config.ExcludeModules)) })
        {
            if (selector?.Names is IReadOnlyList<string> names && names.Any(string.IsNullOrEmpty))
            {
                throw Invalid(ErrorIds.InvalidArgument, field, $"{field} holds an empty name.", "An empty name would match every module; leave it out.");
            }

            if (selector is { Pattern: string pattern, IsAllLinear: false })
            {
                PythonRegex.Check(pattern);
            }
        }

        if (config.ModulesToSave is { } saved && saved.Any(string.IsNullOrEmpty))
        {
            throw Invalid(ErrorIds.InvalidArgument, nameof(config.ModulesToSave), "ModulesToSave holds an empty name.", "An empty name would match every module; leave it out.");
        }

        foreach (string pattern in config.LayersPattern ?? [])
        {
            PythonRegex.Check(pattern);
        }
    }

    private static void CheckSupported(LoKrConfig config)
    {
        // LyCORIS drops rows before it takes the norms, on the dense weight.
        Refuse(config is { WeightDecompose: true, RankDropout: > 0 }, $"{nameof(config.RankDropout)} with {nameof(config.WeightDecompose)}");
    }

    private static void Refuse(bool isSet, string option)
    {
        if (isSet)
        {
            throw new LoKrException(ErrorIds.OptionNotSupported, LoKrErrorKind.NotSupported, $"{option} is not supported yet.", "Leave it out.") { Target = option };
        }
    }

    private static LoKrException Invalid(string id, string field, string message, string? advice) =>
        new(id, LoKrErrorKind.InvalidArgument, message, advice) { Target = field };
}
