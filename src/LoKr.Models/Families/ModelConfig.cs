using System.Globalization;
using System.Text.Json;
using System.Text.Json.Nodes;
using LoKr.Core.Errors;
using LoKr.Core.IO;
using static TorchSharp.torch;

namespace LoKr.Models.Families;

/// <summary>
/// Reads a Hugging Face <c>config.json</c>: typed values by key, with errors that name the file and the key.
/// A key whose value is null counts as absent, as in transformers.
/// </summary>
public sealed class ModelConfig
{
    /// <summary>Name of the file.</summary>
    public const string FileName = "config.json";

    /// <summary>Key of the class in diffusers' configurations, which have no <c>model_type</c>.</summary>
    internal const string ClassNameKey = "_class_name";

    /// <summary>Wraps a configuration.</summary>
    /// <param name="json">The object; it is copied.</param>
    /// <param name="source">File or other origin, for error messages.</param>
    /// <param name="generation">The folder's generation_config.json, if any.</param>
    public ModelConfig(JsonObject json, string source = FileName, ModelConfig? generation = null)
    {
        ArgumentNullException.ThrowIfNull(json);

        // Numbers put into a JsonObject by a program answer only to their own type; parsed ones convert.
        Json = JsonNode.Parse(json.ToJsonString())!.AsObject();
        Source = source;
        Generation = generation;
    }

    /// <summary>The object as it was read; nobody changes it.</summary>
    public JsonObject Json { get; }

    /// <summary>File or other origin.</summary>
    public string Source { get; }

    /// <summary>generation_config.json of the same folder, or null.</summary>
    public ModelConfig? Generation { get; }

    /// <summary>The <c>model_type</c>, or the <c>_class_name</c> of diffusers; the absence of both is <see cref="ErrorIds.ModelTypeMissing"/>.</summary>
    public string ModelType => GetString("model_type", null) ?? GetString(ClassNameKey, null) ?? throw new LoKrException(
        ErrorIds.ModelTypeMissing, LoKrErrorKind.InvalidData, $"'{Source}' names no model_type.",
        "Is this the config.json of a transformers model? Add its model_type, for example \"bert\".") { Target = Source };

    /// <summary>The element type that <c>dtype</c> (transformers 5) or <c>torch_dtype</c> names, or null.</summary>
    public ScalarType? DType
    {
        get
        {
            string key = Has("dtype") ? "dtype" : "torch_dtype";
            return GetString(key, null) switch
            {
                null => null,
                "float32" or "float" or "torch.float32" => ScalarType.Float32,
                "float16" or "half" or "torch.float16" => ScalarType.Float16,
                "bfloat16" or "torch.bfloat16" => ScalarType.BFloat16,
                "float64" or "double" or "torch.float64" => ScalarType.Float64,
                string other => throw Invalid(key, $"has the value '{other}', which is none of float32, float16, bfloat16, float64"),
            };
        }
    }

    /// <summary>Reads <c>config.json</c>, and <c>generation_config.json</c> where there is one, from a model folder.</summary>
    public static ModelConfig Load(string folder)
    {
        ArgumentException.ThrowIfNullOrEmpty(folder);
        if (!Directory.Exists(folder))
        {
            throw new LoKrException(ErrorIds.PathNotFound, LoKrErrorKind.NotFound, $"There is no folder '{folder}'.",
                "Name the folder that holds config.json and model.safetensors.") { Target = folder };
        }

        string path = Path.Combine(folder, FileName);
        if (!File.Exists(path))
        {
            throw new LoKrException(ErrorIds.ModelConfigNotFound, LoKrErrorKind.NotFound, $"'{folder}' has no config.json.",
                "A model folder holds config.json, model.safetensors and the tokenizer's files, as save_pretrained writes them; a pipeline's holds model_index.json.") { Target = folder };
        }

        string generation = Path.Combine(folder, "generation_config.json");
        return new ModelConfig(Parse(path), path, File.Exists(generation) ? new ModelConfig(Parse(generation), generation) : null);
    }

    /// <summary>Whether a key is there with a value other than null.</summary>
    public bool Has(string key) => Json.TryGetPropertyValue(key, out JsonNode? node) && node is not null;

    /// <summary>A nested object (<c>rope_parameters</c>) as a configuration of its own, or null.</summary>
    public ModelConfig? GetObject(string key) => Node(key) switch
    {
        null => null,
        JsonObject nested => new ModelConfig(nested, $"{Source}: {key}"),
        JsonNode other => throw Invalid(key, $"is {Describe(other)}, not an object"),
    };

    /// <summary>A whole number that has to be there and be positive (sizes, counts).</summary>
    public int GetSize(string key) => CheckPositive(key, GetInt(key, null) ?? throw Missing(key));

    /// <summary>A whole number that has to be positive, or its default.</summary>
    public int GetSize(string key, int defaultValue) => CheckPositive(key, GetInt(key, null) ?? defaultValue);

    /// <summary>A whole number, or its default.</summary>
    public int? GetInt(string key, int? defaultValue)
    {
        JsonNode? node = Node(key);
        if (node is null)
        {
            return defaultValue;
        }

        // 2048.0 is what some converters write for a size.
        return node is JsonValue value && value.TryGetValue(out double number) && number == Math.Floor(number) && Math.Abs(number) <= int.MaxValue
            ? (int)number
            : throw Invalid(key, $"is {Describe(node)}, not a whole number");
    }

    /// <summary>A number, or its default.</summary>
    public double GetDouble(string key, double defaultValue) => GetDouble(key) ?? defaultValue;

