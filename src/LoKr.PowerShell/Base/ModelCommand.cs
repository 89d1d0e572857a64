using LoKr.PowerShell.Binding;
using System.ComponentModel;
using System.Management.Automation;
using LoKr.Core.Model;
using LoKr.Core.Runtime;

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

/// <summary>Base of the cmdlets about the native runtime.</summary>
[EditorBrowsable(EditorBrowsableState.Never)]
public abstract class RuntimeCommand : PathCommand
{
    /// <summary>Folder with libtorch, or the lib folder of an installed PyTorch. Without it LOKR_RUNTIME, the store of the user, the module folder and the NuGet packages folder are searched.</summary>
    [Parameter(Position = 0)]
    [Alias("Path")]
    [ValidateNotNullOrEmpty]
    public string? RuntimePath { get; set; }

    /// <summary>Accept a libtorch of another version than TorchSharp was built for.</summary>
    [Parameter]
    public SwitchParameter AllowVersionMismatch { get; set; }

    /// <summary>What to look for.</summary>
    protected RuntimeOptions Options => new(RuntimePath is null ? null : ResolveNew(RuntimePath), AllowVersionMismatch);
}
