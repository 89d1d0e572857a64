using System.Collections.Frozen;
using LoKr.Core.Adapters;

namespace LoKr.Core.Formats.AdapterFiles;

/// <summary>Last parts of the names of an adapter's tensors.</summary>
internal static class AdapterSuffixes
{
    public const string Alpha = "alpha";
    public const string NormWeight = "w_norm";
    public const string NormBias = "b_norm";

    /// <summary>Factors of a Kronecker product.</summary>
    public static readonly FrozenSet<string> Factors = FrozenSet.Create(
        StringComparer.Ordinal,
        FactorNames.W1, FactorNames.W1A, FactorNames.W1B, FactorNames.W2, FactorNames.W2A, FactorNames.W2B, FactorNames.T2);

    /// <summary>What may stand beside the factors.</summary>
    public static readonly FrozenSet<string> Companions = FrozenSet.Create(StringComparer.Ordinal, Alpha, FactorNames.DoraScale, FactorNames.Scalar);

    /// <summary>Changes of a norm's weight and bias (LyCORIS <c>train_norm</c>).</summary>
    public static readonly FrozenSet<string> Norms = FrozenSet.Create(StringComparer.Ordinal, NormWeight, NormBias);

    /// <summary>Tensors of other kinds of adapters, and what they are called.</summary>
    public static readonly FrozenDictionary<string, string> Foreign = new Dictionary<string, string>
    {
        ["lora_A"] = "LoRA",
        ["lora_B"] = "LoRA",
        ["lora_up"] = "LoRA",
        ["lora_down"] = "LoRA",
        ["lora_mid"] = "LoCon",
        ["lora_embedding_A"] = "LoRA",
        ["lora_embedding_B"] = "LoRA",
        ["hada_w1_a"] = "LoHa",
        ["hada_w1_b"] = "LoHa",
        ["hada_w2_a"] = "LoHa",
        ["hada_w2_b"] = "LoHa",
        ["hada_t1"] = "LoHa",
        ["hada_t2"] = "LoHa",
        ["oft_blocks"] = "OFT",
        ["oft_R"] = "OFT",
        ["on_input"] = "IA3",
        ["diff"] = "a full difference",
        ["diff_b"] = "a difference of a bias",
        ["set_weight"] = "a whole weight",
        ["row_offset"] = "a slice of a fused layer",
        ["lokr_t1"] = "a LoKr with a core for w1",
    }.ToFrozenDictionary(StringComparer.Ordinal);

    /// <summary>Every suffix that is understood or named in an error.</summary>
    public static readonly FrozenSet<string> Known = Factors.Concat(Companions).Concat(Norms).Concat(Foreign.Keys).ToFrozenSet(StringComparer.Ordinal);

    /// <summary>Suffixes that an adapter's name follows in a dump of a model. A module of its own may be called alpha.</summary>
    public static readonly FrozenSet<string> Named = Known.Where(static suffix => suffix != Alpha).ToFrozenSet(StringComparer.Ordinal);
}
