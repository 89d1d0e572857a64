using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Safetensors;
using LoKr.Models.Families;
using LoKr.Models.Loading;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Models.Tests.Support;

/// <summary>Random model folders of a few kilobytes, made from a configuration.</summary>
internal static class TinyModel
{
    /// <summary>A BERT classifier of one layer.</summary>
    public static JsonObject BertConfig(params string[] labels)
    {
        JsonObject config = new()
        {
            ["model_type"] = "bert",
            ["architectures"] = new JsonArray("BertForSequenceClassification"),
            ["vocab_size"] = 40,
            ["hidden_size"] = 8,
            ["num_hidden_layers"] = 1,
            ["num_attention_heads"] = 2,
            ["intermediate_size"] = 16,
            ["max_position_embeddings"] = 12,
            ["dtype"] = "float32",
        };
        if (labels.Length > 0)
        {
            JsonObject names = [];
            for (int i = 0; i < labels.Length; i++)
            {
                names[$"{i}"] = labels[i];
            }

            config["id2label"] = names;
        }

        return config;
    }

    /// <summary>A ViT classifier of two layers for images of 8 by 12 pixels.</summary>
    public static JsonObject VitConfig() => new()
    {
        ["model_type"] = "vit",
        ["architectures"] = new JsonArray("ViTForImageClassification"),
        ["hidden_size"] = 8,
        ["num_hidden_layers"] = 2,
        ["num_attention_heads"] = 2,
        ["intermediate_size"] = 16,
        ["image_size"] = new JsonArray(8, 12),
        ["patch_size"] = 4,
        ["dtype"] = "float32",
    };

    /// <summary>A CLIP text encoder of two layers; 39 ends a text.</summary>
    public static JsonObject ClipTextConfig() => new()
    {
        ["model_type"] = "clip_text_model",
        ["vocab_size"] = 40,
        ["hidden_size"] = 8,
        ["num_hidden_layers"] = 2,
        ["num_attention_heads"] = 2,
        ["intermediate_size"] = 16,
        ["max_position_embeddings"] = 12,
        ["projection_dim"] = 6,
        ["eos_token_id"] = 39,
        ["dtype"] = "float32",
    };

    /// <summary>A GPT-2 of two layers.</summary>
    public static JsonObject Gpt2Config() => new()
    {
        ["model_type"] = "gpt2",
        ["architectures"] = new JsonArray("GPT2LMHeadModel"),
        ["vocab_size"] = 40,
        ["n_embd"] = 8,
        ["n_layer"] = 2,
        ["n_head"] = 2,
        ["n_positions"] = 12,
        ["eos_token_id"] = 1,
        ["dtype"] = "float32",
    };

    /// <summary>Writes config.json and random weights for every parameter, after an edit of the tensors by name; gives what was written to the caller's scope.</summary>
    public static IReadOnlyDictionary<string, Tensor> Write(string folder, JsonObject config, Action<Dictionary<string, Tensor>>? edit = null)
    {
        using DisposeScope scope = NewDisposeScope();
        Directory.CreateDirectory(folder);
        File.WriteAllText(Path.Combine(folder, "config.json"), config.ToJsonString());
        using nn.Module module = ModelLoader.Build(new ModelConfig(config));
        using Generator generator = new(7, CPU);
        Dictionary<string, Tensor> tensors = module.named_parameters().ToDictionary(
            item => item.name, item => empty(item.parameter.shape).normal_(0, 0.3, generator), StringComparer.Ordinal);
        edit?.Invoke(tensors);
        SafetensorsWriter.Write(Path.Combine(folder, "model.safetensors"), tensors, new Dictionary<string, string> { ["format"] = "pt" });
        return tensors.ToDictionary(item => item.Key, item => item.Value.MoveToOuterDisposeScope(), StringComparer.Ordinal);
    }

    /// <summary>A batch of two rows, the second padded.</summary>
    public static (Tensor Ids, Tensor Mask) Batch() => (
        tensor([2L, 5, 6, 7, 3, 2, 9, 3, 0, 0]).view(2, 5),
        tensor([1L, 1, 1, 1, 1, 1, 1, 1, 0, 0]).view(2, 5));
}
