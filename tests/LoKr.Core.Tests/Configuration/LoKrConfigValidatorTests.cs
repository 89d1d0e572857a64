using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Factors;
using Xunit;

namespace LoKr.Core.Tests.Configuration;

public sealed class LoKrConfigValidatorTests
{
    private static readonly LoKrConfig s_good = new() { TargetModules = ModuleSelector.FromNames(["q"]) };

    public static TheoryData<string, string> Bad => new()
    {
        { nameof(LoKrConfig.R), ErrorIds.RankInvalid },
        { nameof(LoKrConfig.RankPattern), ErrorIds.RankInvalid },
        { nameof(LoKrConfig.Alpha), ErrorIds.AlphaInvalid },
        { nameof(LoKrConfig.AlphaPattern), ErrorIds.PatternInvalid },
        { nameof(LoKrConfig.RankDropout), ErrorIds.DropoutInvalid },
        { nameof(LoKrConfig.ModuleDropout), ErrorIds.DropoutInvalid },
        { nameof(LoKrConfig.DecomposeFactor), ErrorIds.DecomposeFactorInvalid },
        { nameof(LoKrConfig.LayersPattern), ErrorIds.LayersPatternInvalid },
        { nameof(LoKrConfig.ExcludeModules), ErrorIds.PatternInvalid },
        { nameof(LoKrConfig.ModulesToSave), ErrorIds.InvalidArgument },
        { nameof(LoKrConfig.TargetModules), ErrorIds.InvalidArgument },
        { nameof(LoKrConfig.WeightDecompose), ErrorIds.OptionNotSupported },
        { nameof(LoKrConfig.LayersToTransform), ErrorIds.LayersPatternInvalid },
    };

    [Theory]
    [MemberData(nameof(Bad))]
    public void A_bad_value_has_its_own_error(string field, string errorId)
    {
        LoKrConfig config = field switch
        {
            nameof(LoKrConfig.R) => s_good with { R = 0 },
            nameof(LoKrConfig.RankPattern) => s_good with { RankPattern = [KeyValuePair.Create("q", -1)] },
            nameof(LoKrConfig.Alpha) => s_good with { Alpha = double.PositiveInfinity },
            nameof(LoKrConfig.AlphaPattern) => s_good with { AlphaPattern = [KeyValuePair.Create("[", 1.0)] },
            nameof(LoKrConfig.RankDropout) => s_good with { RankDropout = 1 },
            nameof(LoKrConfig.ModuleDropout) => s_good with { ModuleDropout = double.NaN },
            nameof(LoKrConfig.DecomposeFactor) => s_good with { DecomposeFactor = 0 },
            nameof(LoKrConfig.LayersPattern) => s_good with { LayersPattern = ["h"] },
            nameof(LoKrConfig.ExcludeModules) => s_good with { ExcludeModules = ModuleSelector.FromPattern("*") },
            nameof(LoKrConfig.ModulesToSave) => s_good with { ModulesToSave = [""] },
            nameof(LoKrConfig.TargetModules) => s_good with { TargetModules = ModuleSelector.FromNames([""]) },
            nameof(LoKrConfig.WeightDecompose) => s_good with { WeightDecompose = true, RankDropout = 0.1 },
            nameof(LoKrConfig.LayersToTransform) => s_good with { TargetModules = ModuleSelector.FromPattern(@".*\.q_proj"), LayersToTransform = [1] },
            _ => throw new ArgumentOutOfRangeException(nameof(field)),
        };
        Assert.Equal(errorId, Assert.Throws<LoKrException>(() => LoKrConfigValidator.Validate(config)).ErrorId);
    }

    [Fact]
    public void Good_values_pass() => LoKrConfigValidator.Validate(s_good with
    {
        Alpha = 0.5,
        RankDropout = 0.1,
        ModuleDropout = 0,
        UseEffectiveConv2d = true,
        LayersToTransform = [0],
        LayersPattern = ["h"],
        FullMatrix = true,
        RsLora = true,
        Factorization = FactorizationConvention.Lycoris,
    });

    [Fact]
    public void A_layer_filter_does_not_go_with_all_linear_either_and_an_empty_one_is_none()
    {
        LoKrConfig config = new() { TargetModules = ModuleSelector.FromPattern("all-linear"), LayersToTransform = [0] };
        Assert.Equal(ErrorIds.LayersPatternInvalid, Assert.Throws<LoKrException>(() => LoKrConfigValidator.Validate(config)).ErrorId);
        LoKrConfigValidator.Validate(config with { LayersToTransform = [] });
        Assert.Equal(ErrorIds.LayersPatternInvalid,
            Assert.Throws<LoKrException>(() => LoKrConfigValidator.Validate(s_good with { LayersPattern = ["h"], LayersToTransform = [] })).ErrorId);
    }

    [Fact]
    public void Scaling_follows_the_convention()
    {
        Assert.Equal(2, LoKrScaling.Compute(new(), 4, 8, bothFull: true));
        Assert.Equal(4, LoKrScaling.Compute(new() { RsLora = true }, 4, 8, bothFull: false));
        Assert.Equal(1, LoKrScaling.Compute(new() { Scaling = ScalingConvention.Lycoris }, 4, 8, bothFull: true));
        Assert.Equal(2, LoKrScaling.Compute(new() { Scaling = ScalingConvention.Lycoris }, 4, 8, bothFull: false));
        Assert.Equal(1, LoKrScaling.Compute(new() { Scaling = ScalingConvention.None }, 4, 8, bothFull: false));
    }
}
