using LoKr.Core.Configuration;
using LoKr.Core.Factors;
using LoKr.PowerShell.Tests.Support;
using Xunit;

namespace LoKr.PowerShell.Tests;

/// <summary>New-LoKrConfig and Get-LoKrConfig.</summary>
public sealed class ConfigTests : ModuleTest
{
    [Fact]
    public void Without_arguments_it_is_the_default_configuration() => Assert.Equal(new LoKrConfig(), Host.One<LoKrConfig>("New-LoKrConfig"));

    [Fact]
    public void Every_property_of_the_configuration_has_a_parameter()
    {
        string[] parameters = [.. Host.Output("(Get-Command New-LoKrConfig).Parameters.Keys").Cast<string>()];
        // Kept from files for models without a task type; nobody types a Python class name.
        Assert.Empty(typeof(LoKrConfig).GetProperties().Select(property => property.Name).Except([.. parameters, nameof(LoKrConfig.AutoMapping), nameof(LoKrConfig.ShapesFromFile)]));
    }

    [Fact]
    public void Arguments_arrive()
    {
        LoKrConfig config = Host.One<LoKrConfig>("""
            New-LoKrConfig -R 4 -Alpha 16.5 -TargetModules query, value -ExcludeModulePattern '.*\.0\..*' -ModulesToSave classifier `
                -InitWeights $false -DecomposeFactor 8 -DecomposeBoth -RankDropout 0.1 -RankDropoutScale -ModuleDropout 0.2 `
                -LayersToTransform 0, 1 -LayersPattern layer -RankPattern ([ordered]@{ query = 2; value = 3 }) -AlphaPattern @{ query = 1 } `
                -TaskType SEQ_CLS -BaseModelNameOrPath base -Revision main -InferenceMode -Scaling Lycoris -Factorization Lycoris
            """);
        Assert.Equal((4, 16.5, 8, true), (config.R, config.Alpha, config.DecomposeFactor, config.DecomposeBoth));
        Assert.Equal(ModuleSelector.FromNames(["query", "value"]), config.TargetModules);
        Assert.Equal(ModuleSelector.FromPattern(@".*\.0\..*"), config.ExcludeModules);
        Assert.Equal(["classifier"], config.ModulesToSave!.Value);
        Assert.Equal((InitWeights.Random, 0.1, true, 0.2), (config.InitWeights, config.RankDropout, config.RankDropoutScale, config.ModuleDropout));
        Assert.Equal([0, 1], config.LayersToTransform!.Value);
        Assert.Equal([new("query", 2), new("value", 3)], config.RankPattern);
        Assert.Equal([new("query", 1)], config.AlphaPattern);
        Assert.Equal((TaskType.SequenceClassification, "base", "main", true), (config.TaskType, config.BaseModelNameOrPath, config.Revision, config.InferenceMode));
        Assert.Equal((ScalingConvention.Lycoris, FactorizationConvention.Lycoris), (config.Scaling, config.Factorization));
    }

    [Theory]
    [InlineData("$true", InitWeights.Default)]
    [InlineData("false", InitWeights.Random)]
    [InlineData("lycoris", InitWeights.Lycoris)]
    [InlineData("Default", InitWeights.Default)]
    public void Initializations_are_spelled_as_in_peft_or_here(string value, InitWeights expected) =>
        Assert.Equal(expected, Host.One<LoKrConfig>($"New-LoKrConfig -InitWeights {value}").InitWeights);

    [Theory]
    [InlineData("-TargetModules query", null)]
    [InlineData("-TargetModules all-linear", "all-linear")]
    [InlineData("-TargetModulePattern '.*query'", ".*query")]
    public void One_name_is_a_name_and_a_pattern_is_a_pattern(string arguments, string? pattern) =>
        Assert.Equal(pattern, Host.One<LoKrConfig>($"New-LoKrConfig {arguments}").TargetModules!.Pattern);

    [Fact]
    public void A_plain_hashtable_of_several_patterns_is_warned_of()
    {
        Assert.Single(Host.Run("New-LoKrConfig -RankPattern @{ a = 1; b = 2 }").Warnings);
        Assert.Empty(Host.Run("New-LoKrConfig -RankPattern @{ a = 1 }").Warnings);
        Assert.Empty(Host.Run("New-LoKrConfig -RankPattern ([ordered]@{ a = 1; b = 2 })").Warnings);
    }

    [Fact]
    public void Properties_of_piped_objects_bind_by_name()
    {
        IReadOnlyList<object> configs = Host.Output("[pscustomobject]@{ R = 2; Alpha = 4; TargetModules = 'a', 'b' }, [pscustomobject]@{ Rank = 3 } | New-LoKrConfig -DecomposeFactor 4");
        Assert.Equal([2, 3], configs.Cast<LoKrConfig>().Select(config => config.R));
        Assert.Equal("a, b", ((LoKrConfig)configs[0]).TargetModules!.ToString());
        Assert.Equal(4, ((LoKrConfig)configs[1]).DecomposeFactor);
    }

    [Fact]
    public void A_configuration_is_read_from_folders_files_models_and_wildcards()
    {
        ImportAdapted();
        Host.Output("$null = $model | Export-LoKrAdapter \"$root/a[1]\" | Export-LoKrAdapter \"$root/a2\"");
        Assert.Equal(2, Host.One<LoKrConfig>("Get-LoKrConfig -LiteralPath \"$root/a[1]\"").R);
        Assert.Equal(2, Host.Output("Get-LoKrConfig \"$root/a*\"").Count);
        Assert.Single(Host.Output("Get-LoKrConfig \"$root/a2/adapter_config.json\""));
        Assert.Single(Host.Output("[pscustomobject]@{ PSPath = \"$root/a2\" } | Get-LoKrConfig"));
        Assert.Single(Host.Output("[IO.DirectoryInfo]::new(\"$root/a2\") | Get-LoKrConfig"));
        Assert.Equal(2, Host.One<LoKrConfig>("$model | Get-LoKrConfig").R);
        Assert.Single(Host.Output("Get-LoKrConfig -Model $model -Name def*"));
        Host.Error("LoKr.AdapterNotFound", "Get-LoKrConfig -Model $model -Name other");
    }

    [Fact]
    public void Relative_paths_start_at_the_current_location_and_not_at_that_of_the_process()
    {
        ImportAdapted();
        Host.Runspace.SessionStateProxy.Path.SetLocation(Folder.Path);
        Host.Output("$null = $model | Export-LoKrAdapter ./here");
        Assert.True(File.Exists(Folder["here", "adapter_model.safetensors"]));
        Assert.Single(Host.Output("Get-LoKrConfig ./here"));
    }
}
