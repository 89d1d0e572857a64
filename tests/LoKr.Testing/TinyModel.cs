using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Safetensors;
using LoKr.Models.Families;
using LoKr.Models.Loading;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Testing;

/// <summary>Random models of a few kilobytes made from configurations, and folders of them with tokenizers, written in milliseconds.</summary>
public static class TinyModel
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

    /// <summary>Writes config.json and random weights for every parameter after an edit of the tensors by name, and returns them in the caller's scope.</summary>
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

    /// <summary>A BERT encoder without a head, with a WordPiece vocabulary.</summary>
    public static string WriteBert(string folder)
    {
        string[] vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", .. TinyData.Words];
        JsonObject config = new()
        {
            ["model_type"] = "bert",
            ["architectures"] = new JsonArray("BertModel"),
            ["vocab_size"] = vocabulary.Length,
            ["hidden_size"] = 16,
            ["num_hidden_layers"] = 2,
            ["num_attention_heads"] = 2,
            ["intermediate_size"] = 32,
            ["max_position_embeddings"] = 32,
            ["hidden_dropout_prob"] = 0.0,
            ["attention_probs_dropout_prob"] = 0.0,
            ["dtype"] = "float32",
        };
        using DisposeScope scope = NewDisposeScope();
        Write(folder, config, tensors =>
        {
            SetNorms(tensors);
            foreach (string name in tensors.Keys.ToArray())
            {
                tensors.Remove(name, out Tensor? tensor);
                if (name.StartsWith("bert.", StringComparison.Ordinal))
                {
                    tensors[name["bert.".Length..]] = tensor!;
                }
            }
        });
        File.WriteAllLines(Path.Combine(folder, "vocab.txt"), vocabulary);
        File.WriteAllText(Path.Combine(folder, "tokenizer_config.json"), """{"do_lower_case": true, "model_max_length": 32, "tokenizer_class": "BertTokenizer"}""");
        return folder;
    }

    /// <summary>A Llama model with a byte-level tokenizer.</summary>
    public static string WriteLlama(string folder)
    {
        JsonObject config = new()
        {
            ["model_type"] = "llama",
            ["architectures"] = new JsonArray("LlamaForCausalLM"),
            ["vocab_size"] = 258,
            ["hidden_size"] = 16,
            ["intermediate_size"] = 32,
            ["num_hidden_layers"] = 2,
            ["num_attention_heads"] = 2,
            ["num_key_value_heads"] = 1,
            ["max_position_embeddings"] = 64,
            ["rms_norm_eps"] = 1e-6,
            ["tie_word_embeddings"] = true,
            ["bos_token_id"] = 256,
            ["eos_token_id"] = 257,
            ["dtype"] = "float32",
        };
        using DisposeScope scope = NewDisposeScope();
        Write(folder, config, tensors =>
        {
            SetNorms(tensors);
            tensors.Remove("lm_head.weight");
        });
        File.WriteAllText(Path.Combine(folder, "tokenizer.json"), ByteTokenizer().ToJsonString());
        File.WriteAllText(Path.Combine(folder, "tokenizer_config.json"),
            """{"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>", "model_max_length": 64, "tokenizer_class": "PreTrainedTokenizerFast"}""");
        return folder;
    }

    /// <summary>The same with a chat template, whose answers end with the end of text.</summary>
    /// <param name="folder">The folder.</param>
    /// <param name="before">What the template writes before the first message.</param>
    public static string WriteChat(string folder, string before = "")
    {
        WriteLlama(folder);
        File.WriteAllText(Path.Combine(folder, "chat_template.jinja"), before
            + "{% for m in messages %}{{ m.role[0] ~ ':' ~ m.content ~ (eos_token if m.role == 'assistant' else '\n') }}{% endfor %}{% if add_generation_prompt %}a:{% endif %}");
        return folder;
    }

    // Norms of ones, as in a model that can learn.
    private static void SetNorms(Dictionary<string, Tensor> tensors)
    {
        foreach (string name in tensors.Keys.Where(name => name.EndsWith("norm.weight", StringComparison.OrdinalIgnoreCase)))
        {
            tensors[name].fill_(1);
        }
    }

    private static JsonObject ByteTokenizer()
    {
        // The printable stand-ins that byte-level tokenizers use for bytes.
        JsonObject vocabulary = [];
        int other = 256;
        for (int value = 0; value < 256; value++)
        {
            bool printable = value is (>= 33 and <= 126) or (>= 161 and <= 172) or >= 174;
            vocabulary[((char)(printable ? value : other++)).ToString()] = value;
        }

        return new JsonObject
        {
            ["version"] = "1.0",
            ["truncation"] = null,
            ["padding"] = null,
            ["added_tokens"] = new JsonArray(Added(256, "<s>"), Added(257, "</s>")),
            ["normalizer"] = null,
            ["pre_tokenizer"] = new JsonObject { ["type"] = "ByteLevel", ["add_prefix_space"] = false, ["trim_offsets"] = true, ["use_regex"] = true },
            ["post_processor"] = null,
            ["decoder"] = new JsonObject { ["type"] = "ByteLevel", ["add_prefix_space"] = true, ["trim_offsets"] = true, ["use_regex"] = true },
            ["model"] = new JsonObject
            {
                ["type"] = "BPE",
                ["dropout"] = null,
                ["unk_token"] = null,
                ["continuing_subword_prefix"] = null,
                ["end_of_word_suffix"] = null,
                ["fuse_unk"] = false,
                ["byte_fallback"] = false,
                ["ignore_merges"] = false,
                ["vocab"] = vocabulary,
                ["merges"] = new JsonArray(),
            },
        };
    }

    private static JsonObject Added(int id, string content) => new()
    {
        ["id"] = id,
        ["content"] = content,
        ["single_word"] = false,
        ["lstrip"] = false,
        ["rstrip"] = false,
        ["normalized"] = false,
        ["special"] = true,
    };
}
