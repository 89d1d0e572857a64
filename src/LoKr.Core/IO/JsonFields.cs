using System.Globalization;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Unicode;
using LoKr.Core.Errors;

namespace LoKr.Core.IO;

/// <summary>Error ids and advice for the problems of one kind of JSON file.</summary>
/// <param name="Invalid">Id of a damaged file and of a member with a wrong type or value.</param>
/// <param name="Unsupported">Id of a value whose meaning is known but not supported.</param>
/// <param name="Advice">What to do about a damaged file or member.</param>
/// <param name="UnsupportedAdvice">What to do about an unsupported value.</param>
public sealed record JsonErrors(string Invalid, string Unsupported, string? Advice = null, string? UnsupportedAdvice = null);

/// <summary>
/// One object of a JSON file, read member by member. Every error names the file and the full key. Null counts as absent.
/// <c>Find</c> methods return null for an absent member, <c>Get</c> methods with a default return the default, all others require it.
/// </summary>
public class JsonFields
{
    private static readonly JsonDocumentOptions s_options = new() { AllowDuplicateProperties = false };

    private static readonly UTF8Encoding s_strict = new(encoderShouldEmitUTF8Identifier: false, throwOnInvalidBytes: true);

    private readonly JsonElement _element;
    private readonly JsonErrors _errors;
    private readonly string _prefix;
    private readonly Lock _gate = new();
    private HashSet<string>? _read;

    /// <summary>Wraps an object that was read before.</summary>
    /// <param name="element">The object.</param>
    /// <param name="source">File or other origin, for messages.</param>
    /// <param name="errors">Ids and advice of the errors.</param>
    /// <exception cref="LoKrException">The element is not an object.</exception>
    public JsonFields(JsonElement element, string source, JsonErrors errors)
        : this(element, source, errors, "")
    {
    }

    private JsonFields(JsonElement element, string source, JsonErrors errors, string path)
    {
        ArgumentNullException.ThrowIfNull(source);
        ArgumentNullException.ThrowIfNull(errors);
        (_element, Source, _errors, KeyPath) = (element, source, errors, path);
        _prefix = path.Length == 0 ? "" : path + ".";
        if (element.ValueKind != JsonValueKind.Object)
        {
            throw Invalid($"is {Describe(element)}, not a JSON object");
        }
    }

    /// <summary>File or other origin.</summary>
    public string Source { get; }

    /// <inheritdoc/>
    public override string ToString() => Source;

    /// <summary>The object itself.</summary>
    internal JsonElement Element => _element;

    /// <summary>Keys that lead to this object, separated by dots; empty for the whole file.</summary>
    public string KeyPath { get; }

    /// <summary>All members in file order.</summary>
    public IEnumerable<KeyValuePair<string, JsonElement>> Members
    {
        get
        {
            foreach (JsonProperty property in _element.EnumerateObject())
            {
                yield return KeyValuePair.Create(NameOf(property), property.Value);
            }
        }
    }

    /// <summary>Number of members.</summary>
    public int Count => _element.GetPropertyCount();

    /// <summary>Full names of the members that no method was asked for.</summary>
    public IEnumerable<string> Unread => Members.Where(member => _read?.Contains(member.Key) != true).Select(member => FullName(member.Key));

    /// <summary>Reads a file whose root is an object.</summary>
    /// <param name="path">The file: UTF-8, with or without a byte order mark.</param>
    /// <param name="errors">Ids and advice of the errors.</param>
    /// <exception cref="LoKrException">
    /// <c>LoKr.PathNotFound</c>, <c>LoKr.FileNotReadable</c>; <see cref="JsonErrors.Invalid"/> for text that is not one JSON object with distinct keys.
    /// </exception>
    public static JsonFields Read(string path, JsonErrors errors) => Parse(FileSystem.ReadBytes(path), path, errors);

    /// <summary>Reads an object from UTF-8.</summary>
    /// <inheritdoc cref="Parse(string, string, JsonErrors)"/>
    public static JsonFields Parse(ReadOnlySpan<byte> json, string source, JsonErrors errors) => new(ParseElement(json, source, errors), source, errors);

