using System.Globalization;
using System.Text.Json;
using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.IO;
using LoKr.Core.Layouts.Names;
using LoKr.Core.Model;
using LoKr.Core.Safetensors;

namespace LoKr.Core.Layouts;

/// <summary>Configurations that come with a file: adapter_config.json, diffusers' header entry, or this library's own.</summary>
internal sealed class AdapterFileConfigs
{
    /// <summary>
    /// Header entry of this library: the configuration of every component and the names that those of the file stand for, so that a
    /// conversion can be reverted exactly, and the labels and the fingerprint of the base model. Other programs ignore it.
    /// </summary>
    public const string OwnKey = "lokr_ps";

    private readonly Dictionary<AdapterComponent, LoKrConfig> _configs = [];
    private readonly Dictionary<AdapterComponent, LowRankConfig> _lowRank = [];
    private readonly Dictionary<AdapterComponent, ModelIdentity> _baseModels = [];
    private readonly Dictionary<string, string> _names = new(StringComparer.Ordinal);
    private readonly List<LoKrAdapterFinding> _findings = [];

    /// <summary>Configurations by component; the one of the whole file applies to every component without its own.</summary>
    public IReadOnlyDictionary<AdapterComponent, LoKrConfig> ByComponent => _configs;

    /// <summary>Configurations of LoRA or LoHa by component.</summary>
    public IReadOnlyDictionary<AdapterComponent, LowRankConfig> LowRank => _lowRank;

    /// <summary>Identities of the base models by component.</summary>
    public IReadOnlyDictionary<AdapterComponent, ModelIdentity> BaseModels => _baseModels;

    /// <summary>Names before a conversion by the names in the file.</summary>
    public IReadOnlyDictionary<string, string> OriginalNames => _names;

    /// <summary>Notes about the configurations.</summary>
    public IReadOnlyList<LoKrAdapterFinding> Findings => _findings;

    /// <summary>Whether the file has diffusers' header entry.</summary>
    public bool IsDiffusers { get; private set; }

