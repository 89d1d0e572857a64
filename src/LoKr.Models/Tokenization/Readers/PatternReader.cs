using LoKr.Models.Tokenization.Patterns;
using LoKr.Models.Tokenization.PreTokenizers;

namespace LoKr.Models.Tokenization.Readers;

/// <summary>Reads patterns and split behaviours, which several components share.</summary>
internal static class PatternReader
{
    public static ITextPattern Read(JsonComponent owner)
    {
        JsonComponent pattern = owner.Object("pattern").Allow("String", "Regex");
        if (pattern.Has("String") == pattern.Has("Regex"))
        {
            throw owner.Invalid("has a pattern that is neither a String nor a Regex");
        }

        if (pattern.Has("Regex"))
        {
            return new CodePointRegex(pattern.Text("Regex"), owner.File);
        }

        string literal = pattern.Text("String");
        return literal.Length > 0 ? new LiteralPattern(literal) : throw owner.Unsupported($"the empty pattern of {owner.Place}");
    }

    public static SplitBehavior Behavior(JsonComponent owner) => owner.Text("behavior") switch
    {
        "Removed" => SplitBehavior.Removed,
        "Isolated" => SplitBehavior.Isolated,
        "MergedWithPrevious" => SplitBehavior.MergedWithPrevious,
        "MergedWithNext" => SplitBehavior.MergedWithNext,
        "Contiguous" => SplitBehavior.Contiguous,
        string other => throw owner.Unsupported($"the behavior '{other}' of {owner.Place}"),
    };

    /// <summary>A text of one character.</summary>
    public static char Character(JsonComponent owner, string key)
    {
        string text = owner.Text(key);
        return text.Length == 1 ? text[0] : throw owner.Unsupported($"the {key} '{text}' of {owner.Place}, which is not one character");
    }

    /// <summary>
    /// When Metaspace puts its character in front. Old files have only <c>add_prefix_space</c>.
    /// </summary>
    public static PrependScheme Scheme(JsonComponent owner)
    {
        bool prefix = owner.Flag("add_prefix_space", fallback: true);
        PrependScheme scheme = owner.OptionalText("prepend_scheme") switch
        {
            null => prefix ? PrependScheme.Always : PrependScheme.Never,
            "always" => PrependScheme.Always,
            "first" => PrependScheme.First,
            "never" => PrependScheme.Never,
            string other => throw owner.Unsupported($"the prepend_scheme '{other}' of {owner.Place}"),
        };
        return prefix || scheme == PrependScheme.Never
            ? scheme
            : throw owner.Invalid("says in add_prefix_space the opposite of prepend_scheme");
    }
}
