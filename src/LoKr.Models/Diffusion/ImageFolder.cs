using System.Globalization;
using LoKr.Core.Data;
using LoKr.Core.Errors;
using LoKr.Core.IO;

namespace LoKr.Models.Diffusion;

/// <summary>
/// Images with captions: the files that <c>metadata.jsonl</c> or <c>metadata.csv</c> lists with <c>file_name</c> and <c>text</c> (Hugging Face's image
/// folders), or without such a file every PNG, JPEG and WebP of the folder, each with its caption in a <c>.txt</c> or <c>.caption</c> of the same name.
/// Images of a folder <c>10_cat</c> in it, as kohya's scripts have them, count 10 times in an epoch, and have the caption "cat" unless they have one of
/// their own.
/// </summary>
public sealed class ImageFolder
{
    /// <summary>Name of the file with captions.</summary>
    public const string MetadataName = "metadata.jsonl";

    private const string Expected = "file_name and text";

    // The first that exists counts.
    private static readonly string[] s_metadataNames = [MetadataName, "metadata.csv"];
    private static readonly string[] s_captionExtensions = [".txt", ".caption"];

    private readonly List<CaptionedImage> _images = [];
    private readonly List<string> _warnings = [];

    private readonly ModelLinks _links;

    private ImageFolder(string path) => (Path, _links) = (path, new(path));

    /// <summary>Full path of the folder.</summary>
    public string Path { get; }

    /// <summary>The images, in the order of their names or of the metadata.</summary>
    public IReadOnlyList<CaptionedImage> Images => _images;

    /// <summary>Warnings about skipped images, in sentences.</summary>
    public IReadOnlyList<string> Warnings => _warnings;

    /// <summary>Lists a folder: reads the captions and the header of every image.</summary>
    /// <param name="path">The folder.</param>
    /// <param name="options">Treatment of images that cannot be read or have no caption.</param>
    /// <param name="cancellationToken">Stops between images.</param>
    /// <exception cref="LoKrException">
    /// <see cref="ErrorIds.PathNotFound"/>, <see cref="ErrorIds.DataEmpty"/>, <see cref="ErrorIds.CaptionMissing"/>, <see cref="ErrorIds.ImageNotReadable"/>,
    /// <see cref="ErrorIds.DataEncodingInvalid"/>, <see cref="ErrorIds.LinkOutsideFolder"/>, or the errors of the metadata file.
    /// </exception>
    public static ImageFolder Read(string path, ImageDataOptions options, CancellationToken cancellationToken = default)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        ArgumentNullException.ThrowIfNull(options);
        string full = System.IO.Path.GetFullPath(path);
        if (!Directory.Exists(full))
        {
            throw File.Exists(full)
                ? new LoKrException(ErrorIds.DataFormatUnknown, LoKrErrorKind.InvalidArgument, $"'{full}' is a file, not a folder of images.", "Name the folder of the images.") { Target = full }
                : FileErrors.NotFound(full);
        }

