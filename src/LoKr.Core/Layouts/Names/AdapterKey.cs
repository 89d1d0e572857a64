using System.Collections.Frozen;
using LoKr.Core.Factors;

namespace LoKr.Core.Layouts.Names;

/// <summary>The parts of the name of one tensor.</summary>
/// <param name="Component">Part of the pipeline.</param>
/// <param name="Module">Name of the module without the layout's prefix.</param>
/// <param name="Suffix">Last part, which tells the module's tensors apart; empty for a tensor that is not part of an adapter.</param>
/// <param name="AdapterName">Name of the adapter, where the layout has one.</param>
internal readonly record struct AdapterKey(AdapterComponent Component, string Module, string Suffix, string? AdapterName)
{
    // GPT-2, models like it, and DistilBERT have a module called transformer; no transformer of diffusers has these in it.
    private static readonly string[] s_textModels = ["transformer.h.", "transformer.wte", "transformer.wpe", "transformer.layer."];

    /// <summary>Splits a name into module, suffix and adapter name; the layout's prefix is still part of the module.</summary>
    public static AdapterKey Split(string key)
    {
        (string module, string suffix, string? adapter) = Parts(key);
        return new(AdapterComponent.Model, NamePrefixes.WithoutCompiled(module), suffix, adapter);
    }

    /// <summary>Where the module ends in the whole name of the tensor.</summary>
    public int ModuleEnd(string key) => key.LastIndexOf("." + Suffix, StringComparison.Ordinal);

    /// <summary>The layout that this name alone indicates.</summary>
    public AdapterLayout Guess()
    {
        if (Module.StartsWith(PeftAdapterFolder.Prefix, StringComparison.Ordinal))
        {
            return AdapterName is null ? AdapterLayout.Peft : AdapterLayout.PeftInMemory;
        }

        if (Suffix.Length > 0 && Module.EndsWith(AdapterLayouts.HcpMark, StringComparison.Ordinal))
        {
            return AdapterLayout.Hcp;
        }

        // The order matters: OneTrainer shares some prefixes with kohya.
        foreach (AdapterLayout layout in (ReadOnlySpan<AdapterLayout>)[AdapterLayout.Kohya, AdapterLayout.OneTrainer, AdapterLayout.Lycoris, AdapterLayout.Comfy])
        {
            if (TryStrip(layout, out _))
            {
                return layout;
            }
        }

        return TryStrip(AdapterLayout.Diffusers, out _) && !IsOfTextModel(Module)
            ? AdapterLayout.Diffusers
            : AdapterLayout.Bare;
    }

    /// <summary>Takes the prefix of a layout off the module of a split name; false where it is not there.</summary>
    /// <param name="layout">The layout.</param>
    /// <param name="stripped">The key without the prefix.</param>
    /// <param name="isMixed">Whether prefixes of other programs that the layout's program reads count too.</param>
    public bool TryStrip(AdapterLayout layout, out AdapterKey stripped, bool isMixed = false) =>
        TryStrip(isMixed ? AdapterLayouts.PrefixesInFiles(layout) : AdapterLayouts.Prefixes(layout), layout, out stripped);

    private static bool IsOfTextModel(string module) => Array.Exists(s_textModels, name => module.StartsWith(name, StringComparison.Ordinal));

    private bool TryStrip(IEnumerable<LayoutPrefix> prefixes, AdapterLayout layout, out AdapterKey stripped)
    {
        stripped = this;
        string module = Module;
        if (layout == AdapterLayout.Hcp && Suffix.Length > 0)
        {
            if (!module.EndsWith(AdapterLayouts.HcpMark, StringComparison.Ordinal))
            {
                return false;
            }

            module = module[..^AdapterLayouts.HcpMark.Length];
        }

        foreach (LayoutPrefix prefix in prefixes)
        {
            if (module.Length > prefix.Text.Length && (module.StartsWith(prefix.Text, StringComparison.Ordinal) || HasDottedPrefix(module, prefix.Text)))
            {
                stripped = this with { Component = prefix.Component, Module = module[prefix.Text.Length..] };
                return true;
            }
        }

        return false;
    }

    // OneTrainer has also used a dot after the prefix, and dots in the name.
    private static bool HasDottedPrefix(string module, string prefix) => prefix.EndsWith('_')
        && module[prefix.Length - 1] == '.'
        && module.AsSpan(0, prefix.Length - 1).SequenceEqual(prefix.AsSpan(0, prefix.Length - 1));

    private static (string Module, string Suffix, string? Adapter) Parts(string key)
    {
        int dot = key.LastIndexOf('.');
        if (dot <= 0)
        {
            return (key, "", null);
        }

        string last = key[(dot + 1)..];
        if (AdapterSuffixes.Known.Contains(last))
        {
            return (key[..dot], last, null);
        }

        // PEFT's in-memory names: the adapter's name comes last, with .weight after a module that is saved whole.
        int before = key.LastIndexOf('.', dot - 1);
        string middle = key[(before + 1)..dot];
        bool isParameter = last is "weight" or "bias";
        if (before > 0 && AdapterSuffixes.Named.Contains(middle))
        {
            return (key[..before], middle, isParameter && AdapterSuffixes.Foreign.ContainsKey(middle) ? null : last);
        }

        // The matrices of LoRA are modules, and the adapter's name comes before their parameter.
        int first = before > 0 ? key.LastIndexOf('.', before - 1) : -1;
        if (first > 0 && isParameter && AdapterSuffixes.Foreign.ContainsKey(key[(first + 1)..before]))
        {
            return (key[..first], key[(first + 1)..before], middle);
        }

        const string Saved = ".modules_to_save.";
        int saved = key.IndexOf(Saved, StringComparison.Ordinal);
        if (saved > 0)
        {
            string rest = key[(saved + Saved.Length)..];
            int end = rest.IndexOf('.', StringComparison.Ordinal);
            if (end > 0)
            {
                return ($"{key[..saved]}{rest[end..]}", "", rest[..end]);
            }
        }

        return (key, "", null);
    }
}

