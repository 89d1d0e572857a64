using LoKr.Core.Errors;
using LoKr.Core.Layouts;
using LoKr.Core.Model;
using LoKr.Core.Safetensors;
using LoKr.Models.Diffusion;
using LoKr.Models.Loading;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Models.Tests.Diffusion;

/// <summary>Adapters of the small pipeline as LyCORIS, kohya's names and diffusers have them, against those programs' outputs.</summary>
public sealed class AdapterFileTests
{
    public static TheoryData<string> Formats => Fixtures.Cases("formats");

    [Theory]
    [MemberData(nameof(Formats))]
    public void UNet_with_a_file_of_another_program_predicts_what_that_program_does(string name)
    {
        string file = Fixtures.Require("formats", name);
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGrad = no_grad();
        using StableDiffusionPipeline pipeline = StableDiffusionLoader.Load(Folder());
        using SafetensorsReader io = Read(Folder(), "io.safetensors");
        using SafetensorsReader expected = Read(Fixtures.Require("formats"), "unet_outputs.safetensors");
        using AdapterFile adapter = AdapterFile.Open(file);
        LoKrAdapter loaded = AdapterImporter.Import(pipeline.UNet, adapter);
        Assert.Equal(adapter.Modules.Count, loaded.Layers.Count);
        Assert.False(loaded.Config.ShapesFromFile);
        Tensor output = pipeline.Denoiser.call(io.Read("latents"), io.Read("timesteps"), io.Read("context"), null);
        TensorAssert.Close(expected.Read(name), output, TensorAssert.Model, name);
        Assert.All(loaded.Layers, static layer => Assert.True(layer.CallCount > 0, layer.ModuleName));
        pipeline.UNet.Merge(safe: true);
        TensorAssert.Close(expected.Read(name), pipeline.Denoiser.call(io.Read("latents"), io.Read("timesteps"), io.Read("context"), null), TensorAssert.Model, $"{name}, merged");
    }

    [Theory]
    [InlineData("network.safetensors")]
    [InlineData("network-published-names.safetensors")]
    public void A_kohya_network_adapts_text_encoder_and_unet(string name)
    {
        string folder = Fixtures.Require("lycoris", "kohya-tiny-sd");
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGrad = no_grad();
        using StableDiffusionPipeline pipeline = StableDiffusionLoader.Load(Folder());
        using SafetensorsReader io = Read(Folder(), "io.safetensors");
        using SafetensorsReader expected = Read(folder, "io.safetensors");
        using AdapterFile file = AdapterFile.Open(Path.Combine(folder, name));
        IReadOnlyDictionary<string, LoKrAdapter> adapters = AdapterImporter.Import(pipeline.Models, file);
        Assert.Equal(["text_encoder", "unet"], adapters.Keys.Order(StringComparer.Ordinal));
        Assert.Equal(file.Modules.Count, adapters.Values.Sum(static adapter => adapter.Layers.Count));
        string prompt = (string)System.Text.Json.Nodes.JsonNode.Parse(File.ReadAllText(Path.Combine(Folder(), "case.json")))!["prompt"]!;
        TensorAssert.Close(expected.Read("text_hidden"), pipeline.EncodeText([prompt]).HiddenStates, TensorAssert.Model, "text_hidden");
        TensorAssert.Close(expected.Read("unet_output"), pipeline.Denoiser.call(io.Read("latents"), io.Read("timesteps"), io.Read("context"), null), TensorAssert.Model, "unet_output");
    }

    [Fact]
    public void A_file_for_two_models_does_not_load_onto_one_without_saying_which()
    {
        using StableDiffusionPipeline pipeline = StableDiffusionLoader.Load(Folder());
        using AdapterFile file = AdapterFile.Open(Fixtures.Require("lycoris", "kohya-tiny-sd", "network.safetensors"));
        LoKrException exception = Assert.Throws<LoKrException>(() => AdapterImporter.Import(pipeline.UNet, file));
        Assert.Equal(ErrorIds.AdapterModulesUnknown, exception.ErrorId);
        Assert.Contains("encoder_layers_0_mlp_fc1", exception.Message, StringComparison.Ordinal);
        Assert.Contains("Unet", exception.Advice!, StringComparison.Ordinal);
        Assert.Empty(pipeline.UNet.Adapters);
        LoKrAdapter adapter = AdapterImporter.Import(pipeline.UNet, file, new() { Component = AdapterComponent.Unet });
        Assert.Equal(file.Modules.Count(static module => module.Component == AdapterComponent.Unet), adapter.Layers.Count);
    }

    private static string Folder() => Fixtures.Require("diffusers", "tiny-sd");

    private static SafetensorsReader Read(string folder, string file) => SafetensorsReader.Open(Path.Combine(folder, file));
}
