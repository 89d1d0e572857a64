using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Layouts;
using LoKr.Core.Model;
using LoKr.Core.Tests.Support;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Layouts;

public sealed class ImportCheckTests
{
    private static readonly LoKrConfig s_config = new() { R = 2, TargetModules = ModuleSelector.FromNames(["q_proj"]), InitWeights = InitWeights.Random };

    [Theory]
    [InlineData(AdapterLayout.Peft, "adapter")]
    [InlineData(AdapterLayout.Lycoris, "adapter.safetensors")]
    public void A_check_refuses_what_an_import_refuses_and_changes_nothing(AdapterLayout layout, string name)
    {
        using DisposeScope scope = NewDisposeScope();
        using TempFolder folder = new();
        using (LoKrModel source = new(TestNetworks.Decoder()))
        {
            source.AddAdapter(s_config, seed: 1);
            AdapterExporter.Export(source, "default", folder[name], layout);
        }

        using LoKrModel model = new(TestNetworks.Decoder());
        AdapterImporter.Check(model, folder[name]);
        Assert.Empty(model.Adapters);
        Assert.All(model.Module.parameters(), static parameter => Assert.True(parameter.requires_grad));
        ErrorAssert.Throws(ErrorIds.AdapterNameInvalid, () => AdapterImporter.Check(model, folder[name], name: "a.b"));
        AdapterImporter.Import((IAdaptable)model, folder[name]);
        ErrorAssert.Throws(ErrorIds.AdapterExists, () => AdapterImporter.Check(model, folder[name]));
        AdapterImporter.Check(model, folder[name], name: "second");
        Assert.Equal(["default"], model.ActiveAdapters);

        using LoKrModel other = new(nn.Sequential(("q_proj", nn.Linear(7, 5))));
        string id = Assert.Throws<LoKrException>(() => AdapterImporter.Import((IAdaptable)other, folder[name])).ErrorId;
        ErrorAssert.Throws(id, () => AdapterImporter.Check(other, folder[name]));
        Assert.Empty(other.Adapters);
    }
}
