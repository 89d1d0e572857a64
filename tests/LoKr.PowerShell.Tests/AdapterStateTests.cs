using LoKr.Core.Configuration;
using LoKr.Core.Model;
using LoKr.PowerShell.Tests.Support;
using TorchSharp;
using Xunit;

namespace LoKr.PowerShell.Tests;

/// <summary>Several adapters on one model: which are active, how strong, switched off, removed.</summary>
public sealed class AdapterStateTests : ModuleTest
{
    [Fact]
    public void Active_adapters_add_up_and_scale()
    {
        LoKrModel model = TwoAdapters();
        torch.Tensor x = torch.rand(3, 12);
        torch.Tensor Run(string script)
        {
            Host.Output(script);
            return Forward(model, x);
        }

        torch.Tensor none = Run("$null = $model | Disable-LoKrAdapter");
        torch.Tensor a = Run("$null = $model | Enable-LoKrAdapter | Set-LoKrAdapter a -Active");
        torch.Tensor b = Run("$null = $model | Set-LoKrAdapter b -Active");
        torch.Tensor both = Run("$null = $model | Set-LoKrAdapter a, b -Active");
        torch.Tensor half = Run("$null = $model | Set-LoKrAdapter a -Scale 0.5");

        Testing.TensorAssert.Close(a + b - none, both, 1e-5, "a + b");
        Testing.TensorAssert.Close(both - ((a - none) * 0.5), half, 1e-5, "0.5 a + b");
        Assert.True((a - none).abs().max().ToDouble() > 1e-3);
    }

    [Fact]
    public void States_are_read_at_the_prompt()
    {
        TwoAdapters();
        LoKrAdapterStatus[] adapters = [.. Host.Output("$model | Get-LoKrAdapter").Cast<LoKrAdapterStatus>()];
        Assert.Equal(["a", "b"], adapters.Select(adapter => adapter.Name));
        Assert.Equal([true, false], adapters.Select(adapter => adapter.IsActive));
        Assert.Equal("b", Host.One<LoKrAdapterStatus>("Get-LoKrAdapter -Name b -Model $model").Name);
        Assert.Equal("a", Host.One<LoKrAdapterStatus>("Get-LoKrAdapter -Model $model.Module | Where-Object IsActive").Name);
        Host.Error("LoKr.AdapterNotFound", "$model | Get-LoKrAdapter -Name nope");

        Host.Output("$null = $model | Merge-LoKrAdapter a");
        LoKrModelStatus status = Host.One<LoKrModelStatus>("$model | Get-LoKrAdapter -Summary");
        Assert.Equal(["a"], status.MergedAdapters);
        Assert.All(Host.Output("$model | Get-LoKrAdapter -Name a -ByLayer").Cast<LoKrLayerStatus>(), layer => Assert.Equal(["a"], layer.MergedAdapters));
        Assert.Equal("True", $"{Host.Output("($model | Get-LoKrAdapter -Summary).MergedAdapters -eq 'a' -and ($model | Get-LoKrAdapter -Summary).Enabled -eq 'True'")[0]}");
        Host.Output("$null = $model | Undo-LoKrMerge | Remove-LoKrAdapter *");
        Assert.Empty(Host.Output("$model | Get-LoKrAdapter"));
        Host.Error("LoKr.AdapterNotFound", "$model | Get-LoKrAdapter -ByLayer");
    }

    [Fact]
    public void Removing_adapters_leaves_the_base_model()
    {
        LoKrModel model = TwoAdapters();
        torch.Tensor x = torch.rand(3, 12);
        Host.Output("$null = $model | Disable-LoKrAdapter");
        torch.Tensor none = Forward(model, x);

        Host.Output("$null = $model | Enable-LoKrAdapter | Remove-LoKrAdapter *");

        Assert.Empty(model.Adapters);
        Testing.TensorAssert.Close(none, Forward(model, x), 0, "output");
    }

    [Fact]
    public void An_adapter_can_be_frozen()
    {
        LoKrModel model = TwoAdapters();
        Host.Output("$null = $model | Set-LoKrAdapter a -Trainable:$false");
        Assert.False(model.GetAdapter("a").IsTrainable);
        Host.Error("LoKr.AdapterNotTrainable", "$model | Start-LoKrTraining -AdapterName a -Batch 1 -Loss { }");
    }

    [Theory]
    [InlineData("$model | Set-LoKrAdapter a", "LoKr.InvalidArgument")]
    [InlineData("$model | Set-LoKrAdapter nope -Active", "LoKr.AdapterNotFound")]
    [InlineData("$model | Set-LoKrAdapter nope* -Active", "LoKr.AdapterNotFound")]
    [InlineData("$model | Set-LoKrAdapter a -Scale ([double]::NaN)", "LoKr.InvalidArgument")]
    [InlineData("$model | Remove-LoKrAdapter nope", "LoKr.AdapterNotFound")]
    [InlineData("$model | Merge-LoKrAdapter a | Remove-LoKrAdapter a", "LoKr.AdapterMerged")]
    [InlineData("$model | Merge-LoKrAdapter a | Set-LoKrAdapter a -Scale 2", "LoKr.AdapterMerged")]
    public void Bad_input_has_its_own_error(string script, string id)
    {
        LoKrModel model = TwoAdapters();
        Host.Error(id, script);
        Assert.Equal(["a", "b"], model.Adapters.Select(adapter => adapter.Name));
    }

    [Theory]
    [InlineData("$model | Set-LoKrAdapter b -Active -Scale 3 -WhatIf")]
    [InlineData("$model | Disable-LoKrAdapter -WhatIf")]
    [InlineData("$model | Remove-LoKrAdapter a -WhatIf")]
    public void WhatIf_changes_nothing(string script)
    {
        LoKrModel model = TwoAdapters();
        Assert.Same(model, Host.One<LoKrModel>(script));
        Assert.Equal(["a", "b"], model.Adapters.Select(adapter => adapter.Name));
        Assert.Equal(["a"], model.ActiveAdapters);
        Assert.True(model.AdaptersEnabled);
        Assert.Equal(1, model.GetAdapter("b").Scale);
    }

    private LoKrModel TwoAdapters() => Host.One<LoKrModel>("""
        $net = [TorchSharp.torch+nn]::Sequential(([ValueTuple[string, TorchSharp.torch+nn+Module[TorchSharp.torch+Tensor, TorchSharp.torch+Tensor]]]::new('lin', [TorchSharp.torch+nn]::Linear(12, 8))))
        $model = New-LoKrConfig -R 2 -TargetModules lin -InitWeights Random | Add-LoKrAdapter $net -Name a -Seed 1
        New-LoKrConfig -R 2 -TargetModules lin -InitWeights Random | Add-LoKrAdapter $model -Name b -Seed 2
        """);

    private static torch.Tensor Forward(LoKrModel model, torch.Tensor x)
    {
        using IDisposable noGrad = torch.no_grad();
        return ((torch.nn.Module<torch.Tensor, torch.Tensor>)model.Module).call(x);
    }
}
