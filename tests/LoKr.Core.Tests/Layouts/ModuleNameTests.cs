using System.Text.Json;
using System.Text.RegularExpressions;
using LoKr.Core.Errors;
using LoKr.Core.Layouts;
using LoKr.Core.Layouts.Names;
using LoKr.Core.Merging.Checkpoints;
using LoKr.Core.Safetensors;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Layouts;

/// <summary>Names of other programs for the modules of published models.</summary>
public sealed class ModuleNameTests
{
    [Theory]
    [InlineData("sdxl-unet", 3)]
    [InlineData("sd15-unet", 3)]
    public void Original_names_of_a_UNet_convert_back_to_those_of_diffusers(string model, int layers)
    {
        string[] names = Names(model);
        ModelPart part = ModelRecognizer.PartOf(names)!;
        HashSet<string> seen = [];
        foreach (string name in names)
        {
            string ldm = Assert.Single(part.Find(SplitName.Of(name), isUnderscored: false), static match => match.Set == NameSets.Diffusers).Place.Name(NameSets.File)!;
            Assert.True(seen.Add(ldm), ldm);
            Assert.Equal(name, Diffusers(ldm, layers, model == "sd15-unet"));
        }
    }

    [Theory]
    [InlineData("sdxl-unet", "input_blocks_4_1_proj_in", "down_blocks.1.attentions.0.proj_in")]
    [InlineData("sdxl-unet", "middle_block_1_transformer_blocks_0_attn1_to_q", "mid_block.attentions.0.transformer_blocks.0.attn1.to_q")]
    [InlineData("sdxl-unet", "output_blocks_2_2_conv", "up_blocks.0.upsamplers.0.conv")]
    [InlineData("sdxl-unet", "label_emb_0_2", "add_embedding.linear_2")]
    [InlineData("sdxl-unet", "down_blocks_1_attentions_0_proj_in", "down_blocks.1.attentions.0.proj_in")]
    [InlineData("sdxl-unet", "down_blocks.1.attentions.0.proj_in", "down_blocks.1.attentions.0.proj_in")]
    [InlineData("sdxl-unet", "input_blocks.4.1.proj_in", "down_blocks.1.attentions.0.proj_in")]
    [InlineData("sd15-text-encoder", "encoder_layers_0_mlp_fc1", "text_model.encoder.layers.0.mlp.fc1")]
    [InlineData("sd15-text-encoder", "text_model_encoder_layers_0_mlp_fc1", "text_model.encoder.layers.0.mlp.fc1")]
    [InlineData("sd15-text-encoder", "encoder_layers_99_mlp_fc1", null)]
    public void A_name_is_found_in_every_form(string model, string given, string? expected)
    {
        ModuleNameIndex index = ModuleNameIndex.FromFiles(model, isSingleFile: false, [new(AdapterComponent.Model, null, [.. Names(model).Select(static name => new KnownModule(name, null))])]);
        Assert.Equal(expected, index.Find(AdapterComponent.Unet, given)?.Name);
        Assert.Equal(expected, index.Find(AdapterComponent.Model, given)?.Name);
    }

    [Fact]
    public void Two_modules_of_one_underscored_name_are_not_found()
    {
        ModuleNameIndex index = ModuleNameIndex.FromFiles("x", isSingleFile: false, [new(AdapterComponent.Model, null, [new("a.b_c", null), new("a_b.c", null), new("d.e", null)])]);
        Assert.Null(index.Find(AdapterComponent.Model, "a_b_c"));
        Assert.Equal("a.b_c", index.Find(AdapterComponent.Model, "a.b_c")!.Name);
        Assert.Equal("d.e", index.Find(AdapterComponent.Model, "d_e")!.Name);
    }

    [Fact]
    public void A_bare_base_model_fits_an_adapter_with_a_prefix_as_in_a_merge()
    {
        using TempFolder folder = new();
        using DisposeScope scope = NewDisposeScope();
        Directory.CreateDirectory(folder["base"]);
        CheckpointWriter.Write(folder["base"], new Dictionary<string, Tensor> { ["encoder.layer.0.attention.self.query.weight"] = zeros(8, 8), ["encoder.layer.0.output.dense.weight"] = zeros(8, 16) });
        SafetensorsWriter.Write(folder["adapter.safetensors"], new Dictionary<string, Tensor>
        {
            ["bert.encoder.layer.0.attention.self.query.lokr_w1"] = ones(2, 2), ["bert.encoder.layer.0.attention.self.query.lokr_w2"] = ones(4, 4),
        });
        AdapterConvertOptions options = new() { BasePath = folder["base"] };
        AdapterConverter.Convert(folder["adapter.safetensors"], folder["peft"], AdapterLayout.Peft, options, out _);
        using (PeftAdapterFolder written = PeftAdapterFolder.Read(folder["peft"]))
        {
            Assert.Contains("bert.encoder.layer.0.attention.self.query.lokr_w1", written.Tensors.Entries.Keys);
        }

        foreach (string adapter in (string[])["adapter.safetensors", "peft"])
        {
            using CheckpointMerge merge = CheckpointMerge.Open(new() { Base = CheckpointBase.Read(folder["base"]), Adapters = [new AdapterMergeSource(folder[adapter])], Destination = folder["merged"], Force = true });
            Assert.Equal(1, merge.ModuleCount);
        }

        SafetensorsWriter.Write(folder["other.safetensors"], new Dictionary<string, Tensor> { ["bert.decoder.mix.lokr_w1"] = ones(2, 2), ["bert.decoder.mix.lokr_w2"] = ones(4, 4) });
        ErrorAssert.Throws(ErrorIds.AdapterModulesUnknown, () => AdapterConverter.Convert(folder["other.safetensors"], folder["no"], AdapterLayout.Peft, options, out _));
    }

