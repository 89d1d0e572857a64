using System.Text.Json;
using LoKr.Core.Conversion;
using LoKr.Core.Errors;
using LoKr.Core.Layouts;
using LoKr.Core.Safetensors;
using LoKr.Core.Tests.Merging;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Conversion;

/// <summary>One file with LoRA alone becomes a PEFT folder: its own matrices under PEFT's names, and one rank and alpha for all layers.</summary>
public sealed class LoraFolderTests : IDisposable
{
    private const string Linear = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q";
    private const string Other = "mid_block.attentions.0.transformer_blocks.0.attn1.to_k";
    private const string Convolution = "down_blocks.0.resnets.0.conv1";

    private readonly TempFolder _folder = new();
    private readonly DisposeScope _scope = NewDisposeScope();

    public LoraFolderTests() => manual_seed(41);

    public void Dispose()
    {
        _scope.Dispose();
        _folder.Dispose();
    }

    [Theory]
    [InlineData(4f, "4")]
    [InlineData(1f, "1")]
    [InlineData(1.5f, "1.5")]
    public void Matrices_of_one_rank_and_alpha_stay_bit_by_bit(float alpha, string written)
    {
        Dictionary<string, Tensor> file = new(Lora(Linear, 2, alpha).Concat(Lora(Convolution, 2, alpha, 3)).Concat(Lora(Other, 2, alpha)));
        string source = Write(file);
        LoraConversionResult result = Convert(source, _folder["peft"]);
        Assert.Equal((3, 2, 0.0), (result.ModuleCount, result.Rank, result.LargestError));
        JsonElement config = Config(_folder["peft"]);
        Assert.Equal("LORA", config.GetProperty("peft_type").GetString());
        Assert.Equal((2, written), (config.GetProperty("r").GetInt32(), config.GetProperty("lora_alpha").GetRawText()));
        Assert.Empty(config.GetProperty("rank_pattern").EnumerateObject());
        using (SafetensorsReader folder = SafetensorsReader.Open(_folder["peft", PeftAdapterFolder.WeightsFile]))
        {
            Assert.Equal(6, folder.Entries.Count);
            foreach (string module in (string[])[Linear, Convolution, Other])
            {
                Assert.True(TensorAssert.Same(file[Kohya(module) + ".lora_down.weight"], folder.Read($"base_model.model.{module}.lora_A.weight")), module);
                Assert.True(TensorAssert.Same(file[Kohya(module) + ".lora_up.weight"], folder.Read($"base_model.model.{module}.lora_B.weight")), module);
            }
        }

        Merged(source, _folder["peft"], 0);
    }

    [Fact]
    public void Smaller_ranks_are_filled_with_zeros_and_other_scales_multiplied_into_the_rows()
    {
        Dictionary<string, Tensor> file = new(Lora(Linear, 4, 4).Concat(Lora(Convolution, 2, 3, 3)).Concat(Lora(Other, 3, 1)));
        string source = Write(file);
        LoraConversionResult result = Convert(source, _folder["peft"]);
        Assert.Equal((4, 0.0), (result.Rank, result.LargestError));
        JsonElement config = Config(_folder["peft"]);
        Assert.Equal((4, 4), (config.GetProperty("r").GetInt32(), config.GetProperty("lora_alpha").GetInt32()));
        using (SafetensorsReader folder = SafetensorsReader.Open(_folder["peft", PeftAdapterFolder.WeightsFile]))
        {
            Tensor a = folder.Read($"base_model.model.{Convolution}.lora_A.weight");
            Assert.Equal([4, 8, 3, 3], a.shape);
            Assert.Equal(0, a.narrow(0, 2, 2).abs().max().item<float>());
            Assert.True(TensorAssert.Same(file[Kohya(Linear) + ".lora_up.weight"], folder.Read($"base_model.model.{Linear}.lora_B.weight")));
        }

        Merged(source, _folder["peft"], 1e-6);
    }

