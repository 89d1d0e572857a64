using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.IO;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Core.Runtime;
using LoKr.Models.Diffusion;
using LoKr.Models.Tokenization;
using static TorchSharp.torch;

namespace LoKr.Models.Loading;

/// <summary>Reads a Stable Diffusion pipeline from a diffusers folder: <c>model_index.json</c> and a folder for each component.</summary>
public static class StableDiffusionLoader
{
    /// <summary>Whether a folder is a pipeline: it holds <c>model_index.json</c>.</summary>
    public static bool IsPipeline(string folder) => PipelineIndex.Exists(folder);

    /// <summary>Loads a folder; see <see cref="LoadWithReport"/> for what was skipped.</summary>
    /// <param name="folder">Folder with model_index.json.</param>
    /// <param name="options">Type and device; labels, tokenizer and seed play no part.</param>
    public static StableDiffusionPipeline Load(string folder, ModelLoadOptions? options = null) => LoadWithReport(folder, options).Pipeline;

    /// <summary>Loads a folder. Every component is in evaluation mode and takes no gradients.</summary>
    /// <param name="folder">Folder with model_index.json.</param>
    /// <param name="options">Type and device; labels, tokenizer and seed play no part.</param>
    /// <param name="cancellationToken">Checked before every tensor.</param>
    /// <exception cref="LoKrException">
    /// <see cref="ErrorIds.PipelineNotFound"/>, <see cref="ErrorIds.PipelineComponentMissing"/>, <see cref="ErrorIds.PipelineUnsupported"/>,
    /// <see cref="ErrorIds.PipelineInvalid"/>, and the errors of <see cref="ModelLoader.LoadWithReport"/> and <see cref="TokenizerLoader.Load"/>.
    /// </exception>
    public static StableDiffusionLoadResult LoadWithReport(string folder, ModelLoadOptions? options = null, CancellationToken cancellationToken = default) =>
        FolderVersion.Read(folder, () => LoadVersion(folder, options, cancellationToken), static loaded => loaded.Pipeline.Dispose());

    private static StableDiffusionLoadResult LoadVersion(string folder, ModelLoadOptions? options, CancellationToken cancellationToken)
    {
        PipelineIndex index = PipelineIndex.Read(folder);
        options = (options ?? new ModelLoadOptions()) with { WithTokenizer = false };
        if (options.Task is not null)
        {
            throw new LoKrException(ErrorIds.TaskUnknown, LoKrErrorKind.NotSupported, $"A {index.ClassName} has no task to choose.", "Leave the task out.") { Target = folder };
        }

        if (options.Labels is not null)
        {
            throw new LoKrException(ErrorIds.LabelsInvalid, LoKrErrorKind.InvalidArgument,
                $"Labels were given, but a {index.ClassName} does not classify.", "Leave the labels out.") { Target = folder };
        }

        List<string> warnings = [];
        if (index.Unused.Count > 0)
        {
            warnings.Add($"Not loaded, because nothing here uses them: {string.Join(", ", index.Unused)}. Images are not checked by a safety checker.");
        }

        TorchRuntime.EnsureLoaded();
        ModelConfig scheduler = ReadScheduler(index);
        ITextTokenizer tokenizer = ReadTokenizer(index, "tokenizer");
        ITextTokenizer? tokenizer2 = index.IsLarge ? ReadTokenizer(index, "tokenizer_2") : null;
        long total = index.WeightBytes;
        long before = 0;
        List<IDisposable> loaded = [];
        try
        {
            LoKrModel textEncoder = ReadModel("text_encoder");
            LoKrModel? textEncoder2 = index.IsLarge ? ReadModel("text_encoder_2") : null;
            LoKrModel unet = ReadModel("unet");
            AutoencoderKL vae = ReadVae(index, Within("vae"), warnings, cancellationToken);
            loaded.Add(vae);
            StableDiffusionPipeline pipeline = new(index, textEncoder, textEncoder2, unet, vae, () => ReadVae(index, options with { OnProgress = null }, [], CancellationToken.None))
            {
                Tokenizer = tokenizer,
                Tokenizer2 = tokenizer2,
                SchedulerConfig = scheduler,
            };
            CheckFit(pipeline);
            return new StableDiffusionLoadResult(pipeline, [.. warnings.Distinct(StringComparer.Ordinal)]);
        }
        catch
        {
            loaded.ForEach(component => component.Dispose());
            throw;
        }

        LoKrModel ReadModel(string name)
        {
            LoKrModel model = Read(index, name, Within(name), warnings, cancellationToken);
            loaded.Add(model);
            return model;
        }

        // The reports of a component, as shares of the whole pipeline.
        ModelLoadOptions Within(string name)
        {
            long start = before;
            long own = index.WeightBytesOf(name);
            before += own;
            return options with { OnProgress = options.OnProgress is { } report && total > 0 ? share => report((start + (share * own)) / total) : null };
        }
    }

