using LoKr.Core.Errors;
using LoKr.Core.Layouts;
using LoKr.Core.Layouts.Names;
using LoKr.Core.Merging.Checkpoints;
using LoKr.Core.Model;
using LoKr.Core.Safetensors;
using LoKr.Core.Tests.Merging;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Layouts;

/// <summary>A PEFT folder with LoRA or LoHa becomes a file of another program: its names, alpha in place of the configuration, its name of the magnitudes.</summary>
public sealed class PeftLoraConversionTests : IDisposable
{
    private static readonly string[] s_flux = ["time_text_embed.text_embedder.linear_1", "x_embedder", "transformer_blocks.0.attn.to_q", "transformer_blocks.0.ff.net.0.proj", "single_transformer_blocks.0.proj_out"];

    private readonly TempFolder _folder = new();
    private readonly DisposeScope _scope = NewDisposeScope();

    public void Dispose()
    {
        _scope.Dispose();
        _folder.Dispose();
    }

    [Theory]
    [InlineData(AdapterProgram.ComfyUI)]
    [InlineData(AdapterProgram.Diffusers)]
    [InlineData(AdapterProgram.AiToolkit)]
    [InlineData(AdapterProgram.OneTrainer)]
    [InlineData(AdapterProgram.SimpleTuner)]
    public void The_file_of_a_program_merges_with_the_bits_of_the_folder(AdapterProgram program)
    {
        manual_seed(7);
        string from = Base(s_flux);
        string adapter = Lora(s_flux, """{"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ".*"}""");
        AdapterConverter.Convert(adapter, _folder["file.safetensors"], default, new() { Program = program }, out IReadOnlyList<string> warnings);
        Assert.Empty(warnings);
        Same(from, adapter, _folder["file.safetensors"]);
        Assert.DoesNotContain(AdapterValidator.Check(_folder["file.safetensors"], new() { Program = program }).Findings, static finding => finding.Severity == LoKrFindingSeverity.Error);

        // The folder as it is has PEFT's names, and its scale where only PEFT looks for it.
        string[] findings = [.. AdapterValidator.Check(adapter, new() { Program = program }).Findings.Where(static finding => finding.Severity == LoKrFindingSeverity.Error).Select(static finding => finding.ErrorId)];
        Assert.Contains(ErrorIds.ProgramScaleDiffers, findings);
    }

    [Fact]
    public void Kohya_gets_its_names_of_the_matrices_for_a_model_that_it_knows()
    {
        string[] names = ["down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q", "mid_block.attentions.0.proj_in"];
        string from = Base(names);
        string adapter = Lora(names, """{"peft_type": "LORA", "r": 2, "lora_alpha": 4, "use_rslora": true, "target_modules": ".*"}""");
        AdapterConverter.Convert(adapter, _folder["file.safetensors"], default, new() { Program = AdapterProgram.Kohya }, out _);
        using SafetensorsReader file = SafetensorsReader.Open(_folder["file.safetensors"]);
        Assert.Equal(
            ["lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.alpha", "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.lora_down.weight", "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.lora_up.weight"],
            file.Entries.Keys.Where(static name => name.Contains("to_q", StringComparison.Ordinal)).Order(StringComparer.Ordinal));
        Assert.Equal(4 * Math.Sqrt(2), file.Read("lora_unet_mid_block_attentions_0_proj_in.alpha").item<float>(), 1e-6);
        Merged(from, adapter, _folder["file.safetensors"], 1e-6);
    }

    [Fact]
    public void Magnitudes_get_the_name_and_the_shape_that_programs_read()
    {
        string[] names = ["double_blocks.0.img_mlp.0", "double_blocks.0.img_mlp.2"];
        string from = Base(names);
        string adapter = Lora(names, """{"peft_type": "LORA", "r": 2, "lora_alpha": 4, "use_dora": true, "target_modules": ".*"}""", withMagnitudes: true);
        Assert.Contains(AdapterValidator.Check(adapter, new() { Program = AdapterProgram.ComfyUI }).Findings, static finding => finding is { ErrorId: ErrorIds.ProgramFactorsUnread, Severity: LoKrFindingSeverity.Error });
        AdapterConverter.Convert(adapter, _folder["file.safetensors"], default, new() { Program = AdapterProgram.ComfyUI }, out _);
        using (SafetensorsReader file = SafetensorsReader.Open(_folder["file.safetensors"]))
        {
            Assert.Equal([8, 1], file.Entries["diffusion_model.double_blocks.0.img_mlp.0.dora_scale"].Shape);
        }

        Same(from, adapter, _folder["file.safetensors"]);
        string split = Lora(s_flux, """{"peft_type": "LORA", "r": 2, "lora_alpha": 4, "use_dora": true, "target_modules": ".*"}""", withMagnitudes: true);
        ErrorAssert.Throws(ErrorIds.ConversionUnsupported, () => AdapterConverter.Convert(split, _folder["other.safetensors"], default, new() { Program = AdapterProgram.AiToolkit }, out _), "DoRA's magnitudes", "5 modules");
    }

