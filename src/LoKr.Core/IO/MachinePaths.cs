using System.Text.Json;
using System.Text.RegularExpressions;

namespace LoKr.Core.IO;

/// <summary>
/// Keeps paths of this machine out of files that people publish: a path says who made a file and where, and means nothing elsewhere. A name on
/// Hugging Face's hub stays; of a path, the name of its last folder or file stays, or that of the repository in Hugging Face's cache.
/// </summary>
public static partial class MachinePaths
{
    private const string CachePrefix = "models--";

    // Keys of configurations and tokenizers under which transformers and diffusers store where they read something from.
    private const string PathKeys = "name_or_path|_file|_path|_dir";

    /// <summary>The name of a model that was given by name or by path.</summary>
    /// <param name="nameOrPath">The name or the path, in the spelling of any system; null for none.</param>
    /// <returns>The name; null where nothing is left.</returns>
    public static string? NameOf(string? nameOrPath)
    {
        if (string.IsNullOrEmpty(nameOrPath) || !IsPath(nameOrPath))
        {
            return nameOrPath;
        }

        string[] parts = [.. nameOrPath.Split('/', '\\').Where(static part => part is not ("" or "." or ".." or "~" or "file:"))];
        return Array.FindLast(parts, static part => part.StartsWith(CachePrefix, StringComparison.Ordinal)) is string cached
            ? cached[CachePrefix.Length..].Replace("--", "/", StringComparison.Ordinal)
            : parts.LastOrDefault(static part => !part.EndsWith(':'));
    }

    /// <summary>A text with every absolute path of at least two parts replaced by its <see cref="NameOf"/>, for metadata that other programs wrote.</summary>
    /// <param name="text">Plain text, or JSON.</param>
    public static string Remove(string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        return WholePath().IsMatch(text) ? NameOf(text) ?? "" : BarePath().Replace(QuotedPath().Replace(text, ReplaceQuoted), static match => NameOf(match.Value) ?? "");
    }

    /// <summary>Copies a file as <see cref="FileSystem.CopyContent"/> does; in a configuration, places where something was read from become names.</summary>
    /// <param name="source">File to copy.</param>
    /// <param name="destination">File to write or replace.</param>
    /// <inheritdoc cref="FileSystem.CopyContent"/>
    public static void CopyWithout(string source, string destination)
    {
        string name = Path.GetFileName(source);
        bool isConfiguration = name is "model_index.json" || name.EndsWith("config.json", StringComparison.OrdinalIgnoreCase);
        string? text = isConfiguration ? FileSystem.ReadText(source) : null;
        string? published = text is null ? null : RemoveFromConfiguration(text);
        if (published == text)
        {
            FileSystem.CopyContent(source, destination);
        }
        else
        {
            AtomicFile.WriteText(destination, published!);
        }
    }

    /// <summary>The text of a configuration in which places where something was read from are names.</summary>
    /// <param name="json">Text of a JSON file; everything else in it stays as it is, byte for byte.</param>
    public static string RemoveFromConfiguration(string json)
    {
        ArgumentNullException.ThrowIfNull(json);
        return KeyedPath().Replace(json, ReplaceKeyed);
    }

    private static bool IsPath(string value) => Rooted().IsMatch(value) || (!value.Contains("://", StringComparison.Ordinal) && value.Count(static c => c is '/') > 1);

    private static string ReplaceQuoted(Match match) => match.Groups["open"].Value + NameOf(match.Groups["path"].Value) + match.Groups["close"].Value;

    private static string ReplaceKeyed(Match match)
    {
        string value;
        try
        {
            value = JsonSerializer.Deserialize<string>(match.Groups["value"].Value)!;
        }
        catch (JsonException)
        {
            // What is not a JSON string is left to the readers of the file.
            return match.Value;
        }

        return Rooted().IsMatch(value) ? match.Groups["key"].Value + JsonSerializer.Serialize(NameOf(value) ?? "") : match.Value;
    }

    [GeneratedRegex(@"^(?:file:|[/\\]|~[/\\]|\.{1,2}(?:[/\\]|$)|[A-Za-z]:[/\\])")]
    private static partial Regex Rooted();

    [GeneratedRegex(@"^(?:file:/*|/|\\\\|~[/\\]|[A-Za-z]:[/\\])[^/\\""'\r\n]+[/\\]+[^""'\r\n]*[^/\\""'\r\n][/\\]*$")]
    private static partial Regex WholePath();

    // A string of JSON or of Python, in which a backslash is written twice.
    [GeneratedRegex(@"(?<open>[""'])(?<path>(?:file:/*|~?/|\\\\\\\\|[A-Za-z]:(?:/|\\\\))[^/\\""'\r\n]+[/\\]+[^""'\r\n]*[^/\\""'\r\n][/\\]*)(?<close>[""'])")]
    private static partial Regex QuotedPath();

    [GeneratedRegex(@"(?<![\w.:/\\~\-])(?:file:/*|~?/|[A-Za-z]:[/\\]+)[^\s/\\""'<>|,;:*?()\[\]{}=]+[/\\]+[^\s""'<>|,;:*?()\[\]{}=]*[^\s/\\""'<>|,;:*?()\[\]{}=]")]
    private static partial Regex BarePath();

    [GeneratedRegex(@"(?<key>""[^""\\]*(?:" + PathKeys + @")""\s*:\s*)(?<value>""(?:[^""\\]|\\.)*"")")]
    private static partial Regex KeyedPath();
}
