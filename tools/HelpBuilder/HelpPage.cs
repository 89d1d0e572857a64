using System.Text.RegularExpressions;

namespace HelpBuilder;

/// <summary>One example of a page.</summary>
internal sealed record HelpExample(string Title, string Code, string Remarks);

/// <summary>The hand-written part of a page of docs/en-US.</summary>
internal sealed partial record HelpPage(string Name, string Synopsis, string[] Description, HelpExample[] Examples, string Outputs, string[] Notes, string[] Links)
{
    /// <summary>The heading where the generated part of a page begins.</summary>
    public const string Generated = "## SYNTAX";

    /// <summary>Reads a page.</summary>
    public static HelpPage Parse(string text)
    {
        Dictionary<string, string> sections = SectionStart().Split(text).Skip(1).Chunk(2).ToDictionary(pair => pair[0].Trim(), pair => pair[1].Trim());
        return new HelpPage(
            TitleLine().Match(text).Groups[1].Value,
            Plain(sections["SYNOPSIS"]),
            Paragraphs(sections["DESCRIPTION"]),
            [.. ExampleStart().Split(sections["EXAMPLES"]).Skip(1).Chunk(2).Select(pair => Example(pair[0].Trim(), pair[1]))],
            Plain(sections["OUTPUTS"]),
            sections.TryGetValue("NOTES", out string? notes) ? Paragraphs(notes) : [],
            [.. LinkText().Matches(sections.GetValueOrDefault("RELATED LINKS", "")).Select(match => match.Groups[1].Value)]);
    }

    private static HelpExample Example(string title, string body)
    {
        Match code = Fence().Match(body);
        return new HelpExample(title, code.Groups[1].Value.Trim(), Plain(body[(code.Index + code.Length)..].Trim()));
    }

    private static string[] Paragraphs(string text) => [.. text.Split("\n\n").Select(Plain)];

    private static string Plain(string text) => text.Replace("`", "", StringComparison.Ordinal).ReplaceLineEndings(" ").Trim();

    [GeneratedRegex(@"^# (.+)$", RegexOptions.Multiline)]
    private static partial Regex TitleLine();

    [GeneratedRegex(@"^## (.+)$", RegexOptions.Multiline)]
    private static partial Regex SectionStart();

    [GeneratedRegex(@"^### (.+)$", RegexOptions.Multiline)]
    private static partial Regex ExampleStart();

    [GeneratedRegex("```powershell\n(.*?)```", RegexOptions.Singleline)]
    private static partial Regex Fence();

    [GeneratedRegex(@"\[([\w-]+)\]\(")]
    private static partial Regex LinkText();
}
