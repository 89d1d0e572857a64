using System.Management.Automation;
using LoKr.Core.Runtime;
using LoKr.PowerShell.Base;

namespace LoKr.PowerShell.Commands;

/// <summary>Shows the native runtime: versions, folder, devices, and workarounds in use.</summary>
[Cmdlet(VerbsCommon.Get, "LoKrRuntime", DefaultParameterSetName = CurrentSet)]
[OutputType(typeof(LoKrRuntimeInfo))]
public sealed class GetLoKrRuntimeCommand : RuntimeCommand
{
    private const string CurrentSet = "Current";
    private const string ListSet = "List";

    /// <summary>Folder with libtorch, or an installed PyTorch: its lib folder, its site-packages or its virtual environment. By default LOKR_RUNTIME, the runtime stores of the user and the machine, the module folder and the NuGet packages folder are searched.</summary>
    [Parameter(Position = 0, ParameterSetName = CurrentSet)]
    [Alias("Path")]
    [ValidateNotNullOrEmpty]
    public override string? RuntimePath { get; set; }

    /// <summary>Accepts a libtorch of another version than TorchSharp was built for.</summary>
    [Parameter(ParameterSetName = CurrentSet)]
    public override SwitchParameter AllowVersionMismatch { get; set; }

    /// <summary>Finds the runtime without loading it. Its devices are then unknown.</summary>
    [Parameter(ParameterSetName = CurrentSet)]
    public SwitchParameter NoLoad { get; set; }

    /// <summary>Lists every runtime that this machine has in the places that are searched, in the order in which they are searched, and loads none.</summary>
    [Parameter(Mandatory = true, ParameterSetName = ListSet)]
    public SwitchParameter ListAvailable { get; set; }

    /// <inheritdoc/>
    protected override void Process()
    {
        if (ListAvailable)
        {
            WriteObject(TorchRuntime.ListAvailable(), enumerateCollection: true);
        }
        else
        {
            WriteObject(NoLoad ? TorchRuntime.Find(Options) : EnsureRuntime(Options));
        }
    }
}
