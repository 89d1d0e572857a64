using System.Text.Json;
using System.Text.Json.Nodes;
using LoKr.Core.Errors;
using LoKr.Core.IO;

namespace LoKr.Core.Runtime;

/// <summary>Expected size and hash of a file.</summary>
/// <param name="Length">Length in bytes.</param>
/// <param name="Sha256">SHA-256 in lower-case hexadecimal digits.</param>
internal sealed record FileHash(long Length, string Sha256)
{
    /// <summary>Hashes a file; links are followed.</summary>
    public static FileHash Of(string path)
    {
        using FileStream stream = FileSystem.OpenRead(path);
        return new(stream.Length, ContentHash.Of(stream));
    }
}

/// <summary>
/// The hashes of the native packages that belong to this release, recorded in the assembly from the packages as they were published
/// (tools/Update-KnownPackages.ps1). The CUDA packages are not among them: their cut files come with checksums, and what was installed is recorded.
/// </summary>
internal static class KnownPackages
{
    private static readonly Lazy<IReadOnlyDictionary<string, IReadOnlyDictionary<string, FileHash>>> s_packages = new(Read);

    /// <summary>The libraries of a package by their paths in it; null for a package that is not known.</summary>
    /// <param name="package">Id and version, for example <c>libtorch-cpu-linux-x64/2.10.0</c>.</param>
    public static IReadOnlyDictionary<string, FileHash>? Find(string package) => s_packages.Value.GetValueOrDefault(package);

    /// <summary>The packages with libraries for a platform that the module does not ship, libtorch for the CPU among them.</summary>
    /// <param name="platform">Runtime identifier.</param>
    public static IReadOnlyList<(string Id, string Version)> For(string platform) =>
    [
        .. s_packages.Value
            .Where(package => package.Value.Keys.Any(path => IsFor(path, platform)))
            .Select(package => package.Key.Split('/'))
            .Select(parts => (parts[0], parts[1])),
    ];

    /// <summary>Whether a path in a package is that of a library for a platform, or of a part of one.</summary>
    public static bool IsFor(string path, string platform) =>
        path.Split('/') is ["runtimes" or "fragments", string folder, "native", { Length: > 0 }]
        && (folder == platform || (folder == "osx" && platform.StartsWith("osx-", StringComparison.Ordinal)));

    private static Dictionary<string, IReadOnlyDictionary<string, FileHash>> Read()
    {
        using Stream stream = typeof(KnownPackages).Assembly.GetManifestResourceStream("KnownPackages.json")!;
        using JsonDocument json = JsonDocument.Parse(stream);
        return json.RootElement.EnumerateObject().ToDictionary(
            package => $"{package.Name}/{package.Value.GetProperty("version").GetString()}",
            package => (IReadOnlyDictionary<string, FileHash>)package.Value.GetProperty("files").EnumerateObject().ToDictionary(
                file => file.Name,
                file => new FileHash(file.Value.GetProperty("length").GetInt64(), file.Value.GetProperty("sha256").GetString()!),
                StringComparer.Ordinal),
            StringComparer.OrdinalIgnoreCase);
    }
}

/// <summary>The record of what was put into a folder of the store: every file that may be there, with its hash.</summary>
/// <param name="Libtorch">Version of libtorch.</param>
/// <param name="Flavor"><c>cpu</c> or <c>cuda</c>.</param>
/// <param name="Platform">Runtime identifier.</param>
/// <param name="Origin">Where it came from, in words.</param>
/// <param name="Packages">NuGet packages that it came from, id/version each; empty for a libtorch from elsewhere.</param>
/// <param name="Files">Names and hashes.</param>
internal sealed record RuntimeManifest(
    string Libtorch, string Flavor, string Platform, string Origin, IReadOnlyList<string> Packages, IReadOnlyDictionary<string, FileHash> Files)
{
    /// <summary>Name of the file in the folder.</summary>
    public const string FileName = "lokr-runtime.json";

    /// <summary>File with the stamps of libraries whose hashes were compared before.</summary>
    public const string StampsName = "lokr-runtime.stamps";

    private static readonly JsonErrors s_errors = new(ErrorIds.RuntimeDamaged, ErrorIds.RuntimeDamaged, "Remove the folder, and install the runtime again.");

    /// <summary>Describes the files that are in a folder now.</summary>
    public static RuntimeManifest Describe(string folder, string libtorch, string flavor, string platform, string origin, IReadOnlyList<string> packages) => new(
        libtorch,
        flavor,
        platform,
        origin,
        packages,
        Libraries(folder).ToDictionary(file => Path.GetFileName(file), FileHash.Of, StringComparer.Ordinal));

    /// <summary>Reads the record of a folder; null where it has none.</summary>
    /// <exception cref="LoKrException"><c>LoKr.RuntimeDamaged</c>, <c>LoKr.FileNotReadable</c>.</exception>
    public static RuntimeManifest? Find(string folder)
    {
        string path = Path.Combine(folder, FileName);
        if (!File.Exists(path))
        {
            return null;
        }

        JsonFields json = JsonFields.Read(path, s_errors);
        JsonFields files = json.GetObject("files");
        return new RuntimeManifest(
            json.GetString("libtorch"),
            json.GetString("flavor"),
            json.GetString("platform"),
            json.GetString("origin"),
            json.GetStrings("packages"),
            files.Members.ToDictionary(
                member => member.Key,
                member => ReadFile(files.AsObject(member.Value, member.Key)),
                StringComparer.Ordinal));
    }

    /// <summary>All files of a folder but those of the store itself.</summary>
    public static IEnumerable<string> Libraries(string folder) =>
        Directory.EnumerateFiles(folder).Where(file => Path.GetFileName(file) is not (FileName or StampsName));

    /// <summary>The files with the hashes that this release knows in place of those that were recorded.</summary>
    public IReadOnlyDictionary<string, FileHash> Expected()
    {
        Dictionary<string, FileHash> expected = new(Files, StringComparer.Ordinal);
        foreach ((string path, FileHash hash) in Packages.Select(KnownPackages.Find).OfType<IReadOnlyDictionary<string, FileHash>>().SelectMany(known => known))
        {
            expected[Path.GetFileName(path)] = hash;
        }

        return expected;
    }

    /// <summary>Writes the record into a folder.</summary>
    /// <exception cref="LoKrException"><c>LoKr.FileNotWritable</c>.</exception>
    public void Write(string folder)
    {
        JsonObject files = [];
        foreach ((string name, FileHash hash) in Files.OrderBy(file => file.Key, StringComparer.Ordinal))
        {
            files[name] = new JsonObject { ["length"] = hash.Length, ["sha256"] = hash.Sha256 };
        }

        JsonObject json = new()
        {
            ["libtorch"] = Libtorch,
            ["flavor"] = Flavor,
            ["platform"] = Platform,
            ["origin"] = Origin,
            ["packages"] = new JsonArray([.. Packages.Select(package => JsonValue.Create(package))]),
            ["files"] = files,
        };
        AtomicFile.WriteText(Path.Combine(folder, FileName), JsonRecords.ToEscapedLines(json) + "\n");
    }

    private static FileHash ReadFile(JsonFields file) => new(
        file.Get("length").TryGetInt64(out long length) ? length : throw file.Wrong("length", "a length", file.Get("length")),
        file.GetString("sha256"));
}
