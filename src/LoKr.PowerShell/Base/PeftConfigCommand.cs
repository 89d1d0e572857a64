using System.Collections;
using System.ComponentModel;
using System.Management.Automation;
using LoKr.Core.Configuration;
using LoKr.PowerShell.Binding;

namespace LoKr.PowerShell.Base;

/// <summary>Base of the cmdlets that create a configuration: the fields of PEFT's <c>LoKrConfig</c>.</summary>
[EditorBrowsable(EditorBrowsableState.Never)]
public abstract class PeftConfigCommand : LoKrCommand
{
    /// <summary>An object whose properties are fields of a configuration: a row of a table, or a configuration that was stored as JSON or CLIXML. A parameter on the line overrides its field.</summary>
    [Parameter(ValueFromPipeline = true)]
    public PSObject? InputObject { get; set; }

    /// <summary>Rank of the low-rank factors. A factor whose smaller side does not exceed the rank stays a full matrix.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    [Alias("Rank")]
    public int R { get; set; } = 8;

    /// <summary>Scaling numerator: the delta weight is multiplied by Alpha / R.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    public double Alpha { get; set; } = 8;

    /// <summary>Names, or endings of names, of the modules to adapt (query, value), or the single word all-linear. Without it and without -TargetModulePattern the default of the architecture applies; an empty list, @(), trains -ModulesToSave, or a new head, alone.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    [Alias("TargetModule")]
    [ArgumentCompleter(typeof(TargetModuleCompleter))]
    [ModuleNamesTransformation]
    [AllowEmptyCollection]
    public string[]? TargetModules { get; set; }

    /// <summary>One regular expression that must match the whole name of a module to be adapted. PEFT treats a single string in target_modules this way; PowerShell cannot tell one name from an array of one, hence a separate parameter.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    public string? TargetModulePattern { get; set; }

    /// <summary>Names, or endings of names, of targeted modules that are not adapted.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    [Alias("ExcludeModule")]
    [ArgumentCompleter(typeof(TargetModuleCompleter))]
    [ModuleNamesTransformation]
    public string[]? ExcludeModules { get; set; }

    /// <summary>One regular expression that matches the whole names of targeted modules that are not adapted.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    public string? ExcludeModulePattern { get; set; }

    /// <summary>Modules that are trained and saved whole with the adapter. Add-LoKrAdapter adds those that the checkpoint lacked, such as a new classification head; an empty list, @(), leaves these as they are.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    [Alias("ModuleToSave")]
    [ArgumentCompleter(typeof(SavedModuleCompleter))]
    [AllowEmptyCollection]
    public string[]? ModulesToSave { get; set; }

    /// <summary>Initialization of fresh factors: Default (PEFT's true: the delta starts at zero through w1), Random (PEFT's false), Lycoris (the delta starts at zero through w2). $true and $false are accepted.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    [InitWeightsTransformation]
    public InitWeights InitWeights { get; set; } = InitWeights.Default;

    /// <summary>Preferred size of the first Kronecker factor; -1 for the most square split.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    public int DecomposeFactor { get; set; } = -1;

    /// <summary>Decomposes the first factor as well if the rank is small enough.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    public SwitchParameter DecomposeBoth { get; set; }

    /// <summary>Tucker decomposition of convolution kernels.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    public SwitchParameter UseEffectiveConv2d { get; set; }

    /// <summary>Probability of dropping a row of the delta weight in training.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    public double RankDropout { get; set; }

    /// <summary>Divides by the mean of the mask after rank dropout.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    public SwitchParameter RankDropoutScale { get; set; }

    /// <summary>Probability of skipping a layer's whole contribution in training.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    public double ModuleDropout { get; set; }

    /// <summary>Indices of the layers to adapt.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    [Alias("LayerToTransform")]
    public int[]? LayersToTransform { get; set; }

    /// <summary>Name of the list of layers if it is not one of the usual ones.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    [Alias("LayerPattern")]
    public string[]? LayersPattern { get; set; }

    /// <summary>Rank by pattern of module names. The first match wins, so use [ordered]@{ 'layer.0.attention' = 4; … } for several patterns.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    [ArgumentCompleter(typeof(ModulePatternCompleter))]
    [PatternTransformation]
    public IDictionary? RankPattern { get; set; }

    /// <summary>Alpha by pattern of module names. The first match wins, so use [ordered]@{ … } for several patterns.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    [ArgumentCompleter(typeof(ModulePatternCompleter))]
    [PatternTransformation]
    public IDictionary? AlphaPattern { get; set; }

    /// <summary>Task of the model. PEFT's spellings (SEQ_CLS, CAUSAL_LM …) are accepted. SequenceClassification trains and saves the head without naming it; a text classifier whose checkpoint lacked the head has this task by default.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    [TaskTypeTransformation]
    public TaskType? TaskType { get; set; }

    /// <summary>Name or path of the base model, to be recorded in the file.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    public string? BaseModelNameOrPath { get; set; }

    /// <summary>Revision of the base model, to be recorded in the file.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    public string? Revision { get; set; }

    /// <summary>Marks the adapter as not to be trained.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    public SwitchParameter InferenceMode { get; set; }

    /// <summary>A configuration with the values of these parameters.</summary>
    private protected LoKrConfig ReadPeftFields() => new()
    {
        R = R,
        Alpha = Alpha,
        RankDropout = RankDropout,
        RankDropoutScale = RankDropoutScale,
        ModuleDropout = ModuleDropout,
        UseEffectiveConv2d = UseEffectiveConv2d,
        DecomposeBoth = DecomposeBoth,
        DecomposeFactor = DecomposeFactor,
        TargetModules = SelectorReader.Read(TargetModules, nameof(TargetModules), TextOrNull(TargetModulePattern), nameof(TargetModulePattern)),
        ExcludeModules = SelectorReader.Read(ExcludeModules is [] ? null : ExcludeModules, nameof(ExcludeModules), TextOrNull(ExcludeModulePattern), nameof(ExcludeModulePattern)),
        InitWeights = InitWeights,
        LayersToTransform = LayersToTransform,
        LayersPattern = LayersPattern,
        RankPattern = ReadPattern<int>(RankPattern, nameof(RankPattern)),
        AlphaPattern = ReadPattern<double>(AlphaPattern, nameof(AlphaPattern)),
        ModulesToSave = ModulesToSave,
        TaskType = TaskType,
        BaseModelNameOrPath = TextOrNull(BaseModelNameOrPath),
        Revision = TextOrNull(Revision),
        InferenceMode = InferenceMode,
    };

    // PowerShell turns a null of a stored configuration into an empty text.
    private static string? TextOrNull(string? text) => string.IsNullOrEmpty(text) ? null : text;

    private IReadOnlyList<KeyValuePair<string, T>> ReadPattern<T>(IDictionary? pattern, string parameter)
    {
        IReadOnlyList<KeyValuePair<string, T>> entries = PatternReader.Read<T>(pattern, parameter, out string? warning);
        WriteWarnings(warning is null ? [] : [warning]);
        return entries;
    }
}
