using System.Management.Automation;
using LoKr.Core.Runtime;
using LoKr.PowerShell.Base;

namespace LoKr.PowerShell.Commands;

/// <summary>Shows the native runtime: versions, folder, devices, and what had to be worked around.</summary>
[Cmdlet(VerbsCommon.Get, "LoKrRuntime")]
[OutputType(typeof(LoKrRuntimeInfo))]
public sealed class GetLoKrRuntimeCommand : RuntimeCommand
{
    /// <summary>Only find the runtime; do not load it. Devices are not known then.</summary>
    [Parameter]
    public SwitchParameter NoLoad { get; set; }

    /// <inheritdoc/>
    protected override void Process() => WriteObject(NoLoad ? TorchRuntime.Find(Options) : EnsureRuntime(Options));
}
