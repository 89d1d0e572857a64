using System.Globalization;
using System.Text.Json;
using System.Text.RegularExpressions;
using LoKr.Core.Errors;
using LoKr.Core.IO;

namespace LoKr.Core.Configuration;

/// <summary>Reads PEFT's configuration JSON.</summary>
internal static partial class LoKrConfigParser
{
    private const string Advice = "Correct the file, or get it again.";
    /// <summary>Error ids of a configuration.</summary>
    public static readonly JsonErrors Errors = new(ErrorIds.AdapterConfigInvalid, ErrorIds.AdapterConfigInvalid, Advice, Advice);

    public static LoKrConfig Parse(string json, string source, out IReadOnlyList<string> warnings) =>
        Parse(JsonFields.Parse(json, source, Errors), out warnings);

    public static LoKrConfig Read(string path, out IReadOnlyList<string> warnings) => Parse(JsonFields.Read(path, Errors), out warnings);

    public static LoKrConfig Parse(JsonFields fields, out IReadOnlyList<string> warnings)
    {
        CheckType(fields);
        string? version = fields.FindString("peft_version");
        JsonFields? extension = fields.FindObject(LoKrConfigJson.ExtensionKey);
        LoKrConfig defaults = new();
        LoKrConfig config = Shared(fields, "alpha") with
        {
            RankDropout = fields.GetDouble("rank_dropout", defaults.RankDropout),
            RankDropoutScale = fields.GetBool("rank_dropout_scale", defaults.RankDropoutScale),
            ModuleDropout = fields.GetDouble("module_dropout", defaults.ModuleDropout),
            UseEffectiveConv2d = fields.GetBool("use_effective_conv2d", defaults.UseEffectiveConv2d),
            DecomposeBoth = fields.GetBool("decompose_both", defaults.DecomposeBoth),
            DecomposeFactor = fields.GetInt("decompose_factor", defaults.DecomposeFactor),
            InitWeights = Init(fields),
        };
        config = extension is null ? config : Extend(config, extension);
        List<string> notes = [];
        notes.AddRange([.. Unknown(fields), .. extension is null ? [] : Unknown(extension)]);
        AddScalingNote(notes, config, version, fields.Source);
        if (IgnoredSettings.HasLayerFilterWithPattern(config))
        {
            notes.Add($"'layers_to_transform' in '{fields.Source}' has no effect, in PEFT either, because 'target_modules' is a pattern.");
        }

        warnings = notes;
        return config;
    }

    /// <summary>The keys that LoKr shares with LoRA and LoHa: ranks and scales, targets, modules to save, task and base model.</summary>
    /// <param name="fields">The configuration.</param>
    /// <param name="alpha">Key of alpha.</param>
    public static LoKrConfig Shared(JsonFields fields, string alpha)
    {
        LoKrConfig defaults = new();
        JsonFields? mapping = fields.FindObject("auto_mapping");
        return new()
        {
            R = fields.GetInt("r", defaults.R),
            Alpha = fields.GetDouble(alpha, defaults.Alpha),
            TargetModules = Selector(fields, "target_modules"),
            ExcludeModules = Selector(fields, "exclude_modules"),
            LayersToTransform = Integers(fields, "layers_to_transform"),
            LayersPattern = Strings(fields, "layers_pattern"),
            LayersPatternIsString = fields.Find("layers_pattern") is { ValueKind: JsonValueKind.String },
            RankPattern = Map(fields, "rank_pattern", static (map, value, key) => map.AsInt(value, key)),
            AlphaPattern = Map(fields, "alpha_pattern", static (map, value, key) => map.AsDouble(value, key)),
            ModulesToSave = Strings(fields, "modules_to_save"),
            TaskType = Task(fields),
            AutoMapping = mapping is null ? null : new AutoMapping(mapping.GetString("base_model_class"), mapping.GetString("parent_library")),
            BaseModelNameOrPath = fields.FindString("base_model_name_or_path"),
            Revision = fields.FindString("revision"),
            InferenceMode = fields.GetBool("inference_mode", defaults.InferenceMode),
        };
    }

    /// <summary>Notes about keys that were not read.</summary>
    public static IEnumerable<string> Unknown(JsonFields fields)
    {
        JsonFields? mapping = fields.FindObject("auto_mapping");
        return fields.Unread.Concat(mapping?.Members.Where(static member => member.Key is not ("base_model_class" or "parent_library")).Select(member => mapping.FullName(member.Key)) ?? [])
            .Select(key => $"'{key}' in '{fields.Source}' is not understood and has no effect here.");
    }

