using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Layers;
using LoKr.Core.Layouts;
using LoKr.Core.Model;
using LoKr.Core.Safetensors;
using LoKr.Models.Diffusion;
using LoKr.Models.Loading;
using LoKr.Models.Tests.Support;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Models.Tests.Diffusion;

/// <summary>Adapters of a whole pipeline: kohya's files against LyCORIS, PEFT folders, and round trips.</summary>
public sealed class PipelineAdapterTests : IDisposable
{
    private readonly TempFolder _folder = new();
    private readonly SingleThread _thread = new();

    [Theory]
    [InlineData("network.safetensors")]
    [InlineData("network-published-names.safetensors")]
    public void A_kohya_network_goes_to_text_encoder_and_unet(string name)
    {
        string folder = Fixtures.Require("diffusers", "tiny-sd");
        string network = Fixtures.Require("lycoris", "kohya-tiny-sd");
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGrad = no_grad();
        using StableDiffusionPipeline pipeline = StableDiffusionLoader.Load(folder);
        using SafetensorsReader inputs = SafetensorsReader.Open(Path.Combine(folder, "io.safetensors"));
        using SafetensorsReader expected = SafetensorsReader.Open(Path.Combine(network, "io.safetensors"));
        IReadOnlyDictionary<string, LoKrAdapter> adapters = AdapterImporter.Import(pipeline, Path.Combine(network, name));
        Assert.Equal(["text_encoder", "unet"], adapters.Keys.Order(StringComparer.Ordinal));
        using PromptTokens tokens = new(inputs.Read("prompt_ids"), null);
        TensorAssert.Close(expected.Read("text_hidden"), pipeline.EncodeText(tokens).HiddenStates, TensorAssert.Model, "text_hidden");
        TensorAssert.Close(
            expected.Read("unet_output"), pipeline.Denoiser.call(inputs.Read("latents"), inputs.Read("timesteps"), inputs.Read("context"), null), TensorAssert.Model, "unet_output");
    }

    [Fact]
    public void Peft_folders_are_those_that_peft_wrote()
    {
        string folder = Fixtures.Require("diffusers", "tiny-sd");
        using StableDiffusionPipeline pipeline = StableDiffusionLoader.Load(folder);
        IReadOnlyDictionary<string, LoKrAdapter> adapters = AdapterImporter.Import(pipeline, Path.Combine(folder, "adapters"), trainable: true);
        Assert.Equal(["text_encoder", "unet"], adapters.Keys.Order(StringComparer.Ordinal));
        AdapterExporter.Export(pipeline, "default", _folder["saved"], AdapterLayout.Peft);
        foreach (string component in adapters.Keys)
        {
            using SafetensorsReader first = SafetensorsReader.Open(Path.Combine(folder, "adapters", component, "adapter_model.safetensors"));
            using SafetensorsReader second = SafetensorsReader.Open(_folder["saved", component, "adapter_model.safetensors"]);
            Assert.Equal(first.Entries.Keys.Order(StringComparer.Ordinal), second.Entries.Keys.Order(StringComparer.Ordinal));
            using DisposeScope scope = NewDisposeScope();
            Assert.All(first.Entries.Keys, key => Assert.True(TensorAssert.Same(first.Read(key), second.Read(key)), key));
        }
    }

