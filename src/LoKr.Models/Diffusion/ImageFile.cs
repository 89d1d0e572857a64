using System.Runtime.InteropServices;
using System.Runtime.Loader;
using LoKr.Core.Errors;
using LoKr.Core.IO;
using LoKr.Core.Runtime;
using SkiaSharp;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Models.Diffusion;

/// <summary>Reads PNG, JPEG and WebP files and writes PNG. Images are byte tensors [height, width, 3], red first, in sRGB.</summary>
public static class ImageFile
{
    // Four bytes a pixel while it is decoded, and three more for the result. 300 megapixels are more than any camera has.
    private const long LargestPixelCount = 300_000_000;

    // An honest file has at least one byte for 500 pixels: a picture of one color alone gets beyond, and up to this size it may.
    private const long PixelsPerByte = 500;
    private const long AlwaysAllowedPixelCount = 25_000_000;

    /// <summary>Extensions of image files, in lower case.</summary>
    public static IReadOnlyList<string> Extensions { get; } = [".png", ".jpg", ".jpeg", ".webp"];

    /// <summary>Whether the name of a file is that of an image.</summary>
    public static bool HasExtension(string path) => Extensions.Contains(Path.GetExtension(path), StringComparer.OrdinalIgnoreCase);

    /// <summary>Reads the size of an image from its header, with its EXIF orientation applied.</summary>
    /// <param name="path">The file.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.PathNotFound"/>, <see cref="ErrorIds.FileNotReadable"/> or <see cref="ErrorIds.ImageNotReadable"/>.</exception>
    public static (int Width, int Height) ReadSize(string path) => Open(path, codec =>
        SwapsSides(Orientation(path, codec)) ? (codec.Info.Height, codec.Info.Width) : (codec.Info.Width, codec.Info.Height));

    /// <summary>
    /// Reads an image: its EXIF orientation applied, converted from its color profile to sRGB, and transparency composited on white.
    /// </summary>
    /// <param name="path">The file.</param>
    /// <returns>Bytes [height, width, 3].</returns>
    /// <exception cref="LoKrException">As for <see cref="ReadSize"/>; also for a truncated file.</exception>
    public static Tensor Read(string path) => Open(path, codec =>
    {
        SKImageInfo info = new(codec.Info.Width, codec.Info.Height, SKColorType.Rgba8888, SKAlphaType.Unpremul, SKColorSpace.CreateSrgb());
        byte[] pixels = new byte[info.BytesSize64];
        SKCodecResult result;
        unsafe
        {
            fixed (byte* first = pixels)
            {
                result = codec.GetPixels(info, (nint)first);
            }
        }

        if (result != SKCodecResult.Success)
        {
            throw NotReadable(path, result == SKCodecResult.IncompleteInput ? "it is truncated" : $"decoding ended with {result}");
        }

        CompositeOnWhite(pixels);
        TorchRuntime.EnsureLoaded();
        using DisposeScope scope = NewDisposeScope();
        Tensor image = tensor(pixels, [info.Height, info.Width, 4], ScalarType.Byte).narrow(-1, 0, 3);
        return Turn(image, Orientation(path, codec)).contiguous().MoveToOuterDisposeScope();
    });

    /// <summary>Writes a PNG atomically.</summary>
    /// <param name="path">The file; its folder has to exist.</param>
    /// <param name="image">Bytes [height, width, 3].</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.PathNotFound"/> or <see cref="ErrorIds.FileNotWritable"/>.</exception>
    public static void WritePng(string path, Tensor image)
    {
        ArgumentNullException.ThrowIfNull(image);
        if (image.dim() != 3 || image.shape[2] != 3 || image.dtype != ScalarType.Byte || image.numel() == 0)
        {
            throw new ArgumentException($"An image is bytes [height, width, 3], not {image.dtype} [{string.Join(", ", image.shape)}].", nameof(image));
        }

        using DisposeScope scope = NewDisposeScope();
        Tensor opaque = cat([image.cpu(), full([image.shape[0], image.shape[1], 1], 255, ScalarType.Byte)], -1).contiguous();
        byte[] bytes = Guard(() =>
        {
            SKImageInfo info = new((int)image.shape[1], (int)image.shape[0], SKColorType.Rgba8888, SKAlphaType.Opaque, SKColorSpace.CreateSrgb());
            using SKImage encodable = SKImage.FromPixelCopy(info, opaque.data<byte>().ToArray());
            using SKData encoded = encodable.Encode(SKEncodedImageFormat.Png, 100);
            return encoded.ToArray();
        });
        AtomicFile.Write(path, stream => stream.Write(bytes));
    }

