using System.Collections.ObjectModel;
using System.Globalization;

namespace LoKr.Core.IO;

/// <summary>Lists and dictionaries of the records that are written for people and scripts: as text they are their values, so that a cell of a table or of CSV never shows a type name, and two of the same values are equal, as records are.</summary>
public static class ValueList
{
    /// <summary>A list that prints its values: <c>a, b</c>, and of pairs <c>a = 1, b = 2</c>.</summary>
    public static IReadOnlyList<T> Of<T>(IReadOnlyList<T> items) => items as Values<T> ?? new Values<T>([.. items]);

    /// <summary>A dictionary that prints its entries: <c>a = 1, b = 2</c>. Their order is kept.</summary>
    public static IReadOnlyDictionary<string, T> Of<T>(IReadOnlyDictionary<string, T> entries) => entries as Entries<T> ?? new Entries<T>(new OrderedDictionary<string, T>(entries, StringComparer.Ordinal));

    /// <summary>A dictionary of lists that prints its entries: <c>a = 1, b = 2, 3</c>. Their order is kept.</summary>
    public static IReadOnlyDictionary<string, IReadOnlyList<T>> Of<T>(IReadOnlyDictionary<string, IReadOnlyList<T>> entries) =>
        entries as Entries<IReadOnlyList<T>> ?? new Entries<IReadOnlyList<T>>(new OrderedDictionary<string, IReadOnlyList<T>>(
            entries.Select(static entry => KeyValuePair.Create(entry.Key, Of(entry.Value))), StringComparer.Ordinal));

    private static string Text<T>(T value) => value switch
    {
        IEnumerable<string> several => string.Join(", ", several),
        KeyValuePair<string, int> pair => Entry(pair),
        KeyValuePair<string, double> pair => Entry(pair),
        _ => Convert.ToString(value, CultureInfo.InvariantCulture) ?? "",
    };

    private static string Entry<T>(KeyValuePair<string, T> entry) => $"{entry.Key} = {Text(entry.Value)}";

    private sealed class Values<T>(IList<T> items) : ReadOnlyCollection<T>(items)
    {
        public override string ToString() => string.Join(", ", Items.Select(Text));

        public override bool Equals(object? obj) => obj is Values<T> other && Items.SequenceEqual(other.Items);

        public override int GetHashCode() => Items.Aggregate(Count, static (hash, item) => HashCode.Combine(hash, item));
    }

    private sealed class Entries<T>(IDictionary<string, T> entries) : ReadOnlyDictionary<string, T>(entries)
    {
        public override string ToString() => string.Join(", ", Dictionary.Select(Entry));

        public override bool Equals(object? obj) => obj is Entries<T> other && Dictionary.SequenceEqual(other.Dictionary);

        public override int GetHashCode() => Dictionary.Aggregate(Count, static (hash, entry) => HashCode.Combine(hash, entry.Key, entry.Value));
    }
}
