using System.Text.Json;
using LoKr.Core.Errors;
using LoKr.Core.IO;

namespace LoKr.Core.Configuration;

/// <summary>
/// Settings of PEFT's <c>adapter_config.json</c> for the tensors of LoRA or LoHa beside it. Only what applying them needs is read; training options
/// are ignored.
/// </summary>
/// <param name="Kind">LoRA or LoHa.</param>
/// <param name="Shared">
/// The keys that LoKr has too. Alpha is <c>lora_alpha</c> for LoRA, and <see cref="LoKrConfig.RsLora"/> is <c>use_rslora</c>.
/// </param>
internal sealed record LowRankConfig(string Kind, LoKrConfig Shared)
{
    private const string Lora = "LoRA";
    private const string Loha = "LoHa";

    // Training, initialization that leaves the base model as it is, and where the layers run.
    private static readonly string[] s_ignored =
    [
        "peft_version", "lora_dropout", "megatron_config", "megatron_core", "loftq_config", "eva_config", "corda_config", "lora_ga_config", "runtime_config",
        "ensure_weight_tying", "qalora_group_size", "rank_dropout", "module_dropout", "use_effective_conv2d", "init_weights",
    ];

    // Each changes what the two matrices mean, or adds tensors beside them.
    private static readonly string[] s_refused =
    [
        "lora_bias", "layer_replication", "target_parameters", "trainable_token_indices", "alora_invocation_tokens", "use_qalora", "use_bdlora", "arrow_config", "kasa_config",
        "monteclora_config", "velora_config",
    ];

    // The others change the base model when they begin, so that the matrices belong to a model that no file holds.
    private static readonly string[] s_initializations = ["gaussian", "orthogonal", "eva"];

    /// <summary>Whether the weights are stored in×out, as GPT-2's Conv1D stores them (<c>fan_in_fan_out</c>).</summary>
    public bool FanInFanOut { get; private init; }

    /// <summary>Reads a configuration of LoRA or LoHa; null for any other.</summary>
    /// <param name="fields">The configuration.</param>
    /// <param name="warnings">Keys that are not understood.</param>
    /// <exception cref="LoKrException"><c>LoKr.AdapterConfigInvalid</c>; <c>LoKr.OptionNotSupported</c> for options under which the two matrices are not the whole adapter.</exception>
    public static LowRankConfig? Find(JsonFields fields, out IReadOnlyList<string> warnings)
    {
        warnings = [];
        string? kind = fields.Peek("peft_type") switch
        {
            { ValueKind: JsonValueKind.String } type when type.ValueEquals("LORA") => Lora,
            { ValueKind: JsonValueKind.String } type when type.ValueEquals("LOHA") => Loha,
            _ => null,
        };
        if (kind is null)
        {
            return null;
        }

        fields.Find("peft_type");
        LoKrConfig shared = LoKrConfigParser.Shared(fields, kind == Lora ? "lora_alpha" : "alpha") with { RsLora = kind == Lora && fields.GetBool("use_rslora", false) };
        LowRankConfig config = new(kind, shared) { FanInFanOut = fields.GetBool("fan_in_fan_out", false) };
        Array.ForEach(s_ignored, key => fields.Find(key));

        // The file has its magnitudes where it is true.
        fields.GetBool("use_dora", false);
        CheckSupported(fields);
        LoKrConfigValidator.ValidateStored(shared);
        warnings = [.. LoKrConfigParser.Unknown(fields)];
        return config;
    }

    private static void CheckSupported(JsonFields fields)
    {
        if (fields.FindString("bias") is string bias and not "none")
        {
            throw NotSupported(fields, "bias", $"is \"{bias}\": the adapter trained biases of the base model");
        }

        if (fields.Find("init_lora_weights") is { ValueKind: JsonValueKind.String } start && start.GetString() is string name && !s_initializations.Contains(name))
        {
            throw NotSupported(fields, "init_lora_weights", $"is \"{name}\", which changes the base model before training: PEFT converts such an adapter when it is saved with path_initial_model_for_weight_conversion");
        }

        foreach (string key in s_refused)
        {
            if (fields.Find(key) is { ValueKind: not JsonValueKind.False } value && !(value.ValueKind == JsonValueKind.Array && value.GetArrayLength() == 0) && !(value.ValueKind == JsonValueKind.Object && value.GetPropertyCount() == 0))
            {
                throw NotSupported(fields, key, "is set: the two matrices of a layer are not all that the adapter changes, or mean something else");
            }
        }
    }

    private static LoKrException NotSupported(JsonFields fields, string key, string why) => new(
        ErrorIds.OptionNotSupported, LoKrErrorKind.NotSupported, $"'{key}' in '{fields.Source}' {why}.", "Merge the adapter with PEFT, or train it without this option.") { Target = key };
}
