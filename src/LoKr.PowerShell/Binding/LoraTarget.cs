using LoKr.Core.Conversion;
using LoKr.Core.Errors;
using LoKr.Core.Layouts;
using LoKr.Core.Model;

namespace LoKr.PowerShell.Binding;

/// <summary>Forms in which a conversion to LoRA may be written.</summary>
internal static class LoraTarget
{
    /// <summary>Refuses a rank or an energy beside a layout of LoKr.</summary>
    /// <param name="format">What is written.</param>
    /// <param name="rank">Rank of LoRA; null for none.</param>
    /// <param name="program">Program that is to read the result; null for none.</param>
    /// <exception cref="LoKrException"><c>LoKr.InvalidArgument</c>.</exception>
    public static void Check(AdapterFormat format, LoraRank? rank, AdapterProgram? program)
    {
        if (program is not null && format == AdapterFormat.Gguf)
        {
            throw new LoKrException(ErrorIds.InvalidArgument, LoKrErrorKind.InvalidArgument, $"{program} loads no LoRA as GGUF.", "Leave out -For or -Format.") { Target = format };
        }

        if (rank is not null && format is not (AdapterFormat.Peft or AdapterFormat.Gguf))
        {
            throw new LoKrException(ErrorIds.InvalidArgument, LoKrErrorKind.InvalidArgument, $"LoRA cannot be written as {format}.", "Use -Format Peft or Gguf, or leave out the rank or energy.") { Target = format };
        }
    }

    /// <summary>The error for a pipeline of which a LoRA for llama.cpp is wanted.</summary>
    /// <param name="target">The pipeline.</param>
    public static LoKrException NotLanguageModel(IAdaptable target) => new(
        ErrorIds.ConversionUnsupported, LoKrErrorKind.NotSupported, $"{target.Name} is not a language model, and llama.cpp loads no adapters of it.", "Use -Format Kohya, Comfy or Diffusers.") { Target = target };
}
