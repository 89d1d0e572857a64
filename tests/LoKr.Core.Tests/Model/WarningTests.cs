using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Merging.Checkpoints;
using LoKr.Core.Model;
using LoKr.Core.Tests.Merging;
using LoKr.Core.Tests.Support;
using LoKr.Core.Training;
using LoKr.Testing;
using Xunit;

namespace LoKr.Core.Tests.Model;

/// <summary>Settings and adapters without effect are reported.</summary>
public sealed class WarningTests
{
    private static readonly LoKrConfig s_query = new() { R = 2, Alpha = 2, TargetModules = ModuleSelector.FromNames(["q_proj"]), InitWeights = InitWeights.Random };

    public static TheoryData<string> IgnoredSettings =>
    [
        nameof(LoKrConfig.RankDropoutScale), nameof(LoKrConfig.WeightDecomposeAxis), nameof(LoKrConfig.DecomposeBoth), nameof(LoKrConfig.UseEffectiveConv2d),
        nameof(LoKrConfig.InitWeights), nameof(LoKrConfig.RsLora), nameof(LoKrConfig.AlphaPattern),
    ];

    [Theory]
    [MemberData(nameof(IgnoredSettings))]
    public void A_setting_that_another_one_overrides_is_named(string setting)
    {
        using LoKrModel model = new(TestNetworks.Decoder());
        LoKrConfig config = setting switch
        {
            nameof(LoKrConfig.RankDropoutScale) => s_query with { RankDropoutScale = true },
            nameof(LoKrConfig.WeightDecomposeAxis) => s_query with { WeightDecomposeAxis = WeightDecomposeAxis.Input },
            nameof(LoKrConfig.DecomposeBoth) => s_query with { FullMatrix = true, DecomposeBoth = true },
            nameof(LoKrConfig.UseEffectiveConv2d) => s_query with { FullMatrix = true, UseEffectiveConv2d = true },
            nameof(LoKrConfig.InitWeights) => s_query with { UseScalar = true, InitWeights = InitWeights.Lycoris },
            nameof(LoKrConfig.RsLora) => s_query with { RsLora = true, Scaling = ScalingConvention.None },
            nameof(LoKrConfig.AlphaPattern) => s_query with { AlphaPattern = [new("q_proj", 3)], FullMatrix = true, Scaling = ScalingConvention.Lycoris },
            _ => throw new ArgumentOutOfRangeException(nameof(setting)),
        };
        Assert.StartsWith(setting + " has no effect", Assert.Single(model.AddAdapter(config).Warnings), StringComparison.Ordinal);
        Assert.Empty(model.AddAdapter(s_query, "good").Warnings);
    }

    [Fact]
    public void A_layer_filter_with_a_pattern_is_loaded_and_added_as_PEFT_does_with_a_warning()
    {
        using TempFolder folder = new();
        using LoKrModel model = new(TestNetworks.Decoder());
        LoKrConfig pattern = s_query with { TargetModules = ModuleSelector.FromPattern(@".*\.q_proj") };
        LoKrAdapter adapter = model.AddAdapter(pattern);
        LoKr.Core.Layouts.PeftAdapterFolder.Write(folder["a"], adapter.Config with { LayersToTransform = [1] }, adapter.GetTensors());
        using LoKr.Core.Layouts.PeftAdapterFolder read = LoKr.Core.Layouts.PeftAdapterFolder.Read(folder["a"]);
        Assert.Contains("'layers_to_transform'", Assert.Single(read.Warnings), StringComparison.Ordinal);
        LoKrAdapter loaded = model.LoadAdapter(read.Config, adapter.GetTensors(), "loaded");
        Assert.Equal(2, loaded.Layers.Count);
        LoKrAdapter added = model.AddAdapter(read.Config with { InferenceMode = false }, "added");
        Assert.Equal(2, added.Layers.Count);
        Assert.Contains("LayersToTransform has no effect", Assert.Single(added.Warnings), StringComparison.Ordinal);
    }

