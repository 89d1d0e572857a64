using System.Management.Automation;
using LoKr.Core.Model;
using LoKr.Models.Diffusion;
using LoKr.PowerShell.Base;

namespace LoKr.PowerShell.Commands;

/// <summary>Switches the active adapters of a model on again.</summary>
[Cmdlet(VerbsLifecycle.Enable, "LoKrAdapter", SupportsShouldProcess = true)]
[OutputType(typeof(LoKrModel), typeof(StableDiffusionPipeline))]
public sealed class EnableLoKrAdapterCommand : ModelCommand
{
    /// <inheritdoc/>
    protected override void Process()
    {
        if (ShouldProcess(Model.Name, "Enable LoKr adapters"))
        {
            Model.SetAdaptersEnabled(true);
        }

        PassOn(Model);
    }
}
