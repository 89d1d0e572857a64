using System.Diagnostics;
using System.Runtime.Versioning;
using LoKr.Core.Errors;
using LoKr.Core.IO;
using LoKr.Core.Runtime;
using LoKr.Testing;
using Xunit;

namespace LoKr.Core.Tests.Runtime;

public sealed class RuntimeStoreTests : IDisposable
{
    private const UnixFileMode Private = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute;

    private readonly TempFolder _folder = new();
    private readonly RuntimeStore _store;

    public RuntimeStoreTests() => _store = new RuntimeStore(_folder["home", "runtime"]);

    private string Home => _folder["home"];

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void A_store_that_does_not_exist_is_not_an_objection() => _store.RequireTrusted();

    [Theory]
    [InlineData("")]
    [InlineData("runtime")]
    [InlineData("runtime/9.8.7-cpu")]
    [InlineData("runtime/9.8.7-cpu/any")]
    [InlineData("runtime/9.8.7-cpu/any/library")]
    [UnsupportedOSPlatform("windows")]
    public void What_the_group_or_every_user_can_write_is_refused(string path)
    {
        Assert.SkipWhen(OperatingSystem.IsWindows(), "Windows has no modes.");
        string runtime = Install();
        string target = Path.Combine(Home, path);
        UnixFileMode mode = File.GetUnixFileMode(target);
        foreach (UnixFileMode writer in (UnixFileMode[])[UnixFileMode.GroupWrite, UnixFileMode.OtherWrite])
        {
            File.SetUnixFileMode(target, mode | writer);
            LoKrException exception = Assert.Throws<LoKrException>(() => _store.Verify(runtime));
            Assert.Equal(ErrorIds.RuntimeStoreUntrusted, exception.ErrorId);
            Assert.Contains($"'{FolderPaths.Resolve(target)}'", exception.Message, StringComparison.Ordinal);
        }

        File.SetUnixFileMode(target, mode);
        _store.Verify(runtime);
    }

    [Fact]
    [UnsupportedOSPlatform("windows")]
    public void A_folder_above_it_that_every_user_can_write_is_refused_unless_names_are_protected_there()
    {
        Assert.SkipWhen(OperatingSystem.IsWindows(), "Windows has no modes.");
        string runtime = Install();
        const UnixFileMode Everybody = (UnixFileMode)0x1ff;
        File.SetUnixFileMode(_folder.Path, Everybody);
        Assert.Equal(ErrorIds.RuntimeStoreUntrusted, Assert.Throws<LoKrException>(() => _store.Verify(runtime)).ErrorId);
        File.SetUnixFileMode(_folder.Path, Everybody | UnixFileMode.StickyBit);
        _store.Verify(runtime);
    }

    [Fact]
    [UnsupportedOSPlatform("windows")]
    public void A_store_behind_a_link_is_judged_where_it_is()
    {
        Assert.SkipWhen(OperatingSystem.IsWindows(), "Windows has no modes.");
        string runtime = Install();
        string elsewhere = _folder["elsewhere"];
        Directory.Move(_store.Root, elsewhere);
        SymbolicLink.ToFolder(_store.Root, elsewhere);
        Assert.True(_store.Contains(runtime));
        _store.Verify(runtime);
        File.SetUnixFileMode(elsewhere, Private | UnixFileMode.OtherWrite);
        Assert.Equal(ErrorIds.RuntimeStoreUntrusted, Assert.Throws<LoKrException>(() => _store.Verify(runtime)).ErrorId);
    }

    [Theory]
    [InlineData("home")]
    [InlineData("home/runtime/9.8.7-cpu/any/library")]
    [InlineData("")]
    public void What_belongs_to_another_user_is_refused(string path)
    {
        Assert.SkipUnless(OperatingSystem.IsLinux() && Environment.IsPrivilegedProcess, "Only root can give files away.");
        string runtime = Install();
        using (Process chown = Process.Start("chown", ["12345", _folder[path]]))
        {
            chown.WaitForExit();
            Assert.Equal(0, chown.ExitCode);
        }

        LoKrException exception = Assert.Throws<LoKrException>(() => _store.Verify(runtime));
        Assert.Equal(ErrorIds.RuntimeStoreUntrusted, exception.ErrorId);
        Assert.Contains("12345", exception.Message, StringComparison.Ordinal);
    }

    [Fact]
    [UnsupportedOSPlatform("windows")]
    public void Folders_of_the_store_are_open_to_this_user_alone()
    {
        Assert.SkipWhen(OperatingSystem.IsWindows(), "Windows has no modes.");
        Install();
        Assert.Equal(Private, File.GetUnixFileMode(Home));
        Assert.Equal(Private, File.GetUnixFileMode(_store.Root));
    }

