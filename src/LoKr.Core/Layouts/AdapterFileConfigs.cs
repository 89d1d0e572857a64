using System.Text.Json;
using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Factors;
using LoKr.Core.Safetensors;
using LoKr.Core.Targeting;

namespace LoKr.Core.Layouts;

/// <summary>Configurations that come with a file: adapter_config.json, diffusers' header entry, or this library's own.</summary>
internal sealed class AdapterFileConfigs
{
    /// <summary>
    /// Header entry of this library: the configuration of every component and the dotted names behind underscores, so that a
    /// conversion can be taken back exactly. Other programs pass it by.
    /// </summary>
    public const string OwnKey = "lokr_ps";

    private static readonly (string Prefix, AdapterComponent Component)[] s_prefixes =
        [.. AdapterLayouts.Prefixes(AdapterLayout.Diffusers)];

    private readonly Dictionary<AdapterComponent, LoKrConfig> _configs = [];
    private readonly Dictionary<string, string> _names = new(StringComparer.Ordinal);
    private readonly List<LoKrAdapterFinding> _findings = [];

    /// <summary>Configurations by component; the one of the whole file counts for every component without its own.</summary>
    public IReadOnlyDictionary<AdapterComponent, LoKrConfig> ByComponent => _configs;

    /// <summary>Dotted names by the names in the file.</summary>
    public IReadOnlyDictionary<string, string> OriginalNames => _names;

    /// <summary>What the configurations gave rise to.</summary>
    public IReadOnlyList<LoKrAdapterFinding> Findings => _findings;

    /// <summary>Whether diffusers' header entry is there.</summary>
    public bool IsDiffusers { get; private set; }

    /// <summary>The layout that this library wrote into the header, or null.</summary>
    public AdapterLayout? Layout { get; private set; }

    /// <summary>Reads whatever is there.</summary>
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

    /// <summary>diffusers puts a component's name before each key when it saves a whole pipeline.</summary>
    private void AddDiffusers(JsonObject root, string source)
    {
        if (root.ContainsKey("peft_type"))
        {
            Add(AdapterComponent.Model, LoKrConfigJson.Parse(root.ToJsonString(), source, out IReadOnlyList<string> warnings), warnings, source);
            return;
        }

        foreach ((string prefix, AdapterComponent component) in s_prefixes)
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
            // Only what the underscores can stand for; a header that was edited must not rename anything.
            if (Text(value) is string name && key.EndsWith(name.Replace('.', '_'), StringComparison.Ordinal))
            {
                _names[key] = name;
            }
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

/// <summary>The configuration under which PEFT gives modules their shapes and scales: the adapter's own where it does, or one that is inferred.</summary>
/// <param name="Config">The configuration.</param>
/// <param name="Modules">The modules, with scales multiplied into w1 that the configuration does not give.</param>
/// <param name="IsPeft">Whether PEFT itself can load the result.</param>
internal sealed record PeftConfigChoice(LoKrConfig Config, IReadOnlyList<AdapterModule> Modules, bool IsPeft)
{
    /// <summary>Chooses.</summary>
    /// <param name="modules">Modules of one component with dotted names, without alpha.</param>
    /// <param name="content">What they are part of.</param>
    /// <param name="own">The adapter's own configuration, or null.</param>
    public static PeftConfigChoice Of(IReadOnlyList<AdapterModule> modules, AdapterContent content, LoKrConfig? own)
    {
        LoKrConfig? plain = own is null ? null : Plain(own, modules);
        if (plain is not null && Fit(plain, modules) is AdapterModule[] fitted)
        {
            return new(plain, fitted, true);
        }

        LoKrConfig built = AdapterConfigBuilder.Build(modules, content, ScalingConvention.Peft);
        if (own is not null)
        {
            built = built with
            {
                RankDropout = own.RankDropout,
                RankDropoutScale = own.RankDropoutScale,
                ModuleDropout = own.ModuleDropout,
                ModulesToSave = own.ModulesToSave,
                TaskType = own.TaskType,
                AutoMapping = own.AutoMapping,
                BaseModelNameOrPath = own.BaseModelNameOrPath,
                Revision = own.Revision,
                InitWeights = own.InitWeights,
            };
        }

        if (!built.ShapesFromFile && Plain(built, modules) is LoKrConfig plainBuilt)
        {
            return new(plainBuilt, modules, true);
        }

        // What PEFT does not know is kept for readers that do; the adapter's own words are better than inferred ones.
        LoKrConfig? extended = own is null ? null : own with { Scaling = ScalingConvention.Peft, RsLora = false };
        return extended is not null && modules.All(module => AdapterConfigBuilder.Gives(extended, module)) && Fit(extended, modules) is AdapterModule[] kept
            ? new(extended, kept, false)
            : new(built, modules, false);
    }

    /// <summary>The configuration in PEFT's terms alone; null where these do not say the same.</summary>
    private static LoKrConfig? Plain(LoKrConfig config, IReadOnlyList<AdapterModule> modules)
    {
        LoKrConfig plain = config with
        {
            Scaling = ScalingConvention.Peft,
            RsLora = false,
            FullMatrix = false,
            UnbalancedFactorization = false,
            Factorization = FactorizationConvention.Peft,
            ShapesFromFile = false,
            Conv1dLayout = Conv1dLayout.Peft,
            TrainNorm = false,
        };
        return !plain.WeightDecompose && !plain.UseScalar && modules.All(module =>
            AdapterConfigBuilder.Gives(plain, module) && (module.IsReversed || module.Geometry.InnerRank is not null || module.Geometry.Kernel!.Count != 1))
            ? plain
            : null;
    }

    /// <summary>The modules with the scale that alpha / r gives; null where that would round a factor.</summary>
    private static AdapterModule[]? Fit(LoKrConfig config, IReadOnlyList<AdapterModule> modules)
    {
        AdapterModule[] fitted = new AdapterModule[modules.Count];
        for (int i = 0; i < fitted.Length; i++)
        {
            AdapterModule module = modules[i];
            int rank = ModulePatterns.Find(config.RankPattern, module.Name, config.R);
            double given = ModulePatterns.Find(config.AlphaPattern, module.Name, config.Alpha) / rank;
            double ratio = module.Scale.Factor / given;

            // An alpha in single precision is as close as it can be.
            if (Math.Abs(ratio - 1) < 1e-6)
            {
                fitted[i] = module;
            }
            else if (module.Geometry.Rank is null && IsPowerOfTwo(ratio))
            {
                fitted[i] = AdapterTensors.Scaled(module, ratio) with { Scale = module.Scale with { Factor = given } };
            }
            else
            {
                return null;
            }
        }

        return fitted;
    }

    private static bool IsPowerOfTwo(double value) => double.IsNormal(value) && (BitConverter.DoubleToInt64Bits(value) & 0x000F_FFFF_FFFF_FFFF) == 0;
}