    [Fact]
    public void A_scale_that_all_ranks_share_is_alpha_over_the_largest()
    {
        Dictionary<string, Tensor> file = new(Lora(Linear, 4, 2).Concat(Lora(Other, 2, 1)));
        string source = Write(file);
        Convert(source, _folder["peft"]);
        JsonElement config = Config(_folder["peft"]);
        Assert.Equal((4, 2), (config.GetProperty("r").GetInt32(), config.GetProperty("lora_alpha").GetInt32()));
        Merged(source, _folder["peft"], 1e-6);
    }

    [Fact]
    public void Fused_weights_get_the_published_names_of_their_parts()
    {
        string from = _folder["flux.safetensors"];
        SafetensorsWriter.Write(from, new Dictionary<string, Tensor> { ["double_blocks.0.img_attn.qkv.weight"] = randn(24, 8), ["final_layer.adaLN_modulation.1.weight"] = randn(16, 8) });
        Dictionary<string, Tensor> file = [];
        foreach ((string module, long rows) in ((string, long)[])[("double_blocks_0_img_attn_qkv", 24), ("final_layer_adaLN_modulation_1", 16)])
        {
            file.Add($"lora_unet_{module}.lora_down.weight", randn(2, 8));
            file.Add($"lora_unet_{module}.lora_up.weight", randn(rows, 2));
            file.Add($"lora_unet_{module}.alpha", tensor(1f));
        }

        string source = Write(file);
        Assert.Equal(4, Convert(source, _folder["peft"]).ModuleCount);
        using (SafetensorsReader folder = SafetensorsReader.Open(_folder["peft", PeftAdapterFolder.WeightsFile]))
        {
            Assert.Equal(
                [.. new[] { "norm_out.linear", "transformer_blocks.0.attn.to_k", "transformer_blocks.0.attn.to_q", "transformer_blocks.0.attn.to_v" }.Select(static name => $"base_model.model.{name}.lora_A.weight")],
                folder.Entries.Keys.Where(static name => name.EndsWith("lora_A.weight", StringComparison.Ordinal)).Order(StringComparer.Ordinal));
        }

        MergeFiles.Run(MergeFiles.Options(from, _folder["first.safetensors"], source));
        MergeFiles.Run(MergeFiles.Options(from, _folder["second.safetensors"], _folder["peft"]));
        using SafetensorsReader expected = SafetensorsReader.Open(_folder["first.safetensors"]);
        using SafetensorsReader actual = SafetensorsReader.Open(_folder["second.safetensors"]);
        Assert.All(expected.Entries.Keys, name => TensorAssert.Close(expected.Read(name), actual.Read(name), 1e-6, name));
    }

    [Fact]
    public void A_LoKr_of_a_fused_weight_becomes_LoRA_of_its_parts()
    {
        string from = _folder["flux.safetensors"];
        SafetensorsWriter.Write(from, new Dictionary<string, Tensor> { ["double_blocks.0.img_attn.qkv.weight"] = randn(24, 8), ["double_blocks.0.img_mlp.0.weight"] = randn(32, 8) });

        // The parts do not divide the four rows of w1.
        string source = Write(new() { ["diffusion_model.double_blocks.0.img_attn.qkv.lokr_w1"] = randn(4, 2), ["diffusion_model.double_blocks.0.img_attn.qkv.lokr_w2_a"] = randn(6, 1), ["diffusion_model.double_blocks.0.img_attn.qkv.lokr_w2_b"] = randn(1, 4) });
        foreach ((string to, AdapterConvertOptions options, LoraWriteOptions write) in ((string, AdapterConvertOptions, LoraWriteOptions)[])
            [("peft", new(), new() { Program = AdapterProgram.Peft }), ("split", new() { Division = ModuleDivision.Split }, new() { Program = AdapterProgram.Peft })])
        {
            LoraConversionResult result = AdapterLoraConverter.Convert(source, _folder[to], LoraRank.OfEnergy(1), options, write, TestContext.Current.CancellationToken).Result;
            Assert.Equal(["transformer_blocks.0.attn.to_k", "transformer_blocks.0.attn.to_q", "transformer_blocks.0.attn.to_v"], result.Layers.Select(static layer => layer.Name).Order(StringComparer.Ordinal));
            MergeFiles.Run(MergeFiles.Options(from, _folder["first.safetensors"], source) with { Force = true });
            MergeFiles.Run(MergeFiles.Options(from, _folder["second.safetensors"], _folder[to]) with { Force = true });
            using SafetensorsReader expected = SafetensorsReader.Open(_folder["first.safetensors"]);
            using SafetensorsReader actual = SafetensorsReader.Open(_folder["second.safetensors"]);
            TensorAssert.Close(expected.Read("double_blocks.0.img_attn.qkv.weight"), actual.Read("double_blocks.0.img_attn.qkv.weight"), 1e-5, to);
        }
    }