    [Fact]
    public void Every_change_of_a_file_is_noticed_even_if_its_length_and_time_are_as_before()
    {
        string runtime = Install();
        _store.Verify(runtime);
        string library = Path.Combine(runtime, "library");
        DateTime written = File.GetLastWriteTimeUtc(library);
        File.WriteAllText(library, "Content");
        File.SetLastWriteTimeUtc(library, written);
        Assert.SkipUnless(OperatingSystem.IsLinux(), "Only Linux tells the time of the last change.");
        LoKrException exception = Assert.Throws<LoKrException>(() => _store.Verify(runtime));
        Assert.Equal(ErrorIds.RuntimeDamaged, exception.ErrorId);
        Assert.Contains(library, exception.Message, StringComparison.Ordinal);

        File.WriteAllText(library, "content");
        _store.Verify(runtime);
    }

    [Fact]
    public void Missing_files_additional_files_and_a_missing_record_are_refused()
    {
        string runtime = Install();
        string extra = Path.Combine(runtime, "extra.so");
        File.WriteAllText(extra, "");
        AssertDamaged(runtime, "extra.so");
        File.Delete(extra);
        _store.Verify(runtime);

        File.Delete(Path.Combine(runtime, "library"));
        AssertDamaged(runtime, "library");

        File.Delete(Path.Combine(runtime, RuntimeManifest.FileName));
        AssertDamaged(runtime, RuntimeManifest.FileName);

        File.WriteAllText(Path.Combine(runtime, RuntimeManifest.FileName), "{}");
        AssertDamaged(runtime, RuntimeManifest.FileName);
    }

    [Fact]
    public void A_package_is_compared_with_the_published_hashes_whatever_the_record_says()
    {
        string runtime = Install("libtorch-cpu-linux-x64/" + RuntimeSearchPaths.FromEnvironment().ExpectedLibtorch, "libc10.so");
        LoKrException exception = Assert.Throws<LoKrException>(() => _store.Verify(runtime));
        Assert.Equal(ErrorIds.RuntimeDamaged, exception.ErrorId);
    }

    [Fact]
    public void The_published_hashes_are_those_of_the_packages()
    {
        RuntimeSearchPaths paths = RuntimeSearchPaths.FromEnvironment();
        string id = $"libtorch-cpu-{NativeNames.RuntimeIdentifier}";
        string package = Path.Combine(paths.NuGetPackages, id, paths.ExpectedLibtorch);
        Assert.SkipUnless(Directory.Exists(package), $"No {package}.");
        IReadOnlyDictionary<string, FileHash> known = KnownPackages.Find($"{id}/{paths.ExpectedLibtorch}")!;
        string native = $"runtimes/{NativeNames.RuntimeIdentifier}/native";
        Assert.Equal(Directory.GetFiles(Path.Combine(package, native)).Select(file => $"{native}/{Path.GetFileName(file)}").Order(StringComparer.Ordinal), known.Keys.Order(StringComparer.Ordinal));

        // The largest one takes a second; the others tell as much.
        Assert.All(known.Where(file => file.Value.Length < 10_000_000), file => Assert.Equal(file.Value, FileHash.Of(Path.Combine(package, file.Key))));
    }

    [Fact]
    public void Every_platform_of_TorchSharp_has_published_hashes_of_this_libtorch()
    {
        string version = RuntimeSearchPaths.FromEnvironment().ExpectedLibtorch;
        Assert.All((string[])["linux-x64", "win-x64", "win-arm64", "osx-arm64"], platform => Assert.NotNull(KnownPackages.Find($"libtorch-cpu-{platform}/{version}")));
    }

    private void AssertDamaged(string runtime, string file)
    {
        LoKrException exception = Assert.Throws<LoKrException>(() => _store.Verify(runtime));
        Assert.Equal(ErrorIds.RuntimeDamaged, exception.ErrorId);
        Assert.Contains(file, exception.Message, StringComparison.Ordinal);
    }

    private string Install(string? package = null, string name = "library")
    {
        string runtime = _store.FolderFor("9.8.7", "cpu", "any");
        _store.CreateFolder(runtime);
        File.WriteAllText(Path.Combine(runtime, name), "content");
        RuntimeManifest.Describe(runtime, "9.8.7", "cpu", "any", "a test", package is null ? [] : [package]).Write(runtime);
        return runtime;
    }
}
