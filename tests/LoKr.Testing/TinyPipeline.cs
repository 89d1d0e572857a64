using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Safetensors;
using LoKr.Models.Families;
using LoKr.Models.Loading;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Testing;

/// <summary>Random Stable Diffusion pipelines of a few hundred kilobytes, made from configurations: images of 16 by 16 pixels, latents of 8 by 8.</summary>
public static class TinyPipeline
{
    /// <summary>Writes a diffusers folder.</summary>
    /// <param name="folder">Where to.</param>
    /// <param name="large">Whether it is a Stable Diffusion XL with two text encoders.</param>
    /// <param name="edit">Changes a component's configuration (by folder name; model_index for the pipeline's) before weights are made for it.</param>
    /// <returns>The folder.</returns>
    public static string Write(string folder, bool large = false, Action<string, JsonObject>? edit = null)
    {
        Directory.CreateDirectory(folder);
        JsonObject index = new()
        {
            ["_class_name"] = large ? "StableDiffusionXLPipeline" : "StableDiffusionPipeline",
            ["_diffusers_version"] = "0.30.0",
            ["scheduler"] = new JsonArray("diffusers", "DDIMScheduler"),
            ["text_encoder"] = new JsonArray("transformers", "CLIPTextModel"),
            ["tokenizer"] = new JsonArray("transformers", "CLIPTokenizer"),
            ["unet"] = new JsonArray("diffusers", "UNet2DConditionModel"),
            ["vae"] = new JsonArray("diffusers", "AutoencoderKL"),
            ["safety_checker"] = new JsonArray(null, null),
        };
        WriteModel(folder, "text_encoder", TextEncoder("CLIPTextModel"), "model", edit);
        WriteModel(folder, "unet", UNet(large), "diffusion_pytorch_model", edit);
        WriteModel(folder, "vae", Vae(), "diffusion_pytorch_model", edit);
        WriteTokenizer(Path.Combine(folder, "tokenizer"));
        if (large)
        {
            index["text_encoder_2"] = new JsonArray("transformers", "CLIPTextModelWithProjection");
            index["tokenizer_2"] = new JsonArray("transformers", "CLIPTokenizer");
            WriteModel(folder, "text_encoder_2", TextEncoder("CLIPTextModelWithProjection"), "model", edit);
            WriteTokenizer(Path.Combine(folder, "tokenizer_2"));
        }

        WriteJson(folder, "scheduler", "scheduler_config.json", Scheduler(), edit);
        WriteJson(folder, "model_index", "../model_index.json", index, edit);
        Directory.Delete(Path.Combine(folder, "model_index"));
        return folder;
    }

    /// <summary>Configuration of the UNet.</summary>
    public static JsonObject UNet(bool large = false)
    {
        JsonObject config = new()
        {
            ["_class_name"] = "UNet2DConditionModel",
            ["sample_size"] = 8,
            ["block_out_channels"] = new JsonArray(8, 16),
            ["down_block_types"] = new JsonArray("CrossAttnDownBlock2D", "DownBlock2D"),
            ["up_block_types"] = new JsonArray("UpBlock2D", "CrossAttnUpBlock2D"),
            ["layers_per_block"] = 1,
            ["norm_num_groups"] = 4,
            ["attention_head_dim"] = 2,
            ["cross_attention_dim"] = large ? 16 : 8,
        };
        if (large)
        {
            config["attention_head_dim"] = new JsonArray(2, 4);
            config["transformer_layers_per_block"] = new JsonArray(1, 2);
            config["use_linear_projection"] = true;
            config["addition_embed_type"] = "text_time";
            config["addition_time_embed_dim"] = 4;
            config["projection_class_embeddings_input_dim"] = 6 + (6 * 4);
        }

        return config;
    }

    /// <summary>Configuration of the autoencoder.</summary>
    public static JsonObject Vae() => new()
    {
        ["_class_name"] = "AutoencoderKL",
        ["block_out_channels"] = new JsonArray(8, 16),
        ["down_block_types"] = new JsonArray("DownEncoderBlock2D", "DownEncoderBlock2D"),
        ["up_block_types"] = new JsonArray("UpDecoderBlock2D", "UpDecoderBlock2D"),
        ["norm_num_groups"] = 4,
        ["sample_size"] = 16,
        ["scaling_factor"] = 0.18215,
    };

    private static JsonObject TextEncoder(string className) => new()
    {
        ["model_type"] = "clip_text_model",
        ["architectures"] = new JsonArray(className),
        ["vocab_size"] = 514,
        ["hidden_size"] = 8,
        ["num_hidden_layers"] = 2,
        ["num_attention_heads"] = 2,
        ["intermediate_size"] = 16,
        ["max_position_embeddings"] = 24,
        ["projection_dim"] = 6,
        ["eos_token_id"] = 513,
        ["dtype"] = "float32",
    };

    private static JsonObject Scheduler() => new()
    {
        ["_class_name"] = "DDIMScheduler",
        ["beta_start"] = 0.00085,
        ["beta_end"] = 0.012,
        ["beta_schedule"] = "scaled_linear",
        ["num_train_timesteps"] = 1000,
        ["clip_sample"] = false,
        ["set_alpha_to_one"] = false,
        ["steps_offset"] = 1,
        ["prediction_type"] = "epsilon",
    };

    private static void WriteModel(string pipeline, string name, JsonObject config, string weights, Action<string, JsonObject>? edit)
    {
        WriteJson(pipeline, name, "config.json", config, edit);
        using DisposeScope scope = NewDisposeScope();
        using nn.Module module = ModelLoader.Build(new ModelConfig(config));
        using Generator generator = new(7, CPU);
        Dictionary<string, Tensor> tensors = module.named_parameters().ToDictionary(
            item => item.name,
            item => item.name.Contains("norm", StringComparison.Ordinal) && item.name.EndsWith("weight", StringComparison.Ordinal)
                ? ones(item.parameter.shape)
                : empty(item.parameter.shape).normal_(0, 0.3, generator),
            StringComparer.Ordinal);
        SafetensorsWriter.Write(Path.Combine(pipeline, name, $"{weights}.safetensors"), tensors, new Dictionary<string, string> { ["format"] = "pt" });
    }

    private static void WriteJson(string pipeline, string name, string file, JsonObject json, Action<string, JsonObject>? edit)
    {
        edit?.Invoke(name, json);
        Directory.CreateDirectory(Path.Combine(pipeline, name));
        File.WriteAllText(Path.Combine(pipeline, name, file), json.ToJsonString());
    }

    // Every byte alone, inside a word and at its end: CLIP's vocabulary without its merges.
    private static void WriteTokenizer(string folder)
    {
        JsonObject vocabulary = [];
        foreach (string end in (string[])["", "</w>"])
        {
            int other = 256;
            for (int value = 0; value < 256; value++)
            {
                bool printable = value is (>= 33 and <= 126) or (>= 161 and <= 172) or >= 174;
                vocabulary[(char)(printable ? value : other++) + end] = vocabulary.Count;
            }
        }

        vocabulary["<|startoftext|>"] = 512;
        vocabulary["<|endoftext|>"] = 513;
        Directory.CreateDirectory(folder);
        File.WriteAllText(Path.Combine(folder, "vocab.json"), vocabulary.ToJsonString());
        File.WriteAllText(Path.Combine(folder, "merges.txt"), "#version: 0.2\n");
        File.WriteAllText(Path.Combine(folder, "tokenizer_config.json"), """
            {"tokenizer_class": "CLIPTokenizer", "bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>",
             "unk_token": "<|endoftext|>", "model_max_length": 24}
            """);
    }
}
