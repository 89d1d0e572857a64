using LoKr.Core.Errors;
using LoKr.Core.IO;

namespace LoKr.Core.Configuration;

/// <summary>
/// Reads and writes the <c>adapter_config.json</c> of PEFT. Options that PEFT does not have are in one object under the key
/// <c>lokr_ps</c>, and only where they differ from the default: PEFT reports a key it does not know and loads the file all the same.
/// </summary>
public static class LoKrConfigJson
{
    /// <summary>The release of PEFT whose format is written.</summary>
    public const string PeftVersion = "0.21.2";

    /// <summary>Key of the options that PEFT does not have.</summary>
    internal const string ExtensionKey = "lokr_ps";

    /// <summary>Reads a file.</summary>
    /// <param name="path">The file.</param>
    /// <param name="warnings">Problems that a person should know: keys that are not understood, an older PEFT with another scaling.</param>
    /// <exception cref="LoKrException">
    /// <c>LoKr.PathNotFound</c>, <c>LoKr.FileNotReadable</c>, <c>LoKr.AdapterConfigInvalid</c>, <c>LoKr.AdapterTypeNotSupported</c>.
    /// </exception>
    public static LoKrConfig Read(string path, out IReadOnlyList<string> warnings)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        string full = Path.GetFullPath(path);
        return LoKrConfigParser.Read(full, out warnings);
    }

    /// <summary>Reads a configuration from text, for example from the header of an adapter that diffusers saved.</summary>
    /// <param name="json">The text.</param>
    /// <param name="source">Where it comes from, for messages.</param>
    /// <param name="warnings">Problems that a person should know.</param>
    /// <exception cref="LoKrException"><c>LoKr.AdapterConfigInvalid</c>, <c>LoKr.AdapterTypeNotSupported</c>.</exception>
    public static LoKrConfig Parse(string json, string source, out IReadOnlyList<string> warnings)
    {
        ArgumentNullException.ThrowIfNull(json);
        ArgumentNullException.ThrowIfNull(source);
        return LoKrConfigParser.Parse(json, source, out warnings);
    }

    /// <summary>The text that PEFT writes for this configuration, byte for byte; of a path to the base model only the name stays.</summary>
    public static string Write(LoKrConfig config)
    {
        ArgumentNullException.ThrowIfNull(config);
        // Keys in ordinal order. The patterns keep their own order, because the first match wins.
        JsonMembers members = new()
        {
            { "alpha", PythonJson.IntegerOrFloat(config.Alpha) },
            { "alpha_pattern", Map(config.AlphaPattern, PythonJson.IntegerOrFloat) },
            { "auto_mapping", Mapping(config.AutoMapping) },
            { "base_model_name_or_path", MachinePaths.NameOf(config.BaseModelNameOrPath) },
            { "decompose_both", config.DecomposeBoth },
            { "decompose_factor", config.DecomposeFactor },
            { "exclude_modules", Selector(config.ExcludeModules) },
            { "inference_mode", config.InferenceMode },
            { "init_weights", Init(config.InitWeights) },
            { "layers_pattern", LayersPattern(config) },
            { "layers_to_transform", config.LayersToTransform?.Cast<object?>() },
        };
        JsonMembers extension = Extension(config);
        if (extension.Count > 0)
        {
            members.Add(ExtensionKey, extension);
        }

        members.Add("module_dropout", config.ModuleDropout);
        members.Add("modules_to_save", config.ModulesToSave?.Cast<object?>());
        members.Add("peft_type", "LOKR");
        members.Add("peft_version", PeftVersion);
        members.Add("r", config.R);
        members.Add("rank_dropout", config.RankDropout);
        members.Add("rank_dropout_scale", config.RankDropoutScale);
        members.Add("rank_pattern", Map(config.RankPattern, rank => (long)rank));
        members.Add("revision", config.Revision);
        members.Add("target_modules", Selector(config.TargetModules));
        members.Add("task_type", config.TaskType is { } task ? TaskTypeNames.Name(task) : null);
        members.Add("use_effective_conv2d", config.UseEffectiveConv2d);
        return PythonJson.Write(members);
    }

    // PEFT saves what it was given: a string or a list.
    private static object? LayersPattern(LoKrConfig config) => config.LayersPattern switch
    {
        null => null,
        [string one] when config.LayersPatternIsString => one,
        { } patterns => patterns.Cast<object?>(),
    };

    private static JsonMembers Extension(LoKrConfig config)
    {
        LoKrConfig defaults = new();
        JsonMembers members = [];
        AddUnless(config.Conv1dLayout == defaults.Conv1dLayout, "conv1d_layout", LoKrConfigNames.Of(config.Conv1dLayout));
        AddUnless(config.Factorization == defaults.Factorization, "factorization", LoKrConfigNames.Of(config.Factorization));
        AddUnless(config.FullMatrix == defaults.FullMatrix, "full_matrix", config.FullMatrix);
        AddUnless(config.RsLora == defaults.RsLora, "rs_lora", config.RsLora);
        AddUnless(config.Scaling == defaults.Scaling, "scaling", LoKrConfigNames.Of(config.Scaling));
        AddUnless(config.ShapesFromFile == defaults.ShapesFromFile, "shapes_from_file", config.ShapesFromFile);
        AddUnless(config.TrainNorm == defaults.TrainNorm, "train_norm", config.TrainNorm);
        AddUnless(config.UnbalancedFactorization == defaults.UnbalancedFactorization, "unbalanced_factorization", config.UnbalancedFactorization);
        AddUnless(config.UseScalar == defaults.UseScalar, "use_scalar", config.UseScalar);
        AddUnless(config.WeightDecompose == defaults.WeightDecompose, "weight_decompose", config.WeightDecompose);
        AddUnless(config.WeightDecomposeAxis == defaults.WeightDecomposeAxis, "weight_decompose_axis", LoKrConfigNames.Of(config.WeightDecomposeAxis));
        return members;

        void AddUnless(bool isDefault, string key, object value)
        {
            if (!isDefault)
            {
                members.Add(key, value);
            }
        }
    }

    internal static object? Selector(ModuleSelector? selector) => selector is null
        ? null
        : (object?)selector.Pattern ?? selector.Names!.Cast<object?>();

    private static object Init(InitWeights init) => init switch
    {
        InitWeights.Default => true,
        InitWeights.Random => false,
        InitWeights.Lycoris => "lycoris",
        _ => throw new ArgumentOutOfRangeException(nameof(init), init, null),
    };

    internal static JsonMembers? Mapping(AutoMapping? mapping) => mapping is null
        ? null
        : new JsonMembers { { "base_model_class", mapping.BaseModelClass }, { "parent_library", mapping.ParentLibrary } };

    internal static JsonMembers Map<T>(IEnumerable<KeyValuePair<string, T>> pairs, Func<T, object> convert)
    {
        JsonMembers members = [];
        foreach ((string key, T value) in pairs)
        {
            members.Add(key, convert(value));
        }

        return members;
    }
}

