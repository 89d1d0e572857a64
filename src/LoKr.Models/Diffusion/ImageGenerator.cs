using System.Diagnostics;
using LoKr.Core.Errors;
using LoKr.Core.Model;
using LoKr.Core.Training;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Models.Diffusion;

/// <summary>
/// Makes images of texts, as diffusers' Stable Diffusion pipelines do. The noise is drawn on the CPU with a generator for each image, so
/// that a seed gives the noise that <c>torch.Generator("cpu").manual_seed(seed)</c> gives diffusers, on every device and in every batch.
/// </summary>
public static class ImageGenerator
{
    /// <summary>Makes images. Runs on the calling thread; the components are in evaluation mode meanwhile, and as before afterwards.</summary>
    /// <param name="pipeline">The pipeline.</param>
    /// <param name="prompt">What the images show.</param>
    /// <param name="options">Steps, size, seed and so on.</param>
    /// <param name="onStep">Called after every call of the UNet, on this thread.</param>
    /// <param name="cancellationToken">Looked at before every call of the UNet.</param>
    /// <returns>The images as they are made; the caller disposes them.</returns>
    /// <exception cref="LoKrException">
    /// <see cref="ErrorIds.ImageSizeInvalid"/>, <see cref="ErrorIds.GenerationOptionInvalid"/>, <see cref="ErrorIds.PictureNotFinite"/>, or what the scheduler's
    /// configuration asks for is not built (<see cref="ErrorIds.ModelConfigUnsupported"/>).
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
            // Made to be checked before any work is done.
        }

        return GenerateAll(pipeline, prompt, options, onStep, cancellationToken);
    }

    /// <summary>Denoises latents and decodes them.</summary>
    /// <param name="pipeline">The pipeline.</param>
    /// <param name="prompt">What the images show.</param>
    /// <param name="options">Steps, guidance, negative prompt, scheduler and adapter scale.</param>
    /// <param name="noise">Standard normal noise [batch, channels, height, width] of the latents to start from.</param>
    /// <param name="drawNoise">Draws noise of that shape for schedulers that add some in every step.</param>
    /// <param name="onStep">Called with the number of calls of the UNet that are done and of all.</param>
    /// <param name="cancellationToken">Looked at before every call of the UNet.</param>
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
                "An adapter has diverged, or the type is too narrow: try -DType float32 or bfloat16 when importing the pipeline.") { Target = pipeline.SourcePath };
    }

    private static LoKrException NoSize(string name) => new(ErrorIds.ImageSizeInvalid, LoKrErrorKind.InvalidArgument,
        "The UNet's configuration names no sample size.", $"Give a size with -{name}.") { Target = name };
}

/// <summary>An image and how it came about.</summary>
/// <param name="Pixels">Bytes [height, width, 3] on the CPU, red first.</param>
/// <param name="Seed">Its own seed: with it and the same options the image is made again by itself.</param>
/// <param name="Scheduler">Name of the scheduler.</param>
/// <param name="Elapsed">Time it took; with several at once, its share.</param>
public sealed record GeneratedImage(Tensor Pixels, long Seed, string Scheduler, TimeSpan Elapsed) : IDisposable
{
    /// <summary>Width in pixels.</summary>
    public int Width => (int)Pixels.shape[1];

    /// <summary>Height in pixels.</summary>
    public int Height => (int)Pixels.shape[0];

    /// <summary>Releases the pixels.</summary>
    public void Dispose() => Pixels.Dispose();
}

/// <summary>An image that was made and written (<c>Invoke-LoKrModel</c>). Flat and serializable; with these values it is made again.</summary>
public sealed record LoKrPicture
{
    /// <summary>Full path of the PNG.</summary>
    public required string Path { get; init; }

    /// <summary>What it shows.</summary>
    public required string Prompt { get; init; }

    /// <summary>What it should not show; null where none was given.</summary>
    public string? NegativePrompt { get; init; }

    /// <summary>Its seed.</summary>
    public required long Seed { get; init; }

    /// <summary>Denoising steps.</summary>
    public required int Steps { get; init; }

    /// <summary>Weight of the prompt.</summary>
    public required double Guidance { get; init; }

    /// <summary>Name of the scheduler.</summary>
    public required string Scheduler { get; init; }

    /// <summary>What active adapters were multiplied with.</summary>
    public required double AdapterScale { get; init; }

    /// <summary>Width in pixels.</summary>
    public required int Width { get; init; }

    /// <summary>Height in pixels.</summary>
    public required int Height { get; init; }

