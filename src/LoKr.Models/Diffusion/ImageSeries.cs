using System.Globalization;
using LoKr.Core.Errors;
using LoKr.Core.IO;

namespace LoKr.Models.Diffusion;

/// <summary>Generates images of one prompt after another and writes them as PNG files with consecutive numbers: NAME.png, NAME-2.png and so on.</summary>
public sealed class ImageSeries
{
    private readonly string _path;
    private readonly bool _overwrite;
    private int _count;

    /// <summary>Starts a series.</summary>
    /// <param name="path">Path of the first file.</param>
    /// <param name="overwrite">Whether existing files are replaced.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.InvalidArgument"/>: the name does not end in .png.</exception>
    public ImageSeries(string path, bool overwrite = false)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        if (!string.Equals(Path.GetExtension(path), ".png", StringComparison.OrdinalIgnoreCase))
        {
            throw new LoKrException(ErrorIds.InvalidArgument, LoKrErrorKind.InvalidArgument, $"'{path}' is not a PNG file name.", "End it with .png.") { Target = path };
        }

        (_path, _overwrite) = (Path.GetFullPath(path), overwrite);
    }

    /// <summary>Reserves the next file names of the series.</summary>
    /// <param name="count">How many.</param>
    public IReadOnlyList<string> Reserve(int count)
    {
        string[] files = [.. Enumerable.Range(_count + 1, count).Select(NameOf)];
        _count += count;
        return files;
    }

    /// <summary>Generates as many images of a prompt as there are files and writes each when it is done.</summary>
    /// <param name="pipeline">The pipeline.</param>
    /// <param name="prompt">Description of the images.</param>
    /// <param name="files">Files that <see cref="Reserve"/> returned.</param>
    /// <param name="options">Steps, size, seed and so on; <see cref="ImageGenerationOptions.Count"/> is ignored.</param>
    /// <param name="onStep">Called after every call of the UNet, on this thread.</param>
    /// <param name="cancellationToken">Checked before every call of the UNet.</param>
    /// <returns>A record of every image, as soon as its file is written.</returns>
    /// <exception cref="LoKrException">
    /// <see cref="ErrorIds.PathNotFound"/>: the folder does not exist. <see cref="ErrorIds.DestinationExists"/>. And the errors of
    /// <see cref="ImageGenerator.Generate"/> and <see cref="ImageFile.WritePng"/>.
    /// </exception>
    public IEnumerable<LoKrPicture> Generate(
        StableDiffusionPipeline pipeline,
        string prompt,
        IReadOnlyList<string> files,
        ImageGenerationOptions options,
        Action<DenoisingStep>? onStep = null,
        CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(files);
        ArgumentNullException.ThrowIfNull(options);
        Check(files);
        ImageGenerationOptions all = options with { Count = files.Count };
        return Write(ImageGenerator.Generate(pipeline, prompt, all, onStep, cancellationToken), prompt, files, all);
    }

    private static IEnumerable<LoKrPicture> Write(IEnumerable<GeneratedImage> images, string prompt, IReadOnlyList<string> files, ImageGenerationOptions options)
    {
        int index = 0;
        foreach (GeneratedImage image in images)
        {
            using (image)
            {
                ImageFile.WritePng(files[index], image.Pixels);
                yield return new LoKrPicture
                {
                    Path = files[index],
                    Prompt = prompt,
                    NegativePrompt = options.NegativePrompt,
                    Seed = image.Seed,
                    Steps = options.Steps,
                    Guidance = options.Guidance,
                    Scheduler = image.Scheduler,
                    AdapterScale = options.AdapterScale,
                    Width = image.Width,
                    Height = image.Height,
                    Elapsed = image.Elapsed,
                };
                index++;
            }
        }
    }

    private string NameOf(int number) => number == 1
        ? _path
        : Path.Combine(
            Path.GetDirectoryName(_path)!,
            string.Create(CultureInfo.InvariantCulture, $"{Path.GetFileNameWithoutExtension(_path)}-{number}{Path.GetExtension(_path)}"));

    private void Check(IReadOnlyList<string> files)
    {
        if (Path.GetDirectoryName(_path) is string folder && !Directory.Exists(folder))
        {
            throw new LoKrException(ErrorIds.PathNotFound, LoKrErrorKind.NotFound, $"The folder '{folder}' does not exist.", "Create it first.") { Target = folder };
        }

        foreach (string file in files)
        {
            FileSystem.CheckReplaceable(file, _overwrite);
        }
    }
}
