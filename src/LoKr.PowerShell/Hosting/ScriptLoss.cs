using System.Collections.ObjectModel;
using System.Management.Automation;
using LoKr.Core.Errors;
using LoKr.Core.Model;
using LoKr.PowerShell.Errors;
using TorchSharp;

namespace LoKr.PowerShell.Hosting;

/// <summary>A loss written as a script block: <c>{ param($model, $batch) … }</c>. Runs on the pipeline thread, where its runspace is.</summary>
/// <param name="script">The script block.</param>
/// <param name="life">The command that trains, which ends as when it is canceled if the engine stops the script block.</param>
internal sealed class ScriptLoss(ScriptBlock script, CommandLife life)
{
    // A statement that fails inside the block must not be skipped, as it would be under Continue.
    private readonly List<PSVariable> _variables = [new PSVariable("ErrorActionPreference", ActionPreference.Stop)];

    /// <summary>The loss of a batch.</summary>
    public torch.Tensor Compute(LoKrModel model, object batch)
    {
        Collection<PSObject> output = Invoke(model, batch);
        return output.Count == 1 && output[0]?.BaseObject is torch.Tensor loss
            ? loss
            : throw new LoKrException(ModuleErrorIds.LossNotATensor, LoKrErrorKind.InvalidData,
                output.Count == 0 ? "The loss script block returned nothing." : $"The loss script block returned {output.Count} values, the first a {output[0]?.BaseObject.GetType().Name ?? "null"}.",
                "It must write exactly one tensor of one number; assign other results to $null.") { Target = script.ToString() };
    }

    private Collection<PSObject> Invoke(LoKrModel model, object batch)
    {
        try
        {
            return script.InvokeWithContext(null, _variables, model, batch);
        }
        catch (PipelineStoppedException exception)
        {
            // The engine may stop the script before the command.
            life.Cancel();
            throw new OperationCanceledException(exception.Message, exception, life.StopToken);
        }
    }
}
