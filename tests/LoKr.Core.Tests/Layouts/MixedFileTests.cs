using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Layouts;
using LoKr.Core.Safetensors;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Layouts;

/// <summary>Files with LoKr beside other kinds of adapters, and with scales that depend on a rank the tensors do not have.</summary>
public sealed class MixedFileTests : IDisposable
{
    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    private static string Mixed => Fixtures.Require("checkpoints", "sd15", "adapter-mixed.safetensors");

    [Fact]
    public void What_the_target_takes_is_carried_as_it_is()
    {
        using AdapterFile file = AdapterFile.Open(Mixed);
        Assert.NotEmpty(file.Foreign);
        AdapterConverter.Convert(Mixed, _folder["comfy.safetensors"], default, new() { Program = AdapterProgram.ComfyUI }, out IReadOnlyList<string> warnings);
        Assert.Empty(warnings);
        using SafetensorsReader before = SafetensorsReader.Open(Mixed);
        using SafetensorsReader after = SafetensorsReader.Open(_folder["comfy.safetensors"]);
        using DisposeScope scope = NewDisposeScope();
        foreach (AdapterForeignTensor tensor in file.Foreign)
        {
            Assert.True(TensorAssert.Same(before.Read(tensor.Entry.Name), after.Read(tensor.Entry.Name)), tensor.Entry.Name);
        }

        Assert.DoesNotContain(AdapterValidator.Check(_folder["comfy.safetensors"], new() { Program = AdapterProgram.ComfyUI }).Findings, static finding => finding.Severity == LoKrFindingSeverity.Error);
    }

    [Fact]
    public void What_the_target_does_not_take_is_an_error_with_counts_or_left_out()
    {
        AdapterConvertOptions options = new() { Program = AdapterProgram.Kohya };
        LoKrException exception = Assert.Throws<LoKrException>(() => AdapterConverter.Convert(Mixed, _folder["kohya.safetensors"], default, options, out _));
        Assert.Equal(ErrorIds.AdapterTypeNotSupported, exception.ErrorId);
        Assert.Contains("modules of", exception.Message, StringComparison.Ordinal);
        options = options with { Force = true, Read = new() { Foreign = ForeignTensors.Skip } };
        AdapterConverter.Convert(Mixed, _folder["kohya.safetensors"], default, options, out IReadOnlyList<string> warnings);
        Assert.Contains(warnings, static warning => warning.Contains("left out", StringComparison.Ordinal));
        using AdapterFile written = AdapterFile.Open(_folder["kohya.safetensors"]);
        Assert.Empty(written.Foreign);
    }

    [Theory]
    [InlineData(null, "16", 0.5)]
    [InlineData(4, "16", 2.0)]
    [InlineData(4, null, 2.0)]
    public void A_whole_module_takes_its_rank_from_the_caller_or_the_trainers_header(int? rank, string? header, double expected)
    {
        using DisposeScope scope = NewDisposeScope();
        string path = _folder["full.safetensors"];
        SafetensorsWriter.Write(
            path,
            new Dictionary<string, Tensor> { ["lora_unet_a.lokr_w1"] = ones(2, 2), ["lora_unet_a.lokr_w2"] = ones(4, 4), ["lora_unet_a.alpha"] = tensor(8f) },
            header is null ? null : new Dictionary<string, string> { ["ss_network_dim"] = header });
        using AdapterFile file = AdapterFile.Open(path);
        AdapterReading reading = AdapterReading.Of(file, new() { Scaling = ScalingConvention.Peft, Rank = rank });
        Assert.Empty(reading.Findings);
        Assert.Equal(expected, Assert.Single(reading.Modules).Scale.Factor);
        Assert.Equal(1, Assert.Single(AdapterReading.Of(file, new()).Modules).Scale.Factor);
    }

