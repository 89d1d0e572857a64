using System.Collections.Frozen;

namespace LoKr.Core.Layouts.Names;

/// <summary>A prefix that a layout puts before the names of a component's modules.</summary>
/// <param name="Text">The prefix.</param>
/// <param name="Component">The component.</param>
internal sealed record LayoutPrefix(string Text, AdapterComponent Component);

/// <summary>The differences between layouts as data: prefixes, dots or underscores, the place of alpha.</summary>
internal static class AdapterLayouts
{
    /// <summary>Header entry of diffusers with the configuration as JSON.</summary>
    public const string DiffusersMetadata = "lora_adapter_metadata";

    /// <summary>Mark that HCP-Diffusion puts between the name of a module and those of its tensors.</summary>
    public const string HcpMark = ".___";

    private static readonly LayoutPrefix[] s_kohya =
    [
        new("lora_unet_", AdapterComponent.Unet),
        new("lora_te_", AdapterComponent.TextEncoder),
        new("lora_te1_", AdapterComponent.TextEncoder),
        new("lora_te2_", AdapterComponent.TextEncoder2),
        new("lora_te3_", AdapterComponent.TextEncoder3),
    ];

    private static readonly LayoutPrefix[] s_oneTrainer =
    [
        new("lora_transformer_", AdapterComponent.Transformer),
        new("lora_prior_unet_", AdapterComponent.PriorUnet),
        new("lora_prior_te_", AdapterComponent.PriorTextEncoder),
        .. s_kohya,
    ];

    private static readonly LayoutPrefix[] s_comfy =
    [
        new("diffusion_model.", AdapterComponent.Unet),
        new("model.diffusion_model.", AdapterComponent.Unet),
        new("text_encoders.clip_l.transformer.", AdapterComponent.TextEncoder),
        new("text_encoders.clip_g.transformer.", AdapterComponent.TextEncoder2),
        new("text_encoders.t5xxl.transformer.", AdapterComponent.TextEncoder3),
        .. NameTables.All.SelectMany(static family => family.Parts)
            .SelectMany(static part => (part.Programs.GetValueOrDefault(AdapterProgram.ComfyUI) ?? []).Select(spelling => new LayoutPrefix(spelling.Prefix, part.Component)))
            .Where(static prefix => prefix.Text.StartsWith("text_encoders.", StringComparison.Ordinal)).DistinctBy(static prefix => prefix.Text)
            .Where(static prefix => prefix.Text is not ("text_encoders.clip_l.transformer." or "text_encoders.clip_g.transformer." or "text_encoders.t5xxl.transformer.")),
    ];

    private static readonly LayoutPrefix[] s_diffusers =
    [
        new("unet.", AdapterComponent.Unet),
        new("transformer.", AdapterComponent.Transformer),
        new("text_encoder.", AdapterComponent.TextEncoder),
        new("text_encoder_2.", AdapterComponent.TextEncoder2),
        new("text_encoder_3.", AdapterComponent.TextEncoder3),
    ];

    private static readonly LayoutPrefix[] s_none = [new("", AdapterComponent.Model)];

    private static readonly FrozenDictionary<AdapterLayout, LayoutPrefix[]> s_prefixes = new Dictionary<AdapterLayout, LayoutPrefix[]>
    {
        [AdapterLayout.Peft] = [new(PeftAdapterFolder.Prefix, AdapterComponent.Model)],
        [AdapterLayout.PeftInMemory] = [new(PeftAdapterFolder.Prefix, AdapterComponent.Model)],
        [AdapterLayout.Kohya] = s_kohya,
        [AdapterLayout.Lycoris] = [new("lycoris_", AdapterComponent.Model)],
        [AdapterLayout.Comfy] = s_comfy,
        [AdapterLayout.Diffusers] = s_diffusers,
        [AdapterLayout.DiffusersModel] = s_none,
        [AdapterLayout.OneTrainer] = s_oneTrainer,
        [AdapterLayout.Hcp] = s_none,
        [AdapterLayout.Bare] = s_none,
    }.ToFrozenDictionary();

    /// <summary>Whether module names have underscores in place of their dots.</summary>
    public static bool IsUnderscored(AdapterLayout layout) => layout is AdapterLayout.Kohya or AdapterLayout.Lycoris or AdapterLayout.OneTrainer;

    /// <summary>Whether every name has PEFT's prefix.</summary>
    public static bool IsPeft(AdapterLayout layout) => layout is AdapterLayout.Peft or AdapterLayout.PeftInMemory;

    /// <summary>Whether alpha is a tensor beside the factors; otherwise it is in a configuration.</summary>
    public static bool HasAlphaTensors(AdapterLayout layout) => !IsPeft(layout) && layout is not (AdapterLayout.Diffusers or AdapterLayout.DiffusersModel);

    /// <summary>Whether names say which part of a pipeline a module belongs to.</summary>
    public static bool NamesComponents(AdapterLayout layout) => s_prefixes[layout].Length > 1;

    /// <summary>Prefixes of a layout, in the order in which they are tried.</summary>
    public static IReadOnlyList<LayoutPrefix> Prefixes(AdapterLayout layout) => s_prefixes[layout];

    /// <summary>Prefixes that files of a layout may have. ComfyUI reads those of other programs beside its own; PEFT's and LyCORIS's mean the denoiser there.</summary>
    public static IEnumerable<LayoutPrefix> PrefixesInFiles(AdapterLayout layout) => layout == AdapterLayout.Comfy
        ? [.. s_comfy, .. s_diffusers, .. s_oneTrainer, new(PeftAdapterFolder.Prefix, AdapterComponent.Unet), new("lycoris_", AdapterComponent.Unet)]
        : s_prefixes[layout];
}

/// <summary>The parts of a pipeline as they are named by folders and by modules.</summary>
internal static class AdapterComponents
{
    /// <summary>Components by the names of their folders in a pipeline of diffusers, denoisers first.</summary>
    public static IReadOnlyDictionary<string, AdapterComponent> ByFolder { get; } =
        AdapterLayouts.Prefixes(AdapterLayout.Diffusers).ToDictionary(static prefix => prefix.Text[..^1], static prefix => prefix.Component, StringComparer.Ordinal);

    /// <summary>Whether a component is the wanted one; the two kinds of denoisers count as one.</summary>
    public static bool Matches(AdapterComponent component, AdapterComponent wanted) => component == wanted || (IsDenoiser(component) && IsDenoiser(wanted));

    /// <summary>Whether a component is a text encoder of any number.</summary>
    public static bool IsTextEncoder(AdapterComponent component) => component is AdapterComponent.TextEncoder or AdapterComponent.TextEncoder2 or AdapterComponent.TextEncoder3 or AdapterComponent.PriorTextEncoder;

    private static bool IsDenoiser(AdapterComponent component) => component is AdapterComponent.Unet or AdapterComponent.Transformer;
}
