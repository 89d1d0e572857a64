using System.Management.Automation;
using LoKr.Core.Configuration;
using LoKr.Core.Model;
using LoKr.Models.Diffusion;
using LoKr.PowerShell.Tests.Support;
using LoKr.Testing;
using Xunit;

namespace LoKr.PowerShell.Tests;

/// <summary>A Stable Diffusion pipeline at the shell.</summary>
public sealed class StableDiffusionTests : ModuleTest
{
    private const string Adapters = """
        $null = New-LoKrConfig -R 8 -Alpha 32 -TargetModules k_proj, q_proj, v_proj, out_proj, fc1, fc2 | Add-LoKrAdapter $sd.TextEncoder -Seed 1
        $null = New-LoKrConfig -R 8 -Alpha 32 -TargetModules proj_in, proj_out, to_k, to_q, to_v, to_out.0, ff.net.0.proj, ff.net.2 -UseEffectiveConv2d |
            Add-LoKrAdapter $sd.UNet -Seed 2
        """;

    private StableDiffusionPipeline? _pipeline;

    [Fact]
    public void A_folder_with_model_index_is_a_pipeline_whose_models_take_adapters()
    {
        StableDiffusionPipeline pipeline = ImportPipeline();
        Host.Output(Adapters);
        Assert.Equal(["text_encoder/default", "unet/default"], pipeline.AdapterNames);
        Assert.True(pipeline.TrainableParameterCount > 0);
        Assert.Equal(12, Host.Output("$sd.TextEncoder | Get-LoKrModule -Adapted").Count);
        Assert.NotEmpty(Host.Output("$sd.UNet | Get-LoKrModule *.to_out.0 -Adapted"));
        Assert.NotEmpty(Host.Output("$sd.UNet | Get-LoKrModule -Type Conv2d, GEGLU"));
    }

    [Fact]
    public void Adapters_of_a_pipeline_go_into_one_file_and_back()
    {
        StableDiffusionPipeline pipeline = ImportPipeline();
        Host.Output(Adapters);
        Assert.Same(pipeline, Host.One<StableDiffusionPipeline>("$sd | Export-LoKrAdapter $root/kohya.safetensors -Format Kohya"));
        long trained = pipeline.TrainableParameterCount;
        Host.Output("$null = $sd.TextEncoder | Remove-LoKrAdapter default; $null = $sd.UNet | Remove-LoKrAdapter default");
        Assert.Same(pipeline, Host.One<StableDiffusionPipeline>("$sd | Import-LoKrAdapter $root/kohya.safetensors -Trainable"));
        Assert.Equal(["text_encoder/default", "unet/default"], pipeline.AdapterNames);
        Assert.Equal(trained, pipeline.TrainableParameterCount);
        Host.Error("LoKr.AdapterExists", "$sd | Import-LoKrAdapter $root/kohya.safetensors");
        Host.Output("$null = $sd | Export-LoKrAdapter $root/peft");
        Assert.True(File.Exists(Folder["peft", "unet", "adapter_model.safetensors"]));
        Host.Error("LoKr.AdapterModulesUnknown", "$sd.UNet | Import-LoKrAdapter $root/kohya.safetensors -Name b");
        Host.Output("$null = $sd.UNet | Import-LoKrAdapter $root/kohya.safetensors -Name b -Component Unet");
    }

