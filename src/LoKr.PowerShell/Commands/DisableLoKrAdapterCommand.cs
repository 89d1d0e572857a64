using System.Management.Automation;
using LoKr.Core.Model;
using LoKr.PowerShell.Base;

namespace LoKr.PowerShell.Commands;

/// <summary>Runs a model without its adapters, which stay attached, and passes the model on. A merge is taken back first, as in PEFT.</summary>
[Cmdlet(VerbsLifecycle.Disable, "LoKrAdapter", SupportsShouldProcess = true)]
[OutputType(typeof(LoKrModel))]
public sealed class DisableLoKrAdapterCommand : ModelCommand
{
    /// <inheritdoc/>
    protected override void Process()
    {
        if (ShouldProcess(Model.Name, "Disable LoKr adapters"))
        {
            Model.SetAdaptersEnabled(false);
        }

        WriteObject(Model);
    }
}
