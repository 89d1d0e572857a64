using Xunit;

namespace LoKr.Testing;

/// <summary>Symbolic links. A test that needs one is skipped where this user may not make any.</summary>
public static class SymbolicLink
{
    /// <summary>Makes a link to a file.</summary>
    public static void ToFile(string path, string target) => Make(() => File.CreateSymbolicLink(path, target));

    /// <summary>Makes a link to a folder.</summary>
    public static void ToFolder(string path, string target) => Make(() => Directory.CreateSymbolicLink(path, target));

    private static void Make(Func<FileSystemInfo> create)
    {
        try
        {
            Assert.SkipWhen(create().LinkTarget is null, "No links are made here.");
        }
        catch (Exception exception) when (OperatingSystem.IsWindows() && exception is IOException or UnauthorizedAccessException)
        {
            Assert.Skip($"Links need a privilege on Windows: {exception.Message}");
        }
    }
}
