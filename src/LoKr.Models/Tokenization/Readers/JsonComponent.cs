using System.Text.Json;
using LoKr.Core.Errors;

namespace LoKr.Models.Tokenization.Readers;

/// <summary>One JSON object of a tokenizer file, with typed access whose errors name the place.</summary>
internal sealed class JsonComponent
{
    private readonly JsonElement _element;

    public JsonComponent(string file, string place, JsonElement element)
    {
        File = file;
        Place = place;
        _element = element.ValueKind == JsonValueKind.Object ? element : throw Invalid("is not an object");
    }

    public string File { get; }

    public string Place { get; }

    /// <summary>The value of <c>type</c>.</summary>
    public string Type => Text("type");

    public IEnumerable<JsonEntry> Properties
    {
        get
        {
            List<JsonEntry> entries = [];
            foreach (JsonProperty property in _element.EnumerateObject())
            {
                entries.Add(new JsonEntry(Name(property), property.Value));
            }

            return entries;
        }
    }

    /// <summary>Refuses keys whose meaning is not known: they may change the result.</summary>
    public JsonComponent Allow(params ReadOnlySpan<string> keys)
    {
        foreach (JsonEntry property in Properties)
        {
            if (property.Name != "type" && !keys.Contains(property.Name))
            {
                throw Unsupported($"the option '{property.Name}' of {Place}");
            }
        }

        return this;
    }

    public bool Has(string key) => _element.TryGetProperty(key, out JsonElement value) && value.ValueKind != JsonValueKind.Null;

    /// <summary>Whether the key is there, even with the value null.</summary>
    public bool Names(string key) => _element.TryGetProperty(key, out _);

    public JsonElement Get(string key) => Has(key) ? _element.GetProperty(key) : throw Invalid($"lacks '{key}'");

    public string Text(string key) => AsText(Get(key), key);

    public string? OptionalText(string key) => Has(key) ? Text(key) : null;

    public bool Flag(string key) => Get(key).ValueKind switch
    {
        JsonValueKind.True => true,
        JsonValueKind.False => false,
        _ => throw Invalid($"has a '{key}' that is neither true nor false"),
    };

    public bool Flag(string key, bool fallback) => Has(key) ? Flag(key) : fallback;

    public bool? OptionalFlag(string key) => Has(key) ? Flag(key) : null;

    public int Number(string key) => AsNumber(Get(key), key);

    public JsonComponent Object(string key) => new(File, $"{Place}.{key}", Get(key));

    public JsonComponent? OptionalObject(string key) => Has(key) ? Object(key) : null;

    public JsonComponent[] Objects(string key)
    {
        JsonElement array = Get(key);
        return array.ValueKind == JsonValueKind.Array
            ? [.. array.EnumerateArray().Select((item, index) => new JsonComponent(File, $"{Place}.{key}[{index}]", item))]
            : throw Invalid($"has a '{key}' that is no list");
    }

    public string AsText(JsonElement element, string key)
    {
        try
        {
            return element.ValueKind == JsonValueKind.String ? element.GetString()! : throw Invalid($"has a '{key}' that is no text");
        }
        catch (InvalidOperationException exception)
        {
            // An escaped surrogate without its partner.
            throw TokenizerError.Invalid(File, $"{Place} has a '{key}' that is no valid text", exception);
        }
    }

    public int AsNumber(JsonElement element, string key) =>
        element.ValueKind == JsonValueKind.Number && element.TryGetInt32(out int number) && number >= 0
            ? number
            : throw Invalid($"has a '{key}' that is no whole number from 0 on");

    private string Name(JsonProperty property)
    {
        try
        {
            return property.Name;
        }
        catch (InvalidOperationException exception)
        {
            // As above.
            throw TokenizerError.Invalid(File, $"{Place} has a key that is no valid text", exception);
        }
    }

    public LoKrException Invalid(string problem) => TokenizerError.Invalid(File, $"{Place} {problem}");

    public LoKrException Unsupported(string what) => TokenizerError.Unsupported(File, what);

    public LoKrException UnsupportedType() => Unsupported($"the {Place} '{Type}'");
}

/// <summary>A key of a JSON object and its value.</summary>
internal readonly record struct JsonEntry(string Name, JsonElement Value);

/// <summary>Reads JSON files whose root is an object.</summary>
internal static class JsonFile
{
    public static JsonComponent Read(string path)
    {
        try
        {
            using JsonDocument document = JsonDocument.Parse(File.ReadAllBytes(path));
            return new JsonComponent(path, Path.GetFileName(path), document.RootElement.Clone());
        }
        catch (JsonException exception)
        {
            throw TokenizerError.Invalid(path, $"it is not JSON ({exception.Message})", exception);
        }
    }
}
