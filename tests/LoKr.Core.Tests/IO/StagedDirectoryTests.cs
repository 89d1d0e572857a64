using LoKr.Core.Errors;
using LoKr.Core.IO;
using LoKr.Testing;
using Xunit;

namespace LoKr.Core.Tests.IO;

public sealed class StagedDirectoryTests : IDisposable
{
    private readonly TempFolder _folder = new();

    private string Destination => _folder["parent/out"];

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void A_folder_appears_on_commit_and_not_before()
    {
        using (StagedDirectory staged = new(Destination, force: false))
        {
            File.WriteAllText(Path.Combine(staged.Path, "a"), "1");
            Assert.False(Directory.Exists(Destination));
            staged.Commit();
        }

        Assert.Equal("1", File.ReadAllText(Path.Combine(Destination, "a")));
        Assert.Equal(["out"], Beside());
    }

    [Fact]
    public void Without_a_commit_nothing_is_left_and_what_was_there_stays()
    {
        Put("old");
        using (StagedDirectory staged = new(Destination, force: true))
        {
            File.WriteAllText(Path.Combine(staged.Path, "new"), "1");
        }

        Assert.Equal(["old"], Inside());
        Assert.Equal(["out"], Beside());
    }

    [Fact]
    public void An_existing_folder_is_an_error_without_force_and_replaced_with_it()
    {
        Put("old");
        LoKrException exception = Assert.Throws<LoKrException>(() => new StagedDirectory(Destination, force: false));
        Assert.Equal(ErrorIds.DestinationExists, exception.ErrorId);
        Assert.Equal(["out"], Beside());
        Replace(carryOver: false);
        Assert.Equal(["new"], Inside());
        Assert.Equal(["out"], Beside());
    }

    [Fact]
    public void Other_files_can_be_kept()
    {
        Put("old");
        Directory.CreateDirectory(Path.Combine(Destination, "second"));
        Put("second/file");
        Put("new");
        Replace(carryOver: true);
        Assert.Equal(["new", "old", "second"], Inside());
        Assert.Equal("1", File.ReadAllText(Path.Combine(Destination, "new")));
        Assert.True(File.Exists(Path.Combine(Destination, "second", "file")));
        Assert.Equal(["out"], Beside());
    }

    [Fact]
    public void An_empty_folder_needs_no_force()
    {
        Directory.CreateDirectory(Destination);
        using StagedDirectory staged = new(Destination, force: false);
        File.WriteAllText(Path.Combine(staged.Path, "a"), "1");
        staged.Commit();
        Assert.Equal(["a"], Inside());
    }

    [Fact]
    public void A_folder_that_appears_meanwhile_is_not_replaced_without_force()
    {
        using StagedDirectory staged = new(Destination, force: false);
        Put("other");
        Assert.Equal(ErrorIds.DestinationExists, Assert.Throws<LoKrException>(staged.Commit).ErrorId);
        Assert.Equal(["other"], Inside());
    }

    [Fact]
    public void A_file_a_repository_and_the_current_folder_are_never_replaced()
    {
        Directory.CreateDirectory(Path.GetDirectoryName(Destination)!);
        File.WriteAllText(Destination, "file");
        Assert.Equal(ErrorIds.DestinationExists, Assert.Throws<LoKrException>(() => new StagedDirectory(Destination, force: true)).ErrorId);
        string repository = _folder["repository"];
        Directory.CreateDirectory(Path.Combine(repository, ".git"));
        Assert.Equal(ErrorIds.InvalidArgument, Assert.Throws<LoKrException>(() => new StagedDirectory(repository, force: true)).ErrorId);
        Assert.Equal(ErrorIds.InvalidArgument, Assert.Throws<LoKrException>(() => new StagedDirectory(".", force: true)).ErrorId);
        Assert.Equal(ErrorIds.InvalidArgument, Assert.Throws<LoKrException>(() => new StagedDirectory("..", force: true)).ErrorId);
        Assert.Equal(ErrorIds.InvalidArgument, Assert.Throws<LoKrException>(() => new StagedDirectory(Path.GetPathRoot(Destination)!, force: true)).ErrorId);
        Assert.True(Directory.Exists(Path.Combine(repository, ".git")));
    }

    [Fact]
    public void A_link_to_a_folder_stays_a_link()
    {
        Put("old");
        string link = _folder["link"];
        Directory.CreateSymbolicLink(link, Destination);
        using (StagedDirectory staged = new(link, force: true))
        {
            File.WriteAllText(Path.Combine(staged.Path, "new"), "1");
            staged.Commit();
        }

        Assert.Equal(["new"], Inside());
        Assert.NotNull(new DirectoryInfo(link).LinkTarget);
    }

    private void Replace(bool carryOver)
    {
        using StagedDirectory staged = new(Destination, force: true, carryOver);
        File.WriteAllText(Path.Combine(staged.Path, "new"), "1");
        staged.Commit();
    }

    private void Put(string name)
    {
        Directory.CreateDirectory(Destination);
        File.WriteAllText(Path.Combine(Destination, name), "old");
    }

    private string[] Inside() => Names(Destination);

    private string[] Beside() => Names(Path.GetDirectoryName(Destination)!);

    private static string[] Names(string folder) =>
        [.. Directory.GetFileSystemEntries(folder).Select(path => Path.GetFileName(path)!).Order(StringComparer.Ordinal)];
}
