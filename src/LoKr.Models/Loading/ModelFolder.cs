using LoKr.Core.Errors;
using LoKr.Core.IO;
using LoKr.Core.Model;
using LoKr.Models.Diffusion;

namespace LoKr.Models.Loading;

/// <summary>Reads and writes Hugging Face folders, of one model or of a diffusion pipeline.</summary>
public static class ModelFolder
{
    /// <summary>Loads a folder: a pipeline if it holds <c>model_index.json</c>, one model otherwise.</summary>
    /// <param name="folder">The folder.</param>
    /// <param name="options">How to read it.</param>
    /// <param name="cancellationToken">Checked before every tensor.</param>
    /// <exception cref="LoKrException">As for <see cref="ModelLoader.LoadWithReport"/> and <see cref="StableDiffusionLoader.LoadWithReport"/>.</exception>
    public static ModelFolderResult Load(string folder, ModelLoadOptions? options = null, CancellationToken cancellationToken = default)
    {
        if (StableDiffusionLoader.IsPipeline(folder))
        {
            StableDiffusionLoadResult loaded = StableDiffusionLoader.LoadWithReport(folder, options, cancellationToken);
            return new(loaded.Pipeline, loaded.Warnings);
        }

        ModelLoadResult result = ModelLoader.LoadWithReport(folder, options, cancellationToken);
        return new(result.Model, result.Warnings);
    }

    /// <summary>Writes a folder that transformers or diffusers loads; it appears complete or not at all.</summary>
    /// <param name="target">The model or the pipeline, merged or without adapters.</param>
    /// <param name="destination">Folder to write.</param>
    /// <param name="force">Replace an existing folder.</param>
    /// <param name="maxShardBytes">Largest size of one weights file in bytes.</param>
    /// <param name="cancellationToken">Checked before every tensor; nothing is written then.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.ExportUnmerged"/>, <see cref="ErrorIds.ExportIntoSource"/>, or an error of <see cref="StagedDirectory"/>.</exception>
    public static void Export(IAdaptable target, string destination, bool force = false, long maxShardBytes = long.MaxValue, CancellationToken cancellationToken = default)
    {
        switch (target)
        {
            case StableDiffusionPipeline pipeline:
                StableDiffusionExporter.Export(pipeline, destination, force, maxShardBytes, cancellationToken);
                break;
            case LoKrModel model:
                ModelExporter.Export(model, destination, force, maxShardBytes, cancellationToken);
                break;
            default:
                throw new NotSupportedException($"A {target?.GetType().Name ?? "null"} cannot be written as a folder.");
        }
    }
}

/// <summary>A model or a pipeline from a folder.</summary>
/// <param name="Model">The model or the pipeline; the caller disposes it.</param>
/// <param name="Warnings">Files and options without effect, for display.</param>
public sealed record ModelFolderResult(IAdaptable Model, IReadOnlyList<string> Warnings);
