using System.Collections;
using System.Globalization;
using System.Management.Automation;
using LoKr.Core.Data;
using LoKr.Core.Errors;

namespace LoKr.PowerShell.Hosting;

/// <summary>Turns what was given as data into rows: paths are read, dictionaries and objects are rows themselves.</summary>
internal static class DataRows
{
    /// <summary>Reads a mixture of paths and objects.</summary>
    /// <param name="items">What the user gave.</param>
    /// <param name="resolve">From a path with wildcards to full paths.</param>
    public static IReadOnlyList<DataRow> Read(IEnumerable<object?> items, Func<string, IEnumerable<string>> resolve)
    {
        List<DataRow> rows = [];
        int number = 0;
        foreach (object? item in items)
        {
            number++;
            switch (item is PSObject wrapped && wrapped.BaseObject is not PSCustomObject ? wrapped.BaseObject : item)
            {
                case string path:
                    foreach (string file in resolve(path))
                    {
                        rows.AddRange(DataReader.ReadFile(file));
                    }

                    break;
                case FileInfo file:
                    rows.AddRange(DataReader.ReadFile(file.FullName));
                    break;
                case DataRow row:
                    rows.Add(row);
                    break;
                case IDictionary dictionary:
                    rows.Add(FromDictionary(dictionary, number));
                    break;
                case object[] several:
                    rows.AddRange(Read(several, resolve));
                    break;
                case null:
                    throw Invalid(number, "is null");
                case { } other:
                    rows.Add(FromObject(PSObject.AsPSObject(other), number));
                    break;
            }
        }

        return rows;
    }

    private static DataRow FromDictionary(IDictionary dictionary, int number)
    {
        Dictionary<string, object?> fields = new(StringComparer.Ordinal);
        foreach (DictionaryEntry entry in dictionary)
        {
            fields[Convert.ToString(entry.Key, CultureInfo.InvariantCulture)!] = Unwrap(entry.Value);
        }

        return new DataRow(fields, Origin(number));
    }

    private static DataRow FromObject(PSObject item, int number)
    {
        Dictionary<string, object?> fields = new(StringComparer.Ordinal);
        foreach (PSPropertyInfo property in item.Properties.Where(property => property.IsGettable))
        {
            fields[property.Name] = Unwrap(property.Value);
        }

        return fields.Count > 0 ? new DataRow(fields, Origin(number)) : throw Invalid(number, $"is a {item.BaseObject.GetType().Name} without properties");
    }

    private static object? Unwrap(object? value) => value is PSObject wrapped ? wrapped.BaseObject : value;

    private static string Origin(int number) => string.Create(CultureInfo.InvariantCulture, $"row {number}");

    private static LoKrException Invalid(int number, string what) => new(ErrorIds.DataValueInvalid, LoKrErrorKind.InvalidData,
        $"{Origin(number)} {what}.", "Give paths of data files, hashtables, or objects with the columns as properties.") { Target = number };
}
