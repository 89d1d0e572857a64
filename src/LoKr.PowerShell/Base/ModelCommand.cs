using System.ComponentModel;
using System.Management.Automation;
using LoKr.Core.Adapters;
using LoKr.PowerShell.Binding;

namespace LoKr.PowerShell.Base;

/// <summary>Base of the cmdlets that work on the model that comes down the pipeline.</summary>
[EditorBrowsable(EditorBrowsableState.Never)]
public abstract class ModelCommand : PathCommand
{
    /// <summary>The model: from Import-LoKrModel, or any torch.nn.Module.</summary>
    [Parameter(Mandatory = true, ValueFromPipeline = true)]
    [LoKrModelTransformation]
    [ValidateNotNull]
    public LoKrModel Model { get; set; } = null!;
}