    /// <summary>Time it took; with several at once, its share.</summary>
    public required TimeSpan Elapsed { get; init; }
}

/// <summary>How images are made. Defaults are those of diffusers' pipeline.</summary>
public sealed record ImageGenerationOptions
{
    /// <summary>What width and height have to be multiples of.</summary>
    public const int SizeStep = 8;

    /// <summary>Denoising steps.</summary>
    public int Steps { get; init; } = 50;

    /// <summary>Weight of the prompt against the negative one (classifier-free guidance, Ho and Salimans, arXiv:2207.12598); 1 and less for none.</summary>
    public double Guidance { get; init; } = 7.5;

    /// <summary>What the image should not show; null for nothing.</summary>
    public string? NegativePrompt { get; init; }

    /// <summary>Width in pixels; null for the size that the pipeline was trained on.</summary>
    public int? Width { get; init; }

    /// <summary>Height in pixels; null for the size that the pipeline was trained on.</summary>
    public int? Height { get; init; }

    /// <summary>Seed of the first image; the next ones have the numbers that follow. Null draws one.</summary>
    public long? Seed { get; init; }

    /// <summary>Images to make.</summary>
    public int Count { get; init; } = 1;

    /// <summary>Images that are made at once; it changes nothing but speed and memory.</summary>
    public int BatchSize { get; init; } = 1;

    /// <summary>Another scheduler than the pipeline's own.</summary>
    public SchedulerKind? Scheduler { get; init; }

    /// <summary>What the contributions of all active adapters are multiplied with while the images are made.</summary>
    public double AdapterScale { get; init; } = 1;

    /// <summary>Throws for values that are out of range.</summary>
    /// <exception cref="LoKrException"><see cref="ErrorIds.ImageSizeInvalid"/> or <see cref="ErrorIds.GenerationOptionInvalid"/>.</exception>
    public void Validate()
    {
        CheckSize(nameof(Width), Width);
        CheckSize(nameof(Height), Height);
        Require(Steps >= 1, nameof(Steps), Steps, "at least 1");
        Require(double.IsFinite(Guidance) && Guidance >= 0, nameof(Guidance), Guidance, "0 or more");
        Require(Count >= 1, nameof(Count), Count, "at least 1");
        Require(BatchSize >= 1, nameof(BatchSize), BatchSize, "at least 1");
        Require(double.IsFinite(AdapterScale), nameof(AdapterScale), AdapterScale, "a finite number");
    }

    /// <summary>Throws for a width or height that is no positive multiple of 8.</summary>
    /// <param name="name">Name of the value, for the message.</param>
    /// <param name="size">The value in pixels; null is fine.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.ImageSizeInvalid"/>.</exception>
    public static void CheckSize(string name, int? size)
    {
        if (size is int given && (given < SizeStep || given % SizeStep != 0))
        {
            int near = Math.Max(SizeStep, (int)Math.Round(given / (double)SizeStep) * SizeStep);
            throw new LoKrException(ErrorIds.ImageSizeInvalid, LoKrErrorKind.InvalidArgument,
                $"{name} is {given}, which is no multiple of {SizeStep}.", $"Use {near}.") { Target = given };
        }
    }

    private static void Require(bool condition, string name, IFormattable value, string allowed)
    {
        if (!condition)
        {
            throw new LoKrException(ErrorIds.GenerationOptionInvalid, LoKrErrorKind.InvalidArgument,
                $"{name} is {value.ToString(null, System.Globalization.CultureInfo.InvariantCulture)}.", $"It has to be {allowed}.") { Target = name };
        }
    }
}

/// <summary>Multiplies the scale of every active adapter of a pipeline, and puts it back.</summary>
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

/// <summary>How far an image is.</summary>
/// <param name="Image">Number of the image, from 1; with several at once, of the first of them.</param>
/// <param name="ImageCount">Images in all.</param>
/// <param name="Step">Calls of the UNet that are done.</param>
/// <param name="StepCount">Calls of the UNet for the image; more than the steps for PNDM.</param>
public readonly record struct DenoisingStep(int Image, int ImageCount, int Step, int StepCount);

/// <summary>The UNet with a prompt and, where guidance is on, a negative one beside it in the same batch. Its tensors belong to the scope it was made in.</summary>
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

    /// <summary>Stable Diffusion XL takes zeros for a negative prompt that is not given, unless model_index.json says otherwise.</summary>
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

/// <summary>Noise for a batch in which every image has a generator of its own, on the CPU.</summary>
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
