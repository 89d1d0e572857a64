namespace LoKr.Core.Layouts;

/// <summary>A program that adapter files are written for and checked against. docs/files.md has its rules.</summary>
public enum AdapterProgram
{
    /// <summary>ComfyUI.</summary>
    ComfyUI,

    /// <summary>kohya's sd-scripts, and AUTOMATIC1111's web UI, which reads the same files.</summary>
    Kohya,

    /// <summary>musubi-tuner.</summary>
    Musubi,

    /// <summary>diffusers: <c>load_lora_weights</c>.</summary>
    Diffusers,

    /// <summary>ai-toolkit.</summary>
    AiToolkit,

    /// <summary>OneTrainer.</summary>
    OneTrainer,

    /// <summary>SimpleTuner, and LyCORIS's own wrapper.</summary>
    SimpleTuner,

    /// <summary>PEFT on a model of diffusers or transformers.</summary>
    Peft,

    /// <summary>vLLM, which loads LoRA only.</summary>
    Vllm,
}
