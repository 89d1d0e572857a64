using Xunit;

namespace LoKr.Testing;

/// <summary>
/// The folder with outputs of PEFT, LyCORIS, transformers and diffusers that tests compare with:
/// <c>LOKR_FIXTURES</c>, else <c>../shared/fixtures</c> beside the repository. Models and data lie beside it.
/// </summary>
public static class Fixtures
{
    /// <summary>The fixtures folder, or null where there is none.</summary>
    public static string? Root { get; } = Find();

    /// <summary>The repository, or null when the tests run elsewhere.</summary>
    public static string? Repository { get; } = FindRepository();

    /// <summary>Full path of a fixture; skips the calling test with a reason where the fixtures are not on this machine.</summary>
    public static string Require(params string[] parts)
    {
        Assert.SkipWhen(Root is null, "No reference fixtures: set LOKR_FIXTURES to their folder, or put it at ../shared/fixtures.");
        string path = Path.Combine([Root!, .. parts]);
        Assert.SkipUnless(Path.Exists(path), $"No reference fixture at {path}.");
        return path;
    }

    /// <summary>Full path of something beside the fixtures folder (models, data); skips the calling test where it is absent.</summary>
    public static string RequireBeside(params string[] parts)
    {
        Assert.SkipWhen(Root is null, "No reference fixtures: set LOKR_FIXTURES to their folder, or put it at ../shared/fixtures.");
        string path = Path.Combine([Path.GetDirectoryName(Path.TrimEndingDirectorySeparator(Root!))!, .. parts]);
        Assert.SkipUnless(Path.Exists(path), $"No reference material at {path}.");
        return path;
    }

    /// <summary>
    /// Names of the folders below a fixtures folder, as theory rows; one row with an empty name where the fixtures are absent,
    /// so that the theory reports a skip instead of no test at all.
    /// </summary>
    public static TheoryData<string> Cases(string folder, Func<string, bool>? filter = null)
    {
        TheoryData<string> cases = [];
        string? path = Root is null ? null : Path.Combine(Root, folder);
        if (path is null || !Directory.Exists(path))
        {
            cases.Add("");
            return cases;
        }

        foreach (string directory in Directory.EnumerateDirectories(path).Order(StringComparer.Ordinal))
        {
            if (filter is null || filter(directory))
            {
                cases.Add(Path.GetFileName(directory));
            }
        }

        return cases;
    }

    private static string? Find()
    {
        string? named = Environment.GetEnvironmentVariable("LOKR_FIXTURES");
        if (!string.IsNullOrEmpty(named))
        {
            return Directory.Exists(named)
                ? Path.GetFullPath(named)
                : throw new DirectoryNotFoundException($"LOKR_FIXTURES names {named}, which does not exist.");
        }

        string? repository = FindRepository();
        string? beside = repository is null ? null : Path.GetFullPath(Path.Combine(repository, "..", "shared", "fixtures"));
        return beside is not null && Directory.Exists(beside) ? beside : null;
    }

    private static string? FindRepository()
    {
        for (DirectoryInfo? folder = new(AppContext.BaseDirectory); folder is not null; folder = folder.Parent)
        {
            if (File.Exists(Path.Combine(folder.FullName, "LoKr.slnx")))
            {
                return folder.FullName;
            }
        }

        return null;
    }
}
