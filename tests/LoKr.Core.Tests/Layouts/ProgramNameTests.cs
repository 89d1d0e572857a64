using LoKr.Core.Layouts;
using LoKr.Core.Layouts.Names;
using LoKr.Core.Safetensors;
using LoKr.Testing;
using Xunit;

namespace LoKr.Core.Tests.Layouts;

/// <summary>Files of trainers get names that the programs of a layout read.</summary>
public sealed class ProgramNameTests : IDisposable
{
    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData("peft-diffusion")]
    [InlineData("peft-transformer")]
    [InlineData("model-diffusion")]
    [InlineData("transformer-peft")]
    public void Prefixes_in_prefixes_are_taken_off(string name)
    {
        string source = Fixtures.RequireBeside("cases", "nested-prefixes", $"{name}.safetensors");
        AdapterConvertOptions options = new() { Read = new() { Component = AdapterComponent.Transformer } };
        Assert.Equal(["lora_unet_layers_0_attention_to_q", "lora_unet_layers_1_attention_to_q"], Convert(source, "kohya.safetensors", AdapterLayout.Kohya, options));
        options = new() { BasePath = Fixtures.RequireBeside("cases", "nested-prefixes", "base") };
        Assert.Equal(["base_model.model.layers.0.attention.to_q", "base_model.model.layers.1.attention.to_q"], Convert(source, "peft", AdapterLayout.Peft, options));
    }

    [Fact]
    public void Split_names_of_Flux_are_written_as_ComfyUI_reads_them()
    {
        string folder = Fixtures.RequireBeside("cases", "flux-comfy-names");
        string[] names = Convert(Path.Combine(folder, "pytorch_lora_weights.safetensors"), "a.safetensors", AdapterLayout.Comfy, new() { BasePath = Path.Combine(folder, "base") });
        Assert.Contains("transformer.transformer_blocks.0.attn.to_q", names);
        NameTranslator flux = new(NameTables.All.Single(static family => family.Name == "flux1"));
        Assert.All(names, name => Assert.NotNull(flux.Read(AdapterProgram.ComfyUI, name)));
        Assert.Equal(AdapterLayout.Comfy, AdapterInspector.Inspect(_folder["a.safetensors"]).Layout);
    }

    [Fact]
    public void Names_of_diffusers_become_those_of_the_original_UNet_for_ComfyUI()
    {
        string[] names = Convert(Fixtures.RequireBeside("cases", "sd15-unet-comfy-names", "unet"), "a.safetensors", AdapterLayout.Comfy, new() { Read = new() { Component = AdapterComponent.Unet } });
        Assert.Equal(
            ["diffusion_model.input_blocks.1.1", "diffusion_model.input_blocks.5.1", "diffusion_model.middle_block.1", "diffusion_model.output_blocks.5.1"],
            names.Select(static name => string.Join('.', name.Split('.').Take(name.Contains("middle", StringComparison.Ordinal) ? 3 : 4))).Order(StringComparer.Ordinal));
    }

    [Fact]
    public void The_blocks_of_a_transformer_are_not_taken_for_a_UNet()
    {
        string source = Fixtures.RequireBeside("cases", "zimage-component", "style.safetensors");
        Assert.All(Convert(source, "a.safetensors", AdapterLayout.Diffusers), static name => Assert.StartsWith("transformer.layers.", name, StringComparison.Ordinal));
        Assert.All(Convert(source, "b.safetensors", AdapterLayout.OneTrainer), static name => Assert.StartsWith("lora_transformer_layers_", name, StringComparison.Ordinal));
    }

    /// <summary>Adapters of the same tensors under the names of different programs are read as one.</summary>
    [Theory]
    [InlineData("flux1", "bfl", "kohya")]
    [InlineData("flux1", "diffusers", "onetrainer")]
    [InlineData("flux1", "diffusers", "simpletuner")]
    [InlineData("flux1", "nested", "model-prefix")]
    [InlineData("flux1", "nested", "compiled")]
    [InlineData("qwen-image", "aitoolkit", "bare")]
    [InlineData("qwen-image", "aitoolkit", "kohya")]
    [InlineData("z-image", "diffusers", "simpletuner")]
    [InlineData("z-image", "comfy", "kohya")]
    [InlineData("ace-step", "original", "kohya")]
    [InlineData("ace-step", "original", "comfy")]
    [InlineData("ace-step-1.5", "peft", "lycoris")]
    [InlineData("ace-step-1.5", "peft", "comfy")]
    public void Names_of_two_programs_are_the_same_places(string model, string left, string right)
    {
        WeightPlace[] first = Places(model, left);
        Assert.NotEmpty(first);
        Assert.Equal(first.ToHashSet(), [.. Places(model, right)]);
    }

    [Fact]
    public void A_whole_checkpoint_has_the_names_of_its_parts()
    {
        string checkpoint = Fixtures.Require("checkpoints", "sd15", "checkpoint.safetensors");
        foreach (string adapter in (string[])["kohya", "comfy", "simpletuner"])
        {
            string[] names = Convert(Fixtures.Require("checkpoints", "sd15", $"adapter-{adapter}.safetensors"), $"{adapter}.safetensors", AdapterLayout.Comfy, new() { BasePath = checkpoint });
            NameTranslator sd = new(NameTables.All.Single(static family => family.Name == "sd"));
            Assert.All(names, name => Assert.NotNull(sd.Read(AdapterProgram.ComfyUI, name)));
        }
    }

    private static WeightPlace[] Places(string model, string adapter)
    {
        using AdapterFile file = AdapterFile.Open(Fixtures.Require("checkpoints", model, $"adapter-{adapter}.safetensors"));
        Assert.Empty(AdapterReading.Of(file, new()).Findings);
        Assert.NotNull(file.Model);
        NameTranslator translator = new(file.Model.Candidates.Single(family => family.Name == model));
        return [.. file.Modules.Select(module => translator.Find(AdapterKey.Split(module.Tensors.Values.First().Name).Module)[0].Place)];
    }

    private string[] Convert(string source, string destination, AdapterLayout layout, AdapterConvertOptions? options = null)
    {
        AdapterConverter.Convert(source, _folder[destination], layout, (options ?? new()) with { Force = true }, out _);
        string file = Directory.Exists(_folder[destination]) ? Path.Combine(_folder[destination], PeftAdapterFolder.WeightsFile) : _folder[destination];
        using SafetensorsReader reader = SafetensorsReader.Open(file);
        return [.. reader.Entries.Keys.Select(static key => key[..key.LastIndexOf('.')]).Distinct()];
    }
}
