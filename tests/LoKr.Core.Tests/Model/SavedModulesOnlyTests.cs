using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Model;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Model;

public sealed class SavedModulesOnlyTests
{
    [Fact]
    public void An_empty_target_list_beside_modules_to_save_trains_those_alone()
    {
        using LoKrModel model = Model();
        LoKrAdapter adapter = model.AddAdapter(new LoKrConfig { TargetModules = ModuleSelector.FromNames([]), ModulesToSave = ["classifier"] });

        Assert.Empty(adapter.Layers);
        Assert.Equal(["classifier"], adapter.SavedModules);
        Assert.Equal((6 * 3) + 3, adapter.ParameterCount);
    }

    [Fact]
    public void An_empty_target_list_alone_is_refused()
    {
        using LoKrModel model = Model();
        var error = Assert.Throws<LoKrException>(() => model.AddAdapter(new LoKrConfig { TargetModules = ModuleSelector.FromNames([]) }));
        Assert.Equal(ErrorIds.TargetModulesRequired, error.ErrorId);
    }

    private static LoKrModel Model() => new(nn.Sequential(
        ("encoder", nn.Linear(4, 6)),
        ("classifier", nn.Linear(6, 3))));
}
