using LoKr.Core.Data;
using LoKr.Core.Errors;
using LoKr.Core.IO;
using LoKr.Core.Model;
using LoKr.Core.Training;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Models.Diffusion;

/// <summary>
/// Prediction of the noise in the latents of images with captions, for the UNet and the text encoders together or alone: whichever have
/// trainable adapters. Timesteps, noise and dropped captions are drawn from the seed of the run, the epoch and the batch.
/// </summary>
public sealed class DiffusionTask : ITrainingTask
{
    private readonly StableDiffusionPipeline _pipeline;
    private readonly IReadOnlyList<LatentRow> _rows;
    private readonly DiffusionLossOptions _options;
    private readonly NoiseSchedule _schedule;
    private readonly double _latentScale;
    private readonly int[][] _groups;
    private readonly IReadOnlyList<string> _given;

    /// <summary>Creates the task for images whose latents are computed.</summary>
    /// <param name="pipeline">The pipeline; its autoencoder is no longer used.</param>
    /// <param name="rows">The images.</param>
    /// <param name="options">The loss; null for its defaults.</param>
    /// <param name="warnings">Warnings about the data, in sentences.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.DataEmpty"/>, <see cref="ErrorIds.TrainingOptionInvalid"/> or an unsupported configuration of the scheduler.</exception>
    public DiffusionTask(StableDiffusionPipeline pipeline, IReadOnlyList<LatentRow> rows, DiffusionLossOptions? options = null, IReadOnlyList<string>? warnings = null)
    {
        ArgumentNullException.ThrowIfNull(pipeline);
        ArgumentNullException.ThrowIfNull(rows);
        (_pipeline, _rows, _options) = (pipeline, rows, options ?? new DiffusionLossOptions());
        _options.Validate();
        if (rows.Count == 0)
        {
            throw new LoKrException(ErrorIds.DataEmpty, LoKrErrorKind.InvalidData, "There are no images.", "Give at least one image.");
        }

        // The forward process of training is the same whatever scheduler the pipeline samples with.
        _schedule = new NoiseSchedule(SchedulerSettings.Read(pipeline.SchedulerConfig, SchedulerKind.DDPM));
        _latentScale = pipeline.LatentScale;
        _groups = [.. rows.Select((row, index) => (row, index)).GroupBy(entry => (entry.row.Width, entry.row.Height), entry => entry.index).Select(group => group.ToArray())];
        _given = warnings ?? [];
    }

    /// <inheritdoc/>
    public string Unit => "images";

    /// <inheritdoc/>
    public int RowCount => _rows.Count;

    /// <inheritdoc/>
    public TrainingMetric Metric => TrainingMetric.None;

    /// <inheritdoc/>
    public IReadOnlyList<string> Warnings => field ??= [.. _given, .. DescribeCut()];

    /// <summary>The names of the latents, which are hashes of images and autoencoder, with captions and sizes.</summary>
    public string DataHash => field ??= ContentHash.OfText(string.Concat(_rows.Select(static row =>
        FormattableString.Invariant($"{Path.GetFileName(Path.GetDirectoryName(row.File))}/{Path.GetFileName(row.File)}\n{row.Caption.Length}:{row.Caption}\n{row.Width}x{row.Height} of {row.OriginalWidth}x{row.OriginalHeight}\n"))
        .Append(_options.ToString())));

    /// <inheritdoc/>
    public int CountBatches(int batchSize) => _groups.Sum(group => (group.Length + batchSize - 1) / batchSize);

    /// <inheritdoc/>
    public long LargestBatch(int batchSize) => Math.Min(batchSize, _groups.Max(group => group.Length));

    /// <inheritdoc/>
    public IEnumerable<TrainingBatch> Batches(BatchOrder order)
    {
        ArgumentNullException.ThrowIfNull(order);
        List<LatentRow[]> batches = [];
        foreach (int[] group in _groups)
        {
            // Images of one size are of one length to the buckets, which leaves shuffling and cutting.
            batches.AddRange(LengthBuckets.Create(new int[group.Length], order).Select(rows => rows.Select(row => _rows[group[row]]).ToArray()));
        }

        IReadOnlyList<int[]> turns = LengthBuckets.Create(new int[batches.Count], order with { BatchSize = 1 });
        return turns.Select((turn, index) => new DiffusionBatch(batches[turn[0]], TrainingSeeds.Of(order.Seed, order.Epoch, index)));
    }

    /// <inheritdoc/>
    public Tensor Loss(LoKrModel model, TrainingBatch batch) => Errors(batch).mean();

    /// <inheritdoc/>
    public BatchScore Score(LoKrModel model, TrainingBatch batch) => new(Errors(batch).sum());

    /// <summary>Does nothing: the latents are on disk.</summary>
    public void Dispose()
    {
    }

    // Captions are tokenized again for every batch, so those that are too long are counted only for who asks.
    private IEnumerable<string> DescribeCut()
    {
        CutText[] cut = [.. _rows.Select(row => _pipeline.Measure(row.Caption)).Where(static text => text.IsCut)];
        return cut.Length == 0 ? [] : CutText.Describe([.. cut.Select(static text => text.TokenCount)], _rows.Count, "captions", cut.Min(static text => text.Ids.Length));
    }