    private static T Open<T>(string path, Func<SKCodec, T> use)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);

        // Opened by .NET, whose exceptions tell why a file cannot be opened.
        using FileStream file = FileSystem.OpenRead(path);
        long length = file.Length;
        return Guard(() =>
        {
            using SKManagedStream stream = new(file);
            using SKCodec? codec = SKCodec.Create(stream, out SKCodecResult result);
            if (codec is null)
            {
                throw NotReadable(path, result == SKCodecResult.IncompleteInput ? "it is truncated" : "it is damaged or not a PNG, JPEG or WebP");
            }

            CheckSize(path, codec.Info, length);
            return use(codec);
        });
    }

    // Before anything is decoded: a few kilobytes may declare gigabytes.
    private static void CheckSize(string path, SKImageInfo info, long fileLength)
    {
        long pixels = (long)info.Width * info.Height;
        long allowed = Math.Min(LargestPixelCount, Math.Max(AlwaysAllowedPixelCount, fileLength * PixelsPerByte));
        if (pixels > allowed)
        {
            throw NotReadable(path, pixels > LargestPixelCount
                ? $"its {info.Width}×{info.Height} pixels are more than {LargestPixelCount:N0}"
                : $"its {fileLength:N0} bytes declare {info.Width}×{info.Height} pixels, which take {pixels * 4 / 1_000_000:N0} MB to decode");
        }
    }

    // SkiaSharp reads the orientation of JPEG and WebP only.
    private static SKEncodedOrigin Orientation(string path, SKCodec codec) =>
        codec.EncodedFormat == SKEncodedImageFormat.Png && PngOrientation.Read(path) is int value ? (SKEncodedOrigin)value : codec.EncodedOrigin;

    private static T Guard<T>(Func<T> action)
    {
        SkiaLibrary.EnsureHooked();
        try
        {
            return action();
        }
        catch (Exception exception) when (exception.GetBaseException() is DllNotFoundException or BadImageFormatException)
        {
            throw SkiaLibrary.Missing(exception);
        }
    }

    private static void CompositeOnWhite(byte[] pixels)
    {
        for (int i = 3; i < pixels.Length; i += 4)
        {
            int alpha = pixels[i];
            if (alpha != 255)
            {
                for (int channel = i - 3; channel < i; channel++)
                {
                    pixels[channel] = (byte)(((pixels[channel] * alpha) + (255 * (255 - alpha)) + 127) / 255);
                }
            }
        }
    }

    private static bool SwapsSides(SKEncodedOrigin origin) => origin >= SKEncodedOrigin.LeftTop;

    /// <summary>Applies an orientation to a stored image [height, width, 3] (EXIF 2.32, tag 274).</summary>
    private static Tensor Turn(Tensor image, SKEncodedOrigin origin) => origin switch
    {
        SKEncodedOrigin.TopRight => image.flip(1),
        SKEncodedOrigin.BottomRight => image.flip(0, 1),
        SKEncodedOrigin.BottomLeft => image.flip(0),
        SKEncodedOrigin.LeftTop => image.transpose(0, 1),
        SKEncodedOrigin.RightTop => image.transpose(0, 1).flip(1),
        SKEncodedOrigin.RightBottom => image.transpose(0, 1).flip(0, 1),
        SKEncodedOrigin.LeftBottom => image.transpose(0, 1).flip(0),
        _ => image,
    };

    private static LoKrException NotReadable(string path, string why) => new(
        ErrorIds.ImageNotReadable, LoKrErrorKind.InvalidData, $"'{path}' cannot be read as an image: {why}.",
        "Correct or remove the file, or skip unreadable images.")
    { Target = path };
}

/// <summary>
/// Scales images with Lanczos' filter of three lobes, widened for downscaling to prevent aliasing: the filter of diffusers' training scripts
/// (Pillow's LANCZOS).
/// </summary>
public static class Resampler
{
    private const int Lobes = 3;

    /// <summary>Scales an image so that it covers a size, and crops the center.</summary>
    /// <param name="image">Bytes [height, width, 3].</param>
    /// <param name="width">Wanted width in pixels.</param>
    /// <param name="height">Wanted height in pixels.</param>
    /// <returns>Single precision [3, height, width] between −1 and 1, the input of an autoencoder.</returns>
    public static Tensor Cover(Tensor image, int width, int height)
    {
        ArgumentNullException.ThrowIfNull(image);
        ArgumentOutOfRangeException.ThrowIfLessThan(width, 1);
        ArgumentOutOfRangeException.ThrowIfLessThan(height, 1);
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGrad = no_grad();
        (double rows, double columns) = (image.shape[0], image.shape[1]);
        double scale = Math.Max(width / columns, height / rows);
        Tensor down = Filter((int)rows, height, scale);
        Tensor across = Filter((int)columns, width, scale);
        Tensor values = image.permute(2, 0, 1).to(ScalarType.Float32);
        Tensor scaled = down.matmul(values).matmul(across.t());
        return scaled.round().clamp(0, 255).div_(127.5f).sub_(1).contiguous().MoveToOuterDisposeScope();
    }

