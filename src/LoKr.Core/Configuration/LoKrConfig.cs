using System.Text.Json.Serialization;
using LoKr.Core.IO;

namespace LoKr.Core.Configuration;

/// <summary>
/// Configuration of one LoKr adapter: the fields of PEFT's <c>LoKrConfig</c> under their .NET names, plus LyCORIS's options.
/// Immutable; <c>LoKrConfigJson</c> reads and writes PEFT's <c>adapter_config.json</c>.
/// </summary>
public sealed record LoKrConfig
{
    /// <summary>Rank of the low-rank factors (PEFT <c>r</c>).</summary>
    public int R { get; init; } = 8;

    /// <summary>Scaling numerator (PEFT <c>alpha</c>); the delta is multiplied by alpha / r.</summary>
    public double Alpha { get; init; } = 8;

    /// <summary>Probability with which a row of the delta is dropped in training (PEFT <c>rank_dropout</c>).</summary>
    public double RankDropout { get; init; }

    /// <summary>Whether rank dropout is divided by the mean of its mask (PEFT <c>rank_dropout_scale</c>).</summary>
    public bool RankDropoutScale { get; init; }

    /// <summary>Probability with which a layer's whole contribution is skipped in training (PEFT <c>module_dropout</c>).</summary>
    public double ModuleDropout { get; init; }

    /// <summary>Tucker decomposition of convolution kernels (PEFT <c>use_effective_conv2d</c>, LyCORIS <c>use_tucker</c>).</summary>
    public bool UseEffectiveConv2d { get; init; }

    /// <summary>Decompose w1 as well when the rank is small enough (PEFT <c>decompose_both</c>).</summary>
    public bool DecomposeBoth { get; init; }

    /// <summary>Preferred size of the first Kronecker factor, -1 for the most square split (PEFT <c>decompose_factor</c>).</summary>
    public int DecomposeFactor { get; init; } = -1;

    /// <summary>
    /// Modules to adapt; null takes the default of the architecture (PEFT <c>target_modules</c>). An empty list trains
    /// <see cref="ModulesToSave"/> alone, which PEFT cannot.
    /// </summary>
    public ModuleSelector? TargetModules { get; init; }

    /// <summary>The regular expression of <see cref="TargetModules"/>, apart from names, so that a configuration can be read back from its properties; null where it has names.</summary>
    [JsonIgnore]
    public string? TargetModulePattern => TargetModules?.Pattern;

    /// <summary>Modules left alone although targeted (PEFT <c>exclude_modules</c>).</summary>
    public ModuleSelector? ExcludeModules { get; init; }

    /// <summary>The regular expression of <see cref="ExcludeModules"/>; null where it has names.</summary>
    [JsonIgnore]
    public string? ExcludeModulePattern => ExcludeModules?.Pattern;

    /// <summary>Initialization of fresh factors (PEFT <c>init_weights</c>).</summary>
    public InitWeights InitWeights { get; init; } = InitWeights.Default;

    /// <summary>Indices of the layers to adapt; empty or null for all (PEFT <c>layers_to_transform</c>).</summary>
    public IReadOnlyList<int>? LayersToTransform { get; init => field = value is null ? null : ValueList.Of(value); }

    /// <summary>Name of the layer list when it is not the usual one (PEFT <c>layers_pattern</c>).</summary>
    public IReadOnlyList<string>? LayersPattern { get; init => field = value is null ? null : ValueList.Of(value); }

    /// <summary>Whether a file gave a single <see cref="LayersPattern"/> as a string instead of a list; the meaning is the same.</summary>
    internal bool LayersPatternIsString { get; init; }

    /// <summary>Rank by module pattern, in order; the first match wins (PEFT <c>rank_pattern</c>).</summary>
    public IReadOnlyList<KeyValuePair<string, int>> RankPattern { get; init => field = ValueList.Of(value ?? []); } = ValueList.Of<KeyValuePair<string, int>>([]);

    /// <summary>Alpha by module pattern, in order; the first match wins (PEFT <c>alpha_pattern</c>).</summary>
    public IReadOnlyList<KeyValuePair<string, double>> AlphaPattern { get; init => field = ValueList.Of(value ?? []); } = ValueList.Of<KeyValuePair<string, double>>([]);

    /// <summary>
    /// Modules trained and saved whole beside the adapter (PEFT <c>modules_to_save</c>). A new adapter adds those that the checkpoint of the
    /// model lacked; an empty list, unlike null, leaves them as they are.
    /// </summary>
    public IReadOnlyList<string>? ModulesToSave { get; init => field = value is null ? null : ValueList.Of(value); }

    /// <summary>Task of the model (PEFT <c>task_type</c>).</summary>
    public TaskType? TaskType { get; init; }

    /// <summary>Python class of a base model without task type; preserved when a file is rewritten (PEFT <c>auto_mapping</c>).</summary>
    public AutoMapping? AutoMapping { get; init; }

    /// <summary>Name or path of the base model (PEFT <c>base_model_name_or_path</c>). Files get the name: of a path, its last part.</summary>
    public string? BaseModelNameOrPath { get; init; }

    /// <summary>Revision of the base model (PEFT <c>revision</c>).</summary>
    public string? Revision { get; init; }

    /// <summary>Whether the adapter is meant for inference only (PEFT <c>inference_mode</c>).</summary>
    public bool InferenceMode { get; init; }

    /// <summary>DoRA: learn the magnitude of each row or column separately (LyCORIS <c>weight_decompose</c>).</summary>
    public bool WeightDecompose { get; init; }

