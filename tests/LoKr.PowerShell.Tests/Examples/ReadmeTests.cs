using System.Text.RegularExpressions;
using Xunit;

namespace LoKr.PowerShell.Tests.Examples;

/// <summary>What README and docs tell people to use exists.</summary>
public sealed partial class ReadmeTests
{
    public static TheoryData<string> Pages =>
        ["README.md", "docs/getting-started.md", "docs/training.md", "docs/models.md", "docs/formats.md", "docs/performance.md", "docs/stable-diffusion.md", "docs/errors.md", "CHANGELOG.md", "examples/data/README.md", "examples/models/tiny-encoder/README.md"];

    [Theory]
    [MemberData(nameof(Pages))]
    public void Every_cmdlet_that_is_named_is_exported(string page)
    {
        string manifest = File.ReadAllText(RepositoryFile.Find("LoKr.psd1"));
        string[] unknown = [.. CmdletPattern().Matches(File.ReadAllText(RepositoryFile.Find(page)))
            .Select(match => match.Value).Distinct().Where(name => !manifest.Contains($"'{name}'", StringComparison.Ordinal))];
        Assert.Empty(unknown);
    }

    [Theory]
    [MemberData(nameof(Pages))]
    public void Every_file_that_is_named_or_linked_is_there(string page)
    {
        string file = RepositoryFile.Find(page);
        string text = File.ReadAllText(file);
        string[] missing =
        [
            .. PathPattern().Matches(text).Select(match => match.Value).Where(path => !Path.Exists(RepositoryFile.Find(path))),
            .. LinkPattern().Matches(text).Select(match => match.Groups["path"].Value)
                .Where(link => !link.StartsWith("http", StringComparison.Ordinal) && !Path.Exists(Path.Combine(Path.GetDirectoryName(file)!, link))),
        ];
        Assert.Empty(missing);
    }

    [Fact]
    public void The_readme_names_the_two_commands()
    {
        string readme = File.ReadAllText(RepositoryFile.Find("README.md"));
        Assert.Contains("dotnet run --project src/LoKr.Shell -- examples/Quickstart.ps1", readme, StringComparison.Ordinal);
        Assert.Matches("(?m)^dotnet test$", readme);
    }

    [GeneratedRegex("\\b[A-Z][a-z]+-LoKr[A-Za-z]+\\b")]
    private static partial Regex CmdletPattern();

    [GeneratedRegex("\\b(?:examples|src|tests|docs|tools)/[A-Za-z0-9_./-]*[A-Za-z0-9]")]
    private static partial Regex PathPattern();

    [GeneratedRegex("\\]\\((?<path>[^)#]+)\\)")]
    private static partial Regex LinkPattern();
}
