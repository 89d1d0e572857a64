using System.Management.Automation;
using LoKr.Core.Model;
using LoKr.Models.Diffusion;
using LoKr.PowerShell.Base;
using LoKr.PowerShell.Hosting;

namespace LoKr.PowerShell.Commands;

/// <summary>Takes every merged adapter out of the base weights of a model.</summary>
[Cmdlet(VerbsCommon.Undo, "LoKrMerge", SupportsShouldProcess = true)]
[OutputType(typeof(LoKrModel), typeof(StableDiffusionPipeline))]
public sealed class UndoLoKrMergeCommand : ModelCommand
{
    /// <inheritdoc/>
    protected override void Process()
    {
        if (IsRehearsal && !Rehearsals.IsMerged(Model))
        {
            Model.CheckUndoMerge();
        }

        if (ShouldProcess(Model.Name, $"Undo the merge of LoKr adapters {string.Join(", ", Model.GetMergedAdapters())}".TrimEnd()))
        {
            Model.UndoMerge();
        }

        PassOn(Model);
    }
}
