using System.Management.Automation;
using LoKr.Core.Runtime;
using LoKr.PowerShell.Base;

namespace LoKr.PowerShell.Commands;

/// <summary>Shows the native runtime: versions, folder, devices, and workarounds in use.</summary>
[Cmdlet(VerbsCommon.Get, "LoKrRuntime")]
[OutputType(typeof(LoKrRuntimeInfo))]
public sealed class GetLoKrRuntimeCommand : RuntimeCommand
{
    /// <summary>Finds the runtime without loading it. Its devices are then unknown.</summary>
    [Parameter]
    public SwitchParameter NoLoad { get; set; }

    /// <inheritdoc/>
    protected override void Process() => WriteObject(NoLoad ? TorchRuntime.Find(Options) : EnsureRuntime(Options));
}
