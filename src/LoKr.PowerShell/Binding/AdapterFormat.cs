using LoKr.Core.Layouts;

namespace LoKr.PowerShell.Binding;

/// <summary>Forms in which an adapter may be written: LoKr in the layout of a program, or LoRA for llama.cpp. The layouts have the values of <see cref="AdapterLayout"/>.</summary>
public enum AdapterFormat
{
    /// <inheritdoc cref="AdapterLayout.Peft"/>
    Peft = AdapterLayout.Peft,

    /// <inheritdoc cref="AdapterLayout.PeftInMemory"/>
    PeftInMemory = AdapterLayout.PeftInMemory,

    /// <inheritdoc cref="AdapterLayout.Kohya"/>
    Kohya = AdapterLayout.Kohya,

    /// <inheritdoc cref="AdapterLayout.Lycoris"/>
    Lycoris = AdapterLayout.Lycoris,

    /// <inheritdoc cref="AdapterLayout.Comfy"/>
    Comfy = AdapterLayout.Comfy,

    /// <inheritdoc cref="AdapterLayout.Diffusers"/>
    Diffusers = AdapterLayout.Diffusers,

    /// <inheritdoc cref="AdapterLayout.DiffusersModel"/>
    DiffusersModel = AdapterLayout.DiffusersModel,

    /// <inheritdoc cref="AdapterLayout.OneTrainer"/>
    OneTrainer = AdapterLayout.OneTrainer,

    /// <inheritdoc cref="AdapterLayout.Hcp"/>
    Hcp = AdapterLayout.Hcp,

    /// <inheritdoc cref="AdapterLayout.Bare"/>
    Bare = AdapterLayout.Bare,

    /// <summary>LoRA as a GGUF file, as llama.cpp loads it beside a model.</summary>
    Gguf = 1000,
}
