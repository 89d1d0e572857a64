using LoKr.Core;
using LoKr.Core.Formats;
using SkiaSharp;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Models.Imaging;

/// <summary>Reads PNG, JPEG and WebP files and writes PNG. Pictures are byte tensors [height, width, 3], red first, in sRGB.</summary>
public static class PictureFile
{
    // 300 megapixels: more than any camera, and about a gigabyte while it is read.
    private const long LargestPixelCount = 300_000_000;

    /// <summary>Extensions of the files that are pictures, in lower case.</summary>
    public static IReadOnlyList<string> Extensions { get; } = [".png", ".jpg", ".jpeg", ".webp"];

    /// <summary>Whether a file is a picture by its name.</summary>
    public static bool HasExtension(string path) => Extensions.Contains(Path.GetExtension(path), StringComparer.OrdinalIgnoreCase);

    /// <summary>Size of a picture as it is seen, that is after its EXIF orientation; reads only the header.</summary>
    /// <param name="path">The file.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.PathNotFound"/>, <see cref="ErrorIds.FileNotReadable"/> or <see cref="ErrorIds.ImageNotReadable"/>.</exception>
    public static (int Width, int Height) ReadSize(string path) => Open(path, codec =>
        IsTurned(codec.EncodedOrigin) ? (codec.Info.Height, codec.Info.Width) : (codec.Info.Width, codec.Info.Height));

    /// <summary>
    /// Reads a picture: turned as its EXIF orientation says, converted from its colour profile to sRGB, and where it is transparent laid
    /// on white.
    /// </summary>
    /// <param name="path">The file.</param>
    /// <returns>Bytes [height, width, 3].</returns>
    /// <exception cref="LoKrException">As for <see cref="ReadSize"/>; a file that ends early is not readable.</exception>
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
            throw NotReadable(path, result == SKCodecResult.IncompleteInput ? "it ends early" : $"decoding ended with {result}");
        }

        LayOnWhite(pixels);
        using DisposeScope scope = NewDisposeScope();
        Tensor picture = tensor(pixels, [info.Height, info.Width, 4], ScalarType.Byte).narrow(-1, 0, 3);
        return Turn(picture, codec.EncodedOrigin).contiguous().MoveToOuterDisposeScope();
    });

    /// <summary>Writes a PNG; the file is complete or as it was before.</summary>
    /// <param name="path">The file; its folder has to exist.</param>
    /// <param name="picture">Bytes [height, width, 3].</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.PathNotFound"/> or <see cref="ErrorIds.FileNotWritable"/>.</exception>
    public static void WritePng(string path, Tensor picture)
    {
        ArgumentNullException.ThrowIfNull(picture);
        if (picture.dim() != 3 || picture.shape[2] != 3 || picture.dtype != ScalarType.Byte || picture.numel() == 0)
        {
            throw new ArgumentException($"A picture is bytes [height, width, 3], not {picture.dtype} [{string.Join(", ", picture.shape)}].", nameof(picture));
        }

        using DisposeScope scope = NewDisposeScope();
        Tensor opaque = cat([picture.cpu(), full([picture.shape[0], picture.shape[1], 1], 255, ScalarType.Byte)], -1).contiguous();
        byte[] bytes = Guard(() =>
        {
            SKImageInfo info = new((int)picture.shape[1], (int)picture.shape[0], SKColorType.Rgba8888, SKAlphaType.Opaque, SKColorSpace.CreateSrgb());
            using SKImage image = SKImage.FromPixelCopy(info, opaque.data<byte>().ToArray());
            using SKData encoded = image.Encode(SKEncodedImageFormat.Png, 100);
            return encoded.ToArray();
        });
        AtomicFile.Write(path, stream => stream.Write(bytes));
    }

    private static T Open<T>(string path, Func<SKCodec, T> use)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);

        // Through .NET's own file access, which says why a file cannot be opened.
        using FileStream file = FileErrors.OpenRead(path);
        return Guard(() =>
        {
            using SKManagedStream stream = new(file);
            using SKCodec? codec = SKCodec.Create(stream, out SKCodecResult result);
            return codec is null
                ? throw NotReadable(path, result == SKCodecResult.IncompleteInput ? "it ends early" : "it is no PNG, JPEG or WebP, or damaged")
                : (long)codec.Info.Width * codec.Info.Height > LargestPixelCount
                    ? throw NotReadable(path, $"its {codec.Info.Width}×{codec.Info.Height} pixels are more than {LargestPixelCount:N0}")
                    : use(codec);
        });
    }

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

    private static void LayOnWhite(byte[] pixels)
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

    private static bool IsTurned(SKEncodedOrigin origin) => origin >= SKEncodedOrigin.LeftTop;

    /// <summary>From how a picture is stored [height, width, 3] to how it is seen (EXIF 2.32, tag 274).</summary>
    private static Tensor Turn(Tensor picture, SKEncodedOrigin origin) => origin switch
    {
        SKEncodedOrigin.TopRight => picture.flip(1),
        SKEncodedOrigin.BottomRight => picture.flip(0, 1),
        SKEncodedOrigin.BottomLeft => picture.flip(0),
        SKEncodedOrigin.LeftTop => picture.transpose(0, 1),
        SKEncodedOrigin.RightTop => picture.transpose(0, 1).flip(1),
        SKEncodedOrigin.RightBottom => picture.transpose(0, 1).flip(0, 1),
        SKEncodedOrigin.LeftBottom => picture.transpose(0, 1).flip(0),
        _ => picture,
    };

    private static LoKrException NotReadable(string path, string why) => new(
        ErrorIds.ImageNotReadable, LoKrErrorKind.InvalidData, $"'{path}' cannot be read as a picture: {why}.",
        "Correct or remove the file; training passes over it where that is asked for (-UnreadableImage Skip).")
    { Target = path };
}
