using System.Management.Automation;
using LoKr.Core.Runs;
using LoKr.PowerShell.Base;

namespace LoKr.PowerShell.Commands;

/// <summary>Shows the state of runs on disk.</summary>
[Cmdlet(VerbsCommon.Get, "LoKrRun", DefaultParameterSetName = PathSet)]
[OutputType(typeof(LoKrRun))]
public sealed class GetLoKrRunCommand : RunCommand
{
    /// <inheritdoc/>
    protected override void Process() => ForEachRun(folder => WriteObject(folder.Read()));
}
