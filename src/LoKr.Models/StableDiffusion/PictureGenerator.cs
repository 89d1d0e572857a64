using System.Diagnostics;
using LoKr.Core;
using LoKr.Core.Training;
using LoKr.Models.StableDiffusion.Schedulers;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Models.StableDiffusion;

/// <summary>
/// Makes pictures of texts, as diffusers' Stable Diffusion pipelines do. The noise is drawn on the CPU with a generator for each picture, so
/// that a seed gives the noise that <c>torch.Generator("cpu").manual_seed(seed)</c> gives diffusers, on every device and in every batch.
/// </summary>
public static class PictureGenerator
{
    /// <summary>Makes pictures. Runs on the calling thread; the components are in evaluation mode meanwhile, and as before afterwards.</summary>
    /// <param name="pipeline">The pipeline.</param>
    /// <param name="prompt">What the pictures show.</param>
    /// <param name="options">Steps, size, seed and so on.</param>
    /// <param name="onStep">Called after every call of the UNet, on this thread.</param>
    /// <param name="cancellationToken">Looked at before every call of the UNet.</param>
    /// <returns>The pictures as they are made; the caller disposes them.</returns>
    /// <exception cref="LoKrException">
    /// <see cref="ErrorIds.ImageSizeInvalid"/>, <see cref="ErrorIds.GenerationOptionInvalid"/>, <see cref="ErrorIds.PictureNotFinite"/>, or what the scheduler's
    /// configuration asks for is not built (<see cref="ErrorIds.ModelConfigUnsupported"/>).
    /// </exception>
    public static IEnumerable<GeneratedPicture> Generate(
        StableDiffusionPipeline pipeline,
        string prompt,
        PictureOptions options,
        Action<DenoisingStep>? onStep = null,
        CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(pipeline);
        ArgumentNullException.ThrowIfNull(prompt);
        ArgumentNullException.ThrowIfNull(options);
        options.Validate();
        using (DiffusionScheduler.Create(pipeline.SchedulerConfig, options.Steps, options.Scheduler))
        {
            // Made to be checked before any work is done.
        }

        return GenerateAll(pipeline, prompt, options, onStep, cancellationToken);
    }

    /// <summary>Denoises latents and decodes them.</summary>
    /// <param name="pipeline">The pipeline.</param>
    /// <param name="prompt">What the pictures show.</param>
    /// <param name="options">Steps, guidance, negative prompt, scheduler and adapter scale.</param>
    /// <param name="noise">Standard normal noise [batch, channels, height, width] of the latents to start from.</param>
    /// <param name="drawNoise">Draws noise of that shape for schedulers that add some in every step.</param>
    /// <param name="onStep">Called with the number of calls of the UNet that are done and of all.</param>
    /// <param name="cancellationToken">Looked at before every call of the UNet.</param>
    /// <returns>Pictures [batch, 3, height, width] between 0 and 1, single precision, on the device of the autoencoder.</returns>
    public static Tensor Sample(
        StableDiffusionPipeline pipeline,
        string prompt,
        PictureOptions options,
        Tensor noise,
        Func<Tensor> drawNoise,
        Action<int, int>? onStep = null,
        CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(pipeline);
        ArgumentNullException.ThrowIfNull(options);
        ArgumentNullException.ThrowIfNull(noise);
        using EvaluationMode modes = new(pipeline.Models.Values);
        using AdapterScaling scaling = new(pipeline.Models.Values, options.AdapterScale);
        using IDisposable noGrad = no_grad();
        using DisposeScope scope = NewDisposeScope();
        using DiffusionScheduler scheduler = DiffusionScheduler.Create(pipeline.SchedulerConfig, options.Steps, options.Scheduler);
        Tensor latents = noise.to(ScalarType.Float32).to(pipeline.Device) * scheduler.InitialSigma;
        GuidedDenoiser denoiser = new(pipeline, prompt, options, latents.shape);
        foreach (double timestep in scheduler.Timesteps)
        {
            cancellationToken.ThrowIfCancellationRequested();
            using DisposeScope stepScope = NewDisposeScope();
            Tensor prediction = denoiser.Predict(scheduler.ScaleInput(latents), timestep);
            Tensor next = scheduler.Step(prediction, latents, () => drawNoise().to(latents.device)).MoveToOuterDisposeScope();
            latents.Dispose();
            latents = next;
            onStep?.Invoke(scheduler.Index, scheduler.Timesteps.Count);
        }

        return Decode(pipeline, latents, cancellationToken).MoveToOuterDisposeScope();
    }