        ImageFolder folder = new(full);
        string? metadata = s_metadataNames.Select(name => System.IO.Path.Combine(full, name)).FirstOrDefault(File.Exists);
        List<ListedImage> listed = metadata is null ? folder.FromNames() : folder.FromMetadata(folder._links.Check(metadata));
        folder.Add(listed, options, cancellationToken);
        return folder._images.Count > 0
            ? folder
            : throw new LoKrException(ErrorIds.DataEmpty, LoKrErrorKind.InvalidData,
                listed.Count == 0 ? $"'{full}' contains no images." : $"None of the {listed.Count} images in '{full}' can be read.",
                $"Put {string.Join(", ", ImageFile.Extensions)} files there, each with its caption in a {string.Join(" or ", s_captionExtensions)} of the same name or in {string.Join(" or ", s_metadataNames)}.") { Target = full };
    }

    private List<ListedImage> FromNames()
    {
        List<ListedImage> listed = [];
        AddFolder(Path, repeats: 1, caption: null);
        foreach (string inner in Directory.EnumerateDirectories(Path).Order(StringComparer.Ordinal))
        {
            if (Repeated(System.IO.Path.GetFileName(inner)) is (int repeats, string words))
            {
                AddFolder(_links.Check(inner), repeats, words.Length == 0 ? null : words);
            }
        }

        return listed;

        void AddFolder(string folder, int repeats, string? caption)
        {
            foreach (string file in Directory.EnumerateFiles(folder).Where(ImageFile.HasExtension).Order(StringComparer.Ordinal))
            {
                string? text = s_captionExtensions.Select(extension => System.IO.Path.ChangeExtension(file, extension)).FirstOrDefault(File.Exists);
                listed.Add(new(file, text is null ? caption : DataReader.ReadText(_links.Check(text)).Trim(), repeats));
            }
        }
    }

    // 10_cat: ten times, "cat". A number of more digits than any epoch needs is a name.
    private static (int Repeats, string Words)? Repeated(string name)
    {
        int end = name.IndexOf('_', StringComparison.Ordinal);
        return end is > 0 and < 5 && int.TryParse(name.AsSpan(0, end), NumberStyles.None, CultureInfo.InvariantCulture, out int repeats) && repeats > 0 ? (repeats, name[(end + 1)..].Trim()) : null;
    }

    private List<ListedImage> FromMetadata(string metadata)
    {
        List<ListedImage> listed = [];
        foreach (DataRow row in DataReader.ReadFile(metadata))
        {
            string name = RowFields.Text(row, "file_name", Expected);
            string? caption = RowFields.Has(row, "text") ? RowFields.AnyText(row, "text", Expected).Trim() : null;
            listed.Add(new(Inside(name, row.Origin), caption, Repeats: 1));
        }

        HashSet<string> named = [.. listed.Select(static entry => entry.File)];
        int others = Directory.EnumerateFiles(Path).Count(file => ImageFile.HasExtension(file) && !named.Contains(file));
        if (others > 0)
        {
            _warnings.Add($"{others} images of '{Path}' are not in {System.IO.Path.GetFileName(metadata)} and are skipped.");
        }

        return listed;
    }

    // A data set that was downloaded names its own images only.
    private string Inside(string name, string origin)
    {
        // Written on Windows, read elsewhere; a file whose name has a backslash is itself.
        if (System.IO.Path.DirectorySeparatorChar == '/' && name.Contains('\\', StringComparison.Ordinal) && !File.Exists(System.IO.Path.Combine(Path, name)))
        {
            name = name.Replace('\\', '/');
        }

        bool valid = name.Length > 0 && !name.Contains('\0', StringComparison.Ordinal) && !System.IO.Path.IsPathRooted(name);
        string full = valid ? System.IO.Path.GetFullPath(System.IO.Path.Combine(Path, name)) : Path;
        string relative = System.IO.Path.GetRelativePath(Path, full);
        bool inside = valid && !System.IO.Path.IsPathRooted(relative) && relative.Split(System.IO.Path.DirectorySeparatorChar)[0] != "..";
        return inside
            ? full
            : throw new LoKrException(ErrorIds.DataValueInvalid, LoKrErrorKind.InvalidData, $"The file_name of {origin} is '{name}', which is not inside the folder '{Path}'.",
                "Name images relative to the folder of the metadata, and inside it.") { Target = origin };
    }

    private void Add(List<ListedImage> listed, ImageDataOptions options, CancellationToken cancellationToken)
    {
        List<string> unreadable = [];
        foreach ((string file, string? caption, int repeats) in listed)
        {
            cancellationToken.ThrowIfCancellationRequested();
            if (caption is null && options.MissingCaption == MissingCaption.Stop)
            {
                throw new LoKrException(ErrorIds.CaptionMissing, LoKrErrorKind.InvalidData, $"'{file}' has no caption.",
                    $"Put it into '{System.IO.Path.ChangeExtension(System.IO.Path.GetFileName(file), ".txt")}' beside the image or into {MetadataName}, or allow missing captions.")
                { Target = file };
            }

            // Refused even where images that cannot be read are skipped.
            _links.Check(file);
            if (UnreadableImages.Try(options.Unreadable, unreadable, file, () => ImageFile.ReadSize(file)) is (int width, int height))
            {
                _images.Add(new CaptionedImage(file, caption ?? "", width, height, repeats));
            }
        }

        if (UnreadableImages.Describe(unreadable) is string warning)
        {
            _warnings.Add(warning);
        }
    }

    private readonly record struct ListedImage(string File, string? Caption, int Repeats);
}

