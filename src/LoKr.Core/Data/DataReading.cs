using System.Globalization;
using LoKr.Core.Errors;

namespace LoKr.Core.Data;

/// <summary>
/// One reading of a data set, from its files to the examples of a task: names of columns, treatment of rows that do not fit, and notes about both.
/// For one thread.
/// </summary>
public sealed class DataReading
{
    // As many origins as a warning names.
    private const int NamedCount = 10;

    private readonly List<string> _notes = [];
    private readonly List<string> _skipped = [];

    /// <summary>
    /// Names of columns in the data, by the name that is expected: <c>text</c> → <c>subject</c>. A member of an object has the names on the way to it
    /// with points between (<c>ticket.subject</c>), where no column has the whole name.
    /// </summary>
    public IReadOnlyDictionary<string, string> Columns { get; init; } = new Dictionary<string, string>();

    /// <summary>Whether a row that does not fit is skipped and counted; otherwise it is an error that names file and line.</summary>
    public bool SkipInvalid { get; init; }

    /// <summary>Which tokens of conversations, and of prompts with completions, carry loss.</summary>
    public LossOn LossOn { get; init; }

    /// <summary>The day that chat templates write, at midnight; today by default. Equal rows of one day give equal texts.</summary>
    public DateTime Day { get; init; } = DateTime.Today;

    /// <summary>Sentences about how the data were read.</summary>
    public IReadOnlyList<string> Notes => _notes;

    /// <summary>Number of rows that were skipped.</summary>
    public int SkippedCount { get; private set; }

    /// <summary>The warning about skipped rows; none where there are none.</summary>
    public IEnumerable<string> Warnings => SkippedCount == 0 ? [] : [string.Create(CultureInfo.InvariantCulture,
        $"{SkippedCount} {(SkippedCount == 1 ? "row does not fit and is" : "rows do not fit and are")} skipped: {string.Join(" ", _skipped)}{(SkippedCount > NamedCount ? " …" : "")}")];

    /// <summary>Takes note of how data are read.</summary>
    internal void AddNote(string note)
    {
        if (!_notes.Contains(note))
        {
            _notes.Add(note);
        }
    }

    /// <summary>Reads a value of each item, without the items that do not fit where that is allowed.</summary>
    /// <param name="items">The items.</param>
    /// <param name="read">Reads one; throws for one that does not fit.</param>
    /// <returns>At least one value, in the order of the items.</returns>
    /// <exception cref="LoKrException">
    /// <see cref="ErrorIds.DataEmpty"/> where every item was skipped, or what is thrown for one that does not fit and must.
    /// </exception>
    public IReadOnlyList<T> ReadFitting<TItem, T>(IEnumerable<TItem> items, Func<TItem, T> read)
    {
        ArgumentNullException.ThrowIfNull(items);
        ArgumentNullException.ThrowIfNull(read);
        List<T> kept = [];
        foreach (TItem item in items)
        {
            if (TryRead(() => read(item), out T? value))
            {
                kept.Add(value!);
            }
        }

        return kept.Count > 0
            ? kept
            : throw NoRows(Warnings.SingleOrDefault());
    }

    /// <summary>The error of data without a row.</summary>
    /// <param name="skipped">What was skipped, or null.</param>
    internal static LoKrException NoRows(string? skipped = null) => new(ErrorIds.DataEmpty, LoKrErrorKind.InvalidData,
        skipped is null ? "There are no rows of data." : $"No row is left. {skipped}",
        skipped is null ? "Give at least one." : "Correct the rows, or name the columns that hold what is expected.");

    /// <summary>Reads a row, or counts it where it does not fit and that is allowed.</summary>
    /// <returns>Whether there is a value.</returns>
    internal bool TryRead<T>(Func<T> read, out T? value)
    {
        try
        {
            value = read();
            return true;
        }
        catch (LoKrException exception) when (SkipInvalid && exception.ErrorId is ErrorIds.DataLineInvalid or ErrorIds.DataColumnMissing or ErrorIds.DataValueInvalid or ErrorIds.LabelUnknown)
        {
            if (++SkippedCount <= NamedCount)
            {
                _skipped.Add(exception.Message);
            }

            value = default;
            return false;
        }
    }

    /// <summary>Gives the columns of a row the names that are expected; null for a row that lacks one and is skipped.</summary>
    public DataRow? Rename(DataRow row)
    {
        if (Columns.Count == 0)
        {
            return row;
        }

        return TryRead(
            () =>
            {
                Dictionary<string, object?> fields = new(row.Fields, StringComparer.Ordinal);
                foreach ((string expected, string column) in Columns)
                {
                    // "Text" of the file would otherwise still be found beside "text".
                    foreach (string other in fields.Keys.Where(name => name.Equals(expected, StringComparison.OrdinalIgnoreCase)).ToArray())
                    {
                        fields.Remove(other);
                    }

                    fields[expected] = RowFields.Nested(row, column, string.Join(", ", Columns.Values));
                }

                return row with { Fields = fields };
            },
            out DataRow? renamed) ? renamed : null;
    }
}
