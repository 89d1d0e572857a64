using System.Text.Json;
using LoKr.Core.Configuration;
using LoKr.Core.Layouts;
using LoKr.Testing;
using Xunit;

namespace LoKr.Core.Tests.Layouts;

/// <summary>Descriptions of files that PEFT, LyCORIS and diffusers wrote.</summary>
public sealed class InspectionTests
{
    public static TheoryData<string> LycorisCases => Fixtures.Cases("lycoris", static folder => File.Exists(Path.Combine(folder, "adapter.safetensors")));

    public static TheoryData<string> PeftCases => Fixtures.Cases("peft-layers");

    [Theory]
    [MemberData(nameof(LycorisCases))]
    public void LyCORIS_files_have_the_scale_that_LyCORIS_used(string name)
    {
        string folder = Fixtures.Require("lycoris", name);
        JsonElement json = JsonDocument.Parse(File.ReadAllText(Path.Combine(folder, "case.json"))).RootElement;
        JsonElement options = json.GetProperty("options");
        LoKrAdapterInfo info = AdapterInspector.Inspect(Path.Combine(folder, "adapter.safetensors"));
        Assert.Equal(AdapterLayout.Kohya, info.Layout);
        Assert.Equal(["Unet"], info.Components);
        Assert.Equal(1, info.ModuleCount);
        Assert.Equal(ScalingConvention.Lycoris, info.Scaling);
        Assert.Equal(json.GetProperty("scale").GetDouble(), info.Scale!.Value, 1e-6);
        Assert.Equal(json.GetProperty("keys").EnumerateObject().Count(), info.TensorCount);
        Assert.NotNull(info.Factor);
        if (info.Rank is long rank && info.TensorKinds.Any(static kind => kind.EndsWith("_a", StringComparison.Ordinal)))
        {
            Assert.Equal(options.GetProperty("lora_dim").GetInt64(), rank);
        }
    }

    [Theory]
    [MemberData(nameof(PeftCases))]
    public void PEFT_folders_have_the_rank_alpha_and_factor_of_their_configuration(string name)
    {
        string folder = Fixtures.Require("peft-layers", name);
        JsonElement config = JsonDocument.Parse(File.ReadAllText(Path.Combine(folder, "adapter_config.json"))).RootElement;
        LoKrAdapterInfo info = AdapterInspector.Inspect(folder);
        Assert.Equal(AdapterLayout.Peft, info.Layout);
        Assert.True(info.HasConfig);
        Assert.Equal(folder, info.Path);
        Assert.NotNull(info.Factor);
        if (config.GetProperty("rank_pattern").EnumerateObject().Any() || config.GetProperty("alpha_pattern").EnumerateObject().Any())
        {
            return;
        }

        Assert.Equal([config.GetProperty("r").GetInt64()], info.Ranks);
        Assert.Equal([config.GetProperty("alpha").GetDouble()], info.Alphas);
        Assert.Equal(config.GetProperty("alpha").GetDouble() / config.GetProperty("r").GetDouble(), info.Scale!.Value, 1e-12);
    }

    [Theory]
    [InlineData("diffusers", AdapterLayout.DiffusersModel)]
    [InlineData("lycoris-linear", AdapterLayout.Lycoris)]
    [InlineData("lycoris-conv-flat", AdapterLayout.Lycoris)]
    [InlineData("lycoris-conv-tucker", AdapterLayout.Lycoris)]
    [InlineData("lycoris-dora", AdapterLayout.Lycoris)]
    public void Network_files_are_recognized(string name, AdapterLayout layout)
    {
        LoKrAdapterInfo info = AdapterInspector.Inspect(Fixtures.Require("formats", name));
        Assert.Equal(layout, info.Layout);
        Assert.Equal(layout == AdapterLayout.DiffusersModel, info.HasConfig);
        Assert.True(info.ModuleCount > 10);
        Assert.Contains("lokr_w1", string.Join(' ', info.TensorKinds), StringComparison.Ordinal);
        Assert.Equal(name == "lycoris-dora", info.TensorKinds.Contains("dora_scale"));
        Assert.Equal(name == "lycoris-conv-tucker", info.TensorKinds.Contains("lokr_t2"));
        Assert.Equal(layout == AdapterLayout.Lycoris, info.TensorKinds.Contains("alpha"));
        Assert.NotNull(info.Factor);
        Assert.Equal("float32", info.DType);
    }

    [Theory]
    [InlineData("network.safetensors")]
    [InlineData("network-published-names.safetensors")]
    public void A_kohya_network_has_a_unet_and_a_text_encoder(string file)
    {
        LoKrAdapterInfo info = AdapterInspector.Inspect(Fixtures.Require("lycoris", "kohya-tiny-sd", file));
        Assert.Equal(AdapterLayout.Kohya, info.Layout);
        Assert.Equal(["Unet", "TextEncoder"], info.Components);
        JsonElement modules = JsonDocument.Parse(File.ReadAllText(Fixtures.Require("lycoris", "kohya-tiny-sd", "case.json"))).RootElement.GetProperty("modules");
        Assert.Equal(modules.GetArrayLength(), info.ModuleCount);
    }
}