/// <summary>An image to train on.</summary>
/// <param name="Path">Full path of the file.</param>
/// <param name="Caption">Its caption; may be empty.</param>
/// <param name="Width">Width in pixels, after its EXIF orientation.</param>
/// <param name="Height">Height in pixels, after its EXIF orientation.</param>
/// <param name="Repeats">How often it is seen in an epoch.</param>
public sealed record CaptionedImage(string Path, string Caption, int Width, int Height, int Repeats = 1);

/// <summary>Treatment of an image without a caption.</summary>
public enum MissingCaption
{
    /// <summary>An error that names the file.</summary>
    Stop,

    /// <summary>Training with an empty caption.</summary>
    Allow,
}

/// <summary>Treatment of an image that cannot be read.</summary>
public enum UnreadableImage
{
    /// <summary>An error that names the file.</summary>
    Stop,

    /// <summary>A warning that names the file, which is skipped.</summary>
    Skip,
}

/// <summary>Skips images that cannot be read where that is allowed.</summary>
internal static class UnreadableImages
{
    /// <summary>Runs an action on an image; returns null if it cannot be read and is skipped.</summary>
    public static T? Try<T>(UnreadableImage choice, List<string> skipped, string file, Func<T> action)
        where T : struct
    {
        try
        {
            return action();
        }
        catch (LoKrException exception) when (choice == UnreadableImage.Skip
            && exception.ErrorId is ErrorIds.ImageNotReadable or ErrorIds.FileNotReadable or ErrorIds.PathNotFound)
        {
            skipped.Add(file);
            return null;
        }
    }

    /// <summary>A sentence about the skipped images, or null for none.</summary>
    public static string? Describe(IReadOnlyList<string> files) => files.Count == 0
        ? null
        : $"{files.Count} images cannot be read and are skipped: {string.Join(", ", files.Take(10))}{(files.Count > 10 ? ", …" : "")}.";
}

/// <summary>Preparation of images for training.</summary>
public sealed record ImageDataOptions
{
    /// <summary>Side of the square that images are cropped to, in pixels; with buckets, of the square whose area they have at most.</summary>
    public int Resolution { get; init; } = 512;

    /// <summary>Whether each image is cropped to the size among several that is nearest to its aspect ratio, instead of to a square.</summary>
    public bool AspectBuckets { get; init; }

    /// <summary>Treatment of images that cannot be read.</summary>
    public UnreadableImage Unreadable { get; init; }

    /// <summary>Treatment of images without a caption.</summary>
    public MissingCaption MissingCaption { get; init; }

    /// <summary>Folder for computed latents; null for <c>.lokr-latents</c> in the folder of the images.</summary>
    public string? CachePath { get; init; }
}

/// <summary>
/// Sizes for images of many aspect ratios: multiples of 64 pixels (of 8 below a resolution of 256) with at most the area of the resolution's square,
/// the shorter side at least half of the resolution. Every image is assigned to the size with the nearest aspect ratio.
/// </summary>
internal sealed class AspectBuckets
{
    private const int Step = 64;
    private const int SmallStep = ImageGenerationOptions.SizeStep;
    private const int SmallestWithStep = 4 * Step;

    private readonly List<(int Width, int Height)> _sizes = [];

    public AspectBuckets(int resolution)
    {
        int step = resolution < SmallestWithStep || resolution % Step != 0 ? SmallStep : Step;
        int shortest = Math.Max(step, resolution / 2 / step * step);
        for (int width = shortest; width <= 2 * resolution; width += step)
        {
            int height = Math.Min(resolution * resolution / width / step * step, 2 * resolution);
            if (height >= shortest)
            {
                _sizes.Add((width, height));
            }
        }
    }

    /// <summary>All sizes.</summary>
    public IReadOnlyList<(int Width, int Height)> Sizes => _sizes;

    /// <summary>The size for an image.</summary>
    public (int Width, int Height) Choose(int width, int height)
    {
        double shape = Math.Log((double)width / height);
        return _sizes.OrderBy(size => Math.Abs(Math.Log((double)size.Width / size.Height) - shape)).ThenByDescending(size => size.Width * size.Height).First();
    }
}
