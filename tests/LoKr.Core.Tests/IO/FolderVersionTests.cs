using LoKr.Core.Errors;
using LoKr.Core.IO;
using LoKr.Core.Layouts;
using LoKr.Testing;
using Xunit;

namespace LoKr.Core.Tests.IO;

/// <summary>A reader of several files of a folder that is swapped meanwhile reads all of them from one version.</summary>
public sealed class FolderVersionTests : IDisposable
{
    private readonly TempFolder _folder = new();
    private readonly List<string> _discarded = [];
    private int _reads;

    public FolderVersionTests() => Put("old");

    private string Destination => _folder["out"];

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void A_folder_that_is_swapped_between_two_files_is_read_again()
    {
        Assert.Equal("new new", Read(() => Put("new")));
        Assert.Equal(2, _reads);
        Assert.Equal(["old new"], _discarded);
    }

    [Fact]
    public void A_file_that_is_missing_in_the_new_version_is_not_an_error_of_the_old_one()
    {
        string result = Read(() =>
        {
            Put("new");
            throw FileErrors.NotFound("gone with the old version");
        });
        Assert.Equal("new new", result);
    }

    [Fact]
    public void A_folder_that_stays_is_read_once_and_its_errors_are_its_own()
    {
        Assert.Equal("old old", Read(() => { }));
        Assert.Equal(1, _reads);
        ErrorAssert.Throws(ErrorIds.PathNotFound, () => FolderVersion.Read<string>(Destination, () => throw FileErrors.NotFound("missing"), _discarded.Add));
        ErrorAssert.Throws(ErrorIds.AdapterFileNotFound, () => PeftAdapterFolder.Read(Destination));
        ErrorAssert.Throws(ErrorIds.PathNotFound, () => PeftAdapterFolder.Read(_folder["none"]));
    }

    [Fact]
    public void A_folder_that_never_stays_the_same_ends_in_an_error()
    {
        ErrorAssert.Throws(ErrorIds.FileNotReadable, () => FolderVersion.Read(Destination, () =>
        {
            Put($"{_reads++}");
            return "";
        }, _discarded.Add), "out");
        Assert.InRange(_reads, 2, 100);
        Assert.Equal(_reads, _discarded.Count);
    }

    [Fact]
    public void Another_folder_at_a_path_is_told_from_a_changed_one()
    {
        Assert.SkipUnless(OperatingSystem.IsLinux(), "Only Linux tells folders apart.");
        FolderVersion version = FolderVersion.Of(Destination);
        File.WriteAllText(Path.Combine(Destination, "note"), "");
        Assert.False(version.WasReplaced(FolderVersion.Of(Destination)));
        Assert.NotEqual(version, FolderVersion.Of(Destination));
        Put("new");
        Assert.True(version.WasReplaced(FolderVersion.Of(Destination)));
    }

    // Two files; something happens between the first time that they are read.
    private string Read(Action between) => FolderVersion.Read(Destination, () =>
    {
        string first = File.ReadAllText(Path.Combine(Destination, "a"));
        if (++_reads == 1)
        {
            between();
        }

        return $"{first} {File.ReadAllText(Path.Combine(Destination, "config.json"))}";
    }, _discarded.Add);

    private void Put(string version)
    {
        using StagedDirectory staged = new(Destination, force: true);
        File.WriteAllText(Path.Combine(staged.Path, "a"), version);
        File.WriteAllText(Path.Combine(staged.Path, "config.json"), version);
        staged.Commit();
    }
}
