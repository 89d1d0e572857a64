using System.Globalization;
using System.Text.Json;
using System.Text.RegularExpressions;
using LoKr.Core.Errors;
using LoKr.Core.Factors;
using LoKr.Core.IO;

namespace LoKr.Core.Configuration;

/// <summary>Reads PEFT's configuration JSON.</summary>
internal static partial class LoKrConfigParser
{
    private static readonly JsonDocumentOptions s_options = new() { MaxDepth = 16, AllowDuplicateProperties = false };

    public static LoKrConfig Parse(string json, string source, out IReadOnlyList<string> warnings)
    {
        try
        {
            using JsonDocument document = JsonDocument.Parse(json, s_options);
            if (document.RootElement.ValueKind != JsonValueKind.Object)
            {
                throw Invalid(source, "it is not a JSON object");
            }

            return Parse(new ConfigFields(document.RootElement, source), source, out warnings);
        }
        catch (Exception exception) when (exception is JsonException or InvalidOperationException)
        {
            throw Invalid(source, exception.Message, exception);
        }
    }

    private static LoKrConfig Parse(ConfigFields fields, string source, out IReadOnlyList<string> warnings)
    {
        CheckType(fields, source);
        string? version = fields.Text("peft_version");
        ConfigFields? mapping = fields.Object("auto_mapping");
        ConfigFields? extension = fields.Object(LoKrConfigJson.ExtensionKey);
        LoKrConfig defaults = new();
        LoKrConfig config = new()
        {
            R = fields.Integer("r", defaults.R),
            Alpha = fields.Number("alpha", defaults.Alpha),
            RankDropout = fields.Number("rank_dropout", defaults.RankDropout),
            RankDropoutScale = fields.Boolean("rank_dropout_scale", defaults.RankDropoutScale),
            ModuleDropout = fields.Number("module_dropout", defaults.ModuleDropout),
            UseEffectiveConv2d = fields.Boolean("use_effective_conv2d", defaults.UseEffectiveConv2d),
            DecomposeBoth = fields.Boolean("decompose_both", defaults.DecomposeBoth),
            DecomposeFactor = fields.Integer("decompose_factor", defaults.DecomposeFactor),
            TargetModules = Selector(fields, "target_modules"),
            ExcludeModules = Selector(fields, "exclude_modules"),
            InitWeights = Init(fields),
            LayersToTransform = fields.Integers("layers_to_transform"),
            LayersPattern = fields.Texts("layers_pattern"),
            RankPattern = fields.IntegerMap("rank_pattern"),
            AlphaPattern = fields.NumberMap("alpha_pattern"),
            ModulesToSave = fields.Texts("modules_to_save"),
            TaskType = Task(fields),
            AutoMapping = mapping is null ? null : new AutoMapping(Required(mapping, source, "base_model_class"), Required(mapping, source, "parent_library")),
            BaseModelNameOrPath = fields.Text("base_model_name_or_path"),
            Revision = fields.Text("revision"),
            InferenceMode = fields.Boolean("inference_mode", defaults.InferenceMode),
        };
        config = extension is null ? config : Extend(config, extension);
        List<string> notes = [];
        AddUnknown(notes, fields, source);
        AddUnknown(notes, mapping, source);
        AddUnknown(notes, extension, source);
        AddScalingNote(notes, config, version, source);
        warnings = notes;
        return config;
    }

    private static LoKrConfig Extend(LoKrConfig config, ConfigFields extension) => config with
    {
        Conv1dLayout = extension.Choice("conv1d_layout", config.Conv1dLayout, LoKrConfigNames.Conv1d),
        Factorization = extension.Choice("factorization", config.Factorization, LoKrConfigNames.Factorization),
        FullMatrix = extension.Boolean("full_matrix", config.FullMatrix),
        RsLora = extension.Boolean("rs_lora", config.RsLora),
        Scaling = extension.Choice("scaling", config.Scaling, LoKrConfigNames.Scaling),
        ShapesFromFile = extension.Boolean("shapes_from_file", config.ShapesFromFile),
        TrainNorm = extension.Boolean("train_norm", config.TrainNorm),
        UnbalancedFactorization = extension.Boolean("unbalanced_factorization", config.UnbalancedFactorization),
        UseScalar = extension.Boolean("use_scalar", config.UseScalar),
        WeightDecompose = extension.Boolean("weight_decompose", config.WeightDecompose),
        WeightDecomposeAxis = extension.Choice("weight_decompose_axis", config.WeightDecomposeAxis, LoKrConfigNames.Axis),
    };

    private static void CheckType(ConfigFields fields, string source)
    {
        string? type = fields.Text("peft_type");
        if (type is null)
        {
            throw Invalid(source, "it has no 'peft_type'");
        }

        if (type != "LOKR")
        {
            throw new LoKrException(
                ErrorIds.AdapterTypeNotSupported,
                LoKrErrorKind.NotSupported,
                $"'{source}' describes an adapter of type {type}; only LOKR is supported.",
                "Name a folder with a LoKr adapter.")
            {
                Target = type,
            };
        }
    }

    private static ModuleSelector? Selector(ConfigFields fields, string key) => fields.Find(key) switch
    {
        null => null,
        { ValueKind: JsonValueKind.String } pattern => ModuleSelector.FromPattern(pattern.GetString()!),
        _ => ModuleSelector.FromNames(fields.Texts(key)!.Value),
    };

    private static InitWeights Init(ConfigFields fields) => fields.Find("init_weights") switch
    {
        null or { ValueKind: JsonValueKind.True } => InitWeights.Default,
        { ValueKind: JsonValueKind.False } => InitWeights.Random,
        { ValueKind: JsonValueKind.String } name when name.ValueEquals("lycoris") => InitWeights.Lycoris,
        { } value => throw fields.Wrong("init_weights", "true, false or \"lycoris\"", value),
    };

    private static TaskType? Task(ConfigFields fields) => fields.Find("task_type") switch
    {
        null => null,
        { ValueKind: JsonValueKind.String } name when TaskTypeNames.Parse(name.GetString()!) is { } type => type,
        { } value => throw fields.Wrong("task_type", $"null or one of {string.Join(", ", TaskTypeNames.All)}", value),
    };

    private static string Required(ConfigFields mapping, string source, string key) =>
        mapping.Text(key) ?? throw Invalid(source, $"'auto_mapping' has no '{key}'");

    private static void AddUnknown(List<string> notes, ConfigFields? fields, string source) =>
        notes.AddRange((fields?.Unread ?? []).Select(key => $"'{fields!.Name(key)}' in '{source}' is not understood and has no effect here."));

    // PEFT applied alpha / r to LoKr from 0.14 on; before, every adapter was trained with a scale of 1 whatever its alpha. The version was not written then.
    private static void AddScalingNote(List<string> notes, LoKrConfig config, string? version, string source)
    {
        bool scaled = config.Alpha != config.R || config.AlphaPattern.Length > 0 || config.RankPattern.Length > 0;
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

    private static LoKrException Invalid(string source, string why, Exception? inner = null) => new(
        ErrorIds.AdapterConfigInvalid,
        LoKrErrorKind.InvalidData,
        $"'{source}' is not a valid adapter configuration: {why}.",
        "Correct the file, or get it again.",
        inner)
    {
        Target = source,
    };

    [GeneratedRegex(@"^(\d+)\.(\d+)")]
    private static partial Regex MajorMinor();
}
