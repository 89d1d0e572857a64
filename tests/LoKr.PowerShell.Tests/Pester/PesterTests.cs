using Xunit;

namespace LoKr.PowerShell.Tests.Pester;

/// <summary>The Pester suite of tests/Pester, run once in pwsh; every Pester test is a test of its own here.</summary>
public sealed class PesterTests
{
    /// <summary>Runs the suite.</summary>
    public static IEnumerable<TheoryDataRow<PesterResult>> Results() => PesterSuite.Run().Select(result => new TheoryDataRow<PesterResult>(result)
    {
        TestDisplayName = result.Name,
        Label = "",
        Skip = result.Result switch
        {
            "Passed" or "Failed" => null,
            string other => result.Message is { Length: > 0 } message ? message : $"{other} by Pester.",
        },
    });

    [Theory]
    [MemberData(nameof(Results), DisableDiscoveryEnumeration = true)]
    public void Pester(PesterResult test) => Assert.True(test.Result == "Passed", test.Message);
}
