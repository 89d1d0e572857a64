using System.Text.RegularExpressions;
using LoKr.Core.Nn;

namespace LoKr.Models.Families;

/// <summary>
/// Published names of a family beside those of its module tree: pairs of beginnings of dotted names, the first that fits wins.
/// <c>*</c> stands for one part, the number of a layer.
/// </summary>
internal sealed class PublishedNames : IModuleAliases
{
    private readonly (Regex Pattern, string Replacement)[] _toCanonical;
    private readonly (Regex Pattern, string Replacement)[] _toPublished;

    /// <summary>Makes a table.</summary>
    /// <param name="pairs">Published and canonical beginnings with the same stars.</param>
    public PublishedNames(params (string Published, string Canonical)[] pairs)
    {
        _toCanonical = [.. pairs.Select(pair => (Pattern(pair.Published), Replacement(pair.Canonical)))];
        _toPublished = [.. pairs.Select(pair => (Pattern(pair.Canonical), Replacement(pair.Published)))];
    }

    /// <summary>The name in the module tree; the same where the table has none.</summary>
    public string Canonical(string name) => Replace(_toCanonical, name);

    /// <summary>The published name; the same where the table has none.</summary>
    public string Published(string name) => Replace(_toPublished, name);

    private static string Replace((Regex Pattern, string Replacement)[] rules, string name)
    {
        foreach ((Regex pattern, string replacement) in rules)
        {
            if (pattern.IsMatch(name))
            {
                return pattern.Replace(name, replacement);
            }
        }

        return name;
    }

    // A beginning ends where a part of the name does.
    private static Regex Pattern(string beginning) => new(
        "^" + Regex.Escape(beginning).Replace(@"\*", @"(\d+)", StringComparison.Ordinal) + @"(?=\.|$)",
        RegexOptions.CultureInvariant);

    private static string Replacement(string beginning)
    {
        int star = 0;
        return string.Concat(beginning.Select(letter => letter == '*' ? $"${{{++star}}}" : letter.ToString()));
    }
}

/// <summary>A model with published names, which remembers the names of the checkpoint it was read from, so that an export keeps them.</summary>
internal interface IPublishedNames : IModuleAliases
{
    /// <summary>Whether a checkpoint of this model gets the published names; what transformers writes until the loader knows better.</summary>
    bool SavesPublishedNames { get; set; }
}
