using System.Text.Json;
using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Nn;

namespace LoKr.Models.Families;

/// <summary>Reads <c>generation_config.json</c>.</summary>
internal static class GenerationConfig
{
    // Ids of tokens are read where they are used; the others say how a result is stored or computed, not which one it is.
    private static readonly string[] s_withoutEffect =
    [
        "bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "transformers_version", "use_cache", "cache_implementation", "cache_config",
        "return_dict_in_generate", "output_scores", "output_logits", "output_attentions", "output_hidden_states", "trust_remote_code", "chat_format", "max_window_size",
    ];

    private static readonly string[] s_read = ["do_sample", "temperature", "top_k", "top_p", "repetition_penalty", "max_new_tokens", "max_length"];

    // With these values a key asks for nothing.
    private static readonly Dictionary<string, double> s_neutral = new(StringComparer.Ordinal)
    {
        ["num_beams"] = 1, ["num_beam_groups"] = 1, ["num_return_sequences"] = 1, ["typical_p"] = 1, ["length_penalty"] = 1, ["diversity_penalty"] = 0, ["no_repeat_ngram_size"] = 0,
        ["encoder_no_repeat_ngram_size"] = 0, ["encoder_repetition_penalty"] = 1, ["epsilon_cutoff"] = 0, ["eta_cutoff"] = 0, ["min_length"] = 0, ["min_p"] = 0, ["top_h"] = 1,
    };

    /// <summary>The settings of a file.</summary>
    /// <param name="config">The file.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.ModelConfigInvalid"/>.</exception>
    public static GenerationSettings Read(ModelConfig config) => new()
    {
        DoSample = config.FindBool("do_sample"),
        Temperature = config.FindDouble("temperature"),
        TopK = config.FindInt("top_k"),
        TopP = config.FindDouble("top_p"),
        RepetitionPenalty = config.FindDouble("repetition_penalty"),
        MaxNewTokens = config.FindInt("max_new_tokens"),
        MaxLength = config.FindInt("max_length"),
        Ignored =
        [
            .. config.Members
                .Where(static member => !member.Key.StartsWith('_') && !s_read.Contains(member.Key) && !s_withoutEffect.Contains(member.Key) && !IsNeutral(member.Key, member.Value))
                .Select(static member => $"{member.Key} = {member.Value.GetRawText()}"),
        ],
    };

    private static bool IsNeutral(string name, JsonElement value) => value.ValueKind switch
    {
        JsonValueKind.Null or JsonValueKind.False => true,
        JsonValueKind.Number => s_neutral.TryGetValue(name, out double neutral) && value.GetDouble() == neutral,
        _ => false,
    };
}
