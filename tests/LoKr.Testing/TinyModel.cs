using System.Globalization;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Safetensors;
using LoKr.Models.Families;
using LoKr.Models.Loading;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Testing;

/// <summary>Random model folders of a few kilobytes with tokenizers, and data that fits them; made in milliseconds.</summary>
public static class TinyModel
{
    public static readonly string[] Labels = ["network", "access", "billing"];

    private static readonly string[] s_words =
    [
        "vpn", "wifi", "router", "cable", "slow", "password", "login", "account", "locked", "reset",
        "invoice", "payment", "refund", "card", "price", "the", "my", "is", "not", "working",
    ];

    /// <summary>A BERT encoder without a head, with a WordPiece vocabulary.</summary>
    public static string WriteBert(string folder)
    {
        string[] vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", .. s_words];
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
        WriteWeights(folder, config, name => !name.StartsWith("classifier", StringComparison.Ordinal), name => name["bert.".Length..]);
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
        WriteWeights(folder, config, _ => true, name => name);
        File.WriteAllText(Path.Combine(folder, "tokenizer.json"), ByteTokenizer().ToJsonString());
        File.WriteAllText(Path.Combine(folder, "tokenizer_config.json"),
            """{"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>", "model_max_length": 64, "tokenizer_class": "PreTrainedTokenizerFast"}""");
        return folder;
    }

    /// <summary>Tickets as JSON Lines; each label has its own words, so that a model can learn them.</summary>
    public static string WriteTickets(string file, int rows, int seed = 1)
    {
        Random random = new(seed);
        File.WriteAllLines(file, Enumerable.Range(0, rows).Select(row =>
        {
            int label = row % Labels.Length;
            string text = string.Join(' ', Enumerable.Range(0, 3 + random.Next(4)).Select(_ => s_words[random.Next(4) == 0 ? 15 + random.Next(5) : (label * 5) + random.Next(5)]));
            return JsonSerializer.Serialize(new { text, label = Labels[label] });
        }));
        return file;
    }

    /// <summary>Prompts with completions as JSON Lines.</summary>
    public static string WriteCompletions(string file, int rows)
    {
        File.WriteAllLines(file, Enumerable.Range(0, rows).Select(row => JsonSerializer.Serialize(new
        {
            prompt = string.Create(CultureInfo.InvariantCulture, $"{s_words[row % s_words.Length]}: "),
            completion = s_words[(row + 1) % s_words.Length],
        })));
        return file;
    }

    private static void WriteWeights(string folder, JsonObject config, Func<string, bool> keep, Func<string, string> rename)
    {
        using DisposeScope scope = NewDisposeScope();
        Directory.CreateDirectory(folder);
        File.WriteAllText(Path.Combine(folder, "config.json"), config.ToJsonString());
        using nn.Module module = ModelLoader.Build(new ModelConfig(config));
        using Generator generator = new(7, CPU);
        Dictionary<string, Tensor> tensors = module.named_parameters()
            .Where(item => keep(item.name) && item.name != "lm_head.weight")
            .ToDictionary(item => rename(item.name), item => Random(item.name, item.parameter.shape, generator), StringComparer.Ordinal);
        SafetensorsWriter.Write(Path.Combine(folder, "model.safetensors"), tensors, new Dictionary<string, string> { ["format"] = "pt" });
    }

    // Norms of ones and modest weights, as in a model that can learn.
    private static Tensor Random(string name, long[] shape, Generator generator) =>
        name.EndsWith("norm.weight", StringComparison.OrdinalIgnoreCase) ? ones(shape) : empty(shape).normal_(0, 0.3, generator);

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
