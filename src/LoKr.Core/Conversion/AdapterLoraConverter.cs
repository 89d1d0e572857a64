using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Factors;
using LoKr.Core.Layers;
using LoKr.Core.Layouts;
using LoKr.Core.Layouts.Names;
using LoKr.Core.Nn;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Conversion;

/// <summary>Converts adapter files of any layout to LoRA in PEFT's layout.</summary>
public static class AdapterLoraConverter
{
    /// <summary>Converts a file. Only the factors are decomposed, never the delta weights.</summary>
    /// <param name="path">Safetensors file or adapter folder.</param>
    /// <param name="destination">Folder to write.</param>
    /// <param name="rank">Rank of each layer.</param>
    /// <param name="options">Information that is not in the file. A low-rank w2 of a convolution needs the base model for its kernel size.</param>
    /// <param name="warnings">Warnings for the user.</param>
    /// <param name="cancellation">Checked before every layer.</param>
    /// <exception cref="LoKrException">
    /// The file is not valid; <c>LoKr.AdapterModulesUnknown</c> where module names cannot be resolved; <c>LoKr.LoraConversionNotSupported</c>,
    /// <c>LoKr.RankInvalid</c>; <c>LoKr.DestinationExists</c> and the other errors of writing. Nothing is written then.
    /// </exception>
    public static LoraConversionResult Convert(
        string path, string destination, LoraRank rank, AdapterConvertOptions options, out IReadOnlyList<string> warnings, CancellationToken cancellation = default)
    {
        ArgumentException.ThrowIfNullOrEmpty(destination);
        ArgumentNullException.ThrowIfNull(options);
        string full = Path.GetFullPath(destination);
        using DisposeScope scope = NewDisposeScope();
        using AdapterFile file = AdapterFile.Open(path, options.Read.Layout);
        AdapterContent content = AdapterContentReader.Read(file, options.Read, BaseModelNames.Find(options.Model, options.BasePath));
        Check(file, content);
        warnings = [.. file.Warnings];
        Dictionary<string, nn.Module> modules = options.Model is null
            ? []
            : ModuleTree.Modules(options.Model.Module).ToDictionary(static entry => entry.Name, static entry => entry.Module, StringComparer.Ordinal);
        LoraSource[] sources = [.. content.Modules.Select(module => Source(module, modules.GetValueOrDefault(module.Name)))];
        LoKrConfig? own = content.Configs.Count == 1 ? content.Configs.Values.First() : null;
        LoKrConfig inferred = AdapterConfigBuilder.Build(content.Modules, content, content.Modules[0].Scale.Convention);
        LoKrConfig config = inferred with
        {
            ModulesToSave = own?.ModulesToSave,
            TaskType = own?.TaskType,
            AutoMapping = own?.AutoMapping,
            BaseModelNameOrPath = own?.BaseModelNameOrPath,
            Revision = own?.Revision,
        };
        using LoraAdapter lora = LoraConverter.Convert(config, sources, content.Saved, rank, modules.Values.Any(static module => module is Nn.Conv1D), cancellation);
        lora.BaseModels = content.BaseModels;
        warnings = [.. warnings, .. PeftLoraFolder.Write(full, lora, options.Force)];
        return LoraConversionResult.Of(full, lora);
    }

    private static void Check(AdapterFile file, AdapterContent content)
    {
        if (content.Components.Count > 1)
        {
            throw new LoKrException(ErrorIds.ConversionUnsupported, LoKrErrorKind.NotSupported,
                $"'{file.Path}' has modules of {string.Join(", ", content.Components)}, and a LoRA folder of PEFT holds one model.", "Name the component to convert.") { Target = file.Path };
        }

        if (content.Modules.FirstOrDefault(static module => !module.IsDotted) is AdapterModule undotted)
        {
            throw new LoKrException(ErrorIds.AdapterModulesUnknown, LoKrErrorKind.InvalidData,
                $"The position of the dots in '{undotted.Name}' is unknown.", "Give the base model, by its files or in memory.") { Target = undotted.Name };
        }

        if (content.Modules.Count == 0)
        {
            throw NotSupported(file.Path, "it has no module with factors");
        }

        if (content.Norms.Count > 0)
        {
            throw NotSupported(content.Norms[0].Name, "LoRA does not support changes of norms");
        }

        if (content.Modules.FirstOrDefault(static module => module.DoraAxis is not null) is AdapterModule decomposed)
        {
            throw NotSupported(decomposed.Name, "DoRA's magnitudes depend on the base weight, which LoRA's two matrices cannot express");
        }
    }

    private static LoraSource Source(AdapterModule module, nn.Module? target)
    {
        BaseLayer? layer = target is null ? null : BaseLayer.TryCreate(module.Name, target);
        if (layer?.LoraObstacle is string obstacle)
        {
            throw NotSupported(module.Name, obstacle);
        }

        Dictionary<string, Tensor> factors = module.Factors.ToDictionary(StringComparer.Ordinal);
        return new(module.Name, new KroneckerFactors(factors, module.Kernel, module.IsReversed), module.Scale.Factor, layer is EmbeddingBaseLayer);
    }

    private static LoKrException NotSupported(string module, string why) => new(
        ErrorIds.LoraConversionNotSupported, LoKrErrorKind.NotSupported, $"'{module}' cannot be converted to LoRA: {why}.", "Keep the adapter as LoKr, or merge it into its model.") { Target = module };
}