    [Fact]
    public void A_single_file_that_no_table_knows_is_not_a_unet()
    {
        using TempFolder folder = new();
        using DisposeScope scope = NewDisposeScope();
        SafetensorsWriter.Write(folder["base.safetensors"], new Dictionary<string, Tensor> { ["trunk.0.mix.weight"] = zeros(8, 8) });
        SafetensorsWriter.Write(folder["adapter.safetensors"], new Dictionary<string, Tensor> { ["trunk.0.mix.lokr_w1"] = ones(2, 2), ["trunk.0.mix.lokr_w2"] = ones(4, 4) });
        AdapterConvertOptions options = new() { BasePath = folder["base.safetensors"] };
        ErrorAssert.Throws(ErrorIds.ConversionUnsupported, () => AdapterConverter.Convert(folder["adapter.safetensors"], folder["kohya.safetensors"], AdapterLayout.Kohya, options, out _));
        AdapterConverter.Convert(folder["adapter.safetensors"], folder["kohya.safetensors"], AdapterLayout.OneTrainer, options with { Read = new() { Component = AdapterComponent.Transformer } }, out _);
        using SafetensorsReader written = SafetensorsReader.Open(folder["kohya.safetensors"]);
        Assert.Contains("lora_transformer_trunk_0_mix.lokr_w1", written.Entries.Keys);
    }

    [Fact]
    public void A_pipeline_folder_has_the_names_for_a_kohya_network()
    {
        using TempFolder folder = new();
        string kohya = Fixtures.Require("lycoris", "kohya-tiny-sd", "network-published-names.safetensors");
        AdapterConvertOptions options = new() { BasePath = Fixtures.Require("diffusers", "tiny-sd") };
        LoKrAdapterInfo comfy = AdapterConverter.Convert(kohya, folder["comfy.safetensors"], AdapterLayout.Comfy, options, out _);
        Assert.Equal(["Unet", "TextEncoder"], comfy.Components);

        // LyCORIS sorts the factors of four channels split by 4, and PEFT does not.
        Assert.Equal(ErrorIds.ConversionUnsupported, Assert.Throws<LoKrException>(() => AdapterConverter.Convert(kohya, folder["diffusers"], AdapterLayout.Diffusers, options, out _)).ErrorId);
        LoKrAdapterInfo unet = AdapterConverter.Convert(kohya, folder["unet"], AdapterLayout.Peft, options with { Read = new() { Component = AdapterComponent.Unet } }, out IReadOnlyList<string> warnings);
        Assert.Contains("PEFT cannot", Assert.Single(warnings), StringComparison.Ordinal);
        Assert.True(unet.ModuleCount < comfy.ModuleCount);
        Assert.Equal(ErrorIds.ConversionUnsupported, Assert.Throws<LoKrException>(() => AdapterConverter.Convert(kohya, folder["all"], AdapterLayout.Peft, options, out _)).ErrorId);

        // Every layout with names for both components preserves the factors and alphas that kohya's trainer wrote.
        string last = folder["comfy.safetensors"];
        foreach (AdapterLayout layout in (AdapterLayout[])[AdapterLayout.OneTrainer, AdapterLayout.Comfy, AdapterLayout.Kohya])
        {
            string next = folder[$"{layout}-back.safetensors"];
            AdapterConverter.Convert(last, next, layout, new(), out _);
            last = next;
        }

        using SafetensorsReader expected = SafetensorsReader.Open(kohya);
        using SafetensorsReader actual = SafetensorsReader.Open(last);
        using DisposeScope scope = NewDisposeScope();
        Assert.Equal(expected.Entries.Keys.Order(StringComparer.Ordinal), actual.Entries.Keys.Order(StringComparer.Ordinal));
        Assert.All(expected.Entries.Keys, key => Assert.True(TensorAssert.Same(expected.Read(key), actual.Read(key)), key));
    }

