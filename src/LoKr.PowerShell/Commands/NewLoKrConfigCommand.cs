using System.Collections;
using System.Collections.Immutable;
using System.Collections.Specialized;
using System.Globalization;
using System.Management.Automation;
using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Factors;
using LoKr.PowerShell.Base;
using LoKr.PowerShell.Binding;

namespace LoKr.PowerShell.Commands;

/// <summary>Creates the configuration of a LoKr adapter.</summary>
[Cmdlet(VerbsCommon.New, "LoKrConfig")]
[OutputType(typeof(LoKrConfig))]
public sealed partial class NewLoKrConfigCommand : LoKrCommand
{
    /// <summary>DoRA: train the magnitude of each row or column of the weight separately.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    [Alias("DoRA")]
    public SwitchParameter WeightDecompose { get; set; }

    /// <summary>Axis of DoRA's norms: Output, one a row, or Input, one a column.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    public WeightDecomposeAxis WeightDecomposeAxis { get; set; } = WeightDecomposeAxis.Output;

    /// <summary>Keep both factors full matrices whatever the rank.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    public SwitchParameter FullMatrix { get; set; }

    /// <summary>Scale by Alpha / √R in place of Alpha / R.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    public SwitchParameter RsLora { get; set; }

    /// <summary>Swap the two factors of the output dimension.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    public SwitchParameter UnbalancedFactorization { get; set; }

    /// <summary>Train one scalar a layer that starts at zero.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    public SwitchParameter UseScalar { get; set; }

    /// <summary>Train weight and bias of every LayerNorm and GroupNorm too, as changes that the adapter holds.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    public SwitchParameter TrainNorm { get; set; }

    /// <summary>What multiplies the delta weight: Peft (always Alpha / R), Lycoris (1 where both factors are full), None (1).</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    public ScalingConvention Scaling { get; set; } = ScalingConvention.Peft;

    /// <summary>How a dimension is split where DecomposeFactor exceeds its square root: Peft or Lycoris (the smaller factor first).</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    public FactorizationConvention Factorization { get; set; } = FactorizationConvention.Peft;

    /// <summary>What the factors of a Conv1d with a full w2 mean: Peft (w2 ⊗ w1, as its reshape comes to) or Kronecker (w1 ⊗ w2, as everywhere else).</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    public Conv1dLayout Conv1dLayout { get; set; } = Conv1dLayout.Peft;

    /// <inheritdoc/>
    protected override void Process()
    {
        LoKrConfig config = new()
        {
            R = R,
            Alpha = Alpha,
            RankDropout = RankDropout,
            RankDropoutScale = RankDropoutScale,
            ModuleDropout = ModuleDropout,
            UseEffectiveConv2d = UseEffectiveConv2d,
            DecomposeBoth = DecomposeBoth,
            DecomposeFactor = DecomposeFactor,
            TargetModules = SelectorReader.Read(TargetModules, nameof(TargetModules), TargetModulePattern, nameof(TargetModulePattern)),
            ExcludeModules = SelectorReader.Read(ExcludeModules, nameof(ExcludeModules), ExcludeModulePattern, nameof(ExcludeModulePattern)),
            InitWeights = InitWeights,
            LayersToTransform = LayersToTransform?.ToImmutableArray(),
            LayersPattern = LayersPattern?.ToImmutableArray(),
            RankPattern = ReadPattern<int>(RankPattern, nameof(RankPattern)),
            AlphaPattern = ReadPattern<double>(AlphaPattern, nameof(AlphaPattern)),
            ModulesToSave = ModulesToSave?.ToImmutableArray(),
            TaskType = TaskType,
            BaseModelNameOrPath = BaseModelNameOrPath,
            Revision = Revision,
            InferenceMode = InferenceMode,
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
        };
        LoKrConfigValidator.Validate(config);
        WriteObject(config);
    }

    private ImmutableArray<KeyValuePair<string, T>> ReadPattern<T>(IDictionary? pattern, string parameter)
    {
        if (pattern is null)
        {
            return [];
        }

        if (pattern.Count > 1 && pattern is not IOrderedDictionary)
        {
            WriteWarning($"-{parameter} is a plain hashtable with {pattern.Count} entries, whose order is not the written one, and the first match wins: use [ordered]@{{ … }}.");
        }

        ImmutableArray<KeyValuePair<string, T>>.Builder entries = ImmutableArray.CreateBuilder<KeyValuePair<string, T>>(pattern.Count);
        foreach (DictionaryEntry entry in pattern)
        {
            string key = Convert.ToString(entry.Key, CultureInfo.InvariantCulture)!;
            entries.Add(LanguagePrimitives.TryConvertTo(entry.Value, CultureInfo.InvariantCulture, out T value)
                ? new(key, value)
                : throw new LoKrException(ErrorIds.InvalidArgument, LoKrErrorKind.InvalidArgument,
                    $"-{parameter} '{key}' has the value '{entry.Value}', which is not a number.") { Target = key });
        }

        return entries.ToImmutable();
    }
}
