using LoKr.Testing;
using Xunit;

namespace LoKr.PowerShell.Tests.Examples;

/// <summary>Files of the repository that are not part of a build: examples and pages.</summary>
internal static class RepositoryFile
{
    /// <summary>The full path of a file; skips the calling test where there is no repository around it.</summary>
    public static string Find(string path)
    {
        Assert.SkipWhen(Fixtures.Repository is null, "The tests run outside the repository.");
        return Path.Combine([Fixtures.Repository!, .. path.Split('/')]);
    }
}