    /// <summary>Reads an object from text.</summary>
    /// <param name="json">The text.</param>
    /// <param name="source">Where it comes from, for messages.</param>
    /// <param name="errors">Ids and advice of the errors.</param>
    /// <exception cref="LoKrException"><see cref="JsonErrors.Invalid"/> for text that is not one JSON object with distinct keys.</exception>
    public static JsonFields Parse(string json, string source, JsonErrors errors)
    {
        ArgumentNullException.ThrowIfNull(json);
        byte[] utf8;
        try
        {
            utf8 = s_strict.GetBytes(json);
        }
        catch (EncoderFallbackException exception)
        {
            throw NotJson(source, errors, exception);
        }

        return Parse(utf8, source, errors);
    }

    private protected static JsonElement ParseElement(ReadOnlySpan<byte> utf8, string source, JsonErrors errors)
    {
        utf8 = utf8.StartsWith("\uFEFF"u8) ? utf8[3..] : utf8;
        try
        {
            return !Utf8.IsValid(utf8) ? throw new JsonException("The text is not UTF-8.")
                : JsonUnicode.FindInvalid(utf8) is string problem ? throw new JsonException(problem)
                : JsonElement.Parse(utf8, s_options);
        }
        catch (Exception exception) when (exception is JsonException or InvalidOperationException)
        {
            throw NotJson(source, errors, exception);
        }
    }

    /// <summary>A copy of the object that may be changed.</summary>
    public JsonObject ToJsonObject() => JsonObject.Create(_element)!;

    /// <summary>Key of a member with the keys that lead to this object.</summary>
    public string FullName(string key) => _prefix + key;

    /// <summary>Whether a member is there, null included.</summary>
    public bool Contains(string key)
    {
        MarkRead(key);
        return _element.TryGetProperty(key, out _);
    }

    /// <summary>Whether a member is there and not null.</summary>
    public bool Has(string key) => Find(key) is not null;

    /// <summary>A member of any type, or null.</summary>
    public JsonElement? Find(string key)
    {
        MarkRead(key);
        return _element.TryGetProperty(key, out JsonElement value) && value.ValueKind != JsonValueKind.Null ? value : null;
    }

    /// <summary>A member of any type, or null; the member does not count as read.</summary>
    public JsonElement? Peek(string key) => _element.TryGetProperty(key, out JsonElement value) && value.ValueKind != JsonValueKind.Null ? value : null;

    /// <summary>A member of any type.</summary>
    public JsonElement Get(string key) => Find(key) ?? throw Missing(key);

    /// <summary>A string.</summary>
    public string GetString(string key) => AsString(Get(key), key);

    /// <summary>A string, or its default.</summary>
    public string GetString(string key, string defaultValue) => FindString(key) ?? defaultValue;

    /// <summary>A string, or null.</summary>
    public string? FindString(string key) => Find(key) is JsonElement value ? AsString(value, key) : null;

    /// <summary>True or false.</summary>
    public bool GetBool(string key) => AsBool(Get(key), key);

    /// <summary>True or false, or its default.</summary>
    public bool GetBool(string key, bool defaultValue) => FindBool(key) ?? defaultValue;

    /// <summary>True, false or null.</summary>
    public bool? FindBool(string key) => Find(key) is JsonElement value ? AsBool(value, key) : null;

    /// <summary>A whole number.</summary>
    public int GetInt(string key) => AsInt(Get(key), key);

    /// <summary>A whole number, or its default.</summary>
    public int GetInt(string key, int defaultValue) => FindInt(key) ?? defaultValue;

    /// <summary>A whole number, or null.</summary>
    public int? FindInt(string key) => Find(key) is JsonElement value ? AsInt(value, key) : null;

    /// <summary>A positive whole number.</summary>
    public int GetSize(string key) => AsInt(Get(key), key, minimum: 1);

    /// <summary>A positive whole number, or its default.</summary>
    public int GetSize(string key, int defaultValue) => Find(key) is JsonElement value ? AsInt(value, key, minimum: 1) : defaultValue;

    /// <summary>A whole number of 0 or more.</summary>
    public int GetIndex(string key) => AsInt(Get(key), key, minimum: 0);

    /// <summary>A finite number.</summary>
    public double GetDouble(string key) => AsDouble(Get(key), key);

    /// <summary>A finite number, or its default.</summary>
    public double GetDouble(string key, double defaultValue) => FindDouble(key) ?? defaultValue;

    /// <summary>A finite number, or null.</summary>
    public double? FindDouble(string key) => Find(key) is JsonElement value ? AsDouble(value, key) : null;

