namespace LoKr.Core.Layouts;

/// <summary>How an adapter file names its tensors, and where it stores alpha.</summary>
public enum AdapterLayout
{
    /// <summary>PEFT: <c>base_model.model.DOTS.lokr_w1</c>, alpha in adapter_config.json beside the file.</summary>
    Peft,

    /// <summary>A dump of a model with PEFT's adapters: <c>base_model.model.DOTS.lokr_w1.default</c>.</summary>
    PeftInMemory,

    /// <summary>kohya's sd-scripts, and LyCORIS in it: <c>lora_unet_UNDERSCORES.lokr_w1</c>, <c>lora_te_…</c>, with alpha tensors.</summary>
    Kohya,

    /// <summary>LyCORIS's own wrapper: <c>lycoris_UNDERSCORES.lokr_w1</c>, with alpha tensors.</summary>
    Lycoris,

    /// <summary>ComfyUI and ai-toolkit: <c>diffusion_model.DOTS.lokr_w1</c>, with alpha tensors.</summary>
    Comfy,

    /// <summary>diffusers' pipelines: <c>unet.DOTS.lokr_w1</c>, <c>transformer.…</c>, <c>text_encoder.…</c>; alpha tensors, or the configuration in the header.</summary>
    Diffusers,

    /// <summary>A model saved by diffusers: <c>DOTS.lokr_w1</c>, with the configuration in the header entry <c>lora_adapter_metadata</c>.</summary>
    DiffusersModel,

    /// <summary>OneTrainer: <c>lora_transformer_UNDERSCORES.lokr_w1</c>, with alpha tensors.</summary>
    OneTrainer,

    /// <summary>HCP-Diffusion: <c>DOTS.___.lokr_w1</c>, with alpha tensors.</summary>
    Hcp,

    /// <summary>Bare names: <c>DOTS.lokr_w1</c>, with alpha tensors.</summary>
    Bare,
}

/// <summary>The part of a pipeline that a module of an adapter file belongs to.</summary>
public enum AdapterComponent
{
    /// <summary>The file does not say: the whole model.</summary>
    Model,

    /// <summary>The denoiser, as a UNet.</summary>
    Unet,

    /// <summary>The denoiser, as a transformer.</summary>
    Transformer,

    /// <summary>The first text encoder.</summary>
    TextEncoder,

    /// <summary>The second text encoder.</summary>
    TextEncoder2,

    /// <summary>The third text encoder.</summary>
    TextEncoder3,

    /// <summary>The denoiser of Stable Cascade's first stage.</summary>
    PriorUnet,

    /// <summary>The text encoder of Stable Cascade's first stage.</summary>
    PriorTextEncoder,
}