    private static LoKrConfig Extend(LoKrConfig config, JsonFields extension) => config with
    {
        Conv1dLayout = extension.GetChoice("conv1d_layout", config.Conv1dLayout, LoKrConfigNames.Conv1d),
        Factorization = extension.GetChoice("factorization", config.Factorization, LoKrConfigNames.Factorization),
        FullMatrix = extension.GetBool("full_matrix", config.FullMatrix),
        RsLora = extension.GetBool("rs_lora", config.RsLora),
        Scaling = extension.GetChoice("scaling", config.Scaling, LoKrConfigNames.Scaling),
        ShapesFromFile = extension.GetBool("shapes_from_file", config.ShapesFromFile),
        TrainNorm = extension.GetBool("train_norm", config.TrainNorm),
        UnbalancedFactorization = extension.GetBool("unbalanced_factorization", config.UnbalancedFactorization),
        UseScalar = extension.GetBool("use_scalar", config.UseScalar),
        WeightDecompose = extension.GetBool("weight_decompose", config.WeightDecompose),
        WeightDecomposeAxis = extension.GetChoice("weight_decompose_axis", config.WeightDecomposeAxis, LoKrConfigNames.Axis),
    };

    private static void CheckType(JsonFields fields)
    {
        string type = fields.GetString("peft_type");
        if (type != "LOKR")
        {
            throw new LoKrException(
                ErrorIds.AdapterTypeNotSupported,
                LoKrErrorKind.NotSupported,
                $"'{fields.Source}' describes an adapter of type {type}; only LOKR is supported.",
                "Name a folder with a LoKr adapter.")
            {
                Target = type,
            };
        }
    }

    private static ModuleSelector? Selector(JsonFields fields, string key) => fields.Find(key) switch
    {
        null => null,
        { ValueKind: JsonValueKind.String } pattern => PatternSelector(fields, key, fields.AsString(pattern, key)),
        _ => ModuleSelector.FromNames([.. fields.GetStrings(key)]),
    };

    private static ModuleSelector PatternSelector(JsonFields fields, string key, string pattern)
    {
        ModuleSelector selector = ModuleSelector.FromPattern(pattern);
        return selector.IsAllLinear ? selector : ModuleSelector.FromPattern(CheckPattern(fields, key, pattern));
    }

    private static string CheckPattern(JsonFields fields, string key, string pattern)
    {
        PythonRegex.Check(pattern, $"'{fields.FullName(key)}' in '{fields.Source}'");
        return pattern;
    }

    private static InitWeights Init(JsonFields fields) => fields.Find("init_weights") switch
    {
        null or { ValueKind: JsonValueKind.True } => InitWeights.Default,
        { ValueKind: JsonValueKind.False } => InitWeights.Random,
        { ValueKind: JsonValueKind.String } name when name.ValueEquals("lycoris") => InitWeights.Lycoris,
        { } value => throw fields.Wrong("init_weights", "true, false or \"lycoris\"", value),
    };

    private static TaskType? Task(JsonFields fields) => fields.Find("task_type") switch
    {
        null => null,
        { ValueKind: JsonValueKind.String } name when TaskTypeNames.Parse(fields.AsString(name, "task_type")) is { } type => type,
        { } value => throw fields.Wrong("task_type", $"null or one of {string.Join(", ", TaskTypeNames.All)}", value),
    };

    // A single string stands for a list of one; an empty one for none.
    private static IReadOnlyList<string>? Strings(JsonFields fields, string key) => fields.Find(key) switch
    {
        null => null,
        { ValueKind: JsonValueKind.String } one => fields.AsString(one, key) is { Length: > 0 } text ? [text] : null,
        _ => [.. fields.GetStrings(key)],
    };

    private static IReadOnlyList<int>? Integers(JsonFields fields, string key) => fields.Has(key) ? [.. fields.GetInts(key)] : null;

    // In file order, because the first pattern that matches wins.
    private static IReadOnlyList<KeyValuePair<string, T>> Map<T>(JsonFields fields, string key, Func<JsonFields, JsonElement, string, T> convert) =>
        fields.FindObject(key) is JsonFields map ? [.. map.Members.Select(member => KeyValuePair.Create(CheckPattern(fields, key, member.Key), convert(map, member.Value, member.Key)))] : [];

    // PEFT applied alpha / r to LoKr from 0.14 on; before, every adapter was trained with a scale of 1 whatever its alpha. The version was not written then.
    private static void AddScalingNote(List<string> notes, LoKrConfig config, string? version, string source)
    {
        bool scaled = config.Alpha != config.R || config.AlphaPattern.Count > 0 || config.RankPattern.Count > 0;
        if (scaled && config.Scaling == ScalingConvention.Peft && IsBeforeScaling(version))
        {
            notes.Add(
                $"'{source}' was written by {(version is null ? "a release of PEFT that does not say its version" : $"PEFT {version}")}; before 0.14, "
                + "PEFT trained LoKr without alpha / r. If this adapter is that old, load it with the scaling convention None.");
        }
    }

    private static bool IsBeforeScaling(string? version)
    {
        if (version is null)
        {
            return true;
        }

        Match match = MajorMinor().Match(version);
        return match.Success
            && int.TryParse(match.Groups[1].ValueSpan, NumberStyles.None, CultureInfo.InvariantCulture, out int major)
            && int.TryParse(match.Groups[2].ValueSpan, NumberStyles.None, CultureInfo.InvariantCulture, out int minor)
            && major == 0 && minor < 14;
    }

    [GeneratedRegex(@"^(\d+)\.(\d+)")]
    private static partial Regex MajorMinor();
}
