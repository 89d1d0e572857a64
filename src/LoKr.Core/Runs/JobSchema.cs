using System.Globalization;
using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Json.Schema;
using System.Text.Json.Serialization;
using System.Text.Json.Serialization.Metadata;
using LoKr.Core.Configuration;
using LoKr.Core.Training;

namespace LoKr.Core.Runs;

/// <summary>
/// The schema of job files, made from the records of <see cref="LoKrJob"/>: what editors complete by, and what a file is checked against. Keys are
/// in camel case in JSON; upper and lower case do not matter.
/// </summary>
public static class JobSchema
{
    // What a job decides itself, or what only files of other programs need.
    private static readonly Dictionary<Type, string[]> s_withheld = new()
    {
        [typeof(TrainingOptions)] = [nameof(TrainingOptions.AdapterName)],
        [typeof(LoKrConfig)] =
        [
            nameof(LoKrConfig.AutoMapping), nameof(LoKrConfig.BaseModelNameOrPath), nameof(LoKrConfig.Revision), nameof(LoKrConfig.InferenceMode), nameof(LoKrConfig.ShapesFromFile),
        ],
    };

    /// <summary>How the records are read and written.</summary>
    internal static JsonSerializerOptions Options { get; } = new(JsonSerializerDefaults.Web)
    {
        NumberHandling = JsonNumberHandling.Strict,
        RespectNullableAnnotations = true,
        WriteIndented = true,
        NewLine = "\n",
        Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
        UnmappedMemberHandling = JsonUnmappedMemberHandling.Disallow,
        Converters = { new JsonStringEnumConverter(namingPolicy: null, allowIntegerValues: false), new TimeConverter(), new IntervalConverter(), new ModulesConverter(), new PatternConverter<int>(), new PatternConverter<double>() },
        TypeInfoResolver = new DefaultJsonTypeInfoResolver { Modifiers = { Withhold } },
    };

    /// <summary>The schema, as JSON Schema.</summary>
    /// <param name="describe">The description of a key from its type and property, or null.</param>
    public static JsonObject Create(Func<Type, string, string?>? describe = null)
    {
        JsonObject schema = (JsonObject)Options.GetJsonSchemaAsNode(typeof(LoKrJob), new JsonSchemaExporterOptions
        {
            TreatNullObliviousAsNonNullable = true,
            TransformSchemaNode = (context, node) => Transform(context, node, describe),
        });
        ((JsonObject)schema["properties"]!).Insert(0, "$schema", new JsonObject { ["type"] = "string" });
        schema.Insert(0, "$schema", "https://json-schema.org/draft/2020-12/schema");
        schema.Insert(1, "title", "LoKr job");
        return schema;
    }

    /// <summary>The schema as the text of a file.</summary>
    /// <inheritdoc cref="Create"/>
    public static string ToText(Func<Type, string, string?>? describe = null) => Create(describe).ToJsonString(Options) + "\n";

    private static void Withhold(JsonTypeInfo type)
    {
        if (s_withheld.TryGetValue(type.Type, out string[]? withheld))
        {
            for (int i = type.Properties.Count - 1; i >= 0; i--)
            {
                if (withheld.Contains(type.Properties[i].Name, StringComparer.OrdinalIgnoreCase))
                {
                    type.Properties.RemoveAt(i);
                }
            }
        }
    }

    private static JsonObject Transform(JsonSchemaExporterContext context, JsonNode node, Func<Type, string, string?>? describe)
    {
        Type type = Nullable.GetUnderlyingType(context.TypeInfo.Type) ?? context.TypeInfo.Type;
        JsonObject schema = type == typeof(IReadOnlyDictionary<DataFindingKind, double>) ? Limits(describe) : node as JsonObject ?? Written(type);
        if (schema["type"] is JsonArray types)
        {
            // Null counts as absent; files need not write it.
            JsonNode?[] named = [.. types.Where(static name => (string?)name != "null").Select(static name => name!.DeepClone())];
            schema["type"] = named.Length == 1 ? named[0] : new JsonArray(named);
        }

        if (schema["enum"] is JsonArray values)
        {
            schema["type"] = "string";
            schema["enum"] = new JsonArray([.. values.Where(static value => value is not null).Select(static value => value!.DeepClone())]);
        }

        // One value stands for a list of it.
        if ((string?)(schema["type"] as JsonValue) == "array" && schema["items"] is JsonObject items && (string?)(items["type"] as JsonValue) == "string")
        {
            schema["type"] = new JsonArray("array", "string");
        }

        if (context.PropertyInfo is { } property && schema["description"] is null)
        {
            if (describe?.Invoke(property.DeclaringType, ((System.Reflection.MemberInfo)property.AttributeProvider!).Name) is string description)
            {
                schema.Insert(0, "description", description);
            }
        }

        return schema;
    }

