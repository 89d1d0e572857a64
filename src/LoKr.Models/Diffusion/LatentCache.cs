using LoKr.Core.Errors;
using LoKr.Core.IO;
using LoKr.Core.Safetensors;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Models.Diffusion;

/// <summary>
/// Latents of images on disk, so that the autoencoder runs once per image and needs no memory during training. The name of a file is a hash of
/// the image's content with its size, in a folder named after a hash of the autoencoder's weights, so that an entry cannot be stale. Mean and
/// variance are stored, not a sample.
/// </summary>
public sealed class LatentCache
{
    /// <summary>Name of the folder beside the images.</summary>
    public const string FolderName = ".lokr-latents";

    private const string MeanName = "mean";
    private const string LogVarianceName = "logvar";

    private readonly List<LatentRow> _rows = [];
    private readonly List<string> _warnings = [];

    private LatentCache(string folder) => Folder = folder;

    /// <summary>Folder of the files.</summary>
    public string Folder { get; }

    /// <summary>The images, in the order of the folder, each as often as an epoch has it.</summary>
    public IReadOnlyList<LatentRow> Rows => _rows;

    /// <summary>Number of images whose latents were computed; those of the others were cached.</summary>
    public int ComputedCount { get; private set; }

    /// <summary>Warnings about skipped images, in sentences.</summary>
    public IReadOnlyList<string> Warnings => _warnings;

    /// <summary>Lists the images with the sizes of their latents, without computing or writing any.</summary>
    /// <param name="images">The images.</param>
    /// <param name="options">Size and cropping.</param>
    public static IReadOnlyList<LatentRow> Plan(ImageFolder images, ImageDataOptions options)
    {
        ArgumentNullException.ThrowIfNull(images);
        ArgumentNullException.ThrowIfNull(options);
        Func<CaptionedImage, (int Width, int Height)> size = SizeOf(options);
        return [.. images.Images.SelectMany(image => RowsOf("", image, size(image)))];
    }

    /// <summary>Computes latents that are not cached, on the calling thread.</summary>
    /// <param name="pipeline">The pipeline; its autoencoder is loaded if its weights are not known yet, or an image is not in the cache.</param>
    /// <param name="images">The images.</param>
    /// <param name="options">Size, cropping and cache folder.</param>
    /// <param name="onImage">Called after every image.</param>
    /// <param name="cancellationToken">Checked before every image; computed latents stay cached.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.ImageSizeInvalid"/>, <see cref="ErrorIds.ImageNotReadable"/>, <see cref="ErrorIds.DataEmpty"/> or <see cref="ErrorIds.FileNotWritable"/>.</exception>
    public static LatentCache Prepare(
        StableDiffusionPipeline pipeline,
        ImageFolder images,
        ImageDataOptions options,
        Action<LatentProgress>? onImage = null,
        CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(pipeline);
        ArgumentNullException.ThrowIfNull(images);
        ArgumentNullException.ThrowIfNull(options);
        ImageGenerationOptions.CheckSize(nameof(options.Resolution), options.Resolution);
        string folder = Path.Combine(options.CachePath ?? Path.Combine(images.Path, FolderName), pipeline.VaeFingerprint[..16]);
        FileSystem.CreateFolder(folder);
        LatentCache cache = new(folder);
        cache.Fill(pipeline, images, options, onImage, cancellationToken);
        return cache;
    }

    /// <summary>Reads the latents of an image.</summary>
    internal static LatentDistribution Read(LatentRow row, Device device)
    {
        using SafetensorsReader reader = SafetensorsReader.Open(row.File);
        return new LatentDistribution(reader.Read(MeanName, device: device), reader.Read(LogVarianceName, device: device));
    }