    [Fact]
    public void What_a_LoRA_folder_does_not_hold_is_refused()
    {
        string source = Write(new(Lora(Linear, 2, 1).Append(new("lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight", randn(2, 8))).Append(new("lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight", randn(8, 2)))));
        ErrorAssert.Throws(ErrorIds.ConversionUnsupported, () => Convert(source, _folder["peft"]), "TextEncoder");
        source = Write(new(Lora(Linear, 2, 1).Append(new(Kohya(Linear) + ".dora_scale", ones(8, 1)))));
        ErrorAssert.Throws(ErrorIds.LoraConversionNotSupported, () => Convert(source, _folder["peft"]), "DoRA");
        source = Write(new(Lora(Linear, 2, 1).Append(new(Kohya(Linear) + ".diff_b", ones(8)))));
        Assert.False(AdapterLoraConverter.IsLora(source, new()));
        Assert.False(Directory.Exists(_folder["peft"]));
    }

    private static string Kohya(string module) => "lora_unet_" + module.Replace('.', '_');

    private static Dictionary<string, Tensor> Lora(string module, long rank, float alpha, long kernel = 0) => new()
    {
        [Kohya(module) + ".lora_down.weight"] = kernel == 0 ? randn(rank, 8) : randn(rank, 8, kernel, kernel),
        [Kohya(module) + ".lora_up.weight"] = kernel == 0 ? randn(8, rank) : randn(8, rank, 1, 1),
        [Kohya(module) + ".alpha"] = tensor(alpha),
    };

    private string Write(Dictionary<string, Tensor> tensors)
    {
        SafetensorsWriter.Write(_folder["style.safetensors"], tensors);
        return _folder["style.safetensors"];
    }

    private static LoraConversionResult Convert(string path, string destination)
    {
        Assert.True(AdapterLoraConverter.IsLora(path, new()));
        return AdapterLoraConverter.Convert(path, destination, LoraRank.Exact, new(), new() { Program = AdapterProgram.Peft }, TestContext.Current.CancellationToken).Result;
    }

    private void Merged(string first, string second, double tolerance)
    {
        string from = MergeFiles.Base(_folder["unet"], new Dictionary<string, Tensor> { [Linear + ".weight"] = randn(8, 8), [Other + ".weight"] = randn(8, 8), [Convolution + ".weight"] = randn(8, 8, 3, 3) }, baseName: "diffusion_pytorch_model");
        MergeFiles.Run(MergeFiles.Options(from, _folder["first"], first));
        MergeFiles.Run(MergeFiles.Options(from, _folder["second"], second));
        (Dictionary<string, Tensor> expected, Dictionary<string, Tensor> actual) = (MergeFiles.Read(_folder["first"], "diffusion_pytorch_model"), MergeFiles.Read(_folder["second"], "diffusion_pytorch_model"));
        Assert.NotEmpty(MergeFiles.Differences(MergeFiles.Read(from, "diffusion_pytorch_model"), actual));
        Assert.All(expected, pair =>
        {
            Assert.True(tolerance > 0 || TensorAssert.Same(pair.Value, actual[pair.Key]), pair.Key);
            TensorAssert.Close(pair.Value, actual[pair.Key], tolerance, pair.Key);
        });
    }

    private static JsonElement Config(string folder) => JsonDocument.Parse(File.ReadAllText(Path.Combine(folder, PeftAdapterFolder.ConfigFile))).RootElement;
}