    private static JsonObject Limits(Func<Type, string, string?>? describe)
    {
        JsonObject kinds = [];
        foreach (string name in Enum.GetNames<DataFindingKind>())
        {
            JsonObject kind = new() { ["type"] = "number" };
            if (describe?.Invoke(typeof(DataFindingKind), name) is string description)
            {
                kind.Insert(0, "description", description);
            }

            kinds[name] = kind;
        }

        return new() { ["type"] = "object", ["properties"] = kinds, ["additionalProperties"] = false };
    }

    // Types that are read by converters, of which the exporter knows nothing.
    private static JsonObject Written(Type type) =>
        type == typeof(TimeSpan) ? new() { ["type"] = "string", ["pattern"] = @"^\s*([0-9.]+[smhdSMHD]|([0-9]+\.)?[0-9]+:[0-9]{2}(:[0-9]{2})?)\s*$" }
        : type == typeof(RunInterval) ? new() { ["type"] = new JsonArray("integer", "string") }
        : type == typeof(ModuleSelector) ? new() { ["type"] = new JsonArray("string", "array"), ["items"] = new JsonObject { ["type"] = "string" } }
        : new() { ["type"] = "object", ["additionalProperties"] = new JsonObject { ["type"] = "number" } };

    private sealed class TimeConverter : JsonConverter<TimeSpan>
    {
        public override TimeSpan Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options) => Durations.Parse(reader.GetString()!);

        public override void Write(Utf8JsonWriter writer, TimeSpan value, JsonSerializerOptions options) => writer.WriteStringValue(value.ToString("c", CultureInfo.InvariantCulture));
    }

    private sealed class IntervalConverter : JsonConverter<RunInterval>
    {
        public override RunInterval Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options) =>
            reader.TokenType == JsonTokenType.Number ? new(reader.GetInt32()) : RunInterval.Parse(reader.GetString()!);

        public override void Write(Utf8JsonWriter writer, RunInterval value, JsonSerializerOptions options)
        {
            if (value.Steps is int steps)
            {
                writer.WriteNumberValue(steps);
            }
            else
            {
                writer.WriteStringValue(value.ToString());
            }
        }
    }

    private sealed class ModulesConverter : JsonConverter<ModuleSelector>
    {
        public override ModuleSelector Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options) => reader.TokenType == JsonTokenType.String
            ? ModuleSelector.FromPattern(reader.GetString()!)
            : ModuleSelector.FromNames(JsonSerializer.Deserialize<string[]>(ref reader, options)!);

        public override void Write(Utf8JsonWriter writer, ModuleSelector value, JsonSerializerOptions options)
        {
            if (value.Pattern is string pattern)
            {
                writer.WriteStringValue(pattern);
            }
            else
            {
                JsonSerializer.Serialize(writer, value.Names, options);
            }
        }
    }

    // Ranks and alphas by pattern: an object whose order counts.
    private sealed class PatternConverter<T> : JsonConverter<IReadOnlyList<KeyValuePair<string, T>>>
    {
        public override IReadOnlyList<KeyValuePair<string, T>> Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options) =>
            [.. JsonSerializer.Deserialize<OrderedDictionary<string, T>>(ref reader, options)!];

        public override void Write(Utf8JsonWriter writer, IReadOnlyList<KeyValuePair<string, T>> value, JsonSerializerOptions options)
        {
            writer.WriteStartObject();
            foreach ((string key, T item) in value)
            {
                writer.WritePropertyName(key);
                JsonSerializer.Serialize(writer, item, options);
            }

            writer.WriteEndObject();
        }
    }
}

/// <summary>A problem of a job file.</summary>
/// <param name="Line">The line, from 1.</param>
/// <param name="Key">Keys that lead to it, separated by periods; empty for the whole file.</param>
/// <param name="Message">The problem, as a sentence that names the key.</param>
public sealed record JobProblem(int Line, string Key, string Message)
{
    /// <inheritdoc/>
    public override string ToString() => FormattableString.Invariant($"line {Line}: {Message}");
}

/// <summary>Compares a document with the schema, and spells its keys and names as the schema does.</summary>
/// <param name="document">The document.</param>
internal sealed class JobChecker(JobDocument document)
{
    private readonly List<JobProblem> _problems = [];

    /// <summary>Faults in the order of the file.</summary>
    public IReadOnlyList<JobProblem> Problems => [.. _problems.OrderBy(static problem => problem.Line)];

