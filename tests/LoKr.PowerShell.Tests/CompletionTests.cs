using System.Management.Automation;
using LoKr.PowerShell.Tests.Support;
using Xunit;

namespace LoKr.PowerShell.Tests;

/// <summary>Tab completion of arguments.</summary>
public sealed class CompletionTests : ModuleTest
{
    [Theory]
    [InlineData("New-LoKrConfig -InitWeights L", "Lycoris")]
    [InlineData("New-LoKrConfig -TaskType Seq", "SequenceClassification")]
    [InlineData("New-LoKrConfig -TargetModules q_p", "q_proj")]
    [InlineData("New-LoKrConfig -TargetModules all", "all-linear")]
    [InlineData("Import-LoKrModel x -DType b", "bfloat16")]
    [InlineData("Import-LoKrModel x -Device a", "auto")]
    [InlineData("Start-LoKrTraining -Schedule Co", "Cosine")]
    [InlineData("Get-LoKrModule -Type Lin", "Linear")]
    public void Fixed_choices_are_offered(string line, string expected) => Assert.Contains(expected, Complete(line));

    [Fact]
    public void Modules_and_adapters_of_the_bound_model_are_offered()
    {
        ImportAdapted();
        Host.Output("$null = $model | Add-LoKrAdapter -Config (New-LoKrConfig -TargetModules key) -Name second");
        Assert.Contains("bert.encoder.layer.0.attention.self.query", Complete("Get-LoKrModule -Model $model -Name bert.encoder.layer.0"));
        Assert.Equal(["default"], Complete("Merge-LoKrAdapter -Model $model -Name d"));
        Assert.Equal(["default", "second"], Complete("Export-LoKrAdapter -Model $model -Destination x -Name "));
        Assert.Contains("second", Complete("Start-LoKrTraining -Model $model -Data x -AdapterName s"));
        Assert.Contains("LayerNorm", Complete("Get-LoKrModule -Model $model -Type La"));
    }

    [Fact]
    public void The_model_may_stand_anywhere_before_in_the_pipeline()
    {
        ImportAdapted();
        Assert.Contains("bert.encoder.layer.0.attention.self.query", Complete("$model | Get-LoKrModule bert.encoder.layer.0"));
        Assert.Equal(["default"], Complete("$model | Merge-LoKrAdapter | Export-LoKrAdapter x -Name d"));
        Assert.Equal(["default"], Complete("New-LoKrConfig | Add-LoKrAdapter $model -Name other | Start-LoKrTraining x -AdapterName d"));
        Assert.Contains("LayerNorm", Complete("$model | Get-LoKrModule -Type La"));
        Host.Output("$pair = @{ Encoder = $model }");
        Assert.Equal(["default"], Complete("$pair.Encoder | Merge-LoKrAdapter d"));
        Assert.Equal(["default"], Complete("Merge-LoKrAdapter -Model $pair.Encoder -Name d"));
        Assert.DoesNotContain("default", Complete("$nothing | Merge-LoKrAdapter d"));
    }

    [Fact]
    public void Nothing_is_offered_for_a_model_that_is_not_there() =>
        Assert.DoesNotContain("default", Complete("Merge-LoKrAdapter -Model $nothing -Name d"));

    private string[] Complete(string line)
    {
        using System.Management.Automation.PowerShell shell = System.Management.Automation.PowerShell.Create(Host.Runspace);
        return [.. CommandCompletion.CompleteInput(line, line.Length, null, shell).CompletionMatches.Select(match => match.CompletionText)];
    }
}