    /// <summary>Whether that entry is of one model, so that names have no prefix.</summary>
    public bool IsDiffusersModel { get; private set; }

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
            configs.Add(AdapterComponent.Model, JsonFields.Read(configPath, LoKrConfigParser.Errors));
        }

        string source = $"{reader.FilePath} ({AdapterLayouts.DiffusersMetadata})";
        if (reader.Metadata.TryGetValue(AdapterLayouts.DiffusersMetadata, out string? diffusers))
        {
            configs.IsDiffusers = true;
            configs.AddDiffusers(JsonFields.Parse(diffusers, source, LoKrConfigParser.Errors));
        }

        if (reader.Metadata.TryGetValue(OwnKey, out string? own))
        {
            source = $"{reader.FilePath} ({OwnKey})";
            configs.AddOwn(JsonFields.Parse(own, source, LoKrConfigParser.Errors));
        }

        configs.FactorHint = configs._configs.Count > 0 ? configs._configs.Values.First().DecomposeFactor is int factor and (-1 or > 0) ? factor : null
            : reader.Metadata.TryGetValue("ss_network_args", out string? arguments) ? TrainerFactor(arguments)
            : null;
        return configs;
    }

    /// <summary>The header entry of this library for a file whose other entries do not hold configurations.</summary>
    public static string Write(
        AdapterLayout? layout, IReadOnlyDictionary<AdapterComponent, LoKrConfig> configs, IReadOnlyDictionary<string, string> names, IReadOnlyDictionary<AdapterComponent, ModelIdentity> baseModels)
    {
        JsonObject root = [];
        if (layout is not null)
        {
            root["layout"] = layout.ToString();
        }

        if (configs.Count > 0)
        {
            root["configs"] = new JsonObject(configs.Select(static pair => KeyValuePair.Create(pair.Key.ToString(), JsonNode.Parse(LoKrConfigJson.Write(pair.Value)))));
        }

        AddNames(root, names);
        AddBaseModels(root, baseModels);
        return root.ToJsonString();
    }

    /// <summary>The header entry of this library beside configurations that have another place; null where there is nothing to say.</summary>
    /// <param name="names">Names before a conversion by the names in the file.</param>
    /// <param name="baseModels">Identities of the base models by component.</param>
    public static string? WriteBeside(IReadOnlyDictionary<string, string> names, IReadOnlyDictionary<AdapterComponent, ModelIdentity> baseModels)
    {
        JsonObject root = [];
        AddNames(root, names);
        AddBaseModels(root, baseModels);
        return root.Count > 0 ? root.ToJsonString() : null;
    }

    /// <summary>Whether a name in a file can stand for a name before a conversion: an edited header must not rename anything.</summary>
    /// <param name="written">The name in the file, without a suffix.</param>
    /// <param name="name">The name before.</param>
    public static bool IsOriginal(string written, string name) =>
        written.EndsWith(name.Replace('.', '_'), StringComparison.Ordinal) || written.EndsWith("." + name, StringComparison.Ordinal);

    /// <summary>Identity of the base model of an adapter for one model, from the header entry of this library; null where there is none.</summary>
    /// <param name="metadata">Metadata of the header.</param>
    /// <param name="source">The file, for messages.</param>
    public static ModelIdentity? FindBaseModel(IReadOnlyDictionary<string, string> metadata, string source) =>
        metadata.TryGetValue(OwnKey, out string? own)
            ? ReadBaseModels(JsonFields.Parse(own, $"{source} ({OwnKey})", LoKrConfigParser.Errors)).Select(static pair => pair.Value).FirstOrDefault()
            : null;

    private static IEnumerable<KeyValuePair<AdapterComponent, ModelIdentity>> ReadBaseModels(JsonFields root)
    {
        JsonFields models = root.GetObjectOrEmpty("base_models");
        foreach ((string key, _) in models.Members)
        {
            if (Enum.TryParse(key, out AdapterComponent component))
            {
                JsonFields model = models.GetObject(key);
                yield return KeyValuePair.Create<AdapterComponent, ModelIdentity>(
                    component, new(model.FindString("fingerprint"), model.Has("labels") ? [.. model.GetStrings("labels")] : null)
                    {
                        Problem = ClassificationProblems.OfFileName(model.FindString(ClassificationProblems.Key)),
                    });
            }
        }
    }

    private static void AddNames(JsonObject root, IReadOnlyDictionary<string, string> names)
    {
        if (names.Count > 0)
        {
            root["modules"] = new JsonObject(names.OrderBy(static pair => pair.Key, StringComparer.Ordinal).Select(static pair => KeyValuePair.Create(pair.Key, (JsonNode?)pair.Value)));
        }
    }

    private static void AddBaseModels(JsonObject root, IReadOnlyDictionary<AdapterComponent, ModelIdentity> baseModels)
    {
        JsonObject models = [];
        foreach ((AdapterComponent component, ModelIdentity model) in baseModels.Where(static pair => !pair.Value.IsEmpty))
        {
            JsonObject entry = [];
            if (model.Fingerprint is string fingerprint)
            {
                entry["fingerprint"] = fingerprint;
            }

            if (model.Labels is { } labels)
            {
                entry["labels"] = new JsonArray([.. labels.Select(static label => (JsonNode?)label)]);
            }

            if (model.Problem is ClassificationProblem problem)
            {
                entry[ClassificationProblems.Key] = ClassificationProblems.ToFileName(problem);
            }

            models[component.ToString()] = entry;
        }

        if (models.Count > 0)
        {
            root["base_models"] = models;
        }
    }

    private void Add(AdapterComponent component, JsonFields fields)
    {
        if (LowRankConfig.Find(fields, out IReadOnlyList<string> warnings) is LowRankConfig lowRank)
        {
            _lowRank[component] = lowRank;
        }
        else
        {
            _configs[component] = LoKrConfigParser.Parse(fields, out warnings);
        }

        _findings.AddRange(warnings.Select(warning => new LoKrAdapterFinding(LoKrFindingSeverity.Warning, ErrorIds.AdapterConfigInvalid, warning, fields.Source)));
    }

    // diffusers puts a component's name before each key when it saves a whole pipeline.
    private void AddDiffusers(JsonFields root)
    {
        if (root.Contains("peft_type"))
        {
            IsDiffusersModel = true;
            Add(AdapterComponent.Model, root);
            return;
        }

        foreach ((string prefix, AdapterComponent component) in AdapterLayouts.Prefixes(AdapterLayout.Diffusers))
        {
            JsonObject part = new(root.Members.Where(member => member.Key.StartsWith(prefix, StringComparison.Ordinal))
                .Select(member => KeyValuePair.Create(member.Key[prefix.Length..], JsonNode.Parse(member.Value.GetRawText()))));
            if (part.Count > 0)
            {
                Add(component, JsonFields.Parse(part.ToJsonString(), root.Source, LoKrConfigParser.Errors));
            }
        }
    }

    private void AddOwn(JsonFields root)
    {
        if (Enum.TryParse(root.FindString("layout"), out AdapterLayout known) && Enum.IsDefined(known))
        {
            Layout = known;
        }

        JsonFields configs = root.GetObjectOrEmpty("configs");
        foreach ((string key, _) in configs.Members)
        {
            if (Enum.TryParse(key, out AdapterComponent component))
            {
                _configs[component] = LoKrConfigParser.Parse(configs.GetObject(key), out _);
            }
        }

        foreach ((AdapterComponent component, ModelIdentity model) in ReadBaseModels(root))
        {
            _baseModels[component] = model;
        }

        JsonFields modules = root.GetObjectOrEmpty("modules");
        foreach ((string key, _) in modules.Members)
        {
            string name = modules.GetString(key);
            if (IsOriginal(key, name))
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
        catch (Exception exception) when (exception is JsonException or InvalidOperationException)
        {
            // A trainer's note for people; the shapes determine the factor too.
            return null;
        }
    }
}
