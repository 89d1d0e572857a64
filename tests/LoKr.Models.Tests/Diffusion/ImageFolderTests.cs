using LoKr.Core.Errors;
using LoKr.Models.Diffusion;
using LoKr.Models.Loading;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Models.Tests.Diffusion;

/// <summary>Folders of images: captions, bad files, sizes, and latents that are computed once.</summary>
public sealed class ImageFolderTests : IDisposable
{
    private static readonly ImageDataOptions s_options = new() { Resolution = 16 };

    private readonly TempFolder _folder = new();

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Fact]
    public void Captions_lie_beside_the_images()
    {
        string photos = TinyImages.Write(_folder["photos"], 3, (24, 16), (16, 40));
        File.WriteAllText(Path.Combine(photos, "notes.md"), "not an image");
        ImageFolder folder = Read(photos);
        Assert.Equal(["a red rack", "a green rack", "a blue rack"], folder.Images.Select(image => image.Caption));
        Assert.Equal([(24, 16), (16, 40), (24, 16)], folder.Images.Select(image => (image.Width, image.Height)));
        Assert.Empty(folder.Warnings);
    }

    [Fact]
    public void Metadata_overrides_text_files_and_names_the_images()
    {
        string photos = TinyImages.Write(_folder["photos"], 3);
        TinyImages.Write(Path.Combine(photos, "more"), 1);
        File.WriteAllLines(Path.Combine(photos, ImageFolder.MetadataName),
        [
            """{"file_name": "01-green.png", "text": " a rack at night "}""",
            """{"file_name": "more/00-red.png", "text": "another"}""",
        ]);
        ImageFolder folder = Read(photos);
        Assert.Equal(["a rack at night", "another"], folder.Images.Select(image => image.Caption));
        Assert.Contains("2 images", Assert.Single(folder.Warnings), StringComparison.Ordinal);
    }

    [Fact]
    public void Captions_may_be_in_files_of_their_own_extension()
    {
        string photos = TinyImages.Write(_folder["photos"], 2);
        File.Move(Path.Combine(photos, "01-green.txt"), Path.Combine(photos, "01-green.caption"));
        Assert.Equal(["a red rack", "a green rack"], Read(photos).Images.Select(static image => image.Caption));
    }

    [Fact]
    public void Metadata_may_be_csv_and_name_files_with_any_slash()
    {
        string photos = TinyImages.Write(_folder["photos"], 1);
        TinyImages.Write(Path.Combine(photos, "more"), 1);
        File.WriteAllText(Path.Combine(photos, "metadata.csv"), "file_name,text\r\n00-red.png,first\r\nmore\\00-red.png,second\r\n");
        ImageFolder folder = Read(photos);
        Assert.Equal(["first", "second"], folder.Images.Select(static image => image.Caption));
        Assert.Equal(Path.Combine(photos, "more", "00-red.png"), folder.Images[1].Path);
    }

    [Fact]
    public void Folders_with_a_number_repeat_their_images()
    {
        string photos = _folder["photos"];
        TinyImages.Write(Path.Combine(photos, "3_server rack"), 2);
        TinyImages.Write(Path.Combine(photos, "1_"), 1);
        TinyImages.Write(Path.Combine(photos, "other"), 1);
        File.Delete(Path.Combine(photos, "3_server rack", "01-green.txt"));
        ImageFolder folder = Read(photos);
        Assert.Equal([("a red rack", 1), ("a red rack", 3), ("server rack", 3)], folder.Images.Select(static image => (image.Caption, image.Repeats)));
        Assert.Equal(7, LatentCache.Plan(folder, s_options).Count);
        Assert.Equal(3, LatentCache.Plan(folder, s_options).Count(static row => row.Caption == "server rack"));
    }

    [Fact]
    public void A_missing_caption_stops_unless_it_is_allowed()
    {
        string photos = TinyImages.Write(_folder["photos"], 2);
        File.Delete(Path.Combine(photos, "01-green.txt"));
        ErrorAssert.Throws(ErrorIds.CaptionMissing, () => Read(photos), "01-green.png", "01-green.txt");
        ImageFolder folder = Read(photos, s_options with { MissingCaption = MissingCaption.Allow });
        Assert.Equal(["a red rack", ""], folder.Images.Select(image => image.Caption));
    }

    [Fact]
    public void Captions_that_are_not_UTF_8_are_errors_that_name_the_file()
    {
        string photos = TinyImages.Write(_folder["photos"], 2);
        byte[] windows = [.. "the customer"u8, 0x92, .. "s caf"u8, 0xE9];
        File.WriteAllBytes(Path.Combine(photos, "01-green.txt"), windows);
        ErrorAssert.Throws(ErrorIds.DataEncodingInvalid, () => Read(photos), "01-green.txt", "UTF-8");

        File.WriteAllText(Path.Combine(photos, "01-green.txt"), "un café", System.Text.Encoding.Unicode);
        Assert.Equal("un café", Read(photos).Images[1].Caption);

        File.WriteAllBytes(Path.Combine(photos, ImageFolder.MetadataName), [.. "{\"file_name\": \"01-green.png\", \"text\": \""u8, .. windows, .. "\"}\n"u8]);
        ErrorAssert.Throws(ErrorIds.DataEncodingInvalid, () => Read(photos), ImageFolder.MetadataName, "UTF-8");
    }

    [Fact]
    public void The_caption_of_the_reference_case_is_an_error_that_names_its_file()
    {
        string photos = Fixtures.RequireBeside("cases", "caption-cp1252", "pics");
        ErrorAssert.Throws(ErrorIds.DataEncodingInvalid, () => Read(photos), "ansi.txt", "UTF-8");
    }

    [Theory]
    [InlineData("../other/00-red.png")]
    [InlineData("..")]
    [InlineData("more/../../other/00-red.png")]
    [InlineData("/etc/hostname.png")]
    [InlineData("a\\u0000.png")]
    public void Metadata_names_images_inside_its_folder_only(string name)
    {
        string photos = TinyImages.Write(_folder["photos"], 1);
        TinyImages.Write(_folder["other"], 1);
        File.WriteAllText(Path.Combine(photos, ImageFolder.MetadataName), $$"""{"file_name": "{{name}}", "text": "x"}""");
        ErrorAssert.Throws(ErrorIds.DataValueInvalid, () => Read(photos), "metadata.jsonl:1", "inside");
        ErrorAssert.Throws(ErrorIds.DataValueInvalid, () => Read(photos, s_options with { Unreadable = UnreadableImage.Skip }), "metadata.jsonl:1");
    }

    [Fact]
    public void An_image_that_cannot_be_read_stops_or_is_passed_over_by_name()
    {
        string photos = TinyImages.Write(_folder["photos"], 3);
        File.WriteAllText(Path.Combine(photos, "01-green.png"), "no image");
        string cut = Path.Combine(photos, "02-blue.png");
        File.WriteAllBytes(cut, File.ReadAllBytes(cut)[..^30]);
        ErrorAssert.Throws(ErrorIds.ImageNotReadable, () => Read(photos), "01-green.png");

        ImageDataOptions skip = s_options with { Unreadable = UnreadableImage.Skip };
        ImageFolder folder = Read(photos, skip);
        Assert.Contains("01-green.png", Assert.Single(folder.Warnings), StringComparison.Ordinal);
        Assert.Equal(2, folder.Images.Count);

        // The header of the third is whole; its pixels are missed only when they are read.
        using StableDiffusionPipeline pipeline = Pipeline();
        ErrorAssert.Throws(ErrorIds.ImageNotReadable, () => LatentCache.Prepare(pipeline, folder, s_options, null, Token), "02-blue.png");
        LatentCache cache = LatentCache.Prepare(pipeline, folder, skip, null, Token);
        Assert.Contains("02-blue.png", Assert.Single(cache.Warnings), StringComparison.Ordinal);
        Assert.Single(cache.Rows);
    }

    [Fact]
    public void Folders_without_images_and_wrong_paths_are_errors()
    {
        Directory.CreateDirectory(_folder["empty"]);
        ErrorAssert.Throws(ErrorIds.DataEmpty, () => Read(_folder["empty"]), ".png");
        ErrorAssert.Throws(ErrorIds.PathNotFound, () => Read(_folder["none"]), "none");
        File.WriteAllText(_folder["a.jsonl"], "{}");
        ErrorAssert.Throws(ErrorIds.DataFormatUnknown, () => Read(_folder["a.jsonl"]), "folder of images");
        string photos = TinyImages.Write(_folder["photos"], 1);
        File.WriteAllText(Path.Combine(photos, "00-red.png"), "no image");
        ErrorAssert.Throws(ErrorIds.DataEmpty, () => Read(photos, s_options with { Unreadable = UnreadableImage.Skip }), "None of the 1");
        File.WriteAllText(Path.Combine(photos, ImageFolder.MetadataName), """{"text": "no name"}""");
        ErrorAssert.Throws(ErrorIds.DataColumnMissing, () => Read(photos), "file_name");
    }

    [Fact]
    public void Latents_are_computed_once_for_a_content_size_and_autoencoder()
    {
        using DisposeScope scope = NewDisposeScope();
        string photos = TinyImages.Write(_folder["photos"], 3);
        using StableDiffusionPipeline pipeline = Pipeline();
        List<LatentProgress> progress = [];
        LatentCache first = LatentCache.Prepare(pipeline, Read(photos), s_options, progress.Add, Token);
        Assert.Equal(3, first.ComputedCount);
        Assert.Equal([new(photos, 1, 3, 1), new(photos, 2, 3, 2), new(photos, 3, 3, 3)], progress);
        using (LatentDistribution latents = LatentCache.Read(first.Rows[0], CPU))
        using (Tensor image = Resampler.Cover(ImageFile.Read(Path.Combine(photos, "00-red.png")), 16, 16).unsqueeze(0))
        using (no_grad())
        using (LatentDistribution expected = pipeline.Vae.Encode(image))
        {
            TensorAssert.Close(expected.Mean[0], latents.Mean, 1e-6, "mean");
            TensorAssert.Close(expected.LogVariance[0], latents.LogVariance, 1e-6, "logvar");
        }

        // The second time the files are read, and not written: neither is the autoencoder, once its fingerprint is known.
        DateTime written = File.GetLastWriteTimeUtc(first.Rows[0].File);
        pipeline.ReleaseVae();
        LatentCache second = LatentCache.Prepare(pipeline, Read(photos), s_options, null, Token);
        Assert.Equal(0, second.ComputedCount);
        Assert.False(pipeline.IsVaeLoaded);
        Assert.Equal(first.Rows, second.Rows);
        Assert.Equal(written, File.GetLastWriteTimeUtc(second.Rows[0].File));

        // A file that was damaged is made again; another caption, size or autoencoder needs no trick.
        File.WriteAllText(first.Rows[1].File, "damaged");
        LatentCache third = LatentCache.Prepare(pipeline, Read(photos), s_options, null, Token);
        Assert.Equal(1, third.ComputedCount);
        Assert.Contains("computed again", Assert.Single(third.Warnings), StringComparison.Ordinal);
        Assert.Equal(3, LatentCache.Prepare(pipeline, Read(photos), s_options with { Resolution = 24 }, null, Token).ComputedCount);
        using StableDiffusionPipeline other = Pipeline("vae", config => config["scaling_factor"] = 0.5);
        Assert.Equal(first.Folder, LatentCache.Prepare(other, Read(photos), s_options, null, Token).Folder);
        using StableDiffusionPipeline changed = Pipeline();
        using (no_grad())
        {
            changed.Vae.parameters().First().add_(0.1f);
        }

        Assert.Equal(3, LatentCache.Prepare(changed, Read(photos), s_options, null, Token).ComputedCount);
    }

    [Fact]
    public void The_cache_may_be_elsewhere_and_the_resolution_must_be_a_multiple_of_eight()
    {
        string photos = TinyImages.Write(_folder["photos"], 1);
        using StableDiffusionPipeline pipeline = Pipeline();
        LatentCache.Prepare(pipeline, Read(photos), s_options with { CachePath = _folder["cache"] }, null, Token);
        Assert.False(Directory.Exists(Path.Combine(photos, LatentCache.FolderName)));
        Assert.Single(Directory.EnumerateFiles(_folder["cache"], "*.safetensors", SearchOption.AllDirectories));
        ErrorAssert.Throws(ErrorIds.ImageSizeInvalid, () => LatentCache.Prepare(pipeline, Read(photos), s_options with { Resolution = 20 }, null, Token), "20", "16");
        File.WriteAllText(_folder["file"], "");
        ErrorAssert.Throws(ErrorIds.FileNotWritable, () => LatentCache.Prepare(pipeline, Read(photos), s_options with { CachePath = _folder["file"] }, null, Token), _folder["file"]);
    }

    [Theory]
    [InlineData(512, 64)]
    [InlineData(768, 64)]
    [InlineData(64, 8)]
    [InlineData(520, 8)]
    public void Buckets_are_multiples_of_a_step_within_the_area(int resolution, int step)
    {
        AspectBuckets buckets = new(resolution);
        Assert.Contains((resolution, resolution), buckets.Sizes);
        Assert.All(buckets.Sizes, size =>
        {
            Assert.Equal(0, size.Width % step);
            Assert.Equal(0, size.Height % step);
            Assert.True(size.Width * size.Height <= resolution * resolution);
            Assert.True(Math.Min(size.Width, size.Height) >= resolution / 2 / step * step);
        });
        Assert.Equal((resolution, resolution), buckets.Choose(1000, 1000));
        (int width, int height) = buckets.Choose(3000, 2000);
        Assert.InRange((double)width / height, 1.3, 1.8);
        Assert.Equal((height, width), buckets.Choose(2000, 3000));
    }

    [Fact]
    public void Buckets_keep_the_shape_of_images_and_remember_what_was_cut()
    {
        string photos = TinyImages.Write(_folder["photos"], 2, (64, 32), (20, 60));
        using StableDiffusionPipeline pipeline = Pipeline();
        LatentCache cache = LatentCache.Prepare(pipeline, Read(photos), s_options with { Resolution = 32, AspectBuckets = true }, null, Token);
        Assert.True(cache.Rows[0].Width > cache.Rows[0].Height);
        Assert.True(cache.Rows[1].Width < cache.Rows[1].Height);

        LatentRow square = new("", "", 16, 16, 64, 32);
        Assert.Equal((8, 0), (square.CropLeft, square.CropTop));
    }

    public void Dispose() => _folder.Dispose();

    private static ImageFolder Read(string path, ImageDataOptions? options = null) => ImageFolder.Read(path, options ?? s_options, Token);

    private StableDiffusionPipeline Pipeline(string? component = null, Action<System.Text.Json.Nodes.JsonObject>? edit = null) => StableDiffusionLoader.Load(
        TinyPipeline.Write(_folder["sd", Guid.NewGuid().ToString("N")], edit: (name, config) =>
        {
            if (name == component)
            {
                edit!(config);
            }
        }));
}
