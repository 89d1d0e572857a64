using System.Globalization;
using System.Text.Json;
using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Layouts.Names;
using LoKr.Core.Safetensors;

namespace LoKr.Core.Layouts;

/// <summary>Configurations that come with a file: adapter_config.json, diffusers' header entry, or this library's own.</summary>
internal sealed class AdapterFileConfigs
{
    /// <summary>
    /// Header entry of this library: the configuration of every component and the dotted names behind underscores, so that a
    /// conversion can be reverted exactly. Other programs ignore it.
    /// </summary>
    public const string OwnKey = "lokr_ps";

    private readonly Dictionary<AdapterComponent, LoKrConfig> _configs = [];
    private readonly Dictionary<string, string> _names = new(StringComparer.Ordinal);
    private readonly List<LoKrAdapterFinding> _findings = [];

    /// <summary>Configurations by component; the one of the whole file applies to every component without its own.</summary>
    public IReadOnlyDictionary<AdapterComponent, LoKrConfig> ByComponent => _configs;

    /// <summary>Dotted names by the names in the file.</summary>
    public IReadOnlyDictionary<string, string> OriginalNames => _names;

    /// <summary>Notes about the configurations.</summary>
    public IReadOnlyList<LoKrAdapterFinding> Findings => _findings;

    /// <summary>Whether the file has diffusers' header entry.</summary>
    public bool IsDiffusers { get; private set; }

    /// <summary>The layout that this library wrote into the header, or null.</summary>
    public AdapterLayout? Layout { get; private set; }

    /// <summary>The decompose factor that a configuration or a trainer's metadata names, or null.</summary>
    public int? FactorHint { get; private set; }

    /// <summary>Reads the configurations of a file.</summary>
    /// <param name="configPath">adapter_config.json beside the file, or null.</param>
    /// <param name="reader">The file.</param>
    public static AdapterFileConfigs Read(string? configPath, SafetensorsReader reader)
    {
        AdapterFileConfigs configs = new();
        if (configPath is not null)
        {
            configs.Add(AdapterComponent.Model, LoKrConfigJson.Read(configPath, out IReadOnlyList<string> warnings), warnings, configPath);
        }

        string source = $"{reader.FilePath} ({AdapterLayouts.DiffusersMetadata})";
        if (reader.Metadata.TryGetValue(AdapterLayouts.DiffusersMetadata, out string? diffusers))
        {
            configs.IsDiffusers = true;
            configs.AddDiffusers(Parse(diffusers, source), source);
        }

        if (reader.Metadata.TryGetValue(OwnKey, out string? own))
        {
            source = $"{reader.FilePath} ({OwnKey})";
            configs.AddOwn(Parse(own, source), source);
        }

        configs.FactorHint = configs._configs.Count > 0 ? configs._configs.Values.First().DecomposeFactor is int factor and (-1 or > 0) ? factor : null
            : reader.Metadata.TryGetValue("ss_network_args", out string? arguments) ? TrainerFactor(arguments)
            : null;
        return configs;
    }

    /// <summary>The header entry of this library.</summary>
    public static string Write(AdapterLayout layout, IReadOnlyDictionary<AdapterComponent, LoKrConfig> configs, IReadOnlyDictionary<string, string> names)
    {
        JsonObject root = new() { ["layout"] = layout.ToString() };
        if (configs.Count > 0)
        {
            root["configs"] = new JsonObject(configs.Select(static pair => KeyValuePair.Create(pair.Key.ToString(), JsonNode.Parse(LoKrConfigJson.Write(pair.Value)))));
        }

        if (names.Count > 0)
        {
            root["modules"] = new JsonObject(names.OrderBy(static pair => pair.Key, StringComparer.Ordinal).Select(static pair => KeyValuePair.Create(pair.Key, (JsonNode?)pair.Value)));
        }

        return root.ToJsonString();
    }

    private void Add(AdapterComponent component, LoKrConfig config, IReadOnlyList<string> warnings, string source)
    {
        _configs[component] = config;
        _findings.AddRange(warnings.Select(warning => new LoKrAdapterFinding(LoKrFindingSeverity.Warning, ErrorIds.AdapterConfigInvalid, warning, source)));
    }

    // diffusers puts a component's name before each key when it saves a whole pipeline.
    private void AddDiffusers(JsonObject root, string source)
    {
        if (root.ContainsKey("peft_type"))
        {
            Add(AdapterComponent.Model, LoKrConfigJson.Parse(root.ToJsonString(), source, out IReadOnlyList<string> warnings), warnings, source);
            return;
        }

        foreach ((string prefix, AdapterComponent component) in AdapterLayouts.Prefixes(AdapterLayout.Diffusers))
        {
            JsonObject part = new(root.Where(pair => pair.Key.StartsWith(prefix, StringComparison.Ordinal)).Select(pair => KeyValuePair.Create(pair.Key[prefix.Length..], pair.Value?.DeepClone())));
            if (part.Count > 0)
            {
                Add(component, LoKrConfigJson.Parse(part.ToJsonString(), source, out IReadOnlyList<string> warnings), warnings, source);
            }
        }
    }

    private void AddOwn(JsonObject root, string source)
    {
        if (Text(root["layout"]) is string layout && Enum.TryParse(layout, out AdapterLayout known) && Enum.IsDefined(known))
        {
            Layout = known;
        }

        foreach ((string key, JsonNode? value) in root["configs"] as JsonObject ?? [])
        {
            if (value is JsonObject config && Enum.TryParse(key, out AdapterComponent component))
            {
                _configs[component] = LoKrConfigJson.Parse(config.ToJsonString(), source, out _);
            }
        }

        foreach ((string key, JsonNode? value) in root["modules"] as JsonObject ?? [])
        {
            // Only names that the underscores can stand for: an edited header must not rename anything.
            if (Text(value) is string name && key.EndsWith(name.Replace('.', '_'), StringComparison.Ordinal))
            {
                _names[key] = name;
            }
        }
    }

    /// <summary>The factor among the network arguments that kohya's scripts store.</summary>
    private static int? TrainerFactor(string arguments)
    {
        try
        {
            using JsonDocument document = JsonDocument.Parse(arguments);
            return document.RootElement.ValueKind == JsonValueKind.Object
                && document.RootElement.TryGetProperty("factor", out JsonElement value)
                && int.TryParse(value.ToString(), NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out int hint)
                && hint != 0
                ? Math.Max(hint, -1)
                : null;
        }
        catch (JsonException)
        {
            // A trainer's note for people; the shapes determine the factor too.
            return null;
        }
    }

    private static string? Text(JsonNode? node) => node is JsonValue value && value.TryGetValue(out string? text) ? text : null;

    private static JsonObject Parse(string json, string source)
    {
        try
        {
            return JsonNode.Parse(json, documentOptions: new() { MaxDepth = 16, AllowDuplicateProperties = false }) as JsonObject
                ?? throw Invalid(source, "it is not a JSON object");
        }
        catch (JsonException exception)
        {
            throw Invalid(source, exception.Message, exception);
        }
    }

    private static LoKrException Invalid(string source, string why, Exception? inner = null) => new(
        ErrorIds.AdapterConfigInvalid,
        LoKrErrorKind.InvalidData,
        $"'{source}' is not a valid adapter configuration: {why}.",
        "Correct the file, or get it again.",
        inner)
    {
        Target = source,
    };
}
