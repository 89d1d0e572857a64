using System.Management.Automation;
using LoKr.Core.Model;
using LoKr.Core.Training;
using LoKr.Models.Diffusion;
using LoKr.PowerShell.Binding;

namespace LoKr.PowerShell.Commands;

public sealed partial class StartLoKrTrainingCommand
{
    /// <summary>The model with an adapter.</summary>
    [Parameter(Mandatory = true, ValueFromPipeline = true, ParameterSetName = DataSet)]
    [Parameter(Mandatory = true, ParameterSetName = RowSet)]
    [Parameter(Mandatory = true, ValueFromPipeline = true, ParameterSetName = LossSet)]
    [LoKrModelTransformation]
    [ValidateNotNull]
    public LoKrModel Model { get; set; } = null!;

    /// <summary>A Stable Diffusion pipeline with adapters on its UNet, its text encoder or both.</summary>
    [Parameter(Mandatory = true, ValueFromPipeline = true, ParameterSetName = PictureSet)]
    [ValidateNotNull]
    public StableDiffusionPipeline Pipeline { get; set; } = null!;

    /// <summary>Data files (.jsonl, .json, .csv, .tsv; wildcards are allowed), or rows as hashtables or objects, with text and label for a classifier, text or prompt and completion for a language model. For a pipeline a folder of pictures with captions.</summary>
    [Parameter(Mandatory = true, Position = 0, ParameterSetName = DataSet)]
    [Parameter(Mandatory = true, Position = 0, ParameterSetName = PictureSet)]
    [SupportsWildcards]
    [AllowEmptyCollection]
    [ValidateNotNull]
    public object[] Data { get; set; } = [];

    /// <summary>Rows from the pipeline, as hashtables or objects.</summary>
    [Parameter(Mandatory = true, ValueFromPipeline = true, ParameterSetName = RowSet)]
    [ValidateNotNull]
    public PSObject? InputObject { get; set; }

    /// <summary>Data to evaluate on, given like -Data.</summary>
    [Parameter(ParameterSetName = DataSet)]
    [Parameter(ParameterSetName = RowSet)]
    [Parameter(ParameterSetName = PictureSet)]
    [AllowEmptyCollection]
    public object[]? ValidationData { get; set; }

    /// <summary>Batches for -Loss, one object each; they are trained on in their order.</summary>
    [Parameter(Mandatory = true, ParameterSetName = LossSet)]
    [AllowEmptyCollection]
    [ValidateNotNull]
    public object[] Batch { get; set; } = [];

    /// <summary>Script block that gets the model and a batch and writes the mean loss, a tensor of one number: { param($model, $batch) … }.</summary>
    [Parameter(Mandatory = true, ParameterSetName = LossSet)]
    [ValidateNotNull]
    public ScriptBlock Loss { get; set; } = null!;

    /// <summary>Passes over the data.</summary>
    [Parameter]
    public int Epochs { get; set; } = s_defaults.Epochs;

    /// <summary>Number of optimizer steps whatever the epochs; the schedule ends there.</summary>
    [Parameter]
    public int? MaxSteps { get; set; }

    /// <summary>Rows in a batch; without it 16, and for pictures 1.</summary>
    [Parameter(ParameterSetName = DataSet)]
    [Parameter(ParameterSetName = RowSet)]
    [Parameter(ParameterSetName = PictureSet)]
    public int BatchSize { get; set; } = s_defaults.BatchSize;

    /// <summary>Highest learning rate of AdamW.</summary>
    [Parameter]
    public double LearningRate { get; set; } = s_defaults.LearningRate;

    /// <summary>Decoupled weight decay of AdamW.</summary>
    [Parameter]
    public double WeightDecay { get; set; } = s_defaults.WeightDecay;

    /// <summary>Course of the learning rate after the warm-up: Constant, Linear or Cosine.</summary>
    [Parameter]
    public LearningRateSchedule Schedule { get; set; } = s_defaults.Schedule;

    /// <summary>Share of all steps in which the learning rate rises from zero.</summary>
    [Parameter]
    public double WarmupRatio { get; set; } = s_defaults.WarmupRatio;

    /// <summary>Number of steps in which the learning rate rises from zero; goes before -WarmupRatio.</summary>
    [Parameter]
    [Alias("WarmupStep")]
    public int? WarmupSteps { get; set; }

    /// <summary>Gradients of a larger norm are scaled down to it; 0 for no clipping.</summary>
    [Parameter]
    public double MaxGradientNorm { get; set; } = s_defaults.MaxGradientNorm;

    /// <summary>Batches whose gradients make one step.</summary>
    [Parameter]
    public int GradientAccumulation { get; set; } = s_defaults.GradientAccumulation;

    /// <summary>Keep only the inputs of the model's blocks for the backward pass and run each block again there: less memory for about half as much time again, and the same result.</summary>
    [Parameter]
    public SwitchParameter GradientCheckpointing { get; set; }

    /// <summary>Steps between evaluations; without it one at the end of each epoch.</summary>
    [Parameter(ParameterSetName = DataSet)]
    [Parameter(ParameterSetName = RowSet)]
    [Parameter(ParameterSetName = PictureSet)]
    public int? EvaluateEvery { get; set; }

    /// <summary>Evaluate before the first step too.</summary>
    [Parameter(ParameterSetName = DataSet)]
    [Parameter(ParameterSetName = RowSet)]
    [Parameter(ParameterSetName = PictureSet)]
    public SwitchParameter EvaluateBefore { get; set; }

    /// <summary>Longest sequence in tokens; longer ones are cut. Without it what the model allows.</summary>
    [Parameter(ParameterSetName = DataSet)]
    [Parameter(ParameterSetName = RowSet)]
    public int? MaxLength { get; set; }

    /// <summary>Seed of the order of the rows, of dropout, and for pictures of noise and timesteps.</summary>
    [Parameter]
    public long? Seed { get; set; }

    /// <summary>Adapter to train; without it the active one.</summary>
    [Parameter]
    [ArgumentCompleter(typeof(AdapterNameCompleter))]
    [ValidateNotNullOrEmpty]
    public string? AdapterName { get; set; }

    /// <summary>Write each LoKrTrainingStep as it is made, in place of the model at the end.</summary>
    [Parameter]
    public SwitchParameter ReportStep { get; set; }

    private TrainingOptions Options() => new()
    {
        Epochs = Epochs,
        MaxSteps = MaxSteps,
        BatchSize = ParameterSetName == PictureSet && !MyInvocation.BoundParameters.ContainsKey(nameof(BatchSize)) ? 1 : BatchSize,
        LearningRate = LearningRate,
        WeightDecay = WeightDecay,
        Schedule = Schedule,
        WarmupRatio = WarmupRatio,
        WarmupSteps = WarmupSteps,
        MaxGradientNorm = MaxGradientNorm,
        GradientAccumulation = GradientAccumulation,
        GradientCheckpointing = GradientCheckpointing,
        EvaluateEvery = EvaluateEvery,
        EvaluateBefore = EvaluateBefore,
        Seed = Seed,
        MaxLength = MaxLength,
        AdapterName = AdapterName,
    };
}