    private void Fill(
        StableDiffusionPipeline pipeline, ImageFolder images, ImageDataOptions options, Action<LatentProgress>? onImage, CancellationToken cancellationToken)
    {
        Func<CaptionedImage, (int Width, int Height)> size = SizeOf(options);
        List<string> unreadable = [];
        int done = 0;
        foreach (CaptionedImage image in images.Images)
        {
            cancellationToken.ThrowIfCancellationRequested();
            (int width, int height) = size(image);
            bool? computed = UnreadableImages.Try(options.Unreadable, unreadable, image.Path, () => Add(pipeline, image, width, height));
            ComputedCount += computed == true ? 1 : 0;
            onImage?.Invoke(new LatentProgress(images.Path, ++done, images.Images.Count, ComputedCount));
        }

        if (UnreadableImages.Describe(unreadable) is string warning)
        {
            _warnings.Add(warning);
        }

        if (_rows.Count == 0)
        {
            throw new LoKrException(ErrorIds.DataEmpty, LoKrErrorKind.InvalidData, $"None of the {images.Images.Count} images in '{images.Path}' can be read.",
                "Correct the files.") { Target = images.Path };
        }
    }

    private static Func<CaptionedImage, (int Width, int Height)> SizeOf(ImageDataOptions options)
    {
        AspectBuckets? buckets = options.AspectBuckets ? new AspectBuckets(options.Resolution) : null;
        return image => buckets?.Choose(image.Width, image.Height) ?? (options.Resolution, options.Resolution);
    }

    /// <summary>Adds an image; returns whether its latents were computed.</summary>
    private bool Add(StableDiffusionPipeline pipeline, CaptionedImage image, int width, int height)
    {
        string file = Path.Combine(Folder, $"{ContentHash.OfFile(image.Path)[..32]}-{width}x{height}.safetensors");
        bool computed = !IsWhole(file);
        if (computed)
        {
            using DisposeScope scope = NewDisposeScope();
            using IDisposable noGrad = no_grad();
            Tensor pixels = Resampler.Cover(ImageFile.Read(image.Path), width, height).unsqueeze(0).to(pipeline.Device);
            LatentDistribution latents = pipeline.Vae.Encode(pixels);
            SafetensorsWriter.Write(file, new Dictionary<string, Tensor>
            {
                [MeanName] = latents.Mean[0].to(ScalarType.Float32).cpu(),
                [LogVarianceName] = latents.LogVariance[0].to(ScalarType.Float32).cpu(),
            });
        }

        _rows.AddRange(RowsOf(file, image, (width, height)));
        return computed;
    }

    private static IEnumerable<LatentRow> RowsOf(string file, CaptionedImage image, (int Width, int Height) size) =>
        Enumerable.Repeat(new LatentRow(file, image.Caption, size.Width, size.Height, image.Width, image.Height), image.Repeats);

    private bool IsWhole(string file)
    {
        if (!File.Exists(file))
        {
            return false;
        }

        try
        {
            using SafetensorsReader reader = SafetensorsReader.Open(file);
            return reader.Entries.ContainsKey(MeanName) && reader.Entries.ContainsKey(LogVarianceName);
        }
        catch (LoKrException exception)
        {
            // A damaged file is replaced, because its content can be computed again.
            _warnings.Add($"{exception.Message} The latents were computed again.");
            return false;
        }
    }
}

/// <summary>Progress of the computation of latents.</summary>
/// <param name="Folder">Folder of the images.</param>
/// <param name="Done">Finished images.</param>
/// <param name="Count">Number of all images.</param>
/// <param name="Computed">Those that were not in the cache.</param>
public readonly record struct LatentProgress(string Folder, int Done, int Count, int Computed);

/// <summary>An image whose latents are on disk.</summary>
/// <param name="File">Safetensors file with <c>mean</c> and <c>logvar</c>, float32 [channels, height, width], not scaled.</param>
/// <param name="Caption">Caption of the image.</param>
/// <param name="Width">Width in pixels after scaling and cropping.</param>
/// <param name="Height">Height in pixels after scaling and cropping.</param>
/// <param name="OriginalWidth">Width in pixels before.</param>
/// <param name="OriginalHeight">Height in pixels before.</param>
public sealed record LatentRow(string File, string Caption, int Width, int Height, int OriginalWidth, int OriginalHeight)
{
    /// <summary>Pixels of the scaled image that were cropped at the left.</summary>
    public int CropLeft => (int)Math.Round(((OriginalWidth * Scale) - Width) / 2);

    /// <summary>Pixels of the scaled image that were cropped at the top.</summary>
    public int CropTop => (int)Math.Round(((OriginalHeight * Scale) - Height) / 2);

    private double Scale => Math.Max((double)Width / OriginalWidth, (double)Height / OriginalHeight);
}
