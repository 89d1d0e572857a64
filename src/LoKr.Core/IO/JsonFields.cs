using System.Collections.Immutable;
using System.Text.Json;
using LoKr.Core.Errors;

namespace LoKr.Core.IO;

/// <summary>
/// Reads the members of one JSON object by name and type, remembers which were asked for, and names file and key in every error.
/// A missing member or null takes the default.
/// </summary>
internal sealed class ConfigFields(JsonElement element, string source, string path = "")
{
    private readonly HashSet<string> _asked = new(StringComparer.Ordinal);

    /// <summary>Members nobody asked for.</summary>
    public IEnumerable<string> Unread => element.EnumerateObject().Select(member => member.Name).Where(name => !_asked.Contains(name));

    /// <summary>Full name of a member, with those of the objects around it.</summary>
    public string Name(string key) => path + key;

    public JsonElement? Find(string key)
    {
        _asked.Add(key);
        return element.TryGetProperty(key, out JsonElement value) && value.ValueKind != JsonValueKind.Null ? value : null;
    }

    public bool Boolean(string key, bool fallback) => Find(key) switch
    {
        null => fallback,
        { ValueKind: JsonValueKind.True } => true,
        { ValueKind: JsonValueKind.False } => false,
        { } value => throw Wrong(key, "true or false", value),
    };

    public int Integer(string key, int fallback) => Find(key) is { } value ? Integer(key, value) : fallback;

    public double Number(string key, double fallback) => Find(key) is { } value ? Number(key, value) : fallback;

    public string? Text(string key) => Find(key) is { } value ? Text(key, value) : null;

    /// <summary>A list of strings, or one string as a list of one.</summary>
    public ImmutableArray<string>? Texts(string key) => Find(key) switch
    {
        null => null,
        { ValueKind: JsonValueKind.String } one => one.GetString()!.Length == 0 ? null : [one.GetString()!],
        { ValueKind: JsonValueKind.Array } many => [.. many.EnumerateArray().Select(item => Text(key, item))],
        { } value => throw Wrong(key, "a list of strings", value),
    };

    /// <summary>A list of integers, or one integer as a list of one.</summary>
    public ImmutableArray<int>? Integers(string key) => Find(key) switch
    {
        null => null,
        { ValueKind: JsonValueKind.Array } many => [.. many.EnumerateArray().Select(item => Integer(key, item))],
        { } one => [Integer(key, one)],
    };

    /// <summary>An object of integers, in file order.</summary>
    public ImmutableArray<KeyValuePair<string, int>> IntegerMap(string key) =>
        [.. Members(key).Select(member => KeyValuePair.Create(member.Name, Integer($"{key}.{member.Name}", member.Value)))];

    /// <summary>An object of numbers, in file order.</summary>
    public ImmutableArray<KeyValuePair<string, double>> NumberMap(string key) =>
        [.. Members(key).Select(member => KeyValuePair.Create(member.Name, Number($"{key}.{member.Name}", member.Value)))];

    /// <summary>A member that is an object itself, or null.</summary>
    public ConfigFields? Object(string key) => Find(key) switch
    {
        null => null,
        { ValueKind: JsonValueKind.Object } value => new ConfigFields(value, source, $"{path}{key}."),
        { } value => throw Wrong(key, "an object", value),
    };

    /// <summary>One of a few names, each with its value.</summary>
    public T Choice<T>(string key, T fallback, params ReadOnlySpan<(string Name, T Value)> choices)
    {
        if (Find(key) is not { } value)
        {
            return fallback;
        }

        string expected = "";
        foreach ((string name, T choice) in choices)
        {
            if (value.ValueKind == JsonValueKind.String && value.ValueEquals(name))
            {
                return choice;
            }

            expected += expected.Length == 0 ? $"\"{name}\"" : $", \"{name}\"";
        }

        throw Wrong(key, $"one of {expected}", value);
    }

    /// <summary>The error for a member that has the wrong type or value.</summary>
    public LoKrException Wrong(string key, string expected, JsonElement value)
    {
        string text = value.GetRawText();
        return new LoKrException(
            ErrorIds.AdapterConfigInvalid,
            LoKrErrorKind.InvalidData,
            $"'{path}{key}' in '{source}' has to be {expected}, but is {(text.Length > 60 ? $"{text[..60]}…" : text)}.",
            "Correct the file, or get it again.")
        {
            Target = $"{path}{key}",
        };
    }

    private JsonElement.ObjectEnumerator Members(string key) => Find(key) switch
    {
        null => default,
        { ValueKind: JsonValueKind.Object } value => value.EnumerateObject(),
        { } value => throw Wrong(key, "an object", value),
    };

    private int Integer(string key, JsonElement value) => value.ValueKind == JsonValueKind.Number && value.TryGetInt32(out int number)
        ? number
        : throw Wrong(key, "an integer", value);

    private double Number(string key, JsonElement value) =>
        value.ValueKind == JsonValueKind.Number && value.TryGetDouble(out double number) && double.IsFinite(number)
            ? number
            : throw Wrong(key, "a number", value);

    private string Text(string key, JsonElement value) =>
        value.ValueKind == JsonValueKind.String ? value.GetString()! : throw Wrong(key, "a string", value);
}

/// <summary>Members of a JSON object in order, for <see cref="PythonJson"/>.</summary>
internal sealed class JsonMembers : List<KeyValuePair<string, object?>>
{
    public void Add(string key, object? value) => Add(KeyValuePair.Create(key, value));
}
