using System.Runtime.Versioning;
using LoKr.Core.Errors;
using LoKr.Core.IO;
using LoKr.Testing;
using Xunit;

namespace LoKr.Core.Tests.IO;

public sealed class StagedDirectoryTests : IDisposable
{
    private readonly TempFolder _folder = new();

    private string Destination => _folder["parent", "out"];

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
        Put("config.json");
        using (StagedDirectory staged = new(Destination, force: true))
        {
            File.WriteAllText(Path.Combine(staged.Path, "new"), "1");
        }

        Assert.Equal(["config.json"], Inside());
        Assert.Equal(["out"], Beside());
    }

    [Fact]
    public void An_existing_folder_is_an_error_without_force_and_replaced_with_it()
    {
        Put("config.json");
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
        Put("config.json");
        string link = _folder["link"];
        SymbolicLink.ToFolder(link, Destination);
        using (StagedDirectory staged = new(link, force: true))
        {
            File.WriteAllText(Path.Combine(staged.Path, "new"), "1");
            staged.Commit();
        }

        Assert.Equal(["new"], Inside());
        Assert.NotNull(new DirectoryInfo(link).LinkTarget);
    }

    [Theory]
    [InlineData("config.json")]
    [InlineData("model_index.json")]
    [InlineData("adapter_config.json")]
    [InlineData("pytorch_lora_weights.safetensors")]
    public void Force_replaces_a_folder_of_a_model_or_an_adapter(string mark)
    {
        Put(mark);
        Replace(carryOver: false);
        Assert.Equal(["new"], Inside());
    }

    [Fact]
    public void Force_does_not_replace_a_folder_of_documents_or_the_home_folder()
    {
        Put("letter.txt");
        Directory.CreateDirectory(Path.Combine(Destination, "sub"));
        Put("sub/config.json");
        ErrorAssert.Throws(ErrorIds.DestinationForeign, () => new StagedDirectory(Destination, force: true).Dispose(), Destination);
        Assert.Equal(["letter.txt", "sub"], Inside());
        Assert.Equal(["out"], Beside());
        string home = Environment.GetFolderPath(Environment.SpecialFolder.UserProfile);
        foreach (bool carryOver in new[] { true, false })
        {
            ErrorAssert.Throws(ErrorIds.InvalidArgument, () => new StagedDirectory(home, force: true, carryOver).Dispose());
        }
    }

    [Fact]
    [UnsupportedOSPlatform("windows")]
    public void Modes_of_a_replaced_folder_and_its_files_stay()
    {
        Assert.SkipWhen(OperatingSystem.IsWindows(), "Windows has no modes.");
        const UnixFileMode Private = UnixFileMode.UserRead | UnixFileMode.UserWrite;
        foreach (bool carryOver in new[] { false, true })
        {
            Put("config.json");
            File.SetUnixFileMode(Path.Combine(Destination, "config.json"), Private);
            File.SetUnixFileMode(Destination, Private | UnixFileMode.UserExecute);
            using (StagedDirectory staged = new(Destination, force: true, carryOver))
            {
                Assert.Equal(Private | UnixFileMode.UserExecute, File.GetUnixFileMode(staged.Path));
                File.WriteAllText(Path.Combine(staged.Path, "config.json"), "new");
                File.WriteAllText(Path.Combine(staged.Path, "another"), "1");
                staged.Commit();
            }

            Assert.Equal(Private | UnixFileMode.UserExecute, File.GetUnixFileMode(Destination));
            Assert.Equal("new", File.ReadAllText(Path.Combine(Destination, "config.json")));
            Assert.Equal(Private, File.GetUnixFileMode(Path.Combine(Destination, "config.json")));
            Assert.Equal(Private, File.GetUnixFileMode(Path.Combine(Destination, "another")));
        }
    }

    [Fact]
    [UnsupportedOSPlatform("windows")]
    public void A_folder_without_modes_to_keep_has_the_usual_ones()
    {
        Assert.SkipWhen(OperatingSystem.IsWindows(), "Windows has no modes.");
        using (StagedDirectory staged = new(Destination, force: false))
        {
            staged.Commit();
        }

        Assert.Equal(File.GetUnixFileMode(Directory.CreateDirectory(_folder["usual"]).FullName), File.GetUnixFileMode(Destination));
    }

    [Fact]
    public void A_link_planted_as_working_folder_is_not_followed()
    {
        string victim = Directory.CreateDirectory(_folder["victim"]).FullName;
        File.WriteAllText(Path.Combine(victim, "precious"), "1");
        Directory.CreateDirectory(Path.GetDirectoryName(Destination)!);
        string planted = TemporaryName.Of(Destination, "resumed");
        SymbolicLink.ToFolder(planted, victim);
        ErrorAssert.Throws(ErrorIds.FileNotWritable, () => new StagedDirectory(Destination, force: false, resume: "resumed").Dispose(), planted);
        Assert.Equal("1", File.ReadAllText(Path.Combine(victim, "precious")));
        Assert.Equal([".out.resumed"], Beside());
    }

    [Fact]
    public void A_link_planted_as_lock_is_not_followed()
    {
        Assert.SkipUnless(OperatingSystem.IsLinux(), "Only Linux tells how many names a file has.");
        string victim = _folder["victim"];
        File.WriteAllText(victim, "precious");
        Directory.CreateDirectory(Path.GetDirectoryName(Destination)!);
        string planted = Path.Combine(Path.GetDirectoryName(Destination)!, ".out.lokr-lock");
        SymbolicLink.ToFile(planted, victim);
        ErrorAssert.Throws(ErrorIds.FileNotWritable, () => new StagedDirectory(Destination, force: false).Dispose(), planted);
        File.Delete(planted);
        NativeFiles.LinkOrCopy(victim, planted);
        ErrorAssert.Throws(ErrorIds.FileNotWritable, () => new StagedDirectory(Destination, force: false).Dispose(), planted);
        Assert.Equal("precious", File.ReadAllText(victim));
        Assert.False(Directory.Exists(Destination));
    }

    [Fact]
    public void The_second_writer_is_told_who_the_first_one_is()
    {
        using (StagedDirectory first = new(Destination, force: false))
        {
            string holder = OperatingSystem.IsLinux() ? $"process {Environment.ProcessId} " : "another process";
            ErrorAssert.Throws(ErrorIds.DestinationBusy, () => new StagedDirectory(Destination, force: true).Dispose(), Destination, holder);
            Assert.True(Directory.Exists(first.Path));
        }

        using StagedDirectory second = new(Destination, force: false);
        second.Commit();
    }

    [Fact]
    public void A_lock_that_cannot_be_opened_is_not_a_busy_destination()
    {
        Directory.CreateDirectory(Path.Combine(Path.GetDirectoryName(Destination)!, ".out.lokr-lock"));
        ErrorAssert.Throws(ErrorIds.FileNotWritable, () => new StagedDirectory(Destination, force: false).Dispose());
    }

    [Fact]
    public void A_lock_of_a_killed_writer_does_not_hinder()
    {
        Directory.CreateDirectory(Path.GetDirectoryName(Destination)!);
        File.WriteAllText(TemporaryName.Of(Destination, "lokr-lock"), "process 1 (init)");
        using (StagedDirectory staged = new(Destination, force: false))
        {
            staged.Commit();
        }

        Assert.Equal(["out"], Beside());
    }

    [Fact]
    public void A_parent_that_vanishes_is_an_error_of_the_commit_and_not_of_the_end()
    {
        Assert.SkipWhen(OperatingSystem.IsWindows(), "Windows keeps folders of open files.");
        using (StagedDirectory staged = new(Destination, force: false))
        {
            Directory.Delete(Path.GetDirectoryName(Destination)!, recursive: true);
            ErrorAssert.Throws(ErrorIds.FileNotWritable, staged.Commit);
        }

        Assert.Empty(Directory.GetFileSystemEntries(_folder.Path));
    }

    [Fact]
    public void Leftovers_of_killed_writers_of_the_same_destination_are_removed()
    {
        Put("config.json");
        string other = Path.Combine(Path.GetDirectoryName(Destination)!, $".out.{Guid.NewGuid():N}.mine");
        foreach (string left in new[] { TemporaryName.Beside(Destination, "tmp"), TemporaryName.Beside(Destination, "old"), TemporaryName.Beside(Destination + "2", "tmp"), other })
        {
            File.WriteAllText(Path.Combine(Directory.CreateDirectory(left).FullName, "file"), "1");
        }

        Replace(carryOver: false);
        Assert.Equal(3, Beside().Length);
        Assert.True(Directory.Exists(other));
        Assert.Contains(Beside(), static name => name.StartsWith(".out2.", StringComparison.Ordinal));
    }

    [Fact]
    public void A_destination_between_two_renames_of_a_killed_writer_is_restored()
    {
        string former = Directory.CreateDirectory(TemporaryName.Beside(Destination, "old")).FullName;
        File.WriteAllText(Path.Combine(former, "config.json"), "old");
        ErrorAssert.Throws(ErrorIds.DestinationExists, () => new StagedDirectory(Destination, force: false).Dispose());
        Assert.Equal(["config.json"], Inside());
        Assert.Equal(["out"], Beside());
    }

    [Fact]
    public void Without_a_swap_in_one_step_two_renames_replace_a_folder()
    {
        Put("config.json");
        string staged = Directory.CreateDirectory(_folder["parent/staged"]).FullName;
        string former = StagedDirectory.SwapByRenames(staged, Destination);
        Assert.Equal(["config.json"], Names(former));
        Assert.Empty(Inside());
        Assert.Throws<DirectoryNotFoundException>(() => StagedDirectory.SwapByRenames(staged, Destination));
        Assert.Empty(Inside());
    }

    [Fact]
    public async Task The_destination_exists_at_every_moment_of_a_replacement()
    {
        Assert.SkipUnless(OperatingSystem.IsLinux(), "Only Linux swaps folders in one step.");
        Put("config.json");
        using CancellationTokenSource stop = new();
        Task<int> missing = Task.Run(() =>
        {
            int count = 0;
            while (!stop.IsCancellationRequested)
            {
                count += Directory.Exists(Destination) ? 0 : 1;
            }

            return count;
        }, TestContext.Current.CancellationToken);
        for (int i = 0; i < 100; i++)
        {
            using StagedDirectory staged = new(Destination, force: true);
            File.WriteAllText(Path.Combine(staged.Path, "config.json"), "1");
            staged.Commit();
        }

        await stop.CancelAsync();
        Assert.Equal(0, await missing);
    }

    [Fact]
    public void Folders_and_links_are_carried_over_as_they_are()
    {
        Put("mine");
        Directory.CreateDirectory(Path.Combine(Destination, "sub"));
        Put("sub/mine");
        SymbolicLink.ToFolder(Path.Combine(Destination, "link"), "sub");
        Replace(carryOver: true);
        Assert.Equal(["link", "mine", "new", "sub"], Inside());
        Assert.Equal("sub", new DirectoryInfo(Path.Combine(Destination, "link")).LinkTarget);
        Assert.Equal("old", File.ReadAllText(Path.Combine(Destination, "sub", "mine")));
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