    /// <summary>Axis of the DoRA norms (LyCORIS <c>wd_on_out</c>).</summary>
    public WeightDecomposeAxis WeightDecomposeAxis { get; init; } = WeightDecomposeAxis.Output;

    /// <summary>Use full matrices for both factors whatever the rank (LyCORIS <c>full_matrix</c>).</summary>
    public bool FullMatrix { get; init; }

    /// <summary>Scale by alpha / √r (LyCORIS <c>rs_lora</c>).</summary>
    public bool RsLora { get; init; }

    /// <summary>Swap the two factors of the output dimension (LyCORIS <c>unbalanced_factorization</c>).</summary>
    public bool UnbalancedFactorization { get; init; }

    /// <summary>Train one scalar per layer that starts at zero (LyCORIS <c>use_scalar</c>).</summary>
    public bool UseScalar { get; init; }

    /// <summary>Train normalization layers too (LyCORIS <c>train_norm</c>).</summary>
    public bool TrainNorm { get; init; }

    /// <summary>Scaling convention.</summary>
    public ScalingConvention Scaling { get; init; } = ScalingConvention.Peft;

    /// <summary>Factorization convention.</summary>
    public FactorizationConvention Factorization { get; init; } = FactorizationConvention.Peft;

    /// <summary>Meaning of the factors of a one-dimensional convolution with a full w2; programs disagree.</summary>
    public Conv1dLayout Conv1dLayout { get; init; } = Conv1dLayout.Peft;

    /// <summary>
    /// Whether the shapes of the factors, and which layers have magnitudes, are those of the file: set where no
    /// <see cref="DecomposeFactor"/> produces them all. PEFT cannot load such an adapter.
    /// </summary>
    public bool ShapesFromFile { get; init; }

    /// <inheritdoc/>
    public override string ToString() => FormattableString.Invariant($"r {R}, alpha {Alpha}") + (TargetModules is null ? "" : $" on {TargetModules}");
}

/// <summary>Meanings of w1 and a full w2 of a one-dimensional convolution; every other shape of factors means w1 ⊗ w2 everywhere.</summary>
public enum Conv1dLayout
{
    /// <summary>w2 ⊗ w1, the result of PEFT's reshape of its product.</summary>
    Peft,

    /// <summary>w1 ⊗ w2, as for every other layer (LyCORIS).</summary>
    Kronecker,
}

/// <summary>How a dimension is split into two factors; programs disagree when the factor exceeds its square root.</summary>
public enum FactorizationConvention
{
    /// <summary>A factor that divides the dimension comes first, even when it is the larger one (PEFT, ai-toolkit, OneTrainer).</summary>
    Peft,

    /// <summary>The smaller factor always comes first (LyCORIS).</summary>
    Lycoris,
}

/// <summary>The factor that multiplies w1 ⊗ w2; programs disagree, so it is explicit.</summary>
public enum ScalingConvention
{
    /// <summary>alpha / r, always (PEFT since 0.14).</summary>
    Peft,

    /// <summary>alpha / r, but 1 when both factors are full matrices (LyCORIS, ComfyUI, ai-toolkit, OneTrainer).</summary>
    Lycoris,

    /// <summary>1, always (adapters trained with PEFT before 0.14, whatever their config says).</summary>
    None,
}

/// <summary>The axis along which DoRA takes its norms (LyCORIS <c>wd_on_out</c>).</summary>
public enum WeightDecomposeAxis
{
    /// <summary>One norm per output row.</summary>
    Output,

    /// <summary>One norm per input column.</summary>
    Input,
}

/// <summary>How fresh LoKr factors are initialized (PEFT <c>init_weights</c>).</summary>
public enum InitWeights
{
    /// <summary>w1 zero, w2 Kaiming uniform; the delta is zero (PEFT <c>true</c>).</summary>
    Default,

    /// <summary>Everything Kaiming uniform; the delta is not zero (PEFT <c>false</c>).</summary>
    Random,

    /// <summary>w1 Kaiming uniform, w2 zero, as LyCORIS does; the delta is zero (PEFT <c>"lycoris"</c>).</summary>
    Lycoris,
}

/// <summary>PEFT's task types, named as in <c>adapter_config.json</c>.</summary>
public enum TaskType
{
    /// <summary>Sequence classification (<c>SEQ_CLS</c>): the head called classifier or score is trained and saved too.</summary>
    SequenceClassification,

    /// <summary>Sequence to sequence (<c>SEQ_2_SEQ_LM</c>).</summary>
    Seq2SeqLanguageModeling,

    /// <summary>Causal language modeling (<c>CAUSAL_LM</c>).</summary>
    CausalLanguageModeling,

    /// <summary>Token classification (<c>TOKEN_CLS</c>): the head called classifier or score is trained and saved too.</summary>
    TokenClassification,

    /// <summary>Question answering (<c>QUESTION_ANS</c>): the head called qa_outputs is trained and saved too.</summary>
    QuestionAnswering,

    /// <summary>Feature extraction (<c>FEATURE_EXTRACTION</c>).</summary>
    FeatureExtraction,
}

/// <summary>The Python class of a base model without task type, preserved for PEFT's <c>AutoPeftModel</c> (<c>auto_mapping</c>).</summary>
/// <param name="BaseModelClass">Name of the class, for example <c>BertModel</c>.</param>
/// <param name="ParentLibrary">Module that defines it.</param>
public sealed record AutoMapping(string BaseModelClass, string ParentLibrary);