    private Tensor Errors(TrainingBatch batch)
    {
        var images = (DiffusionBatch)batch;
        using DisposeScope scope = NewDisposeScope();
        using Generator generator = new(images.Seed, CPU);
        Device device = _pipeline.Device;
        Tensor latents = cat([.. images.Rows.Select(row => Draw(row, generator, device))], 0) * _latentScale;
        Tensor noise = randn(latents.shape, ScalarType.Float32, CPU, generator: generator).to(device);
        int[] timesteps = [.. randint(0, _schedule.Timesteps, [images.RowCount], ScalarType.Int64, CPU, generator: generator).data<long>().Select(value => (int)value)];
        float[] chances = rand([images.RowCount], ScalarType.Float32, CPU, generator: generator).data<float>().ToArray();
        PromptTokens tokens = _pipeline.Tokenize([.. images.Rows.Select((row, i) => chances[i] < _options.CaptionDropout ? "" : row.Caption)]);
        return DenoisingLoss.Compute(_pipeline, _schedule, latents, noise, timesteps, tokens, TimeIds(images.Rows, device), _options.MinSnrGamma)
            .MoveToOuterDisposeScope();
    }

    private static Tensor Draw(LatentRow row, Generator generator, Device device)
    {
        using DisposeScope scope = NewDisposeScope();
        return LatentCache.Read(row, device).Sample(generator).unsqueeze(0).MoveToOuterDisposeScope();
    }

    private Tensor? TimeIds(IReadOnlyList<LatentRow> rows, Device device) => !_pipeline.Denoiser.TakesAddedConditions ? null : tensor(
        rows.SelectMany(row => (float[])[row.OriginalHeight, row.OriginalWidth, row.CropTop, row.CropLeft, row.Height, row.Width]).ToArray(), [rows.Count, 6]).to(device);
}

/// <summary>Images of one size, and the seed of all random numbers for them.</summary>
public sealed class DiffusionBatch : TrainingBatch
{
    internal DiffusionBatch(IReadOnlyList<LatentRow> rows, ulong seed) => (Rows, Seed) = (rows, seed);

    /// <inheritdoc/>
    public override int RowCount => Rows.Count;

    /// <inheritdoc/>
    public override long UnitCount => Rows.Count;

    /// <inheritdoc/>
    public override long LossCount => Rows.Count;

    internal IReadOnlyList<LatentRow> Rows { get; }

    internal ulong Seed { get; }
}

/// <summary>The loss of a diffusion model.</summary>
public sealed record DiffusionLossOptions
{
    /// <summary>γ of min-SNR weighting (Hang et al., arXiv:2303.09556), 5 in the paper; null weighs all timesteps equally.</summary>
    public double? MinSnrGamma { get; init; }

    /// <summary>Share of images that are trained without their caption, so that the unconditional prediction for guidance is trained as well (arXiv:2207.12598).</summary>
    public double CaptionDropout { get; init; }

    /// <summary>Throws for values that are out of range.</summary>
    /// <exception cref="LoKrException"><see cref="ErrorIds.TrainingOptionInvalid"/>.</exception>
    public void Validate()
    {
        Require(MinSnrGamma is null || (double.IsFinite(MinSnrGamma.Value) && MinSnrGamma > 0), nameof(MinSnrGamma), MinSnrGamma, "a number above 0");
        Require(CaptionDropout is >= 0 and <= 1, nameof(CaptionDropout), CaptionDropout, "from 0 to 1");
    }

    private static void Require(bool condition, string name, double? value, string allowed)
    {
        if (!condition)
        {
            throw new LoKrException(ErrorIds.TrainingOptionInvalid, LoKrErrorKind.InvalidArgument,
                string.Create(System.Globalization.CultureInfo.InvariantCulture, $"{name} is {value}."), $"It has to be {allowed}.") { Target = name };
        }
    }
}

/// <summary>The error of the noise, or velocity, that the UNet predicts: the mean squared error of diffusers' training scripts.</summary>
public static class DenoisingLoss
{
    /// <summary>The error of each image, with its graph.</summary>
    /// <param name="pipeline">The pipeline.</param>
    /// <param name="schedule">The forward process.</param>
    /// <param name="latents">Scaled latents [batch, channels, height, width].</param>
    /// <param name="noise">Noise of that shape.</param>
    /// <param name="timesteps">One timestep an image.</param>
    /// <param name="tokens">Token ids of the captions.</param>
    /// <param name="timeIds">Sizes that Stable Diffusion XL takes [batch, 6]; null for others.</param>
    /// <param name="minSnrGamma">γ of min-SNR weighting, or null.</param>
    /// <returns>Weighted mean squared errors, single precision [batch].</returns>
    public static Tensor Compute(
        StableDiffusionPipeline pipeline,
        NoiseSchedule schedule,
        Tensor latents,
        Tensor noise,
        IReadOnlyList<int> timesteps,
        PromptTokens tokens,
        Tensor? timeIds = null,
        double? minSnrGamma = null)
    {
        ArgumentNullException.ThrowIfNull(pipeline);
        ArgumentNullException.ThrowIfNull(schedule);
        ArgumentNullException.ThrowIfNull(timesteps);
        using DisposeScope scope = NewDisposeScope();
        Tensor noisy = schedule.AddNoise(latents, noise, timesteps);
        Tensor target = schedule.Target(latents, noise, timesteps).to(ScalarType.Float32);
        TextConditioning text = pipeline.EncodeText(tokens);
        Tensor times = tensor(timesteps.Select(timestep => (long)timestep).ToArray(), device: noisy.device);
        AddedConditions? added = text.Pooled is null || timeIds is null ? null : new AddedConditions(text.Pooled, timeIds);
        Tensor prediction = pipeline.Denoiser.call(noisy, times, text.HiddenStates, added).to(ScalarType.Float32);
        Tensor errors = (prediction - target).square().mean([1L, 2L, 3L]);
        if (minSnrGamma is double gamma)
        {
            errors = errors * tensor(timesteps.Select(timestep => (float)schedule.MinSnrWeight(timestep, gamma)).ToArray(), device: errors.device);
        }

        return errors.MoveToOuterDisposeScope();
    }
}
