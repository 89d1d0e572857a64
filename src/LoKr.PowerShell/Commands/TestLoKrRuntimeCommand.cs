using System.Management.Automation;
using LoKr.Core.Errors;
using LoKr.Core.Runtime;
using LoKr.PowerShell.Base;
using LoKr.PowerShell.Binding;

namespace LoKr.PowerShell.Commands;

/// <summary>Tests whether the native runtime can be used; if not, the reason is in the verbose stream.</summary>
[Cmdlet(VerbsDiagnostic.Test, "LoKrRuntime")]
[OutputType(typeof(bool))]
public sealed class TestLoKrRuntimeCommand : RuntimeCommand
{
    /// <summary>A device that must be available too: cpu, cuda or cuda:N.</summary>
    [Parameter]
    [ArgumentCompleter(typeof(DeviceCompleter))]
    [ValidateNotNullOrEmpty]
    public string? Device { get; set; }

    /// <inheritdoc/>
    protected override void Process()
    {
        try
        {
            EnsureRuntime(Options);
            if (Device is not null)
            {
                DeviceSelector.Select(Device);
            }
        }
        catch (LoKrException exception) when (exception.ErrorId != ErrorIds.DeviceInvalid)
        {
            WriteVerbose(exception.Message);
            WriteObject(false);
            return;
        }

        WriteObject(true);
    }
}
