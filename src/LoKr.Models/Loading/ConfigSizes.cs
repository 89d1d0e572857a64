using System.Globalization;
using System.Text.Json;
using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Safetensors;

namespace LoKr.Models.Loading;

/// <summary>
/// Refuses counts and sizes of a configuration that no model has, before a module is built from them: a damaged or hostile config.json must not
/// take time and memory, and products of sizes must not overflow.
/// </summary>
internal static class ConfigSizes
{
    // Several times those of the largest published models. Products of two sizes fit into 64 bits as bytes, of two small ones into 32 bits.
    private const long MostLayers = 2_048;
    private const long MostLayersPerBlock = 64;
    private const long MostLayersOfBlocks = 1_024;
    private const long LargestSize = 1 << 24;
    private const long LargestSmallSize = 1 << 14;

    private static readonly string[] s_layers = ["num_hidden_layers", "n_layer", "n_layers", "num_hidden_groups", "inner_group_num"];

    private static readonly string[] s_layersPerBlock = ["layers_per_block", "transformer_layers_per_block", "reverse_transformer_layers_per_block"];

    private static readonly string[] s_sizes =
    [
        "vocab_size", "hidden_size", "intermediate_size", "dim", "hidden_dim", "n_embd", "n_inner", "n_positions", "max_position_embeddings",
        "type_vocab_size", "num_labels", "projection_dim", "cross_attention_dim", "encoder_hid_dim", "block_out_channels", "time_embedding_dim",
        "projection_class_embeddings_input_dim", "embedding_size", "original_max_position_embeddings", "pooler_hidden_size", "position_buckets",
        "max_relative_positions", "sliding_window", "local_attention",
    ];

    private static readonly string[] s_smallSizes =
    [
        "num_attention_heads", "num_key_value_heads", "n_head", "n_heads", "head_dim", "attention_head_dim", "num_channels", "image_size", "patch_size",
        "attention_head_size", "conv_kernel_size", "sample_size", "in_channels", "out_channels", "latent_channels", "norm_num_groups", "addition_time_embed_dim",
    ];

    /// <summary>Checks the counts and sizes of a configuration.</summary>
    /// <param name="config">The configuration. Values of a wrong type are left to its reader.</param>
    /// <param name="checkpoint">The weights, or null for a model without.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.ModelConfigInvalid"/>.</exception>
    public static void Check(ModelConfig config, ITensorSource? checkpoint)
    {
        long layers = checkpoint is null ? MostLayers : Math.Min(MostLayers, checkpoint.Entries.Count);
        Check(config, s_layers, layers, value => value > MostLayers || checkpoint is null
            ? string.Create(CultureInfo.InvariantCulture, $"{MostLayers} layers are the most that are built")
            : string.Create(CultureInfo.InvariantCulture, $"the checkpoint has only {checkpoint.Entries.Count} tensors"));
        Check(config, s_layersPerBlock, Math.Min(MostLayersPerBlock, layers), value => value > MostLayersPerBlock || checkpoint is null
            ? string.Create(CultureInfo.InvariantCulture, $"{MostLayersPerBlock} layers are the most that are built in one block")
            : string.Create(CultureInfo.InvariantCulture, $"the checkpoint has only {checkpoint.Entries.Count} tensors"));
        CheckBlocks(config);
        Check(config, s_sizes, LargestSize, static _ => string.Create(CultureInfo.InvariantCulture, $"{LargestSize} is the largest size that is built"));
        Check(config, s_smallSizes, LargestSmallSize, static _ => string.Create(CultureInfo.InvariantCulture, $"{LargestSmallSize} is the largest value that is built"));
    }

    // Every block has its layers, and each of these its transformer layers.
    private static void CheckBlocks(ModelConfig config)
    {
        double count = config.Peek("down_block_types") is { ValueKind: JsonValueKind.Array } blocks ? blocks.GetArrayLength() : 1;
        foreach (string key in s_layersPerBlock[..2])
        {
            count *= Math.Max(1, Numbers(config.Peek(key)).DefaultIfEmpty(1).Max());
        }

        if (count > MostLayersOfBlocks)
        {
            throw config.Invalid(s_layersPerBlock[0], string.Create(CultureInfo.InvariantCulture, $"makes {count} layers of all blocks; {MostLayersOfBlocks} are the most that are built"));
        }
    }

    private static void Check(ModelConfig config, string[] keys, long limit, Func<double, string> explain)
    {
        foreach (string key in keys)
        {
            foreach (double value in Numbers(config.Peek(key)))
            {
                if (value > limit)
                {
                    throw config.Invalid(key, string.Create(CultureInfo.InvariantCulture, $"is {value}; {explain(value)}"));
                }
            }
        }
    }

    // A number, or numbers in lists.
    private static IEnumerable<double> Numbers(JsonElement? value) => value switch
    {
        { ValueKind: JsonValueKind.Number } one => one.TryGetDouble(out double number) ? [number] : [],
        { ValueKind: JsonValueKind.Array } list => list.EnumerateArray().SelectMany(item => Numbers(item)),
        _ => [],
    };
}
