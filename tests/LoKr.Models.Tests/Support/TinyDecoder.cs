using System.Text.Json.Nodes;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Models.Loading;
using LoKr.Testing;

namespace LoKr.Models.Tests.Support;

/// <summary>Random Llama-like models of a few kilobytes.</summary>
internal static class TinyDecoder
{
    /// <summary>A configuration of two layers and two query heads a key head, with other keys laid over it (a JSON null replaces too).</summary>
    public static JsonObject Config(string modelType, string overlay = "{}")
    {
        JsonObject config = new()
        {
            ["model_type"] = modelType,
            ["vocab_size"] = 50,
            ["hidden_size"] = 16,
            ["intermediate_size"] = 24,
            ["num_hidden_layers"] = 2,
            ["num_attention_heads"] = 4,
            ["num_key_value_heads"] = 2,
            ["head_dim"] = 4,
            ["max_position_embeddings"] = 64,
            ["eos_token_id"] = null,
            ["dtype"] = "float32",
        };
        foreach ((string key, JsonNode? value) in JsonNode.Parse(overlay)!.AsObject())
        {
            config[key] = value?.DeepClone();
        }

        return config;
    }

    /// <summary>Writes a random model and loads it.</summary>
    public static LoKrModel Load(JsonObject config, ModelLoadOptions? options = null)
    {
        using TempFolder folder = new();
        using TorchSharp.DisposeScope scope = TorchSharp.torch.NewDisposeScope();
        TinyModel.Write(folder.Path, config);
        return ModelLoader.Load(folder.Path, (options ?? new ModelLoadOptions()) with { WithTokenizer = false });
    }

    /// <summary>The model as a language model.</summary>
    public static ICausalLanguageModel Language(this LoKrModel model) => (ICausalLanguageModel)model.Module;

    /// <summary>Ids of a prompt.</summary>
    public static int[] Prompt(int length) => [.. Enumerable.Range(0, length).Select(i => ((i * i * 7) + (i * 3) + 11) % 50)];
}
