using System.Text;
using System.Text.RegularExpressions;

namespace LoKr.Core.Runtime;

/// <summary>Tells the version of a libtorch folder from what its distributors leave beside the libraries.</summary>
internal static partial class LibtorchVersion
{
    private const long LargestScannedFile = 256L << 20;

    /// <summary>
    /// The version with its build label (2.10.0+cu128), or null. Looks at the record of an installed runtime, the NuGet path, an installed PyTorch's <c>version.py</c>,
    /// the <c>build-version</c> file and headers of a libtorch archive, the wheel's metadata, and last at the strings of the Python binding.
    /// </summary>
    public static string? Detect(string folder)
    {
        folder = Path.TrimEndingDirectorySeparator(Path.GetFullPath(folder));
        string? parent = Path.GetDirectoryName(folder);
        return RuntimeManifest.Find(folder)?.Libtorch
            ?? FromNuGetPath(folder)
            ?? FromFile(Path.Combine(folder, "build-version"), PlainVersion())
            ?? (parent is null ? null : FromPackageRoot(parent))
            ?? FromBinding(folder);
    }

    private static string? FromPackageRoot(string root) =>
        FromFile(Path.Combine(root, "version.py"), PythonVersion())
        ?? FromFile(Path.Combine(root, "build-version"), PlainVersion())
        ?? FromHeader(Path.Combine(root, "include", "torch", "headeronly", "version.h"))
        ?? FromHeader(Path.Combine(root, "include", "torch", "csrc", "api", "include", "torch", "version.h"))
        ?? FromWheel(Path.GetDirectoryName(root));

    private static string? FromNuGetPath(string folder)
    {
        Match match = NuGetPath().Match(folder.Replace('\\', '/'));
        return match.Success ? match.Groups[1].Value : null;
    }

    private static string? FromFile(string path, Regex pattern)
    {
        if (!File.Exists(path))
        {
            return null;
        }

        Match match = pattern.Match(File.ReadAllText(path));
        return match.Success ? match.Groups[1].Value : null;
    }

    private static string? FromHeader(string path)
    {
        if (!File.Exists(path))
        {
            return null;
        }

        Dictionary<string, string> parts = HeaderPart().Matches(File.ReadAllText(path))
            .GroupBy(match => match.Groups[1].Value, match => match.Groups[2].Value, StringComparer.Ordinal)
            .ToDictionary(group => group.Key, group => group.First(), StringComparer.Ordinal);
        return parts.TryGetValue("MAJOR", out string? major)
            && parts.TryGetValue("MINOR", out string? minor)
            && parts.TryGetValue("PATCH", out string? patch)
                ? $"{major}.{minor}.{patch}"
                : null;
    }

    private static string? FromWheel(string? sitePackages)
    {
        if (sitePackages is null || !Directory.Exists(sitePackages))
        {
            return null;
        }

        string[] versions = [.. Directory.EnumerateDirectories(sitePackages, "torch-*.dist-info")
            .Select(path => WheelFolder().Match(Path.GetFileName(path)))
            .Where(match => match.Success)
            .Select(match => match.Groups[1].Value)
            .Distinct(StringComparer.Ordinal)];
        return versions.Length == 1 ? versions[0] : null;
    }

    // libtorch_cpu itself does not hold its version; the Python binding does, as a string that is nothing but the version.
    private static string? FromBinding(string folder)
    {
        string? path = NativeNames.Find(folder, "torch_python");
        if (path is null || new FileInfo(path).Length > LargestScannedFile)
        {
            return null;
        }

        string text = Encoding.Latin1.GetString(File.ReadAllBytes(path));
        string[] versions = [.. EmbeddedVersion().Matches(text).Select(match => match.Groups[1].Value).Distinct(StringComparer.Ordinal)];
        return versions.Length == 1 ? versions[0] : null;
    }

    [GeneratedRegex(@"/libtorch-[^/]+/(\d+\.\d+\.\d+[^/]*)/runtimes/[^/]+/native$", RegexOptions.IgnoreCase)]
    private static partial Regex NuGetPath();

    [GeneratedRegex(@"^\s*(\d+\.\d+\.\d+\S*)")]
    private static partial Regex PlainVersion();

    [GeneratedRegex(@"^__version__\s*=\s*['""](\d+\.\d+\.\d+[^'""]*)['""]", RegexOptions.Multiline)]
    private static partial Regex PythonVersion();

    [GeneratedRegex(@"^\s*#define\s+TORCH_VERSION_(MAJOR|MINOR|PATCH)\s+(\d+)", RegexOptions.Multiline)]
    private static partial Regex HeaderPart();

    [GeneratedRegex(@"^torch-(\d+\.\d+\.\d+.*)\.dist-info$")]
    private static partial Regex WheelFolder();

    [GeneratedRegex(@"(?<=\0)([2-9]\.\d{1,2}\.\d{1,2}(?:\+[a-z0-9.]{1,16})?)(?=\0)")]
    private static partial Regex EmbeddedVersion();
}
