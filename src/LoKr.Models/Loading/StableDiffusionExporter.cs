using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.IO;
using LoKr.Core.Model;
using LoKr.Core.Safetensors;
using LoKr.Models.Diffusion;

namespace LoKr.Models.Loading;

/// <summary>Writes a pipeline as a folder that diffusers loads.</summary>
public static class StableDiffusionExporter
{
    /// <summary>
    /// Writes model_index.json and every component: text encoders and UNet with what was merged into them, everything else as it is in the
    /// source. The folder appears complete or not at all.
    /// </summary>
    /// <param name="pipeline">The pipeline; its models are merged or have no adapters.</param>
    /// <param name="destination">Folder to write.</param>
    /// <param name="force">Replace what is there.</param>
    /// <param name="maxShardBytes">Largest size of one weights file in bytes, for text encoders and UNet.</param>
    /// <param name="cancellationToken">Checked before every component and tensor; nothing is written then.</param>
    /// <exception cref="LoKrException">
    /// <see cref="ErrorIds.ExportUnmerged"/>, <see cref="ErrorIds.ExportIntoSource"/>, or an error of <see cref="StagedDirectory"/>.
    /// </exception>
    public static void Export(StableDiffusionPipeline pipeline, string destination, bool force = false, long maxShardBytes = long.MaxValue, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(pipeline);
        ArgumentException.ThrowIfNullOrEmpty(destination);
        CheckpointWriter.CheckShardSize(maxShardBytes);
        using IDisposable reading = pipeline.BeginReading();
        foreach (LoKrModel model in pipeline.Models.Values)
        {
            ModelExporter.CheckMerged(model);
        }

        destination = Path.GetFullPath(destination);
        FolderPaths.CheckApart(pipeline.SourcePath, destination);
        ModelLinks links = new(pipeline.SourcePath);
        using StagedDirectory staged = new(destination, force);
        MachinePaths.CopyWithout(Path.Combine(pipeline.SourcePath, PipelineIndex.FileName), Path.Combine(staged.Path, PipelineIndex.FileName));
        foreach (string name in pipeline.ComponentNames)
        {
            cancellationToken.ThrowIfCancellationRequested();
            string folder = Path.Combine(staged.Path, name);
            Directory.CreateDirectory(folder);
            string source = Path.Combine(pipeline.SourcePath, name);
            if (pipeline.Models.TryGetValue(name, out LoKrModel? model))
            {
                ModelExporter.WriteInto(folder, model, maxShardBytes, cancellationToken);
            }
            else if (name == "vae")
            {
                CopyWeights(source, folder);
            }
            else
            {
                foreach (string file in Directory.EnumerateFiles(source))
                {
                    MachinePaths.CopyWithout(links.Check(file), Path.Combine(folder, Path.GetFileName(file)));
                }
            }
        }

        staged.Commit();
    }

    // Only the files that were read: other types and formats may lie beside them.
    private static void CopyWeights(string source, string folder)
    {
        const string Name = "diffusion_pytorch_model";
        using CheckpointReader reader = CheckpointReader.Open(source, Name);
        bool sharded = !File.Exists(Path.Combine(source, $"{Name}.safetensors"));
        string[] beside = [ModelConfig.FileName, .. sharded ? [$"{Name}.safetensors.index.json"] : Array.Empty<string>()];
        ModelLinks links = new(source);
        foreach (string file in reader.Files.Concat(beside.Select(file => Path.Combine(source, file))))
        {
            MachinePaths.CopyWithout(links.Check(file), Path.Combine(folder, Path.GetFileName(file)));
        }
    }
}
