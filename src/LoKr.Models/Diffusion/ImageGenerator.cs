using System.Diagnostics;
using LoKr.Core.Errors;
using LoKr.Core.Model;
using LoKr.Core.Training;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Models.Diffusion;

/// <summary>
/// Generates images from prompts, as diffusers' Stable Diffusion pipelines do. The noise is drawn on the CPU with one generator per image, so
/// that a seed results in the noise of <c>torch.Generator("cpu").manual_seed(seed)</c> in diffusers, on every device and in every batch.
/// </summary>
public static class ImageGenerator
{
    /// <summary>Generates images on the calling thread. The components are in evaluation mode meanwhile and return to their mode afterwards.</summary>
    /// <param name="pipeline">The pipeline.</param>
    /// <param name="prompt">Description of the images.</param>
    /// <param name="options">Steps, size, seed and so on.</param>
    /// <param name="onStep">Called after every call of the UNet, on this thread.</param>
    /// <param name="cancellationToken">Checked before every call of the UNet.</param>
    /// <returns>Each image as soon as it is generated; the caller disposes it.</returns>
    /// <exception cref="LoKrException">
    /// <see cref="ErrorIds.ImageSizeInvalid"/>, <see cref="ErrorIds.GenerationOptionInvalid"/>, <see cref="ErrorIds.PictureNotFinite"/>, or an unsupported
    /// configuration of the scheduler (<see cref="ErrorIds.ModelConfigUnsupported"/>).
    /// </exception>
    public static IEnumerable<GeneratedImage> Generate(
        StableDiffusionPipeline pipeline,
        string prompt,
        ImageGenerationOptions options,
        Action<DenoisingStep>? onStep = null,
        CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(pipeline);
        ArgumentNullException.ThrowIfNull(prompt);
        ArgumentNullException.ThrowIfNull(options);
        options.Validate();
        using (DiffusionScheduler.Create(pipeline.SchedulerConfig, options.Steps, options.Scheduler))
        {
            // Created only to check the configuration before any work is done.
        }

        return GenerateAll(pipeline, prompt, options, onStep, cancellationToken);
    }

    /// <summary>Denoises latents and decodes them.</summary>
    /// <param name="pipeline">The pipeline.</param>
    /// <param name="prompt">Description of the images.</param>
    /// <param name="options">Steps, guidance, negative prompt, scheduler and adapter scale.</param>
    /// <param name="noise">Standard normal noise [batch, channels, height, width] of the latents to start from.</param>
    /// <param name="drawNoise">Draws noise of that shape for schedulers that add noise in every step.</param>
    /// <param name="onStep">Called with the number of finished calls of the UNet and of all calls.</param>
    /// <param name="cancellationToken">Checked before every call of the UNet.</param>
    /// <returns>Images [batch, 3, height, width] between 0 and 1, single precision, on the device of the autoencoder.</returns>
    public static Tensor Sample(
        StableDiffusionPipeline pipeline,
        string prompt,
        ImageGenerationOptions options,
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

    private static IEnumerable<GeneratedImage> GenerateAll(
        StableDiffusionPipeline pipeline, string prompt, ImageGenerationOptions options, Action<DenoisingStep>? onStep, CancellationToken cancellationToken)
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
            Tensor[] images;
            using (SeededNoise noise = new(seeds, shape))
            using (NewDisposeScope())
            {
                Tensor sampled = Sample(pipeline, prompt, options, noise.Draw(), noise.Draw,
                    (step, steps) => onStep?.Invoke(new DenoisingStep(number, options.Count, step, steps)), cancellationToken);
                Tensor bytes = (sampled * 255).round().to(ScalarType.Byte).permute(0, 2, 3, 1).cpu();
                images = [.. Enumerable.Range(0, seeds.Length).Select(i => bytes[i].contiguous().DetachFromDisposeScope())];
            }

            TimeSpan each = Stopwatch.GetElapsedTime(started) / seeds.Length;
            for (int i = 0; i < seeds.Length; i++)
            {
                done++;
                yield return new GeneratedImage(images[i], seeds[i], scheduler, each);
            }
        }
    }

    private static (int Width, int Height) SizeOf(StableDiffusionPipeline pipeline, ImageGenerationOptions options)
    {
        int? trained = pipeline.Denoiser.SampleSize * pipeline.DownsampleFactor;
        return (options.Width ?? trained ?? throw NoSize("Width"), options.Height ?? trained ?? throw NoSize("Height"));
    }

    // One at a time: the autoencoder needs more memory for an image than the UNet.
    private static Tensor Decode(StableDiffusionPipeline pipeline, Tensor latents, CancellationToken cancellationToken)
    {
        AutoencoderKL vae = pipeline.Vae;
        List<Tensor> images = [];
        for (long i = 0; i < latents.shape[0]; i++)
        {
            cancellationToken.ThrowIfCancellationRequested();
            using DisposeScope scope = NewDisposeScope();
            Tensor decoded = vae.Decode(latents.narrow(0, i, 1) / vae.ScalingFactor).to(ScalarType.Float32);
            images.Add((decoded / 2).add_(0.5).clamp_(0, 1).MoveToOuterDisposeScope());
        }

        Tensor all = cat(images, 0);
        return all.isfinite().all().item<bool>()
            ? all
            : throw new LoKrException(ErrorIds.PictureNotFinite, LoKrErrorKind.InvalidData, "The image holds NaN or infinite values.",
                "An adapter has diverged, or the element type is too narrow: load the pipeline in float32 or bfloat16.") { Target = pipeline.SourcePath };
    }

    private static LoKrException NoSize(string name) => new(ErrorIds.ImageSizeInvalid, LoKrErrorKind.InvalidArgument,
        "The UNet's configuration lacks a sample size.", $"Choose the {name.ToLowerInvariant()} of the images.") { Target = name };
}

