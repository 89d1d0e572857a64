using LoKr.Core.Errors;
using LoKr.Core.IO;
using LoKr.Core.Layouts;
using LoKr.Core.Model;

namespace LoKr.Models.Diffusion;

/// <summary>Adapters of a whole pipeline in files: one file for all components, or a PEFT folder for each.</summary>
public static class PipelineAdapters
{
    /// <summary>
    /// Loads an adapter onto the components that it is for: from a file whose names say which, or from a folder with a PEFT folder for each
    /// component, named as in the pipeline (<c>unet</c>, <c>text_encoder</c>).
    /// </summary>
    /// <param name="pipeline">The pipeline.</param>
    /// <param name="path">The file or folder.</param>
    /// <param name="options">What the caller says where the file is silent or misleads.</param>
    /// <param name="name">Name that the adapters get.</param>
    /// <param name="trainable">Whether they take gradients while they are active.</param>
    /// <param name="onFinding">Called with what a file's reader found.</param>
    /// <returns>The adapters by component.</returns>
    /// <exception cref="LoKrException">As for <see cref="AdapterImporter"/>; every component is as before.</exception>
    public static IReadOnlyDictionary<string, LoKrAdapter> Import(
        StableDiffusionPipeline pipeline,
        string path,
        AdapterReadOptions? options = null,
        string name = "default",
        bool trainable = false,
        Action<LoKrAdapterFinding>? onFinding = null)
    {
        ArgumentNullException.ThrowIfNull(pipeline);
        ArgumentException.ThrowIfNullOrEmpty(path);
        Dictionary<string, LoKrModel> parts = pipeline.Models.Where(part => File.Exists(Path.Combine(path, part.Key, PeftAdapterFolder.ConfigFile))).ToDictionary();
        if (parts.Count == 0)
        {
            using AdapterFile file = Open(path);
            return AdapterImporter.Import(pipeline.Models, file, options, name, trainable);
        }

        Dictionary<string, LoKrAdapter> adapters = new(StringComparer.Ordinal);
        try
        {
            foreach ((string component, LoKrModel model) in parts)
            {
                using AdapterFile file = Open(Path.Combine(path, component));
                adapters.Add(component, AdapterImporter.Import(model, file, options, name, trainable));
            }

            return adapters;
        }
        catch
        {
            foreach (string component in adapters.Keys)
            {
                pipeline.Models[component].RemoveAdapter(name);
            }

            throw;
        }

        AdapterFile Open(string place)
        {
            AdapterFile file = AdapterFile.Open(place, options?.Layout);
            foreach (LoKrAdapterFinding finding in file.Findings)
            {
                onFinding?.Invoke(finding);
            }

            return file;
        }
    }

    /// <summary>
    /// Writes the adapters of a name on all components: as one file in layouts that name components, or in PEFT's layout as a folder for each,
    /// named as in the pipeline.
    /// </summary>
    /// <param name="pipeline">The pipeline.</param>
    /// <param name="name">Name of the adapters.</param>
    /// <param name="destination">File or folder to write.</param>
    /// <param name="layout">Layout.</param>
    /// <param name="force">Whether to replace what is there.</param>
    /// <returns>What a person should know.</returns>
    /// <exception cref="LoKrException">As for <see cref="AdapterExporter"/>; nothing is written when one component cannot be.</exception>
    public static IReadOnlyList<string> Export(StableDiffusionPipeline pipeline, string name, string destination, AdapterLayout layout, bool force = false)
    {
        ArgumentNullException.ThrowIfNull(pipeline);
        ArgumentException.ThrowIfNullOrEmpty(destination);
        AdapterWriteOptions options = new() { Force = force };
        KeyValuePair<string, LoKrModel>[] adapted = [.. pipeline.Models.Where(part => part.Value.Adapters.Any(adapter => adapter.Name == name))];
        if (layout is not AdapterLayout.Peft || adapted.Length == 0)
        {
            return AdapterExporter.Export(pipeline.Models, name, destination, layout, options);
        }

        foreach (KeyValuePair<string, LoKrModel> part in adapted)
        {
            FileErrors.CheckReplaceable(Path.Combine(destination, part.Key, PeftAdapterFolder.ConfigFile), force);
        }

        FileErrors.CreateFolder(destination);
        return [.. adapted.SelectMany(part => AdapterExporter.Export(part.Value, name, Path.Combine(destination, part.Key), layout, options))];
    }

    /// <summary>The one name that the active adapters of all components have.</summary>
    /// <exception cref="LoKrException"><see cref="ErrorIds.AdapterAmbiguous"/> for none or several.</exception>
    public static string OnlyActive(StableDiffusionPipeline pipeline)
    {
        ArgumentNullException.ThrowIfNull(pipeline);
        string[] names = [.. pipeline.Models.Values.SelectMany(model => model.ActiveAdapters).Distinct(StringComparer.Ordinal)];
        return names.Length == 1
            ? names[0]
            : throw LoKrModel.NotOneActive($"No component of {pipeline.Name} has an active adapter.", names, pipeline);
    }
}