    /// <summary>A number, or null.</summary>
    public double? GetDouble(string key) => Node(key) switch
    {
        null => null,
        JsonValue value when value.TryGetValue(out double number) => number,
        JsonNode other => throw Invalid(key, $"is {Describe(other)}, not a number"),
    };

    /// <summary>A probability between 0 and 1 (dropout), or its default.</summary>
    public double GetProbability(string key, double defaultValue)
    {
        double value = GetDouble(key, defaultValue);
        return value is >= 0 and <= 1 ? value : throw Invalid(key, $"is {Text(value)}, not between 0 and 1");
    }

    /// <summary>True or false, or its default.</summary>
    public bool GetBool(string key, bool defaultValue) => Node(key) switch
    {
        null => defaultValue,
        JsonValue value when value.TryGetValue(out bool flag) => flag,
        JsonNode other => throw Invalid(key, $"is {Describe(other)}, not true or false"),
    };

    /// <summary>A text that has to be there.</summary>
    public string GetString(string key) => GetString(key, null) ?? throw Missing(key);

    /// <summary>A text, or its default.</summary>
    public string? GetString(string key, string? defaultValue) => Node(key) switch
    {
        null => defaultValue,
        JsonValue value when value.TryGetValue(out string? text) => text,
        JsonNode other => throw Invalid(key, $"is {Describe(other)}, not a text"),
    };

    /// <summary>Whole numbers: a list, a single number, or nothing (<c>eos_token_id</c>, <c>no_rope_layers</c>).</summary>
    public IReadOnlyList<int> GetInts(string key) => Node(key) switch
    {
        null => [],
        JsonArray list => [.. list.Select(item => item is JsonValue value && value.TryGetValue(out int number)
            ? number
            : throw Invalid(key, $"holds {Describe(item)}, not a whole number"))],
        _ => [GetInt(key, null)!.Value],
    };

    /// <summary>True or false: a list, a single one, or nothing (<c>only_cross_attention</c>).</summary>
    public IReadOnlyList<bool> GetBools(string key) => Node(key) switch
    {
        null => [],
        JsonArray list => [.. list.Select(item => item is JsonValue value && value.TryGetValue(out bool flag)
            ? flag
            : throw Invalid(key, $"holds {Describe(item)}, not true or false"))],
        _ => [GetBool(key, false)],
    };

    /// <summary>A list of numbers, or nothing (<c>long_factor</c>).</summary>
    public IReadOnlyList<double> GetDoubles(string key) => Node(key) switch
    {
        null => [],
        JsonArray list => [.. list.Select(item => item is JsonValue value && value.TryGetValue(out double number)
            ? number
            : throw Invalid(key, $"holds {Describe(item)}, not a number"))],
        JsonNode other => throw Invalid(key, $"is {Describe(other)}, not a list"),
    };

    /// <summary>A list of texts, or nothing (<c>architectures</c>, <c>layer_types</c>).</summary>
    public IReadOnlyList<string> GetStrings(string key) => Node(key) switch
    {
        null => [],
        JsonArray list => [.. list.Select(item => item is JsonValue value && value.TryGetValue(out string? text)
            ? text
            : throw Invalid(key, $"holds {Describe(item)}, not a text"))],
        JsonNode other => throw Invalid(key, $"is {Describe(other)}, not a list"),
    };

    /// <summary>The error for a value that cannot be used: <see cref="ErrorIds.ModelConfigInvalid"/>.</summary>
    /// <param name="key">The key.</param>
    /// <param name="problem">What is wrong, as the rest of a sentence: "is 0, not positive".</param>
    public LoKrException Invalid(string key, string problem) => new(
        ErrorIds.ModelConfigInvalid, LoKrErrorKind.InvalidData, $"'{key}' of '{Source}' {problem}.") { Target = key };

    /// <summary>The error for a value that means something this library does not build: <see cref="ErrorIds.ModelConfigUnsupported"/>.</summary>
    public LoKrException Unsupported(string key, string problem) => new(
        ErrorIds.ModelConfigUnsupported, LoKrErrorKind.NotSupported, $"'{key}' of '{Source}' {problem}.") { Target = key };

    /// <summary>Reads a file as a configuration.</summary>
    internal static ModelConfig Read(string path) => new(Parse(path), path);

    private static JsonObject Parse(string path)
    {
        try
        {
            return JsonNode.Parse(FileErrors.ReadText(path), documentOptions: new JsonDocumentOptions { AllowDuplicateProperties = false }) as JsonObject
                ?? throw new LoKrException(ErrorIds.ModelConfigInvalid, LoKrErrorKind.InvalidData, $"'{path}' is not a JSON object.") { Target = path };
        }
        catch (JsonException e)
        {
            throw new LoKrException(ErrorIds.ModelConfigInvalid, LoKrErrorKind.InvalidData, $"'{path}' is not valid JSON: {e.Message}",
                "Download or save the model again.", e) { Target = path };
        }
    }

    private static string Describe(JsonNode? node) => node is null ? "null" : node.ToJsonString() is { Length: > 60 } text ? text[..60] + "…" : node.ToJsonString();

    private static string Text(double value) => value.ToString(CultureInfo.InvariantCulture);

    private JsonNode? Node(string key) => Json.TryGetPropertyValue(key, out JsonNode? node) ? node : null;

    private LoKrException Missing(string key) => Invalid(key, "is missing");

    private int CheckPositive(string key, int value) => value > 0 ? value : throw Invalid(key, $"is {Text(value)}, not positive");
}
