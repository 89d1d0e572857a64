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
}
