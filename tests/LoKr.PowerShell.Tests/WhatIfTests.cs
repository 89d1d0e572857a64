using LoKr.Core.Configuration;
using LoKr.Core.Model;
using LoKr.PowerShell.Tests.Support;
using TorchSharp;
using Xunit;

namespace LoKr.PowerShell.Tests;

/// <summary>-WhatIf changes neither the model nor the disk, and the pipeline goes on.</summary>
public sealed class WhatIfTests : ModuleTest
{
    [Fact]
    public void The_whole_pipeline_can_be_rehearsed()
    {
        LoKrModel model = ImportBert();
        Host.Output("""
            $WhatIfPreference = $true
            New-LoKrConfig -TargetModules query | Add-LoKrAdapter $model | Start-LoKrTraining -Data $train |
                Merge-LoKrAdapter | Export-LoKrModel "$root/x"
            $WhatIfPreference = $false
            """);
        Assert.Empty(model.Adapters);
        Assert.False(Directory.Exists(Folder["x"]));
    }

    [Theory]
    [InlineData("New-LoKrConfig -TargetModules key | Add-LoKrAdapter $model -Name other -WhatIf")]
    [InlineData("$model | Import-LoKrAdapter \"$root/saved\" -Name other -WhatIf")]
    [InlineData("$model | Export-LoKrAdapter \"$root/new\" -WhatIf")]
    [InlineData("$model | Merge-LoKrAdapter -WhatIf")]
    [InlineData("$model | Start-LoKrTraining -Data $train -ValidationData $eval -WhatIf")]
    [InlineData("$train2 | Start-LoKrTraining -Model $model -WhatIf")]
    public void Each_cmdlet_passes_the_model_on_unchanged(string script)
    {
        LoKrModel model = ImportAdapted();
        Host.Output("$null = $model | Export-LoKrAdapter \"$root/saved\"; $train2 = @{ text = 'vpn'; label = 'network' }, @{ text = 'card'; label = 'billing' }");
        float[] before = State(model);
        string[] files = Files();

        Assert.Same(model, Host.One<LoKrModel>(script));

        Assert.Equal(before, State(model));
        Assert.Equal(files, Files());
        Assert.Equal(["default"], model.Adapters.Select(adapter => adapter.Name));
        Assert.Empty(model.MergedAdapters);
        Assert.Null(model.LastTraining);
    }

    [Fact]
    public void Undo_and_export_of_a_merged_model_are_rehearsed_too()
    {
        LoKrModel model = ImportAdapted();
        Host.Output("$model | Merge-LoKrAdapter | Undo-LoKrMerge -WhatIf | Export-LoKrModel \"$root/new\" -WhatIf");
        Assert.Equal(["default"], model.MergedAdapters);
        Assert.False(Directory.Exists(Folder["new"]));
    }

    [Fact]
    public void A_merge_on_disk_is_checked_and_rehearsed()
    {
        ImportAdapted();
        Host.Output("$null = $model | Export-LoKrAdapter \"$root/saved\"");
        string[] files = Files();
        Assert.Empty(Host.Output("Merge-LoKrAdapter -Path $path -Adapter \"$root/saved\" -Destination \"$root/merged\" -WhatIf"));
        Assert.Equal(files, Files());
        Host.Error("LoKr.PathNotFound", "Merge-LoKrAdapter -Path $path -Adapter \"$root/nowhere\" -Destination \"$root/merged\" -WhatIf");
    }

    private string[] Files() => [.. Directory.EnumerateFileSystemEntries(Folder.Path, "*", SearchOption.AllDirectories).Order(StringComparer.Ordinal)];

    private static float[] State(LoKrModel model)
    {
        using DisposeScope scope = torch.NewDisposeScope();
        return [.. model.GetBaseState().OrderBy(entry => entry.Key, StringComparer.Ordinal).Select(entry => entry.Value)
            .Concat(model.Adapters[0].GetTensors().OrderBy(entry => entry.Key, StringComparer.Ordinal).Select(entry => entry.Value))
            .SelectMany(tensor => tensor.detach().cpu().data<float>().ToArray())];
    }
}
