using LoKr.Core.Errors;
using LoKr.Core.Layers;
using LoKr.Core.Layouts;
using LoKr.Core.Layouts.Names;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Conversion;

/// <summary>Converts adapters of models and adapter files of any layout to LoRA under the names of a program.</summary>
public static class AdapterLoraConverter
{
    /// <summary>Whether a file has LoRA alone, whose two matrices <see cref="LoraRank.Exact"/> keeps. Only the header is read.</summary>
    /// <param name="path">Safetensors file or adapter folder.</param>
    /// <param name="options">Information that is not in the file.</param>
    /// <exception cref="LoKrException">There is no such file, or its header is not valid.</exception>
    public static bool IsLora(string path, AdapterReadOptions options)
    {
        ArgumentNullException.ThrowIfNull(options);
        using AdapterFile file = AdapterFile.Open(path, options.Layout);
        return AdapterContentReader.IsLora(file, options);
    }

    /// <summary>Converts a file. Only the factors are decomposed, never the delta weights.</summary>
    /// <param name="path">Safetensors file or adapter folder.</param>
    /// <param name="destination">Folder to write, or a file that ends with .safetensors.</param>
    /// <param name="rank">Rank of the layers.</param>
    /// <param name="options">Information that is not in the file. A low-rank w2 of a convolution needs the base model for its kernel size.</param>
    /// <param name="write">The program that is to read the result, and whether to replace.</param>
    /// <param name="cancellation">Checked before every layer.</param>
    /// <exception cref="LoKrException">
    /// The file is not valid; <c>LoKr.AdapterModulesUnknown</c> where module names cannot be resolved; <c>LoKr.LoraConversionNotSupported</c>,
    /// <c>LoKr.ConversionUnsupported</c>, <c>LoKr.RankInvalid</c>; <c>LoKr.DestinationExists</c> and the other errors of writing. Nothing is written then.
    /// </exception>
    public static LoraWriteResult Convert(string path, string destination, LoraRank rank, AdapterConvertOptions options, LoraWriteOptions write, CancellationToken cancellation = default)
    {
        ArgumentException.ThrowIfNullOrEmpty(destination);
        ArgumentNullException.ThrowIfNull(options);
        ArgumentNullException.ThrowIfNull(write);
        using DisposeScope scope = NewDisposeScope();
        using AdapterFile file = AdapterFile.Open(path, options.Read.Layout);
        AdapterContent content = AdapterContentReader.ReadFactors(file, AdapterConverter.Filter(file, options.Read), BaseModelNames.Find(options.Model, options.BasePath), content =>
            options.Division is ModuleDivision division ? DividedContent.As(content, division, InexactRows.Lora)
                : write.Program is AdapterProgram program ? DividedContent.For(content, program, InexactRows.Lora)
                : content);
        Dictionary<string, nn.Module> modules = options.Model is null
            ? []
            : ModuleTree.Modules(options.Model.Module).ToDictionary(static entry => entry.Name, static entry => entry.Module, StringComparer.Ordinal);
        LoraWriteResult result = LoraWriter.Write(
            Path.GetFullPath(destination),
            content,
            module => modules.TryGetValue(module.Name, out nn.Module? target) ? BaseLayer.TryCreate(module.Name, target) : null,
            rank,
            write with { Component = write.Component ?? options.Read.Component },
            cancellation);
        return result with { Warnings = [.. file.Warnings, .. AdapterReading.Left(file, options.Read), .. result.Warnings] };
    }

    /// <summary>Converts the adapter of a model, or the adapters of a name on all components of a pipeline, at their current strength.</summary>
    /// <param name="target">The model or the pipeline.</param>
    /// <param name="name">Name of the adapters.</param>
    /// <param name="destination">Folder to write, or a file that ends with .safetensors.</param>
    /// <param name="rank">Rank of the layers.</param>
    /// <param name="write">The program that is to read the result, and whether to replace.</param>
    /// <param name="cancellation">Checked before every layer.</param>
    /// <exception cref="LoKrException">As for a file; <c>LoKr.AdapterNotFound</c>, <c>LoKr.ModelHasNoWeights</c>.</exception>
    public static LoraWriteResult Convert(IAdaptable target, string name, string destination, LoraRank rank, LoraWriteOptions write, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(target);
        ArgumentException.ThrowIfNullOrEmpty(destination);
        ArgumentNullException.ThrowIfNull(write);
        using IDisposable reading = target.BeginReading();
        (AdapterContent content, IReadOnlyList<string> unsaved) = AdapterExporter.Content(target, name);
        Dictionary<(AdapterComponent, string), LoKrLayer> layers = [];
        foreach ((string folder, LoKrModel model) in target.Models)
        {
            if (model.Adapters.FirstOrDefault(adapter => adapter.Name == name) is LoKrAdapter adapter)
            {
                AdapterComponent component = AdapterComponents.ByFolder.GetValueOrDefault(folder, AdapterComponent.Model);
                foreach (LoKrLayer layer in adapter.Layers)
                {
                    layers.Add((component, layer.ModuleName), layer);
                }
            }
        }

        // The strength of an adapter is not part of its files, and has no other place in LoRA.
        AdapterContent scaled = content with
        {
            Modules = [.. content.Modules.Select(module => module with { Scale = module.Scale with { Factor = layers[(module.Component, module.Name)].Scaling } })],
        };
        LoraWriteResult result = LoraWriter.Write(Path.GetFullPath(destination), scaled, module => layers[(module.Component, module.Name)].BaseLayer, rank, write, cancellation);
        return result with { Warnings = [.. result.Warnings, .. unsaved] };
    }
}
