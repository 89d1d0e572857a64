using System.Globalization;
using System.Reflection;
using System.Text.RegularExpressions;
using LoKr.Core.Runs;
using LoKr.Testing;
using Xunit;

namespace LoKr.Core.Tests.Docs;

/// <summary>docs/exit-codes.md has the codes of the library, which never change.</summary>
public sealed class ExitCodeTableTests
{
    [Fact]
    public void The_table_has_every_code()
    {
        Assert.SkipWhen(Fixtures.Repository is null, "The repository is not there.");
        string page = File.ReadAllText(Path.Combine(Fixtures.Repository!, "docs", "exit-codes.md"));
        Dictionary<string, int> known = typeof(RunExitCodes).GetFields(BindingFlags.Public | BindingFlags.Static).ToDictionary(static field => field.Name, static field => (int)field.GetRawConstantValue()!);
        Dictionary<string, int> documented = Regex.Matches(page, @"^\| (\d+) \| `(\w+)` \|", RegexOptions.Multiline).ToDictionary(static match => match.Groups[2].Value, static match => int.Parse(match.Groups[1].Value, CultureInfo.InvariantCulture));
        Assert.Equal(known.OrderBy(static pair => pair.Value), documented.OrderBy(static pair => pair.Value));
        Assert.Equal([0, 1, 2, 3, 4, 5, 6, 7, 8, 75], known.Values.Order());
    }
}
