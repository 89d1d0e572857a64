using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Models.Diffusion;
using LoKr.Models.Families;
using LoKr.Models.Loading;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Models.Tests.Diffusion;

/// <summary>Folders and configurations that cannot be used say what is wrong.</summary>
public sealed class PipelineErrorTests : IDisposable
{
    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void A_folder_that_is_not_a_pipeline()
    {
        ErrorAssert.Throws(ErrorIds.PathNotFound, () => StableDiffusionLoader.Load(_folder["none"]), "none");
        ErrorAssert.Throws(ErrorIds.PipelineNotFound, () => StableDiffusionLoader.Load(_folder.Path), "model_index.json");
        Assert.False(StableDiffusionLoader.IsPipeline(_folder.Path));
    }

    [Theory]
    [InlineData("unet")]
    [InlineData("vae")]
    [InlineData("text_encoder")]
    [InlineData("tokenizer")]
    [InlineData("scheduler")]
    public void A_component_without_its_folder_or_its_line(string name)
    {
        string folder = TinyPipeline.Write(_folder["sd"]);
        Directory.Delete(Path.Combine(folder, name), recursive: true);
        ErrorAssert.Throws(ErrorIds.PipelineComponentMissing, () => StableDiffusionLoader.Load(folder), $"'{name}'", "incomplete");
        folder = TinyPipeline.Write(_folder["line"], edit: (component, json) => Index(component, json, index => index[name] = new JsonArray(null, null)));
        ErrorAssert.Throws(ErrorIds.PipelineComponentMissing, () => StableDiffusionLoader.Load(folder), $"'{name}'", "does not list");
    }

    [Theory]
    [InlineData("unet", "config.json", ErrorIds.ModelConfigNotFound)]
    [InlineData("unet", "diffusion_pytorch_model.safetensors", ErrorIds.CheckpointNotFound)]
    [InlineData("vae", "diffusion_pytorch_model.safetensors", ErrorIds.CheckpointNotFound)]
    [InlineData("text_encoder", "model.safetensors", ErrorIds.CheckpointNotFound)]
    [InlineData("tokenizer", "vocab.json", ErrorIds.TokenizerNotFound)]
    [InlineData("scheduler", "scheduler_config.json", ErrorIds.PipelineComponentMissing)]
    public void A_component_without_a_file(string name, string file, string errorId)
    {
        string folder = TinyPipeline.Write(_folder["sd"]);
        File.Delete(Path.Combine(folder, name, file));
        ErrorAssert.Throws(errorId, () => StableDiffusionLoader.Load(folder), name);
    }

    [Theory]
    [InlineData("_class_name", "\"StableDiffusionInpaintPipeline\"", "StableDiffusionInpaintPipeline")]
    [InlineData("unet", "[\"diffusers\", \"UNet3DConditionModel\"]", "UNet3DConditionModel")]
    [InlineData("text_encoder", "[\"transformers\", \"T5EncoderModel\"]", "T5EncoderModel")]
    [InlineData("controlnet", "[\"diffusers\", \"ControlNetModel\"]", "controlnet")]
    public void A_class_that_is_not_built(string key, string value, string says)
    {
        string folder = TinyPipeline.Write(_folder["sd"], edit: (component, json) => Index(component, json, index => index[key] = JsonNode.Parse(value)));
        ErrorAssert.Throws(ErrorIds.PipelineUnsupported, () => StableDiffusionLoader.Load(folder), says);
    }

    [Fact]
    public void An_index_that_is_damaged_or_contradicts_a_component()
    {
        string folder = TinyPipeline.Write(_folder["sd"], edit: (component, json) => Index(component, json, index => index["unet"] = new JsonArray("diffusers")));
        ErrorAssert.Throws(ErrorIds.PipelineInvalid, () => StableDiffusionLoader.Load(folder), "unet");
        File.WriteAllText(Path.Combine(folder, "model_index.json"), "{");
        ErrorAssert.Throws(ErrorIds.ModelConfigInvalid, () => StableDiffusionLoader.Load(folder), "model_index.json");
        folder = TinyPipeline.Write(_folder["other"]);
        File.Copy(Path.Combine(folder, "vae", "config.json"), Path.Combine(folder, "unet", "config.json"), overwrite: true);
        ErrorAssert.Throws(ErrorIds.PipelineInvalid, () => StableDiffusionLoader.Load(folder), "AutoencoderKL", "UNet2DConditionModel");
    }

