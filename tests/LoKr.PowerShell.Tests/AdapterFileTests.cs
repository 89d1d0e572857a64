using LoKr.Core.Configuration;
using LoKr.Core.Conversion;
using LoKr.Core.Layouts;
using LoKr.Core.Model;
using LoKr.PowerShell.Tests.Support;
using Xunit;

namespace LoKr.PowerShell.Tests;

/// <summary>Adapter files at the prompt: described, checked, converted, written and loaded in other programs' layouts.</summary>
public sealed class AdapterFileTests : ModuleTest
{
    [Fact]
    public void An_adapter_goes_through_other_layouts_and_back_onto_the_model()
    {
        Save();
        Host.Output("""
            Convert-LoKrAdapter $root/peft $root/kohya.safetensors -Format Kohya | Convert-LoKrAdapter -Destination $root/comfy.safetensors -Format Comfy |
                Convert-LoKrAdapter -Destination $root/back -Format Peft
            """);
        Assert.Equal(File.ReadAllBytes(Folder["peft", "adapter_model.safetensors"]), File.ReadAllBytes(Folder["back", "adapter_model.safetensors"]));
        Assert.Equal(File.ReadAllText(Folder["peft", "adapter_config.json"]), File.ReadAllText(Folder["back", "adapter_config.json"]));
        double before = Host.One<LoKrEvaluation>("$model | Measure-LoKrModel $eval").Loss;
        foreach (string file in (string[])["kohya.safetensors", "comfy.safetensors", "back"])
        {
            Host.Set("file", Folder[file]);
            Assert.Equal(before, Host.One<LoKrEvaluation>("$null = $model | Remove-LoKrAdapter * | Import-LoKrAdapter $file; $model | Measure-LoKrModel $eval").Loss, 1e-6);
        }
    }

    [Fact]
    public void An_adapter_becomes_LoRA_from_the_model_and_from_its_file()
    {
        Save();
        Host.Output("$null = $model | Export-LoKrAdapter $root/whatif -LoraRank 2 -WhatIf; $null = $model | Export-LoKrAdapter $root/lora -LoraEnergy 1");
        Assert.False(Directory.Exists(Folder["whatif"]));
        LoraConversionResult result = Host.One<LoraConversionResult>("Convert-LoKrAdapter $root/peft $root/converted -LoraEnergy 1 -Model $model");
        Assert.Equal((4, 1.0), (result.ModuleCount, Math.Round(result.Energy, 9)));
        Assert.Equal(new FileInfo(Folder["lora", "adapter_model.safetensors"]).Length, new FileInfo(Folder["converted", "adapter_model.safetensors"]).Length);
        Assert.Contains("\"peft_type\": \"LORA\"", File.ReadAllText(Folder["lora", "adapter_config.json"]), StringComparison.Ordinal);
        Assert.Equal(2, Host.One<LoraConversionResult>("[IO.DirectoryInfo]::new(\"$root/peft\") | Convert-LoKrAdapter -Destination $root/two -LoraRank 2").LargestRank);
        Host.Error("LoKr.DestinationExists", "$model | Export-LoKrAdapter $root/lora -LoraRank 2");
        Host.Error("LoKr.RankInvalid", "$model | Export-LoKrAdapter $root/new -LoraRank 0");
        Host.Error("LoKr.RankInvalid", "$model | Export-LoKrAdapter $root/new -LoraRank 100000");
        Host.Error("LoKr.EnergyInvalid", "$model | Export-LoKrAdapter $root/new -LoraEnergy 1.5");
        Assert.False(Directory.Exists(Folder["new"]));
    }

    [Fact]
    public void Files_are_described_from_the_pipeline()
    {
        Save();
        Host.Output("$null = $model | Export-LoKrAdapter $root/a.safetensors -Format Kohya");
        LoKrAdapterInfo[] found = [.. Host.Output("[IO.FileInfo]::new(\"$root/a.safetensors\"), [IO.DirectoryInfo]::new(\"$root/peft\") | Get-LoKrAdapter").Cast<LoKrAdapterInfo>()];
        Assert.Equal([AdapterLayout.Kohya, AdapterLayout.Peft], found.Select(info => info.Layout));
        Assert.All(found, info => Assert.Equal(4, info.ModuleCount));
        Assert.All(found, info => Assert.Equal(2, info.Scale));
        Assert.All(found, info => Assert.Equal(1, info.Rank));
        Host.Error("LoKr.PathNotFound", "Get-LoKrAdapter $root/absent");
        Assert.Single(Host.Run("Get-LoKrAdapter $root/train.jsonl, $root/peft").Output);
    }

