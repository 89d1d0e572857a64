using LoKr.Core.Model;
using LoKr.Core.Runtime;
using LoKr.PowerShell.Tests.Support;
using Xunit;

namespace LoKr.PowerShell.Tests;

/// <summary>The cmdlets of adapters, modules and the runtime one by one.</summary>
public sealed class AdapterTests : ModuleTest
{
    [Fact]
    public void A_saved_adapter_gives_the_same_answers_on_a_fresh_model()
    {
        LoKrModel model = ImportAdapted();
        Host.Output("$null = $model | Start-LoKrTraining -Data $train -MaxSteps 10 -LearningRate 2e-2 | Export-LoKrAdapter \"$root/saved\"");
        LoKrEvaluation before = Host.One<LoKrEvaluation>("$model | Measure-LoKrModel $eval");
        IReadOnlyList<object> output = Host.Output("""
            $fresh = Import-LoKrModel $path -Label network, access, billing -Seed 9 3>$null
            $null = $fresh | Import-LoKrAdapter "$root/saved" -Name again
            $fresh | Measure-LoKrModel $eval
            $fresh
            """);
        LoKrModel fresh = Assert.IsType<LoKrModel>(output[1]);
        Assert.Equal(before.Loss, Assert.IsType<LoKrEvaluation>(output[0]).Loss, 1e-6);
        Assert.Equal(["again"], fresh.ActiveAdapters);
        Assert.False(fresh.Adapters[0].IsTrainable);
        Assert.Equal(model.SourcePath, fresh.Adapters[0].Config.BaseModelNameOrPath);
        fresh.Dispose();
    }

    [Fact]
    public void Only_an_adapter_imported_as_trainable_takes_gradients()
    {
        LoKrModel model = ImportAdapted();
        Host.Output("$null = $model | Export-LoKrAdapter \"$root/saved\" | Import-LoKrAdapter \"$root/sav*\" -Name b -Trainable");
        Assert.True(model.GetAdapter("b").IsTrainable);
    }

    [Fact]
    public void Merge_and_undo_pass_the_model_on_and_bring_the_loss_back()
    {
        LoKrModel model = ImportAdapted();
        Host.Output("$null = $model | Start-LoKrTraining -Data $train -MaxSteps 5");
        double before = Host.One<LoKrEvaluation>("$model | Measure-LoKrModel $eval").Loss;
        ScriptResult merged = Host.Run("$model | Merge-LoKrAdapter d* -Safe -Verbose");
        Assert.Same(model, Assert.Single(merged.Output).BaseObject);
        Assert.Contains(merged.Verbose, line => line.Contains("4 weights", StringComparison.Ordinal));
        Assert.Equal(4, model.LastMerge!.ModuleCount);
        Host.Error("LoKr.NothingToMerge", "$model | Merge-LoKrAdapter");
        Assert.Same(model, Host.One<LoKrModel>("$model | Undo-LoKrMerge"));
        Assert.Equal(before, Host.One<LoKrEvaluation>("$model | Measure-LoKrModel $eval").Loss, 1e-9);
        Host.Error("LoKr.NothingToMerge", "$model | Undo-LoKrMerge");
    }

    [Fact]
    public void Modules_are_listed_by_name_type_and_adapter()
    {
        ImportAdapted();
        Assert.Equal(4, Host.Output("$model | Get-LoKrModule *.query, *.VALUE").Count);
        Assert.Equal(5, Host.Output("$model | Get-LoKrModule -Adapted").Count);
        Assert.All(Host.Output("$model | Get-LoKrModule -Type Emb*").Cast<LoKrModuleInfo>(), module => Assert.Equal("Embedding", module.ModuleType));
        LoKrModuleInfo query = Host.One<LoKrModuleInfo>("$model | Get-LoKrModule *.0.attention.self.query");
        Assert.Equal([16, 16], query.Shape);
        Assert.Equal(["default"], query.Adapters);
        Assert.Empty(Host.Output("$model | Get-LoKrModule nothing"));
    }

    [Fact]
    public void A_second_adapter_of_the_same_name_is_refused()
    {
        ImportAdapted();
        Host.Error("LoKr.AdapterExists", "$model | Add-LoKrAdapter -Config (New-LoKrConfig -TargetModules query)");
    }

    [Fact]
    public void Shards_of_an_export_are_read_again()
    {
        ImportAdapted();
        DirectoryInfo folder = Host.One<DirectoryInfo>("$model | Merge-LoKrAdapter | Export-LoKrModel \"$root/sharded\" -MaxShardSize 4KB -PassThru");
        Assert.True(folder.GetFiles("*.safetensors").Length > 2);
        Assert.True(File.Exists(Path.Combine(folder.FullName, "model.safetensors.index.json")));
        Host.Output("(Import-LoKrModel \"$root/sharded\").Dispose()");
    }

    [Fact]
    public void Weights_take_the_type_that_is_asked_for()
    {
        Host.Set("path", TinyModel.WriteBert(Folder["bert"]));
        Assert.Equal(TorchSharp.torch.ScalarType.BFloat16, Host.One<LoKrModel>("Import-LoKrModel $path -Label a, b -DType bfloat16 3>$null").DType);
    }

    [Fact]
    public void The_runtime_is_shown_and_tested()
    {
        LoKrRuntimeInfo runtime = Host.One<LoKrRuntimeInfo>("Get-LoKrRuntime");
        Assert.True(runtime.IsLoaded);
        Assert.Contains("cpu", runtime.Devices);
        Assert.Equal(runtime.Path, Host.One<LoKrRuntimeInfo>("Get-LoKrRuntime -NoLoad").Path);
        Assert.True(Host.One<bool>("Test-LoKrRuntime"));
        Assert.True(Host.One<bool>("Test-LoKrRuntime -Device cpu"));
        Assert.False(Host.One<bool>("Test-LoKrRuntime -Device cuda:31"));
        ScriptResult missing = Host.Run("Test-LoKrRuntime -RuntimePath $root -Verbose");
        Assert.False((bool)Assert.Single(missing.Output).BaseObject);
        Assert.NotEmpty(missing.Verbose);
        Host.Error("LoKr.RuntimeNotFound", "Get-LoKrRuntime -RuntimePath $root");
        Host.Error("LoKr.DeviceInvalid", "Test-LoKrRuntime -Device tpu");
    }
}
