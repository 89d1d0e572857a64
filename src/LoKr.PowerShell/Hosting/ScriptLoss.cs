using System.Management.Automation;
using LoKr.Core.Errors;
using LoKr.Core.Model;
using LoKr.PowerShell.Errors;
using TorchSharp;

namespace LoKr.PowerShell.Hosting;

/// <summary>A loss written as a script block: <c>{ param($model, $batch) … }</c>. Runs on the pipeline thread, where its runspace is.</summary>
internal sealed class ScriptLoss(ScriptBlock script)
{
    // A statement that fails inside the block must not be skipped, as it would be under Continue.
    private readonly List<PSVariable> _variables = [new PSVariable("ErrorActionPreference", ActionPreference.Stop)];

    /// <summary>The loss of a batch.</summary>
    public torch.Tensor Compute(LoKrModel model, object batch)
    {
        var output = script.InvokeWithContext(null, _variables, model, batch);
        return output.Count == 1 && output[0]?.BaseObject is torch.Tensor loss
            ? loss
            : throw new LoKrException(ModuleErrorIds.LossNotATensor, LoKrErrorKind.InvalidData,
                output.Count == 0 ? "The loss script block returned nothing." : $"The loss script block returned {output.Count} values, the first a {output[0]?.BaseObject.GetType().Name ?? "null"}.",
                "It must write exactly one tensor of one number; assign other results to $null.") { Target = script.ToString() };
    }
}
