using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.PowerShell.Tests.Support;
using TorchSharp;
using Xunit;

namespace LoKr.PowerShell.Tests;

/// <summary>Merge-LoKrAdapter -Path: from folder to folder.</summary>
public sealed class DiskMergeTests : ModuleTest
{
    [Fact]
    public void A_folder_is_merged_into_another_as_in_memory()
    {
        LoKrModel model = Adapted();
        ScriptResult run = Host.Run("Merge-LoKrAdapter -Path \"$root/ber*\" -Adapter \"$root/sav*\" -Destination \"$root/merged\" -Safe -Verbose");
        LoKrMergeResult result = Assert.IsType<LoKrMergeResult>(Assert.Single(run.Output).BaseObject);
        Assert.Equal(["saved"], result.Adapters);
        Assert.Equal((4, 1, 0), (result.ModuleCount, result.SavedModuleCount, result.ResumedFileCount));
        Assert.Equal(Folder["merged"], result.Destination);
        Assert.Equal(new FileInfo(Folder["merged", "model.safetensors"]).Length, result.ByteCount);
        Assert.Contains(run.Verbose, static line => line.Contains("4 weights", StringComparison.Ordinal));
        Assert.Contains(run.Warnings, static line => line.Contains("LABEL_0", StringComparison.Ordinal));

        Assert.NotEmpty(run.Progress);
        Assert.Empty(Directory.EnumerateFileSystemEntries(Folder.Path, ".*"));

        using DisposeScope scope = torch.NewDisposeScope();
        Host.Output("$null = $model | Merge-LoKrAdapter");
        IReadOnlyDictionary<string, torch.Tensor> expected = model.GetBaseState();
        LoKrModel merged = Host.One<LoKrModel>("Import-LoKrModel \"$root/merged\"");
        Assert.Equal(3, ((ISequenceClassifier)merged.Module).Labels.Count);
        Assert.All(merged.GetBaseState(), pair => Assert.True(pair.Value.eq(expected[pair.Key]).all().ToBoolean(), pair.Key));
        merged.Dispose();
    }

    [Fact]
    public void Weights_belong_to_adapters_in_their_order()
    {
        Adapted();
        Host.Output("$null = $model | Remove-LoKrAdapter default; $null = New-LoKrConfig -TargetModules query -InitWeights Random | Add-LoKrAdapter $model -Name q -Seed 3 | Export-LoKrAdapter \"$root/q\" -Name q");
        LoKrMergeResult result = Host.One<LoKrMergeResult>("Merge-LoKrAdapter -LiteralPath $path -Adapter \"$root/q\" -Weight 0.5 -Destination \"$root/one\"");
        Assert.Equal(2, result.ModuleCount);
        Host.Error("LoKr.InvalidArgument", "Merge-LoKrAdapter -Path $path -Adapter \"$root/q\" -Weight 1, 2 -Destination \"$root/two\"");
        Host.Error("LoKr.DestinationExists", "Merge-LoKrAdapter -Path $path -Adapter \"$root/q\" -Destination \"$root/one\"");
        Host.Error("LoKr.InvalidArgument", "Merge-LoKrAdapter -Path $path -Adapter \"$root/q\" -Destination \"$root/two\" -MaxShardSize 0");
        Host.Error("LoKr.ExportIntoSource", "Merge-LoKrAdapter -Path $path -Adapter \"$root/q\" -Destination $path -Force");
        Assert.Equal(2, Host.One<LoKrMergeResult>("Merge-LoKrAdapter -Path $path -Adapter \"$root/q\" -Destination \"$root/one\" -Force").ModuleCount);
        Assert.False(Directory.Exists(Folder["two"]));
    }

    private LoKrModel Adapted()
    {
        LoKrModel model = ImportAdapted();
        Host.Output("$null = $model | Export-LoKrAdapter \"$root/saved\"");
        return model;
    }
}