    [Fact]
    public void Cmdlets_for_adapters_take_a_pipeline_as_they_take_a_model()
    {
        StableDiffusionPipeline pipeline = ImportPipeline();
        Assert.Same(pipeline, Host.One<StableDiffusionPipeline>("New-LoKrConfig -R 4 -TargetModules q_proj, to_q | Add-LoKrAdapter $sd -Seed 1"));
        Assert.Equal(["text_encoder/default", "unet/default"], pipeline.AdapterNames);
        Assert.Equal(2, Host.Output("$sd | Get-LoKrAdapter").Count);
        Assert.Equal(2, Host.Output("$sd | Get-LoKrConfig -Name default").Count);
        Assert.NotEmpty(Host.Output("$sd | Get-LoKrModule text_encoder.*.q_proj -Adapted"));
        Assert.NotEmpty(Host.Output("$sd | Get-LoKrModule unet.*.to_q -Adapted"));
        Assert.Same(pipeline, Host.One<StableDiffusionPipeline>("$sd | Set-LoKrAdapter default -Scale 0.5 -Active | Disable-LoKrAdapter | Enable-LoKrAdapter | Merge-LoKrAdapter"));
        Assert.All(pipeline.Models.Values, model => Assert.Equal(["default"], model.MergedAdapters));
        Assert.Equal("LoKr.AdapterMerged", Assert.Single(Host.Run("$sd | Remove-LoKrAdapter d*").Errors).FullyQualifiedErrorId.Split(',')[0]);
        Host.Error("LoKr.AdapterNotFound", "$sd | Merge-LoKrAdapter other");
        Assert.Same(pipeline, Host.One<StableDiffusionPipeline>("$sd | Undo-LoKrMerge | Remove-LoKrAdapter d*"));
        Assert.Empty(pipeline.AdapterNames);
    }

    [Fact]
    public void A_merged_pipeline_is_exported_and_imported_again()
    {
        ImportPipeline();
        Host.Output(Adapters);
        Host.Output("$null = $sd.TextEncoder | Merge-LoKrAdapter; $null = $sd.UNet | Merge-LoKrAdapter; Export-LoKrModel $sd -Destination $root/merged");
        Host.Output("$sd | Export-LoKrModel $root/piped");
        foreach (string name in (string[])["merged", "piped"])
        {
            using StableDiffusionPipeline copy = Host.One<StableDiffusionPipeline>($"Import-LoKrModel $root/{name}");
            Assert.Equal("StableDiffusionPipeline", copy.Name);
        }
    }

    [Fact]
    public void Rehearsed_and_unmerged_exports_write_nothing()
    {
        ImportPipeline();
        Assert.Empty(Host.Output("$sd | Export-LoKrModel $root/copy -WhatIf"));
        Host.Output(Adapters);
        ScriptResult result = Host.Run("$sd | Export-LoKrModel $root/copy");
        Assert.StartsWith("LoKr.ExportUnmerged,", Assert.Single(result.Errors).FullyQualifiedErrorId, StringComparison.Ordinal);
        Assert.False(Directory.Exists(Folder["copy"]));
    }

    [Fact]
    public void A_pipeline_survives_serialization_as_plain_figures()
    {
        ImportPipeline();
        PSObject copy = Assert.Single(Host.Run("[System.Management.Automation.PSSerializer]::Deserialize([System.Management.Automation.PSSerializer]::Serialize($sd))").Output);
        Assert.Equal("Deserialized.LoKr.Models.Diffusion.StableDiffusionPipeline", copy.TypeNames[0]);
        Assert.Equal("StableDiffusionPipeline", copy.Properties["Name"].Value);
        Assert.Null(copy.Properties["Vae"]);
        Assert.True(Convert.ToInt64(copy.Properties["ParameterCount"].Value, null) > 0);
    }

    [Fact]
    public void A_folder_that_is_neither_model_nor_pipeline_says_so()
    {
        Directory.CreateDirectory(Folder["empty"]);
        ErrorRecord error = Assert.Single(Host.Run("Import-LoKrModel $root/empty").Errors);
        Assert.StartsWith("LoKr.ModelConfigNotFound,", error.FullyQualifiedErrorId, StringComparison.Ordinal);
        Assert.Contains("model_index.json", error.Exception.Message, StringComparison.Ordinal);
    }

    protected override void Dispose(bool disposing)
    {
        _pipeline?.Dispose();
        base.Dispose(disposing);
    }

    private StableDiffusionPipeline ImportPipeline()
    {
        Host.Set("path", TinyPipeline.Write(Folder["sd"]));
        return _pipeline = Host.One<StableDiffusionPipeline>("$sd = Import-LoKrModel $path; $sd");
    }
}