    [Fact]
    public void A_check_answers_with_findings_or_yes_and_no()
    {
        Save();
        LoKrAdapterCheck good = Host.One<LoKrAdapterCheck>("Test-LoKrAdapter $root/peft -Values -Model $model");
        Assert.True(good.IsValid);
        Assert.Empty(good.Findings);
        File.WriteAllText(Folder["bad.safetensors"], "no adapter at all");
        LoKrAdapterCheck bad = Host.One<LoKrAdapterCheck>("Test-LoKrAdapter $root/bad.safetensors");
        Assert.False(bad.IsValid);
        Assert.StartsWith("LoKr.Safetensors", Assert.Single(bad.Findings).ErrorId, StringComparison.Ordinal);
        Assert.Equal([true, false], Host.Output("Test-LoKrAdapter $root/peft, $root/bad.safetensors -Quiet").Cast<bool>());
        LoKrModel other = Host.One<LoKrModel>("$other = [LoKr.Core.Model.LoKrModel]::new([TorchSharp.torch+nn]::Linear(3, 4)); $other");
        LoKrAdapterCheck check = Host.One<LoKrAdapterCheck>("Test-LoKrAdapter $root/peft -Model $other");
        Assert.Equal("LoKr.AdapterModulesUnknown", Assert.Single(check.Findings).ErrorId);
        other.Dispose();
    }

    [Theory]
    [InlineData("Convert-LoKrAdapter $root/peft $root/x -Format Kohya", "LoKr.InvalidArgument")]
    [InlineData("Convert-LoKrAdapter $root/peft $root/train.jsonl -Format Peft", "LoKr.DestinationExists")]
    [InlineData("Convert-LoKrAdapter $root/absent $root/x.safetensors -Format Kohya", "LoKr.PathNotFound")]
    [InlineData("$model | Export-LoKrAdapter $root/peft -Format DiffusersModel", "LoKr.DestinationExists")]
    [InlineData("$model | Import-LoKrAdapter $root/peft -Name b -SourceFormat Kohya", "LoKr.AdapterLayoutMixed")]
    [InlineData("$model | Import-LoKrAdapter $root/peft -Name b -Component TextEncoder2", "LoKr.AdapterModulesUnknown")]
    public void Bad_input_has_its_own_error(string script, string id)
    {
        Save();
        Host.Error(id, script);
        Assert.False(Path.Exists(Folder["x"]));
    }

    [Fact]
    public void WhatIf_writes_nothing()
    {
        Save();
        Assert.Empty(Host.Output("Convert-LoKrAdapter $root/peft $root/x.safetensors -Format Kohya -WhatIf"));
        Assert.Same(Host.Get("model"), Host.One<LoKrModel>("$model | Export-LoKrAdapter $root/x.safetensors -Format Kohya -WhatIf"));
        Assert.False(File.Exists(Folder["x.safetensors"]));
    }

    [Fact]
    public void Alpha_and_scaling_can_be_overruled()
    {
        LoKrModel model = Save();
        Host.Output("$null = $model | Import-LoKrAdapter $root/peft -Name b -Alpha 6 | Import-LoKrAdapter $root/peft -Name c -Scaling None");
        Assert.All(model.GetAdapter("b").Layers, layer => Assert.Equal(6, layer.Scaling));
        Assert.All(model.GetAdapter("c").Layers, layer => Assert.Equal(1, layer.Scaling));
    }

    private LoKrModel Save()
    {
        LoKrModel model = ImportBert();
        Host.Output("""
            $null = New-LoKrConfig -R 1 -Alpha 2 -TargetModules query, value -InitWeights Random | Add-LoKrAdapter $model -Seed 1
            $null = $model | Export-LoKrAdapter $root/peft
            """);
        return model;
    }
}
