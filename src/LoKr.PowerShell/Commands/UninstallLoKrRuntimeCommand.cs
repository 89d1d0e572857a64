using System.Management.Automation;
using LoKr.Core.Errors;
using LoKr.Core.Runtime;
using LoKr.PowerShell.Base;

namespace LoKr.PowerShell.Commands;

/// <summary>Removes runtimes that Install-LoKrRuntime has installed.</summary>
[Cmdlet(VerbsLifecycle.Uninstall, "LoKrRuntime", SupportsShouldProcess = true)]
[OutputType(typeof(void))]
public sealed class UninstallLoKrRuntimeCommand : RuntimeStoreCommand
{
    /// <summary>The runtime to remove, from Get-LoKrRuntime -ListAvailable. Without it those that -Flavor and -Scope name are removed.</summary>
    [Parameter(ValueFromPipeline = true)]
    [ValidateNotNull]
    public LoKrRuntimeInfo? Runtime { get; set; }

    /// <inheritdoc/>
    protected override void Process()
    {
        string source = ForAllUsers ? "AllUsersStore" : "UserStore";
        LoKrRuntimeInfo[] found = Runtime is not null
            ? [Runtime]
            : [.. TorchRuntime.ListAvailable().Where(runtime => runtime.Source == source && (FlavorName ?? runtime.Flavor) == runtime.Flavor)];
        if (found.Length == 0)
        {
            throw new LoKrException(ErrorIds.RuntimeNotFound, LoKrErrorKind.NotFound, $"No {FlavorName ?? "libtorch"} runtime is installed for {(ForAllUsers ? "all users" : "this user")}.", "Get-LoKrRuntime -ListAvailable shows what is there.");
        }

        foreach (LoKrRuntimeInfo runtime in found)
        {
            if (ShouldProcess(runtime.Path, $"Remove {runtime}"))
            {
                ForOne(runtime.Path, () => RuntimeInstaller.Uninstall(runtime.Path));
            }
        }
    }
}
