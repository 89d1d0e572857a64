using System.Management.Automation;
using LoKr.Core.Adapters;

namespace LoKr.PowerShell;

/// <summary>Placeholder.</summary>
[Cmdlet(VerbsCommon.New, "LoKrConfig")]
[OutputType(typeof(LoKrConfig))]
public sealed class NewLoKrConfigCommand : PSCmdlet
{
}
