using System.Management.Automation;
using LoKr.Core.Model;
using LoKr.Models.Diffusion;
using LoKr.PowerShell.Base;

namespace LoKr.PowerShell.Commands;

/// <summary>Switches the adapters of a model off without removing them. A merge is undone first, as in PEFT.</summary>
[Cmdlet(VerbsLifecycle.Disable, "LoKrAdapter", SupportsShouldProcess = true)]
[OutputType(typeof(LoKrModel), typeof(StableDiffusionPipeline))]
public sealed class DisableLoKrAdapterCommand : ModelCommand
{
    /// <inheritdoc/>
    protected override void Process()
    {
        if (ShouldProcess(Model.Name, "Disable LoKr adapters"))
        {
            Model.SetAdaptersEnabled(false);
        }

        PassOn(Model);
    }
}
