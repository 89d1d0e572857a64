using System.ComponentModel;
using System.Management.Automation;
using LoKr.Core.Model;
using LoKr.PowerShell.Binding;

namespace LoKr.PowerShell.Base;

/// <summary>Base of the cmdlets that work on the adapters of a model or pipeline from the pipeline of PowerShell.</summary>
[EditorBrowsable(EditorBrowsableState.Never)]
public abstract class ModelCommand : PassThruCommand
{
    /// <summary>The model or the pipeline: from Import-LoKrModel, or any torch.nn.Module.</summary>
    [Parameter(Mandatory = true, ValueFromPipeline = true)]
    [LoKrModelTransformation]
    [ValidateNotNull]
    public IAdaptable Model { get; set; } = null!;

    /// <inheritdoc/>
    protected override string? Subject => NameOf(Model);
}
