using System.Diagnostics;
using LoKr.Core.Errors;
using LoKr.Models.Diffusion;
using LoKr.Testing;
using Xunit;

namespace LoKr.Models.Tests.Diffusion;

/// <summary>Links in a folder of images are followed inside the folder only; a data set that was downloaded may hold others.</summary>
public sealed class ImageLinksTests : IDisposable
{
    private readonly TempFolder _folder = new();

    public ImageLinksTests()
    {
        Assert.SkipWhen(OperatingSystem.IsWindows(), "Links need a privilege on Windows.");
        TinyImages.Write(_folder["elsewhere"], 1);
        TinyImages.Write(_folder["data"], 1);
    }

    public static TheoryData<string> Names => ["01-link.png", "00-red.txt", ImageFolder.MetadataName];

    public void Dispose() => _folder.Dispose();

    [Theory]
    [MemberData(nameof(Names))]
    public void A_link_to_a_place_outside_is_refused_even_where_unreadable_images_are_skipped(string name)
    {
        _folder.Write("secret", "{\"file_name\": \"00-red.png\", \"text\": \"secret\"}");
        Link(name, Path.Combine("..", name.EndsWith(".png", StringComparison.Ordinal) ? "elsewhere/00-red.png" : "secret"));
        ErrorAssert.Throws(ErrorIds.LinkOutsideFolder, () => ImageFolder.Read(_folder["data"], new ImageDataOptions { Unreadable = UnreadableImage.Skip, MissingCaption = MissingCaption.Allow }, TestContext.Current.CancellationToken), name);
    }

    [Fact]
    public void Links_inside_the_folder_are_followed()
    {
        _folder.Write("data/real/a.txt", "a caption");
        File.Move(_folder["data", "00-red.png"], _folder["data", "real", "a.png"]);
        Link("00-red.png", "real/a.png");
        Link("00-red.txt", "real/a.txt");
        SymbolicLink.ToFolder(_folder["alias"], "data");
        Assert.Equal("a caption", Assert.Single(ImageFolder.Read(_folder["alias"], new ImageDataOptions(), TestContext.Current.CancellationToken).Images).Caption);
    }

    [Fact]
    public async Task A_pipe_is_refused_without_waiting()
    {
        using (Process process = Process.Start("mkfifo", _folder["data", "01-pipe.png"]))
        {
            await process.WaitForExitAsync(TestContext.Current.CancellationToken);
        }

        _folder.Write("data/01-pipe.txt", "a pipe");
        LoKrException error = await Task.Run(() => Assert.Throws<LoKrException>(() => ImageFolder.Read(_folder["data"], new ImageDataOptions(), TestContext.Current.CancellationToken)), TestContext.Current.CancellationToken)
            .WaitAsync(TimeSpan.FromSeconds(30), TestContext.Current.CancellationToken);
        Assert.Contains("01-pipe.png", error.Message, StringComparison.Ordinal);
    }

    // Takes the place of what is there.
    private void Link(string name, string target)
    {
        File.Delete(_folder["data", name]);
        SymbolicLink.ToFile(_folder["data", name], target);
    }
}