    /// <summary>A probability from 0 to 1, or its default.</summary>
    public double GetProbability(string key, double defaultValue) =>
        GetDouble(key, defaultValue) is var value and >= 0 and <= 1 ? value : throw Wrong(key, "a number from 0 to 1", Get(key));

    /// <summary>Strings: a list, or none where the member is absent.</summary>
    public IReadOnlyList<string> GetStrings(string key) => GetList(key, allowsOne: false, AsString);

    /// <summary>Numbers: a list, or none where the member is absent.</summary>
    public IReadOnlyList<double> GetDoubles(string key) => GetList(key, allowsOne: false, AsDouble);

    /// <summary>Whole numbers: a list, a single number, or none where the member is absent.</summary>
    public IReadOnlyList<int> GetInts(string key) => GetList(key, allowsOne: true, AsInt);

    /// <summary>True or false: a list, a single value, or none where the member is absent.</summary>
    public IReadOnlyList<bool> GetBools(string key) => GetList(key, allowsOne: true, AsBool);

    /// <summary>An object.</summary>
    public JsonFields GetObject(string key) => AsObject(Get(key), key);

    /// <summary>An object, or null.</summary>
    public JsonFields? FindObject(string key) => Find(key) is JsonElement value ? AsObject(value, key) : null;

    /// <summary>An object; one without members where it is absent.</summary>
    public JsonFields GetObjectOrEmpty(string key) => AsObject(Find(key) ?? JsonElement.Parse("{}"), key);

    /// <summary>A list of values of any type.</summary>
    public JsonElement GetArray(string key) => Get(key) is { ValueKind: JsonValueKind.Array } list ? list : throw Wrong(key, "a list", Get(key));

    /// <summary>A list of objects.</summary>
    public IReadOnlyList<JsonFields> GetObjects(string key) =>
        [.. GetArray(key).EnumerateArray().Select((item, index) => AsObject(item, string.Create(CultureInfo.InvariantCulture, $"{key}[{index}]")))];

    /// <summary>One of several names, each with its value, or the default.</summary>
    public T GetChoice<T>(string key, T defaultValue, params ReadOnlySpan<(string Name, T Value)> choices)
    {
        if (Find(key) is not JsonElement value)
        {
            return defaultValue;
        }

        List<string> names = [];
        foreach ((string name, T choice) in choices)
        {
            if (value.ValueKind == JsonValueKind.String && value.ValueEquals(name))
            {
                return choice;
            }

            names.Add($"\"{name}\"");
        }

        throw value.ValueKind == JsonValueKind.String
            ? Unsupported(key, $"is {Describe(value)}; supported are {string.Join(", ", names)}")
            : Wrong(key, $"one of {string.Join(", ", names)}", value);
    }

    /// <summary>Refuses keys whose meaning is not known, because they may change the result.</summary>
    public JsonFields AllowOnly(params ReadOnlySpan<string> keys)
    {
        foreach ((string key, _) in Members)
        {
            if (!keys.Contains(key))
            {
                throw Unsupported(key, "is an unknown option");
            }
        }

        return this;
    }

    /// <summary>A value of this object or of a list in it as a string.</summary>
    public string AsString(JsonElement value, string key)
    {
        try
        {
            return value.ValueKind == JsonValueKind.String ? value.GetString()! : throw Wrong(key, "a string", value);
        }
        catch (InvalidOperationException exception)
        {
            // An escaped surrogate without its partner.
            throw Error(_errors.Invalid, LoKrErrorKind.InvalidData, key, "is not valid Unicode text", _errors.Advice, exception);
        }
    }

    /// <summary>A value of this object or of a list in it as a whole number.</summary>
    public int AsInt(JsonElement value, string key) => AsInt(value, key, int.MinValue);

    /// <summary>A value of this object or of a list in it as a whole number of 0 or more.</summary>
    public int AsIndex(JsonElement value, string key) => AsInt(value, key, 0);

    private int AsInt(JsonElement value, string key, int minimum)
    {
        if (value.ValueKind == JsonValueKind.Number)
        {
            // 2048.0 is what some converters write for a size.
            int? number = value.TryGetInt32(out int whole) ? whole
                : value.TryGetDouble(out double real) && real == Math.Floor(real) && Math.Abs(real) <= int.MaxValue ? (int)real
                : null;
            if (number >= minimum)
            {
                return number.Value;
            }
        }

        throw Wrong(key, minimum switch
        {
            int.MinValue => "a whole number",
            1 => "a positive whole number",
            _ => string.Create(CultureInfo.InvariantCulture, $"a whole number of {minimum} or more"),
        }, value);
    }