/// <summary>Names in files of the conventions that PEFT has no key for.</summary>
internal static class LoKrConfigNames
{
    public static readonly (string Name, FactorizationConvention Value)[] Factorization =
        [("peft", FactorizationConvention.Peft), ("lycoris", FactorizationConvention.Lycoris)];

    public static readonly (string Name, ScalingConvention Value)[] Scaling =
        [("peft", ScalingConvention.Peft), ("lycoris", ScalingConvention.Lycoris), ("none", ScalingConvention.None)];

    public static readonly (string Name, WeightDecomposeAxis Value)[] Axis =
        [("output", WeightDecomposeAxis.Output), ("input", WeightDecomposeAxis.Input)];

    public static readonly (string Name, Conv1dLayout Value)[] Conv1d =
        [("peft", Conv1dLayout.Peft), ("kronecker", Conv1dLayout.Kronecker)];

    public static string Of(Conv1dLayout value) => Conv1d.First(entry => entry.Value == value).Name;

    public static string Of(FactorizationConvention value) => Factorization.First(entry => entry.Value == value).Name;

    public static string Of(ScalingConvention value) => Scaling.First(entry => entry.Value == value).Name;

    public static string Of(WeightDecomposeAxis value) => Axis.First(entry => entry.Value == value).Name;
}

/// <summary>PEFT's names of the task types.</summary>
internal static class TaskTypeNames
{
    private static readonly (TaskType Type, string Name)[] s_names =
    [
        (TaskType.SequenceClassification, "SEQ_CLS"),
        (TaskType.Seq2SeqLanguageModeling, "SEQ_2_SEQ_LM"),
        (TaskType.CausalLanguageModeling, "CAUSAL_LM"),
        (TaskType.TokenClassification, "TOKEN_CLS"),
        (TaskType.QuestionAnswering, "QUESTION_ANS"),
        (TaskType.FeatureExtraction, "FEATURE_EXTRACTION"),
    ];

    /// <summary>All names.</summary>
    public static IEnumerable<string> All => s_names.Select(entry => entry.Name);

    /// <summary>The name of a type.</summary>
    public static string Name(TaskType type) => s_names.First(entry => entry.Type == type).Name;

    /// <summary>The type of a name, or null.</summary>
    public static TaskType? Parse(string name)
    {
        foreach ((TaskType type, string known) in s_names)
        {
            if (known == name)
            {
                return type;
            }
        }

        return null;
    }
}