    [Fact]
    public void A_layer_filter_beside_full_names_is_reported_with_the_modules()
    {
        using LoKrModel model = new(TestNetworks.Decoder());
        LoKrAdapter adapter = model.AddAdapter(s_query with
        {
            TargetModules = ModuleSelector.FromNames(["model.layers.0.self_attn.q_proj", "v_proj"]), LayersToTransform = [1],
        });
        string warning = Assert.Single(adapter.Warnings);
        Assert.StartsWith("LayersToTransform has no effect", warning, StringComparison.Ordinal);
        Assert.EndsWith(": model.layers.0.self_attn.q_proj.", warning, StringComparison.Ordinal);
    }

    [Fact]
    public void A_scale_of_zero_or_nearly_zero_is_reported()
    {
        using LoKrModel model = new(TestNetworks.Decoder());
        Assert.StartsWith("Alpha is 0 on 2 of 2 layers", Assert.Single(model.AddAdapter(s_query with { Alpha = 0 }).Warnings), StringComparison.Ordinal);
        Assert.Contains("0.0001 on 2 of 2 layers", Assert.Single(model.AddAdapter(s_query with { Alpha = 2e-4 }, "small").Warnings), StringComparison.Ordinal);
        Assert.Empty(model.AddAdapter(s_query with { Alpha = 2e-3 }, "usual").Warnings);
    }

    [Fact]
    public void An_adapter_that_changes_nothing_is_reported_by_import_and_by_both_merges()
    {
        using TempFolder folder = new();
        using LoKrModel model = new(TestNetworks.Decoder());
        string from = MergeFiles.Base(folder["base"], MergeFiles.State(model));
        foreach ((string name, LoKrConfig config, int expected) in new[]
        {
            ("fresh", s_query with { InitWeights = InitWeights.Default }, 1),
            ("lycoris", s_query with { InitWeights = InitWeights.Lycoris }, 1),
            ("scalar", s_query with { InitWeights = InitWeights.Default, UseScalar = true }, 1),
            ("trained", s_query, 0),
            ("decomposed", s_query with { InitWeights = InitWeights.Default, WeightDecompose = true }, 0),
        })
        {
            LoKrAdapter adapter = model.AddAdapter(config, name);
            Assert.Equal(expected, model.LoadAdapter(adapter.Config, adapter.GetTensors(), name + "2").Warnings.Count(IsZero));
            Assert.Equal(expected, model.Merge([name]).Warnings.Count(IsZero));
            model.UndoMerge();
            LoKrMergeResult onDisk = MergeFiles.Run(MergeFiles.Options(from, folder["out " + name], MergeFiles.Adapter(folder[name], model, name)));
            Assert.Equal(expected, onDisk.Warnings.Count(IsZero));
        }

        static bool IsZero(string warning) => warning.Contains("changes nothing", StringComparison.Ordinal);
    }

    [Fact]
    public void Options_of_evaluations_have_no_effect_without_data()
    {
        TrainingOptions options = new() { EvaluateEvery = 2, EvaluateBefore = true, EvaluationBatchSize = 4 };
        Assert.Equal(["EvaluateEvery", "EvaluateBefore", "EvaluationBatchSize"], options.IgnoredOptions(false).Select(static warning => warning.Split(' ')[0]));
        Assert.Empty(options.IgnoredOptions(true));
        Assert.Empty(new TrainingOptions().IgnoredOptions(false));

        TrainingOptions ends = new() { Metric = EvaluationMetric.Loss, Patience = 2, MinimumImprovement = 0.1, KeepBest = true };
        Assert.Equal(["Metric", "Patience", "MinimumImprovement", "KeepBest"], ends.IgnoredOptions(false).Select(static warning => warning.Split(' ')[0]));
        Assert.Empty(ends.IgnoredOptions(true));
        Assert.Equal("MinimumImprovement has no effect without Patience.", Assert.Single((ends with { Patience = null }).IgnoredOptions(true)));
    }
}
