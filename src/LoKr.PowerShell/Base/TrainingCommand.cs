using System.ComponentModel;
using System.Management.Automation;
using LoKr.Core.Training;
using LoKr.PowerShell.Binding;

namespace LoKr.PowerShell.Base;

/// <summary>Base of the cmdlets that train: steps, optimizer and schedule.</summary>
[EditorBrowsable(EditorBrowsableState.Never)]
public abstract class TrainingCommand : PassThruCommand
{
    /// <summary>The defaults of the library, which are those of the parameters.</summary>
    private protected static readonly TrainingOptions s_defaults = new();

    /// <summary>Passes over the data.</summary>
    [Parameter]
    public int Epochs { get; set; } = s_defaults.Epochs;

    /// <summary>Number of optimizer steps; it overrides -Epochs, and the schedule ends there.</summary>
    [Parameter]
    public int? MaxSteps { get; set; }

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

    /// <summary>Number of steps in which the learning rate rises from zero; it overrides -WarmupRatio.</summary>
    [Parameter]
    [Alias("WarmupStep")]
    public int? WarmupSteps { get; set; }

    /// <summary>Gradients with a larger norm are scaled down to it; 0 turns clipping off.</summary>
    [Parameter]
    public double MaxGradientNorm { get; set; } = s_defaults.MaxGradientNorm;

    /// <summary>Number of batches whose gradients are accumulated for one optimizer step. Without it 1, for processes of mpirun or srun 8, which they share; a run that goes on takes that of its folder.</summary>
    [Parameter]
    public int GradientAccumulation { get; set; } = s_defaults.GradientAccumulation;

    /// <summary>Stores only the inputs of the model's blocks for the backward pass and runs each block again there: less memory for about half as much time again, and the same result.</summary>
    [Parameter]
    public SwitchParameter GradientCheckpointing { get; set; }

    /// <summary>Seed of the order of the rows and of dropout, and for images of noise and timesteps.</summary>
    [Parameter]
    public long? Seed { get; set; }

    /// <summary>Adapter to train; without it the active one.</summary>
    [Parameter]
    [ArgumentCompleter(typeof(AdapterNameCompleter))]
    [ValidateNotNullOrEmpty]
    public string? AdapterName { get; set; }

    /// <summary>Warnings about parameters that others override.</summary>
    private protected IEnumerable<string> IgnoredLengthParameters() =>
    [
        .. MaxSteps is null ? [] : Ignored($"beside -{nameof(MaxSteps)}", nameof(Epochs)),
        .. WarmupSteps is null ? [] : Ignored($"beside -{nameof(WarmupSteps)}", nameof(WarmupRatio)),
    ];

    /// <summary>Options with the values of these parameters.</summary>
    private protected TrainingOptions ReadOptimizerOptions() => new()
    {
        Epochs = Epochs,
        MaxSteps = MaxSteps,
        LearningRate = LearningRate,
        WeightDecay = WeightDecay,
        Schedule = Schedule,
        WarmupRatio = WarmupRatio,
        WarmupSteps = WarmupSteps,
        MaxGradientNorm = MaxGradientNorm,
        GradientAccumulation = GradientAccumulation,
        GradientCheckpointing = GradientCheckpointing,
        Seed = Seed,
        AdapterName = AdapterName,
    };
}
