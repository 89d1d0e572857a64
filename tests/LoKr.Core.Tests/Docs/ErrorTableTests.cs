using System.Text.RegularExpressions;
using LoKr.Testing;
using Xunit;

namespace LoKr.Core.Tests.Docs;

/// <summary>docs/errors.md is what users search for an id; ids are constants in files called ErrorIds*.cs.</summary>
public sealed partial class ErrorTableTests
{
    [Fact]
    public void Every_error_id_has_one_row_in_the_table_and_every_row_an_id()
    {
        string repository = Repository();
        string[] ids = [.. Directory.EnumerateFiles(Path.Combine(repository, "src"), "*ErrorIds*.cs", SearchOption.AllDirectories)
            .SelectMany(file => IdPattern().Matches(File.ReadAllText(file)))
            .Select(match => match.Groups["id"].Value)
            .Order(StringComparer.Ordinal)];
        string[] rows = [.. RowPattern().Matches(File.ReadAllText(Path.Combine(repository, "docs", "errors.md")))
            .Select(match => match.Groups["id"].Value)
            .Order(StringComparer.Ordinal)];

        Assert.NotEmpty(ids);
        Assert.Equal([], ids.Except(rows));
        Assert.Equal([], rows.Except(ids));
        Assert.Equal(rows.Distinct(), rows);
    }

    [Fact]
    public void Every_row_says_what_it_means_and_what_to_do()
    {
        foreach (string line in File.ReadLines(Path.Combine(Repository(), "docs", "errors.md")).Where(line => RowPattern().IsMatch(line)))
        {
            string[] cells = [.. line.Trim('|').Split(" | ", StringSplitOptions.TrimEntries)];
            Assert.True(cells.Length == 3 && cells.All(cell => cell.Length > 10), $"Not three filled cells: {line}");
        }
    }

    private static string Repository()
    {
        Assert.SkipWhen(Fixtures.Repository is null, "The tests run outside the repository.");
        return Fixtures.Repository!;
    }

    [GeneratedRegex("const string \\w+ = \"(?<id>LoKr\\.\\w+)\"")]
    private static partial Regex IdPattern();

    [GeneratedRegex("^\\| `(?<id>LoKr\\.\\w+)` \\|", RegexOptions.Multiline)]
    private static partial Regex RowPattern();
}
