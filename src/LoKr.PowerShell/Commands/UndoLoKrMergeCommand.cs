using System.Management.Automation;
using LoKr.Core.Model;
using LoKr.PowerShell.Base;

namespace LoKr.PowerShell.Commands;

/// <summary>Takes every merged adapter out of the base weights again and passes the model on.</summary>
[Cmdlet(VerbsCommon.Undo, "LoKrMerge", SupportsShouldProcess = true)]
[OutputType(typeof(LoKrModel))]
public sealed class UndoLoKrMergeCommand : ModelCommand
{
    /// <inheritdoc/>
    protected override void Process()
    {
        if (ShouldProcess(Model.Name, $"Undo the merge of LoKr adapters {string.Join(", ", Model.MergedAdapters)}".TrimEnd()))
        {
            Model.UndoMerge();
        }

        WriteObject(Model);
    }
}