    [Theory]
    [InlineData("lycoris-linear", AdapterLayout.Bare)]
    [InlineData("lycoris-conv-flat", AdapterLayout.OneTrainer)]
    [InlineData("lycoris-conv-tucker", AdapterLayout.Peft)]
    [InlineData("lycoris-dora", AdapterLayout.Hcp)]
    [InlineData("diffusers", AdapterLayout.Kohya)]
    public void Networks_of_the_fixtures_keep_their_factors_in_another_layout(string name, AdapterLayout layout)
    {
        using TempFolder folder = new();
        using DisposeScope scope = NewDisposeScope();
        string destination = folder[layout is AdapterLayout.Peft ? "a" : "a.safetensors"];
        LoKrAdapterInfo before = AdapterInspector.Inspect(Fixtures.Require("formats", name));
        LoKrAdapterInfo after = AdapterConverter.Convert(Fixtures.Require("formats", name), destination, layout, new() { BasePath = Fixtures.Require("diffusers", "tiny-sd", "unet") }, out _);
        Assert.Equal(before.ModuleCount, after.ModuleCount);
        Assert.Equal(before.ParameterCount, after.ParameterCount);
        using AdapterFile first = AdapterFile.Open(before.Path);
        using AdapterFile second = AdapterFile.Open(after.Path);
        foreach ((AdapterFileModule left, AdapterFileModule right) in first.Modules.OrderBy(Key, StringComparer.Ordinal).Zip(second.Modules.OrderBy(Key, StringComparer.Ordinal)))
        {
            Assert.Equal(Key(left), Key(right));
            Assert.All(left.Tensors.Where(static pair => pair.Key is not ("alpha" or "lokr_w1")), pair => Assert.True(TensorAssert.Same(first.Tensors.Read(pair.Value.Name), second.Tensors.Read(right.Tensors[pair.Key].Name))));
        }

        static string Key(AdapterFileModule module) => module.Name.Replace('.', '_');
    }

    private static string[] Names(string model)
    {
        JsonElement shapes = JsonDocument.Parse(File.ReadAllText(Fixtures.Require("shapes", $"{model}.json"))).RootElement;
        return [.. shapes.GetProperty("parameters").EnumerateObject().Where(static entry => entry.Name.EndsWith(".weight", StringComparison.Ordinal)).Select(static entry => entry.Name[..^".weight".Length])];
    }

    /// <summary>diffusers' rules for the conversion of original names.</summary>
    private static string Diffusers(string name, int layers, bool upsamplesWithoutAttention)
    {
        Dictionary<string, string> roots = new()
        {
            ["input_blocks.0.0"] = "conv_in", ["out.0"] = "conv_norm_out", ["out.2"] = "conv_out", ["time_embed.0"] = "time_embedding.linear_1",
            ["time_embed.2"] = "time_embedding.linear_2", ["label_emb.0.0"] = "add_embedding.linear_1", ["label_emb.0.2"] = "add_embedding.linear_2",
        };
        if (roots.TryGetValue(name, out string? root))
        {
            return root;
        }

        Match match = Regex.Match(name, @"^(input_blocks|output_blocks)\.(\d+)\.(\d)\.(.+)$");
        if (!match.Success)
        {
            Match middle = Regex.Match(name, @"^middle_block\.(\d)\.(.+)$");
            return middle.Groups[1].Value == "1" ? $"mid_block.attentions.0.{middle.Groups[2].Value}" : $"mid_block.resnets.{int.Parse(middle.Groups[1].ValueSpan, System.Globalization.CultureInfo.InvariantCulture) / 2}.{Resnet(middle.Groups[2].Value)}";
        }

        (int i, string j, string rest) = (int.Parse(match.Groups[2].ValueSpan, System.Globalization.CultureInfo.InvariantCulture), match.Groups[3].Value, match.Groups[4].Value);
        bool down = match.Groups[1].Value == "input_blocks";
        string block = down ? $"down_blocks.{(i - 1) / layers}" : $"up_blocks.{i / layers}";
        int layer = (down ? i - 1 : i) % layers;
        return rest == "op" ? $"{block}.downsamplers.0.conv"
            : rest == "conv" && (j == "2" || (upsamplesWithoutAttention && j == "1")) ? $"{block}.upsamplers.0.conv"
            : j == "0" ? $"{block}.resnets.{layer}.{Resnet(rest)}"
            : $"{block}.attentions.{layer}.{rest}";
    }

    private static string Resnet(string inner) => inner switch
    {
        "in_layers.0" => "norm1",
        "in_layers.2" => "conv1",
        "emb_layers.1" => "time_emb_proj",
        "out_layers.0" => "norm2",
        "out_layers.3" => "conv2",
        "skip_connection" => "conv_shortcut",
        _ => throw new InvalidOperationException(inner),
    };
}
