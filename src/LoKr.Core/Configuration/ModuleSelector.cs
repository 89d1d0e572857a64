namespace LoKr.Core.Configuration;

/// <summary>
/// A choice of modules: a list of names or name suffixes, or one regular expression over full names
/// (PEFT <c>target_modules</c>, <c>exclude_modules</c>). The expression <c>all-linear</c> means every linear layer, GPT-2's Conv1D among them, but the output one.
/// </summary>
public sealed class ModuleSelector : IEquatable<ModuleSelector>
{
    private ModuleSelector(IReadOnlyList<string>? names, string? pattern)
    {
        Names = names;
        Pattern = pattern;
    }

    /// <summary>Names or suffixes; null when the selector is a pattern.</summary>
    public IReadOnlyList<string>? Names { get; }

    /// <summary>One Python regular expression that must match the whole name, or <c>all-linear</c>; null when the selector is a list.</summary>
    public string? Pattern { get; }

    /// <summary>Whether this is the shorthand for every linear layer.</summary>
    public bool IsAllLinear => string.Equals(Pattern, "all-linear", StringComparison.OrdinalIgnoreCase);

    /// <summary>A selector from names or suffixes.</summary>
    public static ModuleSelector FromNames(IEnumerable<string> names) => new([.. names], null);

    /// <summary>A selector from one regular expression, or <c>all-linear</c>.</summary>
    public static ModuleSelector FromPattern(string pattern) => new(null, pattern);

    /// <summary>Whether the selector means a module: an entry is its name or an ending, or the expression matches the whole name. Not for <see cref="IsAllLinear"/>.</summary>
    /// <param name="name">Full dotted name.</param>
    public bool Matches(string name) => CreateMatcher()(name);

    /// <summary><see cref="Matches"/> for the names of a model: an expression is translated once.</summary>
    internal Func<string, bool> CreateMatcher() =>
        Pattern is not null ? new PythonRegex(Pattern, whole: true).IsMatch : name => Names!.Any(entry => MatchesEntry(entry, name));

    /// <summary>Whether an entry of a list is responsible for a name.</summary>
    internal static bool MatchesEntry(string entry, string name) => name == entry || name.EndsWith("." + entry, StringComparison.Ordinal);

    /// <inheritdoc/>
    public bool Equals(ModuleSelector? other) => other is not null
        && Pattern == other.Pattern
        && (Names is null ? other.Names is null : other.Names is not null && Names.SequenceEqual(other.Names, StringComparer.Ordinal));

    /// <inheritdoc/>
    public override bool Equals(object? obj) => Equals(obj as ModuleSelector);

    /// <inheritdoc/>
    public override int GetHashCode() => Pattern?.GetHashCode(StringComparison.Ordinal)
        ?? Names!.Aggregate(17, (hash, name) => HashCode.Combine(hash, name.GetHashCode(StringComparison.Ordinal)));

    /// <inheritdoc/>
    public override string ToString() => Pattern ?? string.Join(", ", Names!);
}