    [Theory]
    [InlineData(AdapterLayout.Kohya, "a.safetensors", false)]
    [InlineData(AdapterLayout.Kohya, "a.safetensors", true)]
    [InlineData(AdapterLayout.Peft, "a", true)]
    [InlineData(AdapterLayout.Diffusers, "a.safetensors", false)]
    public void Every_component_gets_its_own_back(AdapterLayout layout, string name, bool large)
    {
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGrad = no_grad();
        using StableDiffusionPipeline pipeline = StableDiffusionLoader.Load(TinyPipeline.Write(_folder["sd"], large));
        foreach ((string component, LoKrModel model) in pipeline.Models)
        {
            LoKrAdapter adapter = model.AddAdapter(new LoKrConfig { R = 2, Alpha = 6, TargetModules = ModuleSelector.FromNames(component == "unet" ? ["to_q", "proj_in"] : ["q_proj", "fc1"]) }, seed: 3);
            foreach (FlatParameter flat in adapter.FlatParameters)
            {
                flat.Value.normal_(0, 0.2);
            }
        }

        Tensor expected = Predict(pipeline);
        AdapterExporter.Export(pipeline, "default", _folder[name], layout);
        using StableDiffusionPipeline other = StableDiffusionLoader.Load(_folder["sd"]);
        Assert.True((Predict(other) - expected).abs().max().item<float>() > 1e-3);
        Assert.Equal(pipeline.Models.Keys, AdapterImporter.Import(other, _folder[name], name: "again").Keys.OrderBy(key => pipeline.Models.Keys.ToList().IndexOf(key)));
        TensorAssert.Close(expected, Predict(other), TensorAssert.Layer, layout.ToString());
    }

    [Fact]
    public void A_file_that_fits_one_component_only_in_part_changes_none()
    {
        using StableDiffusionPipeline pipeline = StableDiffusionLoader.Load(TinyPipeline.Write(_folder["sd"]));
        foreach (LoKrModel model in pipeline.Models.Values)
        {
            model.AddAdapter(new LoKrConfig { R = 2, TargetModules = ModuleSelector.FromNames(["q_proj", "to_q"]) });
        }

        AdapterExporter.Export(pipeline, "default", _folder["a"], AdapterLayout.Peft);
        Directory.Move(_folder["a", "unet"], _folder["unet"]);
        Directory.CreateDirectory(_folder["a", "unet"]);
        foreach (string file in Directory.EnumerateFiles(_folder["a", "text_encoder"]))
        {
            File.Copy(file, Path.Combine(_folder["a", "unet"], Path.GetFileName(file)));
        }

        using StableDiffusionPipeline other = StableDiffusionLoader.Load(_folder["sd"]);
        Assert.Throws<LoKrException>(() => AdapterImporter.Import(other, _folder["a"]));
        Assert.Empty(other.AdapterNames);
    }

    [Fact]
    public void The_name_is_that_of_the_active_adapters()
    {
        using StableDiffusionPipeline pipeline = StableDiffusionLoader.Load(TinyPipeline.Write(_folder["sd"]));
        ErrorAssert.Throws(ErrorIds.AdapterAmbiguous, () => pipeline.GetOnlyActiveAdapterName(), "active adapter");
        LoKrConfig config = new() { R = 2, TargetModules = ModuleSelector.FromNames(["q_proj", "to_q"]) };
        pipeline.UNet.AddAdapter(config, "rack");
        Assert.Equal("rack", pipeline.GetOnlyActiveAdapterName());
        pipeline.TextEncoder.AddAdapter(config, "other");
        ErrorAssert.Throws(ErrorIds.AdapterAmbiguous, () => pipeline.GetOnlyActiveAdapterName(), "other", "rack");
        ErrorAssert.Throws(ErrorIds.AdapterNotFound, () => AdapterExporter.Export(pipeline, "none", _folder["a"], AdapterLayout.Peft), "none");
    }

    public void Dispose()
    {
        _folder.Dispose();
        _thread.Dispose();
    }

    private static Tensor Predict(StableDiffusionPipeline pipeline)
    {
        using Generator generator = new(2, CPU);
        using PromptTokens tokens = pipeline.Tokenize(["a red rack"]);
        TextConditioning text = pipeline.EncodeText(tokens);
        AddedConditions? added = text.Pooled is null ? null : new AddedConditions(text.Pooled, tensor(new[] { 16f, 16, 0, 0, 16, 16 }, [1, 6]));
        return pipeline.Denoiser.call(randn([1, 4, 8, 8], generator: generator), tensor(9L), text.HiddenStates, added);
    }
}