    [Theory]
    [InlineData("unet", "cross_attention_dim", "12", "12")]
    [InlineData("unet", "in_channels", "9", "inpainting")]
    [InlineData("unet", "out_channels", "8", "8 channels")]
    [InlineData("vae", "latent_channels", "2", "2")]
    public void Components_that_do_not_fit(string name, string key, string value, string says)
    {
        string folder = TinyPipeline.Write(_folder["sd"], edit: (component, json) =>
        {
            if (component == name)
            {
                json[key] = JsonNode.Parse(value);
            }
        });
        ErrorAssert.Throws(ErrorIds.PipelineInvalid, () => StableDiffusionLoader.Load(folder), says);
    }

    [Fact]
    public void Labels_are_refused() => ErrorAssert.Throws(
        ErrorIds.LabelsInvalid, () => StableDiffusionLoader.Load(TinyPipeline.Write(_folder["sd"]), new ModelLoadOptions { Labels = ["a", "b"] }), "does not classify");

    [Theory]
    [InlineData("down_block_types", "[\"AttnDownBlock2D\", \"DownBlock2D\"]")]
    [InlineData("up_block_types", "[\"AttnUpBlock2D\", \"UpBlock2D\"]")]
    [InlineData("mid_block_type", "\"UNetMidBlock2DSimpleCrossAttn\"")]
    [InlineData("class_embed_type", "\"timestep\"")]
    [InlineData("num_class_embeds", "1000")]
    [InlineData("addition_embed_type", "\"image\"")]
    [InlineData("encoder_hid_dim", "1024")]
    [InlineData("time_embedding_type", "\"fourier\"")]
    [InlineData("time_cond_proj_dim", "256")]
    [InlineData("attention_type", "\"gated\"")]
    [InlineData("dual_cross_attention", "true")]
    [InlineData("cross_attention_norm", "\"layer_norm\"")]
    [InlineData("resnet_time_scale_shift", "\"ada_group\"")]
    [InlineData("resnet_skip_time_act", "true")]
    [InlineData("num_attention_heads", "8")]
    [InlineData("norm_num_groups", "null")]
    [InlineData("act_fn", "\"snake\"")]
    [InlineData("some_new_option", "3")]
    public void An_option_of_the_UNet_that_is_not_built(string key, string value)
    {
        JsonObject config = TinyPipeline.UNet();
        config[key] = JsonNode.Parse(value);
        ErrorAssert.Throws(ErrorIds.ModelConfigUnsupported, () => ModelLoader.Build(new ModelConfig(config)), key);
    }

    [Theory]
    [InlineData("block_out_channels", "[8]")]
    [InlineData("block_out_channels", "[8, -16]")]
    [InlineData("up_block_types", "[\"UpBlock2D\"]")]
    [InlineData("down_block_types", "[]")]
    [InlineData("attention_head_dim", "[2, 2, 2]")]
    [InlineData("attention_head_dim", "3")]
    [InlineData("layers_per_block", "0")]
    [InlineData("norm_num_groups", "3")]
    [InlineData("transformer_layers_per_block", "[[1, 2], 1]")]
    [InlineData("only_cross_attention", "[true]")]
    [InlineData("only_cross_attention", "[true, 1]")]
    [InlineData("conv_in_kernel", "2")]
    [InlineData("sample_size", "\"64\"")]
    public void A_value_of_the_UNet_that_is_impossible(string key, string value)
    {
        JsonObject config = TinyPipeline.UNet();
        config[key] = JsonNode.Parse(value);
        if (value == "[true]")
        {
            config["only_cross_attention"] = JsonNode.Parse("[true, false, true]");
        }

        ErrorAssert.Throws(ErrorIds.ModelConfigInvalid, () => ModelLoader.Build(new ModelConfig(config)), key);
    }

