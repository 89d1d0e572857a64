using System.Diagnostics;
using System.Globalization;
using Xunit;

namespace LoKr.Reliability;

/// <summary>A file system of its own in memory, which can be full and read-only as root too. Tests are skipped where it cannot be mounted.</summary>
internal sealed class SmallDisk : IDisposable
{
    private SmallDisk(string path) => Path = path;

    public string Path { get; }

    public static SmallDisk Mount(string path, int kilobytes)
    {
        Assert.SkipUnless(OperatingSystem.IsLinux() && Environment.IsPrivilegedProcess, "Mounting a small disk takes Linux and root.");
        Directory.CreateDirectory(path);
        string? problem = Run("mount", "-t", "tmpfs", "-o", string.Create(CultureInfo.InvariantCulture, $"size={kilobytes}k"), "tmpfs", path);
        Assert.SkipWhen(problem is not null, $"A small disk cannot be mounted: {problem}");
        return new SmallDisk(path);
    }

    /// <summary>Fills the disk but for some space.</summary>
    public void Fill(int freeKilobytes)
    {
        MakeSpace();
        using FileStream fill = File.Create(FillFile);
        byte[] page = new byte[4096];
        while (new DriveInfo(Path).AvailableFreeSpace > freeKilobytes * 1024L)
        {
            fill.Write(page);
            fill.Flush();
        }
    }

    /// <summary>Takes away what <see cref="Fill"/> wrote.</summary>
    public void MakeSpace() => File.Delete(FillFile);

    private string FillFile => System.IO.Path.Combine(Path, "fill");

    public void MakeReadOnly() => Assert.Null(Run("mount", "-o", "remount,ro", Path));

    public void Dispose() => Run("umount", "-l", Path);

    private static string? Run(string program, params string[] arguments)
    {
        using Process process = Process.Start(new ProcessStartInfo(program, arguments) { RedirectStandardError = true })!;
        string text = process.StandardError.ReadToEnd();
        process.WaitForExit();
        return process.ExitCode == 0 ? null : text.Trim();
    }
}
