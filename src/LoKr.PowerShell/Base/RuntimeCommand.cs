using System.ComponentModel;
using System.Management.Automation;
using LoKr.Core.Runtime;

namespace LoKr.PowerShell.Base;

/// <summary>Base of the cmdlets about the native runtime.</summary>
[EditorBrowsable(EditorBrowsableState.Never)]
public abstract class RuntimeCommand : LoKrCommand
{
    /// <summary>Folder with libtorch, or an installed PyTorch: its lib folder, its site-packages or its virtual environment. By default LOKR_RUNTIME, the runtime stores of the user and the machine, the module folder and the NuGet packages folder are searched.</summary>
    [Parameter(Position = 0)]
    [Alias("Path")]
    [ValidateNotNullOrEmpty]
    public virtual string? RuntimePath { get; set; }

    /// <summary>Accepts a libtorch of another version than TorchSharp was built for.</summary>
    [Parameter]
    public virtual SwitchParameter AllowVersionMismatch { get; set; }

    /// <summary>The runtime that the parameters ask for.</summary>
    protected RuntimeOptions Options => new(RuntimePath is null ? null : Paths.New(RuntimePath), AllowVersionMismatch);
}