    /// <summary>Weights [size, length] that crop the center of a scaled line of pixels.</summary>
    private static Tensor Filter(int length, int size, double scale)
    {
        double support = Lobes * Math.Max(1, 1 / scale);
        double margin = ((length * scale) - size) / 2;
        float[] weights = new float[size * length];
        for (int i = 0; i < size; i++)
        {
            double center = (i + margin + 0.5) / scale;
            int first = Math.Max((int)Math.Floor(center - support), 0);
            int last = Math.Min((int)Math.Ceiling(center + support), length - 1);
            double[] taps = [.. Enumerable.Range(first, last - first + 1).Select(j => Lanczos((j + 0.5 - center) * Lobes / support))];
            double sum = taps.Sum();
            for (int j = first; j <= last; j++)
            {
                weights[(i * length) + j] = (float)(taps[j - first] / sum);
            }
        }

        return tensor(weights, [size, length]);
    }

    private static double Lanczos(double x) => x == 0 ? 1 : Math.Abs(x) >= Lobes ? 0 : Sinc(x) * Sinc(x / Lobes);

    private static double Sinc(double x) => Math.Sin(Math.PI * x) / (Math.PI * x);
}

/// <summary>
/// Finds the native library of SkiaSharp: beside the assembly, where the module ships it, in the NuGet packages folder, as libtorch in a source
/// tree, or in the runtime store, for platforms for which the module ships none. A library that a program ships in its own way has priority, because the runtime asks here only if it found none.
/// </summary>
internal static class SkiaLibrary
{
    private const string Name = "libSkiaSharp";

    private static readonly Lazy<string?> s_path = new(Find);
    private static readonly Lazy<bool> s_hooked = new(Hook);

    /// <summary>Registers the search for SkiaSharp's library; loads nothing.</summary>
    public static void EnsureHooked() => _ = s_hooked.Value;

    /// <summary>Creates the error for a library that was not found or does not load.</summary>
    public static LoKrException Missing(Exception exception) => new(
        ErrorIds.ImageLibraryMissing,
        LoKrErrorKind.Unavailable,
        $"The native library of SkiaSharp, which reads and writes images, does not load: {exception.GetBaseException().Message.Trim()}",
        "Install the module and its runtime again; in a source tree, run 'dotnet restore'.",
        exception);

    private static bool Hook()
    {
        AssemblyLoadContext context = AssemblyLoadContext.GetLoadContext(typeof(SKCodec).Assembly) ?? AssemblyLoadContext.Default;
        context.ResolvingUnmanagedDll += static (assembly, name) =>
            assembly == typeof(SKCodec).Assembly && name == Name && s_path.Value is string path ? NativeLibrary.Load(path) : 0;
        return true;
    }

    private static string? Find()
    {
        string rid = NativeNames.RuntimeIdentifier;
        string file = OperatingSystem.IsWindows() ? $"{Name}.dll" : OperatingSystem.IsMacOS() ? $"{Name}.dylib" : $"{Name}.so";
        (string package, string folder) = OperatingSystem.IsWindows() ? ("win32", rid) : OperatingSystem.IsMacOS() ? ("macos", "osx") : ("linux.nodependencies", rid);
        string packages = Path.Combine(NativeNames.PackagesFolder, $"skiasharp.nativeassets.{package}");
        string[] places =
        [
            Path.Combine(Path.GetDirectoryName(typeof(SKCodec).Assembly.Location) ?? AppContext.BaseDirectory, "runtimes", folder, "native"),
            .. Versions(packages).Select(other => Path.Combine(other, "runtimes", folder, "native")),
        ];
        return places.Select(place => Path.Combine(place, file)).FirstOrDefault(File.Exists) ?? TorchRuntime.FindInstalled(file);
    }

    // The assembly's version lacks the last number of the package's: 2.88.0 for 2.88.9.
    private static IEnumerable<string> Versions(string packages)
    {
        Version assembly = typeof(SKCodec).Assembly.GetName().Version!;
        return !Directory.Exists(packages)
            ? []
            : Directory.EnumerateDirectories(packages, $"{assembly.Major}.{assembly.Minor}.*").OrderByDescending(folder => folder, StringComparer.Ordinal);
    }
}
