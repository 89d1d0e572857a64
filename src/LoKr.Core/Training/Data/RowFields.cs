using System.Globalization;
using System.Text.Json;

namespace LoKr.Core.Training.Data;

/// <summary>Reads the values a task needs from rows, with errors that name the row and its columns.</summary>
internal static class RowFields
{
    /// <summary>Whether a row has the column; its exact name goes before one that differs in case.</summary>
    public static bool Has(DataRow row, string column) => TryGet(row, column, out _);

    /// <summary>The text of a column.</summary>
    /// <exception cref="LoKrException"><see cref="ErrorIds.DataColumnMissing"/> or <see cref="ErrorIds.DataValueInvalid"/>.</exception>
    public static string Text(DataRow row, string column, string expected) =>
        Require(row, column, expected) is string text ? text : throw Wrong(row, column, "text");

    /// <summary>The value of a column that may be text, a number or a truth value, as text.</summary>
    /// <exception cref="LoKrException"><see cref="ErrorIds.DataColumnMissing"/> or <see cref="ErrorIds.DataValueInvalid"/>.</exception>
    public static string Label(DataRow row, string column, string expected) =>
        Require(row, column, expected) switch
        {
            string text when text.Length > 0 => text,
            bool flag => flag ? "true" : "false",
            Enum value => value.ToString(),
            IFormattable number and (sbyte or byte or short or ushort or int or uint or long or ulong or float or double or decimal) =>
                number.ToString(null, CultureInfo.InvariantCulture),
            _ => throw Wrong(row, column, "a name or a number"),
        };

    private static object? Require(DataRow row, string column, string expected)
    {
        if (TryGet(row, column, out object? value))
        {
            return value;
        }

        string found = row.Fields.Count == 0 ? "none" : string.Join(", ", row.Fields.Keys);
        throw new LoKrException(
            ErrorIds.DataColumnMissing,
            LoKrErrorKind.InvalidData,
            $"{row.Origin} has no column '{column}'; its columns are: {found}.",
            $"Expected are {expected}.") { Target = row.Origin };
    }

    private static bool TryGet(DataRow row, string column, out object? value)
    {
        if (row.Fields.TryGetValue(column, out value))
        {
            return true;
        }

        foreach ((string name, object? candidate) in row.Fields)
        {
            if (name.Equals(column, StringComparison.OrdinalIgnoreCase))
            {
                value = candidate;
                return true;
            }
        }

        return false;
    }

    private static LoKrException Wrong(DataRow row, string column, string wanted)
    {
        _ = TryGet(row, column, out object? value);
        string found = value switch
        {
            null => "null",
            "" => "empty",
            JsonElement element => "a JSON " + element.ValueKind.ToString().ToLowerInvariant(),
            _ => $"a {value.GetType().Name}",
        };
        return new LoKrException(
            ErrorIds.DataValueInvalid, LoKrErrorKind.InvalidData, $"The {column} of {row.Origin} is {found}.", $"It has to be {wanted}.") { Target = row.Origin };
    }
}