    private static AutoencoderKL ReadVae(PipelineIndex index, ModelLoadOptions options, List<string> warnings, CancellationToken cancellationToken)
    {
        // In half precision its sums overflow, and the image is black.
        if (options.DType == ScalarType.Float16 && ModelConfig.Load(index.PathOf("vae")).GetBool("force_upcast", true))
        {
            options = options with { DType = ScalarType.Float32 };
        }

        // The model has no adapters and owns nothing but its module, which the pipeline takes over.
        LoKrModel model = Read(index, "vae", options, warnings, cancellationToken);
        return (AutoencoderKL)model.Module;
    }

    private static LoKrModel Read(PipelineIndex index, string name, ModelLoadOptions options, List<string> warnings, CancellationToken cancellationToken)
    {
        string path = index.PathOf(name);
        ModelConfig config = ModelConfig.Load(path);
        string described = ArchitectureRegistry.Default.Get(config).Name;
        if (described != index.ClassOf(name))
        {
            throw new LoKrException(ErrorIds.PipelineInvalid, LoKrErrorKind.InvalidData,
                $"'{name}' is a {index.ClassOf(name)} in '{index.Config.Source}', but a {described} in its own configuration.", "Get the pipeline again.") { Target = path };
        }

        if (config.GetBool("use_attention_mask", false))
        {
            throw config.Unsupported("use_attention_mask", "is true; only text encoders that see their padding are built into pipelines");
        }

        ModelLoadResult result = ModelLoader.LoadConfigured(path, config, options, cancellationToken);
        warnings.AddRange(result.Warnings);
        return result.Model;
    }

    private static ModelConfig ReadScheduler(PipelineIndex index)
    {
        string path = Path.Combine(index.PathOf("scheduler"), "scheduler_config.json");
        return File.Exists(path)
            ? ModelConfig.Read(ModelLinks.Check(index.Folder, path))
            : throw new LoKrException(ErrorIds.PipelineComponentMissing, LoKrErrorKind.NotFound, $"The pipeline in '{index.Folder}' has no '{path}'.",
                "The download is incomplete; get the missing file.") { Target = path };
    }

    private static ITextTokenizer ReadTokenizer(PipelineIndex index, string name) => TokenizerLoader.Load(index.PathOf(name));

    private static void CheckFit(StableDiffusionPipeline pipeline)
    {
        int width = Width(pipeline.TextEncoder) + (pipeline.TextEncoder2 is null ? 0 : Width(pipeline.TextEncoder2));
        UNet2DConditionModel denoiser = pipeline.Denoiser;
        string? problem =
            denoiser.ContextWidth != width ? $"the UNet takes text of {denoiser.ContextWidth} features, but the text encoder makes {width}"
            : denoiser.InChannels != pipeline.Vae.LatentChannels ? $"the UNet takes latents of {denoiser.InChannels} channels, but the autoencoder makes {pipeline.Vae.LatentChannels}"
            : denoiser.OutChannels != pipeline.Vae.LatentChannels ? $"the UNet predicts {denoiser.OutChannels} channels, but the autoencoder makes {pipeline.Vae.LatentChannels}"
            : denoiser.TakesAddedConditions == pipeline.TextEncoder2 is null ? "the UNet takes added conditions, or the pipeline has a second text encoder, but not both"
            : null;
        if (problem is not null)
        {
            throw new LoKrException(ErrorIds.PipelineInvalid, LoKrErrorKind.InvalidData, $"The components of '{pipeline.SourcePath}' do not fit each other: {problem}.",
                "Are all components of the same pipeline? Pipelines for inpainting and other kinds of editing are not supported.") { Target = pipeline.SourcePath };
        }

        static int Width(LoKrModel encoder) => new ModelConfig(encoder.Pretrained!.Config).GetSize("hidden_size");
    }
}

/// <summary>A loaded pipeline and what is worth knowing about how its folder was read.</summary>
/// <param name="Pipeline">The pipeline; the caller owns it.</param>
/// <param name="Warnings">Skipped tensors, unused components and slow choices, in sentences.</param>
public sealed record StableDiffusionLoadResult(StableDiffusionPipeline Pipeline, IReadOnlyList<string> Warnings);
