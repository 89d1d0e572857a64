using System.Reflection;
using System.Text.RegularExpressions;
using LoKr.Core.Errors;
using LoKr.PowerShell.Errors;
using LoKr.Testing;
using Xunit;

namespace LoKr.PowerShell.Tests.Errors;

/// <summary>docs/errors.md is the page where users look up an error id.</summary>
public sealed partial class ErrorTableTests
{
    [Fact]
    public void Every_error_id_has_one_row_in_the_table_and_every_row_an_id()
    {
        string[] ids = [.. Ids(typeof(ErrorIds)).Concat(Ids(typeof(ModuleErrorIds))).Order(StringComparer.Ordinal)];
        string[] rows = [.. RowPattern().Matches(File.ReadAllText(Table())).Select(match => match.Groups["id"].Value).Order(StringComparer.Ordinal)];

        Assert.NotEmpty(ids);
        Assert.Equal(ids.Distinct(), ids);
        Assert.Equal([], ids.Except(rows));
        Assert.Equal([], rows.Except(ids));
        Assert.Equal(rows.Distinct(), rows);
    }

    [Fact]
    public void Every_row_says_what_it_means_and_what_to_do()
    {
        foreach (string line in File.ReadLines(Table()).Where(line => RowPattern().IsMatch(line)))
        {
            string[] cells = [.. line.Trim('|').Split(" | ", StringSplitOptions.TrimEntries)];
            Assert.True(cells.Length == 3 && cells.All(cell => cell.Length > 10), $"Not three filled cells: {line}");
        }
    }

    [Fact]
    public void Every_error_id_is_raised_somewhere()
    {
        Assert.SkipWhen(Fixtures.Repository is null, "The tests run outside the repository.");
        string source = string.Concat(Directory.EnumerateFiles(Path.Combine(Fixtures.Repository!, "src"), "*.cs", SearchOption.AllDirectories)
            .Where(static path => Path.GetFileName(path) != "Advice.cs")
            .SelectMany(File.ReadLines)
            .Where(static line => !line.TrimStart().StartsWith("//", StringComparison.Ordinal)));
        string[] raised = [.. RaisedPattern().Matches(source).Select(static match => match.Groups["name"].Value).Distinct()];

        Assert.Equal([], typeof(ErrorIds).GetFields().Concat(typeof(ModuleErrorIds).GetFields()).Select(static field => field.Name).Except(raised));
    }

    private static IEnumerable<string> Ids(Type type) => type.GetFields(BindingFlags.Public | BindingFlags.Static)
        .Where(field => field.IsLiteral)
        .Select(field => (string)field.GetRawConstantValue()!);

    private static string Table()
    {
        Assert.SkipWhen(Fixtures.Repository is null, "The tests run outside the repository.");
        return Path.Combine(Fixtures.Repository!, "docs", "errors.md");
    }

    // Not an arm of a switch, which only asks for an id.
    [GeneratedRegex("ErrorIds\\.(?<name>\\w+)\\b(?!\\s*(?:=>|or\\b|when\\b))")]
    private static partial Regex RaisedPattern();

    [GeneratedRegex("^\\| `(?<id>LoKr\\.\\w+)` \\|", RegexOptions.Multiline)]
    private static partial Regex RowPattern();
}