    [Theory]
    [InlineData("down_block_types", "[\"AttnDownEncoderBlock2D\", \"DownEncoderBlock2D\"]")]
    [InlineData("up_block_types", "[\"UpDecoderBlock2D\", \"AttnUpDecoderBlock2D\"]")]
    [InlineData("shift_factor", "0.1159")]
    [InlineData("latents_mean", "[0, 0, 0, 0]")]
    [InlineData("tiling", "true")]
    public void An_option_of_the_autoencoder_that_is_not_built(string key, string value)
    {
        JsonObject config = TinyPipeline.Vae();
        config[key] = JsonNode.Parse(value);
        ErrorAssert.Throws(ErrorIds.ModelConfigUnsupported, () => ModelLoader.Build(new ModelConfig(config)), key);
    }

    [Fact]
    public void A_text_encoder_that_would_need_a_mask()
    {
        string folder = TinyPipeline.Write(_folder["sd"], edit: (component, json) =>
        {
            if (component == "text_encoder")
            {
                json["use_attention_mask"] = true;
            }
        });
        ErrorAssert.Throws(ErrorIds.ModelConfigUnsupported, () => StableDiffusionLoader.Load(folder), "use_attention_mask");
    }

    [Fact]
    public void Weights_that_are_there_in_another_variant_only()
    {
        string folder = TinyPipeline.Write(_folder["sd"]);
        string file = Path.Combine(folder, "unet", "diffusion_pytorch_model.safetensors");
        File.Move(file, Path.ChangeExtension(file, "fp16.safetensors"));
        ErrorAssert.Throws(ErrorIds.CheckpointNotFound, () => StableDiffusionLoader.Load(folder), "diffusion_pytorch_model.fp16.safetensors", "Rename");
    }

    [Fact]
    public void Inputs_that_do_not_fit()
    {
        using DisposeScope scope = NewDisposeScope();
        using StableDiffusionPipeline pipeline = StableDiffusionLoader.Load(TinyPipeline.Write(_folder["sd"]));
        Tensor sample = zeros(2, 4, 8, 8);
        Tensor text = zeros(2, 5, 8);
        Tensor times = tensor(new long[] { 1, 2 });
        Refuse(zeros(2, 3, 8, 8), times, text, "[2, 3, 8, 8]");
        Refuse(sample, zeros(3), text, "[3]");
        Refuse(sample, times, zeros(1, 5, 8), "[1, 5, 8]");
        Refuse(sample, times, zeros(2, 5, 9), "[2, 5, 9]");
        ErrorAssert.Throws(ErrorIds.ModelInputInvalid, () => pipeline.Denoiser.call(sample, times, text, new AddedConditions(zeros(2, 6), zeros(2, 6))), "no added conditions");
        ErrorAssert.Throws(ErrorIds.ModelInputInvalid, () => pipeline.Vae.Encode(zeros(1, 3, 15, 16)), "multiples of 2");
        ErrorAssert.Throws(ErrorIds.ModelInputInvalid, () => pipeline.Vae.Decode(zeros(1, 3, 8, 8)), "[1, 3, 8, 8]");
        ErrorAssert.Throws(ErrorIds.InvalidArgument, () => pipeline.Tokenize([]));

        void Refuse(Tensor latents, Tensor timesteps, Tensor context, string says) =>
            ErrorAssert.Throws(ErrorIds.ModelInputInvalid, () => pipeline.Denoiser.call(latents, timesteps, context, null), says);
    }

    private static void Index(string component, JsonObject json, Action<JsonObject> edit)
    {
        if (component == "model_index")
        {
            edit(json);
        }
    }
}
