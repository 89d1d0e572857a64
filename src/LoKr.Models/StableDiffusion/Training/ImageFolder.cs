using LoKr.Core;
using LoKr.Core.Formats;
using LoKr.Core.Training.Data;
using LoKr.Models.Imaging;

namespace LoKr.Models.StableDiffusion.Training;

/// <summary>
/// Pictures with captions: the files that <c>metadata.jsonl</c> lists with <c>file_name</c> and <c>text</c>, or without it every PNG, JPEG and
/// WebP of the folder, each with a <c>.txt</c> of its name beside it.
/// </summary>
public sealed class ImageFolder
{
    /// <summary>Name of the file with captions.</summary>
    public const string MetadataName = "metadata.jsonl";

    private const string Expected = "file_name and text";

    private readonly List<CaptionedImage> _images = [];
    private readonly List<string> _warnings = [];

    private ImageFolder(string path) => Path = path;

    /// <summary>Full path of the folder.</summary>
    public string Path { get; }

    /// <summary>The pictures, in the order of their names or of the metadata.</summary>
    public IReadOnlyList<CaptionedImage> Images => _images;

    /// <summary>Pictures that were left out and why, in sentences.</summary>
    public IReadOnlyList<string> Warnings => _warnings;

    /// <summary>Lists a folder: reads captions, and of pictures the header.</summary>
    /// <param name="path">The folder.</param>
    /// <param name="options">What to do about pictures that cannot be read or have no caption.</param>
    /// <param name="cancellationToken">Stops between pictures.</param>
    /// <exception cref="LoKrException">
    /// <see cref="ErrorIds.PathNotFound"/>, <see cref="ErrorIds.DataEmpty"/>, <see cref="ErrorIds.CaptionMissing"/>, <see cref="ErrorIds.ImageNotReadable"/>,
    /// or what is wrong with the metadata.
    /// </exception>
    public static ImageFolder Read(string path, PictureDataOptions options, CancellationToken cancellationToken = default)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        ArgumentNullException.ThrowIfNull(options);
        string full = System.IO.Path.GetFullPath(path);
        if (!Directory.Exists(full))
        {
            throw File.Exists(full)
                ? new LoKrException(ErrorIds.DataFormatUnknown, LoKrErrorKind.InvalidArgument, $"'{full}' is a file, not a folder of pictures.", "Name the folder that holds them.") { Target = full }
                : FileErrors.NotFound(full);
        }

        ImageFolder folder = new(full);
        string metadata = System.IO.Path.Combine(full, MetadataName);
        List<(string File, string? Caption)> listed = File.Exists(metadata) ? folder.FromMetadata(metadata) : FromNames(full);
        folder.Add(listed, options, cancellationToken);
        return folder._images.Count > 0
            ? folder
            : throw new LoKrException(ErrorIds.DataEmpty, LoKrErrorKind.InvalidData,
                listed.Count == 0 ? $"'{full}' holds no pictures." : $"None of the {listed.Count} pictures in '{full}' can be read.",
                $"Put {string.Join(", ", PictureFile.Extensions)} files there, each with its caption in a .txt of the same name or in {MetadataName}.") { Target = full };
    }

    private static List<(string File, string? Caption)> FromNames(string folder)
    {
        List<(string, string?)> listed = [];
        foreach (string file in Directory.EnumerateFiles(folder).Where(PictureFile.HasExtension).Order(StringComparer.Ordinal))
        {
            string text = System.IO.Path.ChangeExtension(file, ".txt");
            listed.Add((file, File.Exists(text) ? FileErrors.ReadText(text).Trim() : null));
        }

        return listed;
    }

    private List<(string File, string? Caption)> FromMetadata(string metadata)
    {
        List<(string, string?)> listed = [];
        foreach (DataRow row in DataReader.ReadFile(metadata))
        {
            string name = RowFields.Text(row, "file_name", Expected);
            string? caption = RowFields.Has(row, "text") ? RowFields.Text(row, "text", Expected).Trim() : null;
            listed.Add((System.IO.Path.GetFullPath(System.IO.Path.Combine(Path, name)), caption));
        }

        HashSet<string> named = [.. listed.Select(entry => entry.Item1)];
        int others = Directory.EnumerateFiles(Path).Count(file => PictureFile.HasExtension(file) && !named.Contains(file));
        if (others > 0)
        {
            _warnings.Add($"{others} pictures of '{Path}' are not in {MetadataName} and are left out.");
        }

        return listed;
    }

    private void Add(List<(string File, string? Caption)> listed, PictureDataOptions options, CancellationToken cancellationToken)
    {
        List<string> unreadable = [];
        foreach ((string file, string? caption) in listed)
        {
            cancellationToken.ThrowIfCancellationRequested();
            if (caption is null && options.MissingCaption == MissingCaption.Stop)
            {
                throw new LoKrException(ErrorIds.CaptionMissing, LoKrErrorKind.InvalidData, $"'{file}' has no caption.",
                    $"Put it into '{System.IO.Path.ChangeExtension(System.IO.Path.GetFileName(file), ".txt")}' beside the picture or into {MetadataName}, or train without one (-MissingCaption Allow).")
                { Target = file };
            }

            if (UnreadablePictures.Try(options.Unreadable, unreadable, file, () => PictureFile.ReadSize(file)) is (int width, int height))
            {
                _images.Add(new CaptionedImage(file, caption ?? "", width, height));
            }
        }

        if (UnreadablePictures.Describe(unreadable) is string warning)
        {
            _warnings.Add(warning);
        }
    }
}
