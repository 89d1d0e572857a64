namespace LoKr.Core.Configuration;

/// <summary>Pairs of settings of which one has no effect beside the other.</summary>
internal static class IgnoredSettings
{
    /// <summary>Whether a layer filter is given beside a pattern, for which PEFT does not consult it.</summary>
    public static bool HasLayerFilterWithPattern(LoKrConfig config) =>
        config is { TargetModules.Pattern: not null, LayersToTransform: { Count: > 0 } };

    /// <summary>The settings of a configuration that have no effect, in sentences.</summary>
    public static IEnumerable<string> Describe(LoKrConfig config)
    {
        bool alwaysFull = config is { FullMatrix: true, Scaling: ScalingConvention.Lycoris };
        bool unscaled = config.Scaling == ScalingConvention.None || alwaysFull;
        string convention = config.Scaling == ScalingConvention.None ? "the scaling convention None" : "the scaling convention Lycoris and FullMatrix";
        (bool IsIgnored, string Setting, string Reason)[] settings =
        [
            (HasLayerFilterWithPattern(config), nameof(config.LayersToTransform), "TargetModules is a pattern"),
            (config is { RankDropoutScale: true, RankDropout: 0 }, nameof(config.RankDropoutScale), "RankDropout is 0"),
            (config is { WeightDecomposeAxis: WeightDecomposeAxis.Input, WeightDecompose: false, ShapesFromFile: false }, nameof(config.WeightDecomposeAxis), "WeightDecompose is off"),
            (config is { FullMatrix: true, DecomposeBoth: true }, nameof(config.DecomposeBoth), "FullMatrix is set"),
            (config is { FullMatrix: true, UseEffectiveConv2d: true }, nameof(config.UseEffectiveConv2d), "FullMatrix is set"),
            (config is { UseScalar: true, InitWeights: InitWeights.Lycoris }, nameof(config.InitWeights), "UseScalar is set, whose scalar starts at zero"),
            (unscaled && config.RsLora, nameof(config.RsLora), $"of {convention}"),
            (unscaled && config.AlphaPattern.Count > 0, nameof(config.AlphaPattern), $"of {convention}"),
        ];
        return settings.Where(static setting => setting.IsIgnored)
            .Select(static setting => $"{setting.Setting} has no effect because {setting.Reason}.");
    }
}