/// <summary>Multiplies the scale of every active adapter of a pipeline until it is disposed.</summary>
internal sealed class AdapterScaling : IDisposable
{
    private readonly List<(LoKrModel Model, string Adapter, double Scale)> _before = [];

    public AdapterScaling(IEnumerable<LoKrModel> models, double factor)
    {
        if (factor == 1)
        {
            return;
        }

        try
        {
            foreach (LoKrModel model in models)
            {
                foreach (string name in model.ActiveAdapters)
                {
                    double scale = model.GetAdapter(name).Scale;
                    model.SetAdapterScale([name], scale * factor);
                    _before.Add((model, name, scale));
                }
            }
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    public void Dispose()
    {
        foreach ((LoKrModel model, string adapter, double scale) in _before)
        {
            model.SetAdapterScale([adapter], scale);
        }

        _before.Clear();
    }
}

/// <summary>The UNet with a prompt and, with guidance, a negative prompt in the same batch. Its tensors belong to the dispose scope of its construction.</summary>
internal sealed class GuidedDenoiser
{
    private readonly StableDiffusionPipeline _pipeline;
    private readonly Tensor _context;
    private readonly AddedConditions? _added;
    private readonly double? _guidance;

    public GuidedDenoiser(StableDiffusionPipeline pipeline, string prompt, ImageGenerationOptions options, long[] latents)
    {
        _pipeline = pipeline;
        _guidance = options.Guidance > 1 ? options.Guidance : null;
        TextConditioning text = pipeline.EncodeText([prompt]);
        TextConditioning? negative = _guidance is null ? null : EncodeNegative(pipeline, options.NegativePrompt);
        _context = Batch(negative?.HiddenStates, text.HiddenStates, latents[0]);
        if (text.Pooled is not null)
        {
            int factor = pipeline.DownsampleFactor;
            (float height, float width) = (latents[2] * factor, latents[3] * factor);
            Tensor pooled = Batch(negative?.Pooled, text.Pooled, latents[0]);
            Tensor ids = tensor(new[] { height, width, 0, 0, height, width }).to(pipeline.Device).expand(pooled.shape[0], 6);
            _added = new AddedConditions(pooled, ids);
        }
    }

    /// <summary>Prediction in single precision, of the latents' shape.</summary>
    public Tensor Predict(Tensor latents, double timestep)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor input = _guidance is null ? latents : cat([latents, latents], 0);
        Tensor time = tensor((float)timestep).to(latents.device);
        Tensor output = _pipeline.Denoiser.call(input, time, _context, _added).to(ScalarType.Float32);
        if (_guidance is not double guidance)
        {
            return output.MoveToOuterDisposeScope();
        }

        Tensor[] halves = output.chunk(2, 0);
        return (halves[0] + ((halves[1] - halves[0]) * guidance)).MoveToOuterDisposeScope();
    }

    /// <summary>Stable Diffusion XL uses zeros in place of a missing negative prompt, unless model_index.json disables that.</summary>
    private static TextConditioning EncodeNegative(StableDiffusionPipeline pipeline, string? prompt)
    {
        TextConditioning encoded = pipeline.EncodeText([prompt ?? ""]);
        return prompt is null && encoded.Pooled is not null && pipeline.Index.GetBool("force_zeros_for_empty_prompt", true)
            ? new TextConditioning(encoded.HiddenStates.zero_(), encoded.Pooled.zero_())
            : encoded;
    }

    private static Tensor Batch(Tensor? negative, Tensor positive, long count)
    {
        long[] times = [count, .. Enumerable.Repeat(1L, (int)positive.dim() - 1)];
        Tensor repeated = positive.repeat(times);
        return negative is null ? repeated : cat([negative.repeat(times), repeated], 0);
    }
}

/// <summary>Noise for a batch, from a CPU generator for each image.</summary>
internal sealed class SeededNoise(IEnumerable<long> seeds, long[] shape) : IDisposable
{
    private readonly Generator[] _generators = [.. seeds.Select(seed => new Generator(unchecked((ulong)seed), CPU))];

    /// <summary>The next noise [batch, …] of every generator, for a shape [1, …].</summary>
    public Tensor Draw()
    {
        using DisposeScope scope = NewDisposeScope();
        return cat([.. _generators.Select(generator => randn(shape, ScalarType.Float32, CPU, generator: generator))], 0).MoveToOuterDisposeScope();
    }

    public void Dispose() => Array.ForEach(_generators, static generator => generator.Dispose());
}