    private static IEnumerable<GeneratedPicture> GenerateAll(
        StableDiffusionPipeline pipeline, string prompt, PictureOptions options, Action<DenoisingStep>? onStep, CancellationToken cancellationToken)
    {
        (int width, int height) = SizeOf(pipeline, options);
        int factor = pipeline.DownsampleFactor;
        long[] shape = [1, pipeline.Denoiser.InChannels, height / factor, width / factor];
        string scheduler = (options.Scheduler ?? SchedulerSettings.KindOf(pipeline.SchedulerConfig)).ToString();
        long first = options.Seed ?? Random.Shared.Next();
        int done = 0;
        foreach (long[] seeds in Enumerable.Range(0, options.Count).Select(i => unchecked(first + i)).Chunk(options.BatchSize))
        {
            long started = Stopwatch.GetTimestamp();
            int number = done + 1;
            Tensor[] pictures;
            using (SeededNoise noise = new(seeds, shape))
            using (NewDisposeScope())
            {
                Tensor sampled = Sample(pipeline, prompt, options, noise.Draw(), noise.Draw,
                    (step, steps) => onStep?.Invoke(new DenoisingStep(number, options.Count, step, steps)), cancellationToken);
                Tensor bytes = (sampled * 255).round().to(ScalarType.Byte).permute(0, 2, 3, 1).cpu();
                pictures = [.. Enumerable.Range(0, seeds.Length).Select(i => bytes[i].contiguous().DetachFromDisposeScope())];
            }

            TimeSpan each = Stopwatch.GetElapsedTime(started) / seeds.Length;
            for (int i = 0; i < seeds.Length; i++)
            {
                done++;
                yield return new GeneratedPicture(pictures[i], seeds[i], scheduler, each);
            }
        }
    }

    private static (int Width, int Height) SizeOf(StableDiffusionPipeline pipeline, PictureOptions options)
    {
        int? trained = pipeline.Denoiser.SampleSize * pipeline.DownsampleFactor;
        return (options.Width ?? trained ?? throw NoSize("Width"), options.Height ?? trained ?? throw NoSize("Height"));
    }

    // One at a time: the autoencoder needs more memory for a picture than the UNet.
    private static Tensor Decode(StableDiffusionPipeline pipeline, Tensor latents, CancellationToken cancellationToken)
    {
        AutoencoderKL vae = pipeline.Vae;
        List<Tensor> pictures = [];
        for (long i = 0; i < latents.shape[0]; i++)
        {
            cancellationToken.ThrowIfCancellationRequested();
            using DisposeScope scope = NewDisposeScope();
            Tensor decoded = vae.Decode(latents.narrow(0, i, 1) / vae.ScalingFactor).to(ScalarType.Float32);
            pictures.Add((decoded / 2).add_(0.5).clamp_(0, 1).MoveToOuterDisposeScope());
        }

        Tensor all = cat(pictures, 0);
        return all.isfinite().all().item<bool>()
            ? all
            : throw new LoKrException(ErrorIds.PictureNotFinite, LoKrErrorKind.InvalidData, "The picture holds NaN or infinite values.",
                "An adapter has diverged, or the type is too narrow: try -DType float32 or bfloat16 when importing the pipeline.") { Target = pipeline.SourcePath };
    }

    private static LoKrException NoSize(string name) => new(ErrorIds.ImageSizeInvalid, LoKrErrorKind.InvalidArgument,
        "The UNet's configuration names no sample size.", $"Give a size with -{name}.") { Target = name };
}
