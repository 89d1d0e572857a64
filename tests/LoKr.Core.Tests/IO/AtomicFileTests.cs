using System.Runtime.Versioning;
using System.Text;
using LoKr.Core.IO;
using LoKr.Testing;
using Xunit;

namespace LoKr.Core.Tests.IO;

public sealed class AtomicFileTests : IDisposable
{
    private readonly TempFolder _folder = new();

    public static TheoryData<string> LongNames => [new string('n', 215), new string('n', 255), new string('\u6a21', 75), new string('\u6a21', 85)];

    public void Dispose() => _folder.Dispose();

    [Theory]
    [MemberData(nameof(LongNames))]
    public void Long_names_work_for_files_and_folders(string name)
    {
        Assert.SkipWhen(OperatingSystem.IsWindows(), "Windows limits whole paths.");
        AtomicFile.WriteText(_folder[name], "1");
        AtomicFile.WriteText(_folder[name], "2");
        Assert.Equal("2", File.ReadAllText(_folder[name]));
        File.Delete(_folder[name]);
        foreach (string? resume in new[] { null, "lokr-merge" })
        {
            using StagedDirectory staged = new(_folder[name], force: true, resume: resume);
            AtomicFile.WriteText(Path.Combine(staged.Path, "config.json"), "{}");
            staged.Commit();
        }

        Assert.Equal(_folder[name], Assert.Single(Directory.GetFileSystemEntries(_folder.Path)));
    }

    [Theory]
    [MemberData(nameof(LongNames))]
    public void A_temporary_name_fits_whatever_the_name_and_is_recognized(string name)
    {
        string temporary = TemporaryName.Beside(_folder[name], "tmp");
        Assert.InRange(Encoding.UTF8.GetByteCount(Path.GetFileName(temporary)), 1, 255);
        Assert.True(TemporaryName.IsBeside(temporary, _folder[name], "tmp"));
        Assert.False(TemporaryName.IsBeside(temporary, _folder[name[1..] + "x"], "tmp"));
    }

    [Fact]
    [UnsupportedOSPlatform("windows")]
    public void A_file_that_is_overwritten_keeps_its_mode()
    {
        Assert.SkipWhen(OperatingSystem.IsWindows(), "Windows has no modes.");
        const UnixFileMode Private = UnixFileMode.UserRead | UnixFileMode.UserWrite;
        string path = _folder["file"];
        AtomicFile.WriteText(path, "1");
        File.WriteAllText(_folder["usual"], "1");
        Assert.Equal(File.GetUnixFileMode(_folder["usual"]), File.GetUnixFileMode(path));
        foreach (UnixFileMode mode in new[] { Private, Private | UnixFileMode.GroupRead | UnixFileMode.GroupWrite })
        {
            File.SetUnixFileMode(path, mode);
            AtomicFile.Write(path, stream =>
            {
                Assert.Equal(mode, File.GetUnixFileMode(stream.SafeFileHandle));
                stream.WriteByte(50);
            });
            Assert.Equal(("2", mode), (File.ReadAllText(path), File.GetUnixFileMode(path)));
        }
    }

    [Fact]
    public void A_link_planted_under_a_temporary_name_is_not_followed()
    {
        File.WriteAllText(_folder["victim"], "precious");
        SymbolicLink.ToFile(_folder["temporary"], _folder["victim"]);
        Assert.Throws<IOException>(() => new PendingFile(_folder["file"], _folder["temporary"]).Dispose());
        Assert.Equal("precious", File.ReadAllText(_folder["victim"]));
    }

    [Fact]
    public void Leftovers_are_removed_when_they_are_old_and_nobody_has_them_open()
    {
        string[] left = [.. Enumerable.Range(0, 4).Select(i => TemporaryName.Beside(_folder[i == 3 ? "other" : "file"], "tmp"))];
        foreach (string path in left)
        {
            File.WriteAllText(path, "1");
        }

        using PendingFile live = new(_folder["file"], TemporaryName.Beside(_folder["file"], "tmp"));
        foreach (string path in Directory.GetFiles(_folder.Path).Where(path => path != left[1]))
        {
            File.SetLastWriteTimeUtc(path, DateTime.UtcNow.AddHours(-1));
        }

        AtomicFile.RemoveLeftovers(_folder["file"]);
        Assert.Equal([false, true, false, true], left.Select(File.Exists));
        live.Commit();
        Assert.True(File.Exists(_folder["file"]));
        Assert.Equal(3, Directory.GetFiles(_folder.Path).Length);
    }
}