    /// <summary>Checks the document.</summary>
    /// <returns>The values in the spelling of the schema.</returns>
    public JsonObject Check() => (JsonObject)Check(document.Root, JobSchema.Create(), "")!;

    private JsonNode? Check(JsonNode? value, JsonObject schema, string key)
    {
        string[] types = schema["type"] switch
        {
            JsonArray several => [.. several.Select(static name => (string)name!)],
            JsonValue one => [(string)one!],
            _ => [],
        };
        switch (value)
        {
            case JsonObject values when types.Contains("object"):
                return schema["properties"] is JsonObject known ? CheckKeys(values, schema, known, key) : CheckItems(values, (JsonObject)schema["additionalProperties"]!, key);
            case JsonArray list when types.Contains("array"):
                return new JsonArray([.. list.Select(item => Check(item, (JsonObject)schema["items"]!, key))]);
            case JsonValue when schema["enum"] is JsonArray names:
                string? text = value.GetValueKind() == JsonValueKind.String ? (string)value! : null;
                string? name = names.Select(static name => (string)name!).FirstOrDefault(name => name.Equals(text, StringComparison.OrdinalIgnoreCase));
                return name is not null ? JsonValue.Create(name) : Report(key, $"is {Show(value)}, not {Or(names.Select(static name => (string)name!))}");
            case JsonValue when types is ["array", "string"] && value.GetValueKind() == JsonValueKind.String:
                // One text stands for a list; for modules, whose texts come first, it is a pattern.
                return new JsonArray(value.DeepClone());
            case JsonValue when Fits(value, types):
                return schema["pattern"] is { } pattern && !System.Text.RegularExpressions.Regex.IsMatch((string)value!, (string)pattern!)
                    ? Report(key, $"is {Show(value)}, not a time such as 90s, 10m, 2h or 01:30:00")
                    : value.DeepClone();
            default:
                return Report(key, $"is {Show(value)}, not {Or(types.Select(Describe))}");
        }
    }

    private JsonObject CheckKeys(JsonObject values, JsonObject schema, JsonObject known, string key)
    {
        JsonObject result = [];
        foreach ((string written, JsonNode? value) in values)
        {
            string full = key.Length == 0 ? written : $"{key}.{written}";
            string? name = known.Select(static pair => pair.Key).FirstOrDefault(name => name.Equals(written, StringComparison.OrdinalIgnoreCase));
            if (name is null)
            {
                Report(full, $"is not a key of {(key.Length == 0 ? "a job" : $"'{key}'")}; its keys are {string.Join(", ", known.Select(static pair => pair.Key).Where(static name => name[0] != '$'))}");
            }
            else if (value is not null && name[0] != '$')
            {
                result[name] = Check(value, (JsonObject)known[name]!, full);
            }
        }

        foreach (string required in (schema["required"] as JsonArray ?? []).Select(static name => (string)name!).Where(required => !result.ContainsKey(required)))
        {
            _problems.Add(new(document.LineOf(key), key.Length == 0 ? required : $"{key}.{required}", $"'{(key.Length == 0 ? required : $"{key}.{required}")}' is missing."));
        }

        return result;
    }

    private JsonObject CheckItems(JsonObject values, JsonObject schema, string key)
    {
        JsonObject result = [];
        foreach ((string name, JsonNode? value) in values)
        {
            result[name] = Check(value, schema, $"{key}.{name}");
        }

        return result;
    }

    private static bool Fits(JsonNode value, string[] types) => value.GetValueKind() switch
    {
        JsonValueKind.String => types.Contains("string"),
        JsonValueKind.True or JsonValueKind.False => types.Contains("boolean"),
        JsonValueKind.Number => types.Contains("number") || (types.Contains("integer") && value.AsValue().TryGetValue(out long _)),
        _ => false,
    };

    private JsonNode? Report(string key, string problem)
    {
        _problems.Add(new(document.LineOf(key), key, $"'{key}' {problem}."));
        return null;
    }

    private static string Show(JsonNode? value) => value is null ? "null" : value.ToJsonString() is { Length: > 60 } text ? text[..60] + "…" : value.ToJsonString();

    private static string Describe(string type) => type switch
    {
        "object" => "a table of keys",
        "array" => "a list",
        "string" => "a text",
        "integer" => "a whole number",
        "number" => "a number",
        _ => "true or false",
    };

    private static string Or(IEnumerable<string> names) => names.ToArray() is [.. string[] first, string last] && first.Length > 0 ? $"{string.Join(", ", first)} or {last}" : names.First();
}
