using LoKr.Core.Configuration;
using LoKr.Core.Factors;
using LoKr.Core.Layouts;
using LoKr.Core.Safetensors;
using LoKr.Models.Tokenization.Models;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Benchmarks.References;

/// <summary>A checkpoint with the names and shapes of Llama 3.1 8B, fewer layers and random weights, and an adapter on all its linear layers.</summary>
internal static class LlamaFiles
{
    private const long Hidden = 4096;
    private const long Inner = 14336;
    private const long KeyValue = 1024;
    private const long Vocabulary = 32000;

    private static readonly (string Name, long Out, long In)[] s_layer =
    [
        ("self_attn.q_proj", Hidden, Hidden), ("self_attn.k_proj", KeyValue, Hidden), ("self_attn.v_proj", KeyValue, Hidden), ("self_attn.o_proj", Hidden, Hidden),
        ("mlp.gate_proj", Inner, Hidden), ("mlp.up_proj", Inner, Hidden), ("mlp.down_proj", Hidden, Inner),
    ];

    /// <summary>Writes a checkpoint in shards of a gigabyte, about 0.44 GB for each layer and 0.5 GB for the embeddings.</summary>
    public static string WriteBase(string folder, int layers, ScalarType type)
    {
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGrad = no_grad();

        // One set of values for all layers: the disk does not know, and memory stays small.
        Dictionary<string, Tensor> tensors = new(StringComparer.Ordinal) { ["model.embed_tokens.weight"] = Values(Vocabulary, Hidden) };
        Dictionary<string, Tensor> layer = s_layer.ToDictionary(static item => item.Name, item => Values(item.Out, item.In), StringComparer.Ordinal);
        Tensor norm = ones(Hidden, dtype: type);
        for (int i = 0; i < layers; i++)
        {
            tensors.Add($"model.layers.{i}.input_layernorm.weight", norm);
            foreach ((string name, Tensor values) in layer)
            {
                tensors.Add($"model.layers.{i}.{name}.weight", values);
            }

            tensors.Add($"model.layers.{i}.post_attention_layernorm.weight", norm);
        }

        tensors.Add("model.norm.weight", norm);
        tensors.Add("lm_head.weight", tensors["model.embed_tokens.weight"]);
        System.IO.Directory.CreateDirectory(folder);
        CheckpointWriter.Write(folder, tensors, 1L << 30);
        File.WriteAllText(Path.Combine(folder, "config.json"), Config(layers));
        return folder;

        Tensor Values(long rows, long columns) => (randn(rows, columns) * 0.02).to(type);
    }

    /// <summary>Writes a fine-tuning of a checkpoint: random changes of its weights, of about one percent.</summary>
    public static string WriteTuned(string from, string to)
    {
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGrad = no_grad();
        using CheckpointReader reader = CheckpointReader.Open(from);
        Dictionary<string, Tensor> tensors = reader.Entries.Keys.ToDictionary(static name => name, name => reader.Read(name), StringComparer.Ordinal);
        foreach ((string name, Tensor tensor) in tensors)
        {
            if (name.Contains("_proj", StringComparison.Ordinal))
            {
                tensor.add_(randn_like(tensor), alpha: 2e-4);
            }
        }

        System.IO.Directory.CreateDirectory(to);
        CheckpointWriter.Write(to, tensors, 1L << 30);
        File.Copy(Path.Combine(from, "config.json"), Path.Combine(to, "config.json"));
        return to;
    }

    /// <summary>The config.json of such a model.</summary>
    public static string Config(int layers) => $$"""
        {
          "model_type": "llama", "architectures": ["LlamaForCausalLM"], "tie_word_embeddings": false, "hidden_size": {{Hidden}}, "intermediate_size": {{Inner}},
          "num_hidden_layers": {{layers}}, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": {{Vocabulary}}, "max_position_embeddings": 8192,
          "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "hidden_act": "silu"
        }
        """;

    /// <summary>Writes an adapter on some of the linear layers, or on all.</summary>
    public static string WriteAdapter(string folder, int layers, LoKrConfig config, string[]? modules = null) =>
        WriteAdapter(folder, layers, config, [.. s_layer.Where(item => modules is null || modules.Contains(item.Name.Split('.')[1]))]);

    /// <summary>Writes an adapter on linear layers of any shapes.</summary>
    /// <param name="folder">Folder to write.</param>
    /// <param name="layers">Number of layers.</param>
    /// <param name="config">Rank and factor.</param>
    /// <param name="linear">Names within a layer, rows and columns.</param>
    public static string WriteAdapter(string folder, int layers, LoKrConfig config, IReadOnlyList<(string Name, long Out, long In)> linear)
    {
        using DisposeScope scope = NewDisposeScope();
        LoKrConfig full = config with { TargetModules = ModuleSelector.FromNames(linear.Select(static item => item.Name.Split('.')[1])) };
        Dictionary<string, Tensor> tensors = new(StringComparer.Ordinal);
        for (int i = 0; i < layers; i++)
        {
            foreach ((string name, long rows, long columns) in linear)
            {
                foreach ((string suffix, long[] shape) in FactorShapes.Create(rows, columns, [], full.R, full).Tensors())
                {
                    tensors.Add($"model.layers.{i}.{name}.{suffix}", randn(shape) * 0.02);
                }
            }
        }

        PeftAdapterFolder.Write(folder, full, tensors);
        return folder;
    }
}
