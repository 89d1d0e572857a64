using LoKr.Core.Configuration;
using LoKr.Core.Layouts;
using LoKr.Core.Model;
using LoKr.Core.Safetensors;
using LoKr.Models.Loading;
using LoKr.Testing;
using Xunit;

namespace LoKr.Models.Tests.Diffusion;

/// <summary>Text encoders keep their published names in files of other programs, which know no others.</summary>
public sealed class PublishedEncoderNameTests
{
    [Theory]
    [InlineData(AdapterLayout.Kohya, "lora_te_text_model_encoder_layers_0_self_attn_q_proj.lokr_w1")]
    [InlineData(AdapterLayout.OneTrainer, "lora_te_text_model_encoder_layers_0_self_attn_q_proj.lokr_w1")]
    [InlineData(AdapterLayout.Diffusers, "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lokr_w1")]
    [InlineData(AdapterLayout.Comfy, "text_encoders.clip_l.transformer.text_model.encoder.layers.0.self_attn.q_proj.lokr_w1")]
    public void A_pipeline_is_exported_with_published_names_of_its_text_encoder(AdapterLayout layout, string expected)
    {
        using TempFolder folder = new();
        using IAdaptable pipeline = ModelFolder.Load(Fixtures.Require("diffusers", "tiny-sd"), new()).Model;
        LoKrConfig config = new() { R = 4, TargetModules = ModuleSelector.FromNames(["q_proj", "v_proj"]) };
        pipeline.Models["text_encoder"].AddAdapter(config, seed: 1);
        AdapterExporter.Export(pipeline, "default", folder["a.safetensors"], layout);
        using (SafetensorsReader reader = SafetensorsReader.Open(folder["a.safetensors"]))
        {
            Assert.Contains(expected, reader.Entries.Keys);
            Assert.All(reader.Entries.Keys, static name => Assert.True(name.Contains("text_model", StringComparison.Ordinal), name));
        }

        pipeline.Models["text_encoder"].RemoveAdapter("default");
        AdapterImporter.Import(pipeline, folder["a.safetensors"], new(), "back", trainable: false, static _ => { });
        Assert.NotEmpty(pipeline.Models["text_encoder"].GetAdapter("back").Layers);
    }
}
