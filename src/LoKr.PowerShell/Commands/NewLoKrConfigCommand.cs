using System.Management.Automation;
using LoKr.Core.Configuration;
using LoKr.PowerShell.Base;
using LoKr.PowerShell.Binding;

namespace LoKr.PowerShell.Commands;

/// <summary>Creates the configuration of a LoKr adapter.</summary>
[Cmdlet(VerbsCommon.New, "LoKrConfig")]
[OutputType(typeof(LoKrConfig))]
public sealed class NewLoKrConfigCommand : PeftConfigCommand
{
    /// <summary>DoRA: trains the magnitude of each row or column of the weight separately.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    [Alias("DoRA")]
    public SwitchParameter WeightDecompose { get; set; }

    /// <summary>Axis of DoRA's norms: Output for one norm a row, or Input for one a column.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    public WeightDecomposeAxis WeightDecomposeAxis { get; set; } = WeightDecomposeAxis.Output;

    /// <summary>Makes both factors full matrices, whatever the rank.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    public SwitchParameter FullMatrix { get; set; }

    /// <summary>Scales by Alpha / √R instead of Alpha / R.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    public SwitchParameter RsLora { get; set; }

    /// <summary>Swaps the two factors of the output dimension.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    public SwitchParameter UnbalancedFactorization { get; set; }

    /// <summary>Trains one scalar for each layer, which starts at zero.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    public SwitchParameter UseScalar { get; set; }

    /// <summary>Train weight and bias of every LayerNorm, GroupNorm and RMSNorm too, as changes that the adapter holds.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    public SwitchParameter TrainNorm { get; set; }

    /// <summary>Convention for the factor of the delta weight: Peft (always Alpha / R), Lycoris (1 if both factors are full), None (1).</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    public ScalingConvention Scaling { get; set; } = ScalingConvention.Peft;

    /// <summary>Convention for splitting a dimension if DecomposeFactor exceeds its square root: Peft, or Lycoris (the smaller factor first).</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    public FactorizationConvention Factorization { get; set; } = FactorizationConvention.Peft;

    /// <summary>Meaning of the factors of a Conv1d with a full w2: Peft (w2 ⊗ w1, the effect of its reshape) or Kronecker (w1 ⊗ w2, as everywhere else).</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    public Conv1dLayout Conv1dLayout { get; set; } = Conv1dLayout.Peft;

    /// <summary>Takes the shapes of the factors from the file instead of computing them: set in configurations that Get-LoKrConfig reads for files of other programs.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    public SwitchParameter ShapesFromFile { get; set; }

    /// <summary>Python class and library of a base model without task type, to be recorded in the file.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    [AutoMappingTransformation]
    public AutoMapping? AutoMapping { get; set; }

    /// <inheritdoc/>
    protected override void Process()
    {
        StoredConfig.Check(InputObject, MyInvocation.MyCommand.Parameters);
        LoKrConfig config = ReadPeftFields() with
        {
            WeightDecompose = WeightDecompose,
            WeightDecomposeAxis = WeightDecomposeAxis,
            FullMatrix = FullMatrix,
            RsLora = RsLora,
            UnbalancedFactorization = UnbalancedFactorization,
            UseScalar = UseScalar,
            TrainNorm = TrainNorm,
            Scaling = Scaling,
            Factorization = Factorization,
            Conv1dLayout = Conv1dLayout,
            ShapesFromFile = ShapesFromFile,
            AutoMapping = AutoMapping,
        };
        LoKrConfigValidator.Validate(config);
        WriteObject(config);
    }
}
