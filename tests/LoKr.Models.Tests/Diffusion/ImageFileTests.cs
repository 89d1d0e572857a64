using System.Buffers.Binary;
using LoKr.Core.Errors;
using LoKr.Models.Diffusion;
using LoKr.Testing;
using SkiaSharp;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Models.Tests.Diffusion;

/// <summary>Images come back from files as they were written, the right way up, and a bad file is an error that names it.</summary>
public sealed class ImageFileTests : IDisposable
{
    private readonly TempFolder _folder = new();

    [Fact]
    public void A_png_comes_back_byte_for_byte()
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor image = randint(0, 256, [5, 7, 3], ScalarType.Byte);
        string path = _folder["a.png"];
        ImageFile.WritePng(path, image);
        Assert.True(TensorAssert.Same(image, ImageFile.Read(path)));
        Assert.Equal((7, 5), ImageFile.ReadSize(path));
        Assert.Equal([path], Directory.EnumerateFiles(_folder.Path));
    }

    [Theory]
    [InlineData(SKEncodedImageFormat.Jpeg, "a.JPG")]
    [InlineData(SKEncodedImageFormat.Webp, "a.webp")]
    public void Jpeg_and_webp_are_read(SKEncodedImageFormat format, string name)
    {
        using DisposeScope scope = NewDisposeScope();
        string path = Encode(name, format, 16, 8, (x, _) => x < 8 ? new SKColor(200, 30, 40) : new SKColor(20, 180, 60));
        Tensor image = ImageFile.Read(path);
        Assert.Equal([8L, 16, 3], image.shape);
        Assert.True(ImageFile.HasExtension(path));
        foreach ((int x, int[] color) in (ReadOnlySpan<(int, int[])>)[(1, [200, 30, 40]), (14, [20, 180, 60])])
        {
            for (int channel = 0; channel < 3; channel++)
            {
                Assert.InRange(image[4, x, channel].item<byte>(), color[channel] - 8, color[channel] + 8);
            }
        }
    }

    [Fact]
    public void Transparent_pixels_lie_on_white()
    {
        using DisposeScope scope = NewDisposeScope();
        string path = Encode("a.png", SKEncodedImageFormat.Png, 2, 1, (x, _) => new SKColor(255, 0, 0, x == 0 ? (byte)0 : (byte)128));
        Assert.Equal([255, 255, 255, 255, 127, 127], ImageFile.Read(path).data<byte>().ToArray());
    }

    /// <summary>The orientations 1 to 8 of EXIF, and the corner where the first stored pixel is seen.</summary>
    [Theory]
    [InlineData(1, 0, 0)]
    [InlineData(2, 0, 1)]
    [InlineData(3, 1, 1)]
    [InlineData(4, 1, 0)]
    [InlineData(5, 0, 0)]
    [InlineData(6, 0, 1)]
    [InlineData(7, 1, 1)]
    [InlineData(8, 1, 0)]
    public void The_exif_orientation_turns_the_image(int orientation, int bottom, int right)
    {
        using DisposeScope scope = NewDisposeScope();

        // White at the top left of what is stored, gray along the top: both corners tell a turn from a mirror.
        string path = Encode("a.jpg", SKEncodedImageFormat.Jpeg, 32, 16, (x, y) => (x < 16, y < 8) switch
        {
            (true, true) => SKColors.White,
            (false, true) => SKColors.Gray,
            _ => SKColors.Black,
        });
        byte[] plain = File.ReadAllBytes(path);
        byte[] exif =
        [
            0xFF, 0xE1, 0, 34, .. "Exif\0\0"u8, .. "II*\0"u8, 8, 0, 0, 0,
            1, 0, 0x12, 0x01, 3, 0, 1, 0, 0, 0, (byte)orientation, 0, 0, 0, 0, 0, 0, 0,
        ];
        File.WriteAllBytes(path, [.. plain[..2], .. exif, .. plain[2..]]);

        bool turned = orientation >= 5;
        Assert.Equal(turned ? (16, 32) : (32, 16), ImageFile.ReadSize(path));
        Tensor image = ImageFile.Read(path);
        (long height, long width) = (image.shape[0], image.shape[1]);
        Assert.Equal(turned ? (32, 16) : (16, 32), (height, width));
        Assert.True(image[bottom == 0 ? 2 : height - 3, right == 0 ? 2 : width - 3, 0].item<byte>() > 240);
        byte beside = turned
            ? image[bottom == 0 ? height - 3 : 2, right == 0 ? 2 : width - 3, 0].item<byte>()
            : image[bottom == 0 ? 2 : height - 3, right == 0 ? width - 3 : 2, 0].item<byte>();
        Assert.InRange(beside, 100, 156);
    }

    /// <summary>The same orientations in the eXIf chunk of a PNG, in both byte orders.</summary>
    [Theory]
    [InlineData(1, 0, 0)]
    [InlineData(2, 0, 31)]
    [InlineData(3, 15, 31)]
    [InlineData(4, 15, 0)]
    [InlineData(5, 0, 0)]
    [InlineData(6, 0, 15)]
    [InlineData(7, 31, 15)]
    [InlineData(8, 31, 0)]
    public void The_exif_orientation_of_a_png_turns_the_image(byte orientation, int row, int column)
    {
        using DisposeScope scope = NewDisposeScope();
        string path = Encode("a.png", SKEncodedImageFormat.Png, 32, 16, (x, y) => x == 0 && y == 0 ? SKColors.White : SKColors.Black);
        byte[] plain = File.ReadAllBytes(path);
        byte[][] exifs =
        [
            [.. "II*\0"u8, 8, 0, 0, 0, 2, 0, 0x0F, 0x01, 2, 0, 1, 0, 0, 0, 65, 0, 0, 0, 0x12, 0x01, 3, 0, 1, 0, 0, 0, orientation, 0, 0, 0, 0, 0, 0, 0],
            [.. "MM\0*"u8, 0, 0, 0, 8, 0, 1, 0x01, 0x12, 0, 3, 0, 0, 0, 1, 0, orientation, 0, 0, 0, 0, 0, 0],
        ];
        foreach (byte[] exif in exifs)
        {
            // After the header chunk, which ends at byte 33.
            File.WriteAllBytes(path, [.. plain[..33], .. Chunk("eXIf"u8, exif), .. plain[33..]]);
            bool turned = orientation >= 5;
            Assert.Equal(turned ? (16, 32) : (32, 16), ImageFile.ReadSize(path));
            Tensor image = ImageFile.Read(path);
            Assert.Equal(255, image[row, column, 0].item<byte>());
            Assert.Equal(255L, image.select(2, 0).sum().item<long>());
        }

        File.WriteAllBytes(path, [.. plain[..33], .. Chunk("eXIf"u8, [.. "II*\0"u8, 255, 255, 255, 255, 9, 0]), .. plain[33..]]);
        Assert.Equal((32, 16), ImageFile.ReadSize(path));
    }

    [Fact]
    public void A_small_file_that_declares_gigabytes_is_refused_before_it_is_decoded()
    {
        string path = Encode("bomb.png", SKEncodedImageFormat.Png, 2, 2, (_, _) => SKColors.White);
        byte[] plain = File.ReadAllBytes(path);
        byte[] header = plain[16..29];
        BinaryPrimitives.WriteInt32BigEndian(header, 17_000);
        BinaryPrimitives.WriteInt32BigEndian(header.AsSpan(4), 17_000);
        File.WriteAllBytes(path, [.. plain[..8], .. Chunk("IHDR"u8, header), .. plain[33..], .. new byte[35_000]]);
        long before = GC.GetTotalAllocatedBytes();
        ErrorAssert.Throws(ErrorIds.ImageNotReadable, () => ImageFile.ReadSize(path), path, "17000×17000", "1,156 MB");
        ErrorAssert.Throws(ErrorIds.ImageNotReadable, () => ImageFile.Read(path).Dispose(), path);
        Assert.InRange(GC.GetTotalAllocatedBytes() - before, 0, 100_000_000);
    }

    private static byte[] Chunk(ReadOnlySpan<byte> type, byte[] data)
    {
        byte[] chunk = new byte[data.Length + 12];
        BinaryPrimitives.WriteInt32BigEndian(chunk, data.Length);
        type.CopyTo(chunk.AsSpan(4));
        data.CopyTo(chunk, 8);
        uint crc = uint.MaxValue;
        foreach (byte value in chunk.AsSpan(4, data.Length + 4))
        {
            crc ^= value;
            for (int bit = 0; bit < 8; bit++)
            {
                crc = (crc & 1) == 0 ? crc >> 1 : (crc >> 1) ^ 0xEDB88320;
            }
        }

        BinaryPrimitives.WriteUInt32BigEndian(chunk.AsSpan(data.Length + 8), ~crc);
        return chunk;
    }

    [Fact]
    public void Bad_files_are_errors_that_name_them()
    {
        string text = _folder["text.png"];
        File.WriteAllText(text, "no image");
        ErrorAssert.Throws(ErrorIds.ImageNotReadable, () => ImageFile.Read(text), text);
        ErrorAssert.Throws(ErrorIds.ImageNotReadable, () => ImageFile.ReadSize(text), text);

        string cut = Encode("cut.jpg", SKEncodedImageFormat.Jpeg, 64, 64, (x, y) => new SKColor((byte)(x * 4), (byte)(y * 4), 7));
        byte[] bytes = File.ReadAllBytes(cut);
        File.WriteAllBytes(cut, bytes[..(bytes.Length / 2)]);
        ErrorAssert.Throws(ErrorIds.ImageNotReadable, () => ImageFile.Read(cut).Dispose(), cut, "truncated");

        string empty = _folder["empty.webp"];
        File.WriteAllBytes(empty, []);
        ErrorAssert.Throws(ErrorIds.ImageNotReadable, () => ImageFile.ReadSize(empty), empty);
        ErrorAssert.Throws(ErrorIds.PathNotFound, () => ImageFile.Read(_folder["none.png"]), "none.png");
        Assert.False(ImageFile.HasExtension("a.gif"));
    }

    [Fact]
    public void Writing_needs_bytes_of_three_channels_and_a_folder()
    {
        using DisposeScope scope = NewDisposeScope();
        Assert.Throws<ArgumentException>(() => ImageFile.WritePng(_folder["a.png"], zeros(2, 2, 4, dtype: ScalarType.Byte)));
        Assert.Throws<ArgumentException>(() => ImageFile.WritePng(_folder["a.png"], zeros(2, 2, 3)));
        ErrorAssert.Throws(ErrorIds.PathNotFound, () => ImageFile.WritePng(_folder["none", "a.png"], zeros(2, 2, 3, dtype: ScalarType.Byte)));
        Assert.Empty(Directory.EnumerateFileSystemEntries(_folder.Path));
    }

    public void Dispose() => _folder.Dispose();

    private string Encode(string name, SKEncodedImageFormat format, int width, int height, Func<int, int, SKColor> color)
    {
        SkiaLibrary.EnsureHooked();
        using SKBitmap bitmap = new(new SKImageInfo(width, height, SKColorType.Rgba8888, SKAlphaType.Unpremul));
        for (int y = 0; y < height; y++)
        {
            for (int x = 0; x < width; x++)
            {
                bitmap.SetPixel(x, y, color(x, y));
            }
        }

        using SKData data = bitmap.Encode(format, 95);
        File.WriteAllBytes(_folder[name], data.ToArray());
        return _folder[name];
    }
}