    /// <summary>A value of this object or of a list in it as a finite number.</summary>
    public double AsDouble(JsonElement value, string key) =>
        value.ValueKind == JsonValueKind.Number && value.TryGetDouble(out double number) && double.IsFinite(number)
            ? number
            : throw Wrong(key, "a number", value);

    /// <summary>A value of this object or of a list in it as true or false.</summary>
    public bool AsBool(JsonElement value, string key) => value.ValueKind switch
    {
        JsonValueKind.True => true,
        JsonValueKind.False => false,
        _ => throw Wrong(key, "true or false", value),
    };

    /// <summary>A value of this object or of a list in it as an object.</summary>
    public JsonFields AsObject(JsonElement value, string key) => value.ValueKind == JsonValueKind.Object
        ? new JsonFields(value, Source, _errors, FullName(key))
        : throw Wrong(key, "an object", value);

    /// <summary>The error for a member of a wrong type or value, in the words "'key' in 'file' is 5, not a string".</summary>
    /// <param name="key">The member.</param>
    /// <param name="expected">The expected value.</param>
    /// <param name="value">The value.</param>
    public LoKrException Wrong(string key, string expected, JsonElement value) => Invalid(key, $"is {Describe(value)}, not {expected}");

    /// <summary>The error for a member that cannot be used.</summary>
    /// <param name="key">The member.</param>
    /// <param name="problem">The rest of a sentence about it: "has 3 values for 4 blocks".</param>
    public LoKrException Invalid(string key, string problem) => Error(_errors.Invalid, LoKrErrorKind.InvalidData, key, problem, _errors.Advice, null);

    /// <summary>The error for an object that cannot be used as a whole.</summary>
    /// <param name="problem">The rest of a sentence about it.</param>
    public LoKrException Invalid(string problem) => Error(_errors.Invalid, LoKrErrorKind.InvalidData, null, problem, _errors.Advice, null);

    /// <summary>The error for a member whose value is valid but not supported.</summary>
    /// <param name="key">The member.</param>
    public LoKrException Unsupported(string key) => Unsupported(key, $"is {Describe(Get(key))}, which is not supported");

    /// <summary>The error for a member whose value is valid but not supported.</summary>
    /// <param name="key">The member.</param>
    /// <param name="problem">The rest of a sentence about it.</param>
    public LoKrException Unsupported(string key, string problem) =>
        Error(_errors.Unsupported, LoKrErrorKind.NotSupported, key, problem, _errors.UnsupportedAdvice, null);

    private static LoKrException NotJson(string source, JsonErrors errors, Exception exception) => new(
        errors.Invalid, LoKrErrorKind.InvalidData, $"'{source}' is not valid JSON: {exception.Message}", errors.Advice, exception)
    {
        Target = source,
    };

    private static string Describe(JsonElement value) => value.GetRawText() is { Length: > 60 } text ? text[..60] + "…" : value.GetRawText();

    private List<T> GetList<T>(string key, bool allowsOne, Func<JsonElement, string, T> convert) => Find(key) switch
    {
        null => [],
        { ValueKind: JsonValueKind.Array } list => [.. list.EnumerateArray().Select(item => convert(item, key))],
        JsonElement one when allowsOne => [convert(one, key)],
        JsonElement other => throw Wrong(key, "a list", other),
    };

    private string NameOf(JsonProperty property)
    {
        try
        {
            return property.Name;
        }
        catch (InvalidOperationException exception)
        {
            throw Error(_errors.Invalid, LoKrErrorKind.InvalidData, null, "has a key that is not valid Unicode text", _errors.Advice, exception);
        }
    }

    private void MarkRead(string key)
    {
        lock (_gate)
        {
            (_read ??= new HashSet<string>(StringComparer.Ordinal)).Add(key);
        }
    }

    private LoKrException Missing(string key) => Invalid(key, "is missing");

    private LoKrException Error(string id, LoKrErrorKind kind, string? key, string problem, string? advice, Exception? cause)
    {
        string name = key is null ? KeyPath : FullName(key);
        return new LoKrException(id, kind, name.Length == 0 ? $"'{Source}' {problem}." : $"'{name}' in '{Source}' {problem}.", advice, cause)
        {
            Target = name.Length == 0 ? Source : name,
        };
    }
}