    [Fact]
    public void Names_of_PEFT_and_LyCORIS_beside_those_of_ComfyUI_are_read_in_one_file()
    {
        using DisposeScope scope = NewDisposeScope();
        manual_seed(17);
        string[] modules = ["double_blocks.0.img_attn.qkv", "double_blocks.0.img_mlp.0", "double_blocks.0.img_mlp.2", "single_blocks.0.linear2"];
        string from = _folder["base.safetensors"];
        SafetensorsWriter.Write(from, modules.ToDictionary(static name => name + ".weight", static name => randn(name.EndsWith("qkv", StringComparison.Ordinal) ? 24 : 8, 8)));
        Dictionary<string, string> prefixed = new()
        {
            [modules[0]] = "diffusion_model.double_blocks.0.img_attn.qkv",
            [modules[1]] = "base_model.model.double_blocks.0.img_mlp.0",
            [modules[2]] = "lycoris_double_blocks_0_img_mlp_2",
            [modules[3]] = "diffusion_model.single_blocks.0.linear2",
        };
        Dictionary<string, Tensor> mixed = [];
        Dictionary<string, Tensor> plain = [];
        foreach ((string module, string written) in prefixed)
        {
            foreach ((string suffix, Tensor tensor) in ((string, Tensor)[])[("lokr_w1", randn(module == modules[0] ? 12 : 4, 2)), ("lokr_w2", randn(2, 4)), ("alpha", tensor(1f))])
            {
                (mixed[$"{written}.{suffix}"], plain[$"diffusion_model.{module}.{suffix}"]) = (tensor, tensor);
            }
        }

        // Another kind under each of the prefixes too.
        (mixed["base_model.model.double_blocks.0.img_attn.qkv.diff"], plain["diffusion_model.double_blocks.0.img_attn.qkv.diff"]) = (ones(24, 8), ones(24, 8));
        (mixed["lycoris_single_blocks_0_linear2.diff"], plain["diffusion_model.single_blocks.0.linear2.diff"]) = (ones(8, 8), ones(8, 8));
        SafetensorsWriter.Write(_folder["mixed.safetensors"], mixed);
        SafetensorsWriter.Write(_folder["plain.safetensors"], plain);
        using (AdapterFile file = AdapterFile.Open(_folder["mixed.safetensors"]))
        {
            Assert.Empty(file.Findings);
            Assert.Equal((AdapterLayout.Comfy, 4, 2), (file.Layout, file.Modules.Count, file.Foreign.Count));
        }

        AdapterConverter.Convert(_folder["mixed.safetensors"], _folder["converted.safetensors"], default, new() { Program = AdapterProgram.ComfyUI }, out IReadOnlyList<string> warnings);
        Assert.Empty(warnings);
        using SafetensorsReader expected = SafetensorsReader.Open(_folder["plain.safetensors"]);
        using SafetensorsReader converted = SafetensorsReader.Open(_folder["converted.safetensors"]);
        Assert.Equal(expected.Entries.Keys.Order(StringComparer.Ordinal), converted.Entries.Keys.Order(StringComparer.Ordinal));
        foreach (string name in (string[])["mixed", "plain", "converted"])
        {
            Merging.MergeFiles.Run(Merging.MergeFiles.Options(from, _folder[$"merged-{name}.safetensors"], _folder[$"{name}.safetensors"]));
        }

        byte[] merged = File.ReadAllBytes(_folder["merged-plain.safetensors"]);
        Assert.NotEqual(File.ReadAllBytes(from), merged);
        Assert.Equal(merged, File.ReadAllBytes(_folder["merged-mixed.safetensors"]));
        Assert.Equal(merged, File.ReadAllBytes(_folder["merged-converted.safetensors"]));
    }

    [Theory]
    [InlineData("lokr", "diffusion_model.double_blocks.0.img_mlp.0", "lora_unet_double_blocks_0_img_mlp_0")]
    [InlineData("lokr", "transformer.transformer_blocks.0.ff.net.0.proj", "diffusion_model.double_blocks.0.img_mlp.0")]
    [InlineData("lora", "diffusion_model.double_blocks.0.img_mlp.0", "lora_unet_double_blocks_0_img_mlp_0")]
    [InlineData("lora", "diffusion_model.double_blocks.0.img_mlp.0", "lycoris_double_blocks_0_img_mlp_0")]
    [InlineData("diff", "diffusion_model.double_blocks.0.img_mlp.0", "base_model.model.double_blocks.0.img_mlp.0")]
    public void Two_spellings_of_one_module_are_an_error_with_both_names(string kind, string first, string second)
    {
        using DisposeScope scope = NewDisposeScope();
        Dictionary<string, Tensor> tensors = [];
        foreach (string module in (string[])[first, second, "diffusion_model.single_blocks.0.linear2"])
        {
            foreach ((string suffix, Tensor tensor) in kind switch
            {
                "lokr" => ((string, Tensor)[])[("lokr_w1", ones(2, 2)), ("lokr_w2", ones(4, 4))],
                "lora" => [("lora_A.weight", ones(2, 8)), ("lora_B.weight", ones(8, 2))],
                _ => [("diff", ones(8, 8))],
            })
            {
                tensors.Add($"{module}.{suffix}", tensor);
            }
        }

        string path = _folder["twice.safetensors"];
        SafetensorsWriter.Write(path, tensors);
        string from = _folder["base.safetensors"];
        SafetensorsWriter.Write(from, new Dictionary<string, Tensor> { ["double_blocks.0.img_mlp.0.weight"] = randn(8, 8), ["single_blocks.0.linear2.weight"] = randn(8, 8), ["double_blocks.0.img_attn.qkv.weight"] = randn(24, 8) });
        string[] names = [first[(first.IndexOf("double", StringComparison.Ordinal) is int at and >= 0 ? at : first.IndexOf("ff.net", StringComparison.Ordinal))..], second[second.IndexOf("double", StringComparison.Ordinal)..]];
        void Fails(Action action)
        {
            LoKrException exception = Assert.Throws<LoKrException>(action);
            Assert.Contains(exception.ErrorId, (string[])[ErrorIds.AdapterKeysMismatch, ErrorIds.AdapterKeyInvalid]);
            Assert.All(names, name => Assert.Contains(name, exception.Message, StringComparison.Ordinal));
        }

        Fails(() => Merging.MergeFiles.Run(Merging.MergeFiles.Options(from, _folder["out.safetensors"], path)));
        Fails(() => AdapterConverter.Convert(path, _folder["converted.safetensors"], default, new() { Program = AdapterProgram.ComfyUI }, out _));
        Fails(() => AdapterConverter.Convert(path, _folder["converted.safetensors"], AdapterLayout.Comfy, new() { BasePath = from }, out _));
        Assert.False(AdapterValidator.Check(path, new() { BasePath = from }).IsValid);
    }
}