    [Fact]
    public void Loha_is_carried_where_it_is_read()
    {
        manual_seed(8);
        string from = Base(s_flux);
        Dictionary<string, Tensor> tensors = [];
        foreach (string name in s_flux)
        {
            foreach ((string suffix, Tensor tensor) in ((string, Tensor)[])[("w1_a", randn(8, 2)), ("w1_b", randn(2, 8)), ("w2_a", randn(8, 2)), ("w2_b", randn(2, 8))])
            {
                tensors.Add($"{name}.hada_{suffix}", tensor);
            }
        }

        string adapter = Adapter(tensors, """{"peft_type": "LOHA", "r": 2, "alpha": 4, "target_modules": ".*"}""");
        AdapterConverter.Convert(adapter, _folder["file.safetensors"], default, new() { Program = AdapterProgram.ComfyUI }, out _);
        Same(from, adapter, _folder["file.safetensors"]);
        ErrorAssert.Throws(ErrorIds.ConversionUnsupported, () => AdapterConverter.Convert(adapter, _folder["other.safetensors"], default, new() { Program = AdapterProgram.OneTrainer }, out _), "LoHa", "5 modules");
        Assert.False(File.Exists(_folder["other.safetensors"]));
    }

    [Fact]
    public void What_PEFT_alone_reads_is_an_error_with_counts()
    {
        string adapter = Lora(s_flux, """{"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ".*", "modules_to_save": ["context_embedder"]}""", extra: new() { ["context_embedder.weight"] = randn(8, 8) });
        ErrorAssert.Throws(ErrorIds.ConversionUnsupported, () => AdapterConverter.Convert(adapter, _folder["a.safetensors"], default, new() { Program = AdapterProgram.ComfyUI }, out _), "1 tensors of modules that are saved whole");
        string table = Adapter(new() { ["txt_in.lora_embedding_A"] = randn(2, 20), ["txt_in.lora_embedding_B"] = randn(8, 2), ["double_blocks.0.img_mlp.0.lora_A.weight"] = randn(2, 8), ["double_blocks.0.img_mlp.0.lora_B.weight"] = randn(8, 2) },
            """{"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ".*"}""");
        ErrorAssert.Throws(ErrorIds.ConversionUnsupported, () => AdapterConverter.Convert(table, _folder["a.safetensors"], default, new() { Program = AdapterProgram.ComfyUI }, out _), "embeddings", "1 modules");
        ErrorAssert.Throws(ErrorIds.AdapterTypeNotSupported, () => AdapterConverter.Convert(adapter, _folder["a"], AdapterLayout.Peft, new(), out _), "2 modules of LoRA");
    }

    [Fact]
    public void The_header_of_diffusers_has_the_scale_too()
    {
        Dictionary<string, Tensor> tensors = [];
        foreach (string name in s_flux)
        {
            tensors.Add($"transformer.{name}.lora_A.weight", randn(2, 8));
            tensors.Add($"transformer.{name}.lora_B.weight", randn(8, 2));
        }

        SafetensorsWriter.Write(_folder["file.safetensors"], tensors, new Dictionary<string, string> { ["lora_adapter_metadata"] = """{"transformer.peft_type": "LORA", "transformer.r": 2, "transformer.lora_alpha": 4, "transformer.alpha_pattern": {"to_q": 6}}""" });
        using AdapterFile file = AdapterFile.Open(_folder["file.safetensors"]);
        Assert.Equal([3.0, 2, 2, 2, 2], OtherModule.Of(file, new()).OrderBy(static module => !module.Name.EndsWith("to_q", StringComparison.Ordinal)).Select(static module => module.Scale!.Value));
    }

    private void Same(string from, string first, string second) => Merged(from, first, second, 0);

    private void Merged(string from, string first, string second, double tolerance)
    {
        foreach ((string adapter, string to) in ((string, string)[])[(first, "first"), (second, "second")])
        {
            LoKrMergeResult result = MergeFiles.Run(MergeFiles.Options(from, _folder[to], adapter) with { Force = true });
            Assert.Equal(MergeFiles.Read(from, "diffusion_pytorch_model").Count, result.ModuleCount);
        }

        (Dictionary<string, Tensor> expected, Dictionary<string, Tensor> actual) = (MergeFiles.Read(_folder["first"], "diffusion_pytorch_model"), MergeFiles.Read(_folder["second"], "diffusion_pytorch_model"));
        Assert.All(expected, pair =>
        {
            if (tolerance == 0)
            {
                Assert.True(TensorAssert.Same(pair.Value, actual[pair.Key]), pair.Key);
            }

            TensorAssert.Close(pair.Value, actual[pair.Key], tolerance, pair.Key);
        });
    }

    private string Base(string[] names) => MergeFiles.Base(_folder["base"], names.ToDictionary(static name => name + ".weight", static _ => randn(8, 8)), baseName: "diffusion_pytorch_model");

    private string Lora(string[] names, string config, bool withMagnitudes = false, Dictionary<string, Tensor>? extra = null)
    {
        Dictionary<string, Tensor> tensors = new(extra ?? []);
        foreach (string name in names)
        {
            tensors.Add(name + ".lora_A.weight", randn(2, 8));
            tensors.Add(name + ".lora_B.weight", randn(8, 2));
            if (withMagnitudes)
            {
                tensors.Add(name + ".lora_magnitude_vector", rand(8) + 1);
            }
        }

        return Adapter(tensors, config);
    }

    private string Adapter(Dictionary<string, Tensor> tensors, string config)
    {
        Directory.CreateDirectory(_folder["adapter"]);
        SafetensorsWriter.Write(_folder["adapter", PeftAdapterFolder.WeightsFile], tensors.ToDictionary(static pair => PeftAdapterFolder.Prefix + pair.Key, static pair => pair.Value));
        File.WriteAllText(_folder["adapter", PeftAdapterFolder.ConfigFile], config);
        return _folder["adapter"];
    }
}
