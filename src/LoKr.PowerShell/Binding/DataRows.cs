using System.Collections;
using System.Globalization;
using System.Management.Automation;
using LoKr.Core.Data;
using LoKr.Core.Errors;

namespace LoKr.PowerShell.Binding;

/// <summary>Turns the value of a data parameter into rows: files are read, dictionaries and objects are rows themselves.</summary>
internal static class DataRows
{
    /// <summary>Begins a reading with names of columns and a choice about rows that do not fit.</summary>
    /// <param name="columns">Names of columns in the data, by the name that is expected.</param>
    /// <param name="skipInvalid">Whether rows that do not fit are skipped.</param>
    /// <param name="lossOn">Which tokens of answers carry loss.</param>
    /// <param name="day">The day that chat templates write; null for today.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.InvalidArgument"/>: a name is empty.</exception>
    public static DataReading BeginReading(Hashtable columns, bool skipInvalid, LossOn lossOn = default, DateTime? day = null)
    {
        Dictionary<string, string> names = new(StringComparer.Ordinal);
        foreach (DictionaryEntry entry in columns)
        {
            (string? expected, string? column) = (Convert.ToString(entry.Key, CultureInfo.InvariantCulture), Convert.ToString(entry.Value.Unwrap(), CultureInfo.InvariantCulture));
            if (string.IsNullOrWhiteSpace(expected) || string.IsNullOrWhiteSpace(column))
            {
                throw new LoKrException(ErrorIds.InvalidArgument, LoKrErrorKind.InvalidArgument, $"The column for '{expected}' is '{column}'.",
                    "Name a column of the data for each name that is expected, such as @{ text = 'subject'; label = 'team' }.") { Target = entry.Key };
            }

            names[expected] = column;
        }

        return new DataReading { Columns = names, SkipInvalid = skipInvalid, LossOn = lossOn, Day = day ?? DateTime.Today };
    }

    /// <summary>Reads a mixture of paths and objects.</summary>
    /// <param name="items">Paths, which may have wildcards, files, dictionaries and objects.</param>
    /// <param name="paths">Resolves the paths.</param>
    /// <param name="reading">Names of columns and treatment of rows that do not fit.</param>
    /// <param name="onRows">Called now and then with a file and the number of its rows that are read.</param>
    /// <param name="cancellationToken">Checked before every row of a file.</param>
    /// <exception cref="LoKrException">A file cannot be read, or an item is neither a path nor an object with properties.</exception>
    public static IReadOnlyList<DataRow> Read(
        IEnumerable<object?> items, PathResolver paths, DataReading reading, Action<string, int>? onRows = null, CancellationToken cancellationToken = default)
    {
        List<DataRow> rows = [];
        int number = 0;
        foreach (object? item in items)
        {
            number++;
            switch (item is PSObject wrapped && wrapped.BaseObject is not PSCustomObject ? wrapped.BaseObject : item)
            {
                case string path:
                    foreach (string file in paths.Existing(path))
                    {
                        ReadFile(file);
                    }

                    break;
                case FileInfo file:
                    ReadFile(file.FullName);
                    break;
                case DataRow row:
                    Add(row);
                    break;
                case IDictionary dictionary:
                    Add(FromDictionary(dictionary, number));
                    break;
                case object[] several:
                    rows.AddRange(Read(several, paths, reading, onRows, cancellationToken));
                    break;
                case null:
                    throw Invalid(number, "is null");
                case { } other:
                    Add(FromObject(PSObject.AsPSObject(other), number));
                    break;
            }
        }

        return rows;

        void ReadFile(string path) => rows.AddRange(DataReader.ReadFile(path, reading, count => onRows?.Invoke(path, count), cancellationToken));

        void Add(DataRow row)
        {
            if (reading.Rename(row) is DataRow renamed)
            {
                rows.Add(renamed);
            }
        }
    }

    /// <summary>Reads a mixture of paths and directories as full paths of folders of images.</summary>
    /// <param name="items">Paths, which may have wildcards, and objects of the file system.</param>
    /// <param name="paths">Resolves the paths.</param>
    /// <exception cref="LoKrException">A path matches nothing, or an item is not a path.</exception>
    public static IReadOnlyList<string> ReadFolders(IEnumerable<object?> items, PathResolver paths) => [.. items.SelectMany(item => item.Unwrap() switch
    {
        string path => paths.Existing(path),
        FileSystemInfo info => paths.Existing(info.FullName, literal: true),
        object other => throw new LoKrException(ErrorIds.DataValueInvalid, LoKrErrorKind.InvalidArgument,
            $"A {other.GetType().Name} is not a folder of images.", "Give the path of a folder to train a Stable Diffusion pipeline.") { Target = other },
        null => throw new LoKrException(ErrorIds.DataValueInvalid, LoKrErrorKind.InvalidArgument, "A folder of images is null.", "Give the path of a folder."),
    })];

    private static DataRow FromDictionary(IDictionary dictionary, int number)
    {
        Dictionary<string, object?> fields = new(StringComparer.Ordinal);
        foreach (DictionaryEntry entry in dictionary)
        {
            fields[Convert.ToString(entry.Key, CultureInfo.InvariantCulture)!] = Plain(entry.Value);
        }

        return new DataRow(fields, Origin(number));
    }

    private static DataRow FromObject(PSObject item, int number)
    {
        Dictionary<string, object?> fields = new(StringComparer.Ordinal);
        foreach (PSPropertyInfo property in item.Properties.Where(property => property.IsGettable))
        {
            fields[property.Name] = Plain(property.Value);
        }

        return fields.Count > 0 ? new DataRow(fields, Origin(number)) : throw Invalid(number, $"is a {item.BaseObject.GetType().Name} without properties");
    }

    /// <summary>A value without PowerShell's wrappers: what is in lists, hashtables and objects too.</summary>
    internal static object? Plain(object? value) => value is PSObject { BaseObject: PSCustomObject } item
        ? item.Properties.Where(static property => property.IsGettable).ToDictionary(static property => property.Name, static property => Plain(property.Value), StringComparer.Ordinal)
        : value.Unwrap() switch
        {
            object[] several => Array.ConvertAll<object?, object?>(several, Plain),
            IDictionary map => PlainEntries(map),
            IList list and not Array => list.Cast<object?>().Select(Plain).ToArray(),
            var other => other,
        };

    // Only this enumeration gives entries for every kind of dictionary.
    private static Dictionary<string, object?> PlainEntries(IDictionary map)
    {
        Dictionary<string, object?> entries = new(StringComparer.Ordinal);
        foreach (DictionaryEntry entry in map)
        {
            entries[Convert.ToString(entry.Key, CultureInfo.InvariantCulture)!] = Plain(entry.Value);
        }

        return entries;
    }

    private static string Origin(int number) => string.Create(CultureInfo.InvariantCulture, $"row {number}");

    private static LoKrException Invalid(int number, string what) => new(ErrorIds.DataValueInvalid, LoKrErrorKind.InvalidData,
        $"{Origin(number)} {what}.", "Give paths of data files, hashtables, or objects with the columns as properties.") { Target = number };
}
