using System.Collections.Frozen;

namespace LoKr.Core.Layouts;

/// <summary>How an adapter file names its tensors, and where it keeps alpha. <see cref="AdapterLayouts"/> describes each.</summary>
public enum AdapterLayout
{
    /// <summary>PEFT: <c>base_model.model.DOTS.lokr_w1</c>, alpha in adapter_config.json beside the file.</summary>
    Peft,

    /// <summary>A dump of a model with PEFT's adapters: <c>base_model.model.DOTS.lokr_w1.default</c>.</summary>
    PeftInMemory,

    /// <summary>kohya's sd-scripts and LyCORIS in it: <c>lora_unet_UNDERSCORES.lokr_w1</c>, <c>lora_te_…</c>, with alpha tensors.</summary>
    Kohya,

    /// <summary>LyCORIS's own wrapper: <c>lycoris_UNDERSCORES.lokr_w1</c>, with alpha tensors.</summary>
    Lycoris,

    /// <summary>ComfyUI and ai-toolkit: <c>diffusion_model.DOTS.lokr_w1</c>, with alpha tensors.</summary>
    Comfy,

    /// <summary>diffusers' pipelines: <c>unet.DOTS.lokr_w1</c>, <c>transformer.…</c>, <c>text_encoder.…</c>; alpha tensors, or the config in the header.</summary>
    Diffusers,

    /// <summary>A model saved by diffusers: <c>DOTS.lokr_w1</c>, with the config in the header entry <c>lora_adapter_metadata</c>.</summary>
    DiffusersModel,

    /// <summary>OneTrainer: <c>lora_transformer_UNDERSCORES.lokr_w1</c>, with alpha tensors.</summary>
    OneTrainer,

    /// <summary>HCP-Diffusion: <c>DOTS.___.lokr_w1</c>, with alpha tensors.</summary>
    Hcp,

    /// <summary>Bare names: <c>DOTS.lokr_w1</c>, with alpha tensors.</summary>
    Bare,
}

/// <summary>What the layouts have in common and what not: prefixes, dots or underscores, where alpha is.</summary>
public static class AdapterLayouts
{
    /// <summary>Header entry of diffusers with the LoKrConfig as JSON.</summary>
    internal const string DiffusersMetadata = "lora_adapter_metadata";

    /// <summary>What HCP-Diffusion puts between a module and its tensors.</summary>
    internal const string HcpMark = ".___";

    private static readonly (string Prefix, AdapterComponent Component)[] s_kohya =
    [
        ("lora_unet_", AdapterComponent.Unet),
        ("lora_te_", AdapterComponent.TextEncoder),
        ("lora_te1_", AdapterComponent.TextEncoder),
        ("lora_te2_", AdapterComponent.TextEncoder2),
        ("lora_te3_", AdapterComponent.TextEncoder3),
    ];

    private static readonly (string Prefix, AdapterComponent Component)[] s_oneTrainer =
    [
        ("lora_transformer_", AdapterComponent.Transformer),
        ("lora_prior_unet_", AdapterComponent.PriorUnet),
        ("lora_prior_te_", AdapterComponent.PriorTextEncoder),
    ];

    private static readonly (string Prefix, AdapterComponent Component)[] s_comfy =
    [
        ("diffusion_model.", AdapterComponent.Unet),
        ("text_encoders.clip_l.transformer.", AdapterComponent.TextEncoder),
        ("text_encoders.clip_g.transformer.", AdapterComponent.TextEncoder2),
        ("text_encoders.t5xxl.transformer.", AdapterComponent.TextEncoder3),
    ];

    private static readonly (string Prefix, AdapterComponent Component)[] s_diffusers =
    [
        ("unet.", AdapterComponent.Unet),
        ("transformer.", AdapterComponent.Transformer),
        ("text_encoder.", AdapterComponent.TextEncoder),
        ("text_encoder_2.", AdapterComponent.TextEncoder2),
        ("text_encoder_3.", AdapterComponent.TextEncoder3),
    ];

    private static readonly FrozenDictionary<AdapterLayout, (string Prefix, AdapterComponent Component)[]> s_prefixes = new Dictionary<AdapterLayout, (string, AdapterComponent)[]>
    {
        [AdapterLayout.Peft] = [(PeftAdapterFolder.Prefix, AdapterComponent.Model)],
        [AdapterLayout.PeftInMemory] = [(PeftAdapterFolder.Prefix, AdapterComponent.Model)],
        [AdapterLayout.Kohya] = s_kohya,
        [AdapterLayout.Lycoris] = [("lycoris_", AdapterComponent.Model)],
        [AdapterLayout.Comfy] = s_comfy,
        [AdapterLayout.Diffusers] = s_diffusers,
        [AdapterLayout.DiffusersModel] = [("", AdapterComponent.Model)],
        [AdapterLayout.OneTrainer] = [.. s_oneTrainer, .. s_kohya],
        [AdapterLayout.Hcp] = [("", AdapterComponent.Model)],
        [AdapterLayout.Bare] = [("", AdapterComponent.Model)],
    }.ToFrozenDictionary();

    /// <summary>Whether module names have underscores in place of their dots.</summary>
    public static bool IsUnderscored(AdapterLayout layout) => layout is AdapterLayout.Kohya or AdapterLayout.Lycoris or AdapterLayout.OneTrainer;

    /// <summary>Whether alpha is a tensor beside the factors; otherwise it is in a configuration.</summary>
    public static bool HasAlphaTensors(AdapterLayout layout) =>
        layout is not (AdapterLayout.Peft or AdapterLayout.PeftInMemory or AdapterLayout.Diffusers or AdapterLayout.DiffusersModel);

    /// <summary>Prefixes of the layout, in the order in which they are tried, with the component that each stands for.</summary>
    public static IReadOnlyList<(string Prefix, AdapterComponent Component)> Prefixes(AdapterLayout layout) => s_prefixes[layout];
}
