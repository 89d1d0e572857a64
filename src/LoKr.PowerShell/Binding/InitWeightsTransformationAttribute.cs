using System.Management.Automation;
using LoKr.Core.Adapters;

namespace LoKr.PowerShell.Binding;

/// <summary>Accepts PEFT's spellings of <c>init_weights</c>: true, false and "lycoris", beside the names of <see cref="InitWeights"/>.</summary>
[AttributeUsage(AttributeTargets.Property)]
public sealed class InitWeightsTransformationAttribute : ArgumentTransformationAttribute
{
    /// <inheritdoc/>
    public override object? Transform(EngineIntrinsics engineIntrinsics, object inputData) =>
        (inputData is PSObject wrapped ? wrapped.BaseObject : inputData) switch
        {
            true => InitWeights.Default,
            false => InitWeights.Random,
            string text when text.Equals("true", StringComparison.OrdinalIgnoreCase) => InitWeights.Default,
            string text when text.Equals("false", StringComparison.OrdinalIgnoreCase) => InitWeights.Random,
            _ => inputData,
        };
}
