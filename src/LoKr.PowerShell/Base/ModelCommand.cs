using System.ComponentModel;
using System.Management.Automation;
using LoKr.Core.Model;
using LoKr.Core.Runtime;
using LoKr.PowerShell.Binding;

namespace LoKr.PowerShell.Base;

/// <summary>Base of the cmdlets that work on the adapters of a model or pipeline from the pipeline of PowerShell.</summary>
[EditorBrowsable(EditorBrowsableState.Never)]
public abstract class ModelCommand : LoKrCommand
{
    /// <summary>The model or the pipeline: from Import-LoKrModel, or any torch.nn.Module.</summary>
    [Parameter(Mandatory = true, ValueFromPipeline = true)]
    [LoKrModelTransformation]
    [ValidateNotNull]
    public IAdaptable Model { get; set; } = null!;
}

/// <summary>Base of the cmdlets about the native runtime.</summary>
[EditorBrowsable(EditorBrowsableState.Never)]
public abstract class RuntimeCommand : LoKrCommand
{
    /// <summary>Folder with libtorch, or the lib folder of an installed PyTorch. By default LOKR_RUNTIME, the per-user store, the module folder and the NuGet packages folder are searched.</summary>
    [Parameter(Position = 0)]
    [Alias("Path")]
    [ValidateNotNullOrEmpty]
    public string? RuntimePath { get; set; }

    /// <summary>Accepts a libtorch of another version than TorchSharp was built for.</summary>
    [Parameter]
    public SwitchParameter AllowVersionMismatch { get; set; }

    /// <summary>The runtime that the parameters ask for.</summary>
    protected RuntimeOptions Options => new(RuntimePath is null ? null : Paths.New(RuntimePath), AllowVersionMismatch);
}
