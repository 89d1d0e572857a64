using System.Text.RegularExpressions;
using LoKr.Testing;
using Xunit;

namespace LoKr.Core.Tests.Architecture;

/// <summary>Phrases that the design's words exclude, in sources, scripts and documentation.</summary>
public sealed partial class WordsTests
{
    private static readonly string[] s_folders = ["src", "tests", "benchmarks", "docs", "examples"];
    private static readonly string[] s_extensions = [".cs", ".ps1", ".ps1xml", ".md", ".txt"];

    [Fact]
    public void A_summary_names_its_subject() => AssertNone(SummaryPattern());

    /// <summary>But for a reason that the reference fixtures word so: "the text up to the answer is no prefix of the whole text".</summary>
    [Fact]
    public void A_thing_is_not_another_one() => AssertNone(NoPattern());

    [Theory]
    [InlineData("/// <summary>What the model is for.</summary>", true)]
    [InlineData("/// <summary>\n    /// What it is.\n/// </summary>", true)]
    [InlineData("/// <summary>The task of the model.</summary>", false)]
    public void Summaries_without_a_subject_are_found(string text, bool found) => Assert.Equal(found, SummaryPattern().IsMatch(text));

    [Theory]
    [InlineData("a file that is no image", true)]
    [InlineData("these are no layers", true)]
    [InlineData("A_file_that_is_no_image", true)]
    [InlineData("There_is_no_file", false)]
    [InlineData("there is no file", false)]
    [InlineData("when it is no longer needed", false)]
    [InlineData("loading is no slower", false)]
    [InlineData("it is no better", false)]
    public void Things_that_are_not_others_in_wrong_words_are_found(string text, bool found) => Assert.Equal(found, NoPattern().IsMatch(text));

    private static void AssertNone(Regex pattern)
    {
        Assert.SkipWhen(Fixtures.Repository is null, "The tests run outside the repository.");
        string repository = Fixtures.Repository!;
        string[] files = [.. s_folders.SelectMany(folder => Directory.EnumerateFiles(Path.Combine(repository, folder), "*", SearchOption.AllDirectories))
            .Where(file => s_extensions.Contains(Path.GetExtension(file)) && Path.GetFileName(file) != "WordsTests.cs")];
        Assert.True(files.Length > 500, $"Only {files.Length} files were read.");
        string[] found = [.. files.SelectMany(file => pattern.Matches(File.ReadAllText(file)).Select(match => $"{Path.GetRelativePath(repository, file)}: {match.Value.Trim()}"))];
        Assert.True(found.Length == 0, string.Join(Environment.NewLine, found.Prepend($"{found.Length} phrases:")));
    }

    [GeneratedRegex(@"<summary>(?:\s|///)*What\b[^\n]*")]
    private static partial Regex SummaryPattern();

    [GeneratedRegex(@"(?<![^\W_]|there[\s_]|there\swould\s|there\scan\s|there\smay\s)(?:is|are|was|were|be)[\s_]no[\s_](?!longer|slower|faster|better|worse|later|earlier|larger|smaller|more|less|one\b|prefix of the (?:whole )?text\b)\w[^\n]*", RegexOptions.IgnoreCase)]
    private static partial Regex NoPattern();
}