/// <summary>Last parts of the names of an adapter's tensors.</summary>
internal static class AdapterSuffixes
{
    public const string Alpha = "alpha";
    public const string NormWeight = "w_norm";
    public const string NormBias = "b_norm";

    /// <summary>PEFT's name of DoRA's magnitudes beside LoRA.</summary>
    public const string Magnitude = "lora_magnitude_vector";

    /// <summary>The two matrices as PEFT calls them, and as kohya's scripts do.</summary>
    private static readonly (string Peft, string Kohya)[] s_matrices = [("lora_A", "lora_down"), ("lora_B", "lora_up")];

    /// <summary>Factors of a Kronecker product.</summary>
    public static readonly FrozenSet<string> Factors = FrozenSet.Create(
        StringComparer.Ordinal,
        FactorNames.W1, FactorNames.W1A, FactorNames.W1B, FactorNames.W2, FactorNames.W2A, FactorNames.W2B, FactorNames.T2);

    /// <summary>Tensors that factors may be accompanied by.</summary>
    public static readonly FrozenSet<string> Companions = FrozenSet.Create(StringComparer.Ordinal, Alpha, FactorNames.DoraScale, FactorNames.Scalar);

    /// <summary>Changes of a norm's weight and bias (LyCORIS <c>train_norm</c>).</summary>
    public static readonly FrozenSet<string> Norms = FrozenSet.Create(StringComparer.Ordinal, NormWeight, NormBias);

    /// <summary>Tensors of other kinds of adapters, and the names of these kinds.</summary>
    public static readonly FrozenDictionary<string, string> Foreign = new Dictionary<string, string>
    {
        ["lora_A"] = "LoRA",
        ["lora_B"] = "LoRA",
        ["lora_up"] = "LoRA",
        ["lora_down"] = "LoRA",
        ["lora_mid"] = "LoCon",
        ["lora_embedding_A"] = "LoRA",
        ["lora_embedding_B"] = "LoRA",
        [Magnitude] = "LoRA",
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

    /// <summary>Every suffix that is read, or named in an error.</summary>
    public static readonly FrozenSet<string> Known = Factors.Concat(Companions).Concat(Norms).Concat(Foreign.Keys).ToFrozenSet(StringComparer.Ordinal);

    /// <summary>Suffixes that the adapter's name follows in a dump of a model. Alpha is not one: a module may be called alpha.</summary>
    public static readonly FrozenSet<string> Named = Known.Where(static suffix => suffix != Alpha).ToFrozenSet(StringComparer.Ordinal);

    /// <summary>
    /// Kind of a tensor of another kind of adapter, from the rest of its name after the module: <c>lora_A.weight</c> and <c>lora_A.default.weight</c>
    /// are lora_A. A bias beside a matrix is something else, and keeps its whole name.
    /// </summary>
    /// <param name="rest">The rest of the name.</param>
    public static string Part(string rest)
    {
        const string bias = ".bias";
        int dot = rest.IndexOf('.', StringComparison.Ordinal);
        return dot < 0 ? rest : rest.EndsWith(bias, StringComparison.Ordinal) ? rest[..dot] + bias : rest[..dot];
    }

    /// <summary>The end of a tensor's name with kohya's names of the two matrices.</summary>
    /// <param name="rest">The end of the name after the module.</param>
    public static string Kohya(string rest) => s_matrices.Aggregate(rest, static (text, name) => text.StartsWith(name.Peft + ".", StringComparison.Ordinal) ? name.Kohya + text[name.Peft.Length..] : text);

    /// <summary>The end of a tensor's name with PEFT's names of the two matrices.</summary>
    /// <param name="rest">The end of the name after the module.</param>
    public static string Peft(string rest) => s_matrices.Aggregate(rest, static (text, name) => text.StartsWith(name.Kohya + ".", StringComparison.Ordinal) ? name.Peft + text[name.Kohya.Length..] : text);
}
