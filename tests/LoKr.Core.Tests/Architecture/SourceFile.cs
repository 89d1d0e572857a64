using System.Text;

namespace LoKr.Core.Tests.Architecture;

/// <summary>A C# file of <c>src</c>, taken apart into code without comments and strings, and the texts of its strings.</summary>
internal sealed class SourceFile
{
    private SourceFile(string path, string text)
    {
        Path = path;
        (Code, Strings) = Split(text);
    }

    /// <summary>Path below <c>src</c>, with forward slashes.</summary>
    public string Path { get; }

    /// <summary>The code; comments and the contents of strings are left out.</summary>
    public string Code { get; }

    /// <summary>The contents of all string literals, interpolated ones with their holes.</summary>
    public IReadOnlyList<string> Strings { get; }

    /// <summary>Project of the file, for example <c>LoKr.Core</c>.</summary>
    public string Project => Path.Split('/')[0];

    /// <summary>First folder below the project, or an empty text.</summary>
    public string Room => Path.Split('/') is { Length: > 2 } parts ? parts[1] : "";

    /// <summary>Reads every hand-written C# file below a folder.</summary>
    public static IReadOnlyList<SourceFile> ReadAll(string source) =>
    [
        .. Directory.EnumerateFiles(source, "*.cs", SearchOption.AllDirectories)
            .Select(file => (File: file, Path: System.IO.Path.GetRelativePath(source, file).Replace('\\', '/')))
            .Where(entry => !entry.Path.Split('/').Any(part => part is "bin" or "obj"))
            .OrderBy(entry => entry.Path, StringComparer.Ordinal)
            .Select(entry => new SourceFile(entry.Path, File.ReadAllText(entry.File))),
    ];

    /// <summary>Takes a text apart.</summary>
    public static SourceFile Parse(string path, string text) => new(path, text);

    private static (string Code, IReadOnlyList<string> Strings) Split(string text)
    {
        StringBuilder code = new(text.Length);
        List<string> strings = [];
        for (int i = 0; i < text.Length;)
        {
            if (Starts(text, i, "//"))
            {
                i = EndOf(text, i, "\n") - 1;
            }
            else if (Starts(text, i, "/*"))
            {
                i = EndOf(text, i, "*/");
            }
            else if (text[i] == '\'')
            {
                i = EndOfCharacter(text, i);
            }
            else if (text[i] == '"')
            {
                int end = EndOfString(text, i);
                strings.Add(text[i..end]);
                code.Append("\"\"");
                i = end;
            }
            else
            {
                code.Append(text[i++]);
            }
        }

        return (code.ToString(), strings);
    }

    private static bool Starts(string text, int start, string part) => string.CompareOrdinal(text, start, part, 0, part.Length) == 0;

    private static int EndOf(string text, int start, string end) => text.IndexOf(end, start, StringComparison.Ordinal) is >= 0 and int found ? found + end.Length : text.Length + 1;

    private static int EndOfCharacter(string text, int start)
    {
        int i = start + 1;
        while (text[i] != '\'')
        {
            i += text[i] == '\\' ? 2 : 1;
        }

        return i + 1;
    }

    private static int EndOfString(string text, int start)
    {
        int quotes = start;
        while (quotes < text.Length && text[quotes] == '"')
        {
            quotes++;
        }

        int count = quotes - start;
        if (count == 2)
        {
            return quotes;
        }

        if (count >= 3)
        {
            return EndOf(text, quotes, new string('"', count));
        }

        bool verbatim = start > 0 && (text[start - 1] == '@' || (text[start - 1] == '$' && start > 1 && text[start - 2] == '@'));
        bool interpolated = start > 0 && (text[start - 1] == '$' || (text[start - 1] == '@' && start > 1 && text[start - 2] == '$'));
        int depth = 0;
        for (int i = start + 1; i < text.Length; i++)
        {
            char c = text[i];
            if (interpolated && (c is '{' or '}') && i + 1 < text.Length && text[i + 1] == c && depth == 0)
            {
                i++;
            }
            else if (interpolated && c == '{')
            {
                depth++;
            }
            else if (interpolated && c == '}')
            {
                depth--;
            }
            else if (depth > 0 && c == '"')
            {
                i = EndOfString(text, i) - 1;
            }
            else if (depth > 0 && c == '\'')
            {
                i = EndOfCharacter(text, i) - 1;
            }
            else if (depth == 0 && c == '\\' && !verbatim)
            {
                i++;
            }
            else if (depth == 0 && c == '"')
            {
                if (!verbatim || i + 1 >= text.Length || text[i + 1] != '"')
                {
                    return i + 1;
                }

                i++;
            }
        }

        return text.Length;
    }
}
