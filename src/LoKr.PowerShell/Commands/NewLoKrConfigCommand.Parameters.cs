using System.Collections;
using System.Management.Automation;
using LoKr.Core.Configuration;
using LoKr.PowerShell.Binding;

namespace LoKr.PowerShell.Commands;

public sealed partial class NewLoKrConfigCommand
{
    /// <summary>Rank of the low-rank factors. A factor whose smaller side is not above the rank stays a full matrix.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    [Alias("Rank")]
    public int R { get; set; } = 8;

    /// <summary>Scaling numerator: the delta weight is multiplied by Alpha / R.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    public double Alpha { get; set; } = 8;

    /// <summary>Names, or endings of names, of the modules to adapt (query, value), or the one word all-linear. Without it and without -TargetModulePattern the default of the architecture is taken; an empty list, @(), trains -ModulesToSave alone.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    [Alias("TargetModule")]
    [ArgumentCompleter(typeof(TargetModuleCompleter))]
    [AllowEmptyCollection]
    public string[]? TargetModules { get; set; }

    /// <summary>One regular expression that the whole name of a module has to match to be adapted. PEFT takes a single string of target_modules this way; PowerShell cannot tell one name from an array of one, hence a parameter of its own.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public string? TargetModulePattern { get; set; }

    /// <summary>Names, or endings of names, of modules that are left alone although they are targeted.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    [Alias("ExcludeModule")]
    [ArgumentCompleter(typeof(TargetModuleCompleter))]
    [ValidateNotNullOrEmpty]
    public string[]? ExcludeModules { get; set; }

    /// <summary>One regular expression over whole names of modules that are left alone although they are targeted.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public string? ExcludeModulePattern { get; set; }

    /// <summary>Modules that are trained and saved whole beside the adapter, for example a new classifier.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    [Alias("ModuleToSave")]
    [ValidateNotNullOrEmpty]
    public string[]? ModulesToSave { get; set; }

    /// <summary>Initialization of fresh factors: Default (PEFT's true: the delta starts at zero through w1), Random (PEFT's false), Lycoris (the delta starts at zero through w2). $true and $false are accepted.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    [InitWeightsTransformation]
    public InitWeights InitWeights { get; set; } = InitWeights.Default;

    /// <summary>Preferred size of the first Kronecker factor; -1 for the most square split.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    public int DecomposeFactor { get; set; } = -1;

    /// <summary>Decompose the first factor as well where the rank is small enough.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    public SwitchParameter DecomposeBoth { get; set; }

    /// <summary>Tucker decomposition of convolution kernels.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    public SwitchParameter UseEffectiveConv2d { get; set; }

    /// <summary>Probability with which a row of the delta weight is dropped in training.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    public double RankDropout { get; set; }

    /// <summary>Divide by the mean of the mask after rank dropout.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    public SwitchParameter RankDropoutScale { get; set; }

    /// <summary>Probability with which a layer's whole contribution is skipped in training.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    public double ModuleDropout { get; set; }

    /// <summary>Indices of the layers to adapt.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    [Alias("LayerToTransform")]
    public int[]? LayersToTransform { get; set; }

    /// <summary>Name of the list of layers where it is not one of the usual ones.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    [Alias("LayerPattern")]
    public string[]? LayersPattern { get; set; }

    /// <summary>Rank by pattern of module names. The first match wins, so write [ordered]@{ 'layer.0.attention' = 4; … } when there are several.</summary>
    [Parameter]
    public IDictionary? RankPattern { get; set; }

    /// <summary>Alpha by pattern of module names. The first match wins, so write [ordered]@{ … } when there are several.</summary>
    [Parameter]
    public IDictionary? AlphaPattern { get; set; }

    /// <summary>Task of the model. PEFT's spellings (SEQ_CLS, CAUSAL_LM …) are accepted. SequenceClassification trains and saves the head without naming it.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    [TaskTypeTransformation]
    public TaskType? TaskType { get; set; }

    /// <summary>Name or path of the base model, for the file.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    public string? BaseModelNameOrPath { get; set; }

    /// <summary>Revision of the base model, for the file.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    public string? Revision { get; set; }

    /// <summary>The adapter is not trained.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    public SwitchParameter InferenceMode { get; set; }
}
