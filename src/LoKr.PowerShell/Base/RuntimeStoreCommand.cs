using System.ComponentModel;
using System.Management.Automation;

namespace LoKr.PowerShell.Base;

/// <summary>Base of the cmdlets that change what is installed in a runtime store.</summary>
[EditorBrowsable(EditorBrowsableState.Never)]
public abstract class RuntimeStoreCommand : LoKrCommand
{
    /// <summary>Whose store: CurrentUser, by default, or AllUsers, which takes the rights of an administrator.</summary>
    [Parameter]
    public RuntimeScope Scope { get; set; }

    /// <summary>The libtorch for the CPU, or the one with CUDA.</summary>
    [Parameter]
    public RuntimeFlavor Flavor { get; set; }

    /// <summary>The flavor as the library spells it; null where none is asked for.</summary>
    protected string? FlavorName => MyInvocation.BoundParameters.ContainsKey(nameof(Flavor)) ? Flavor.ToString().ToLowerInvariant() : null;

    /// <summary>Whether the store of the machine is meant.</summary>
    protected bool ForAllUsers => Scope == RuntimeScope.AllUsers;
}

/// <summary>Whose runtime store.</summary>
public enum RuntimeScope
{
    /// <summary>The user's: LOKR_HOME, or a folder in the user's data.</summary>
    CurrentUser,

    /// <summary>The machine's, which every user can read.</summary>
    AllUsers,
}

/// <summary>Builds of libtorch.</summary>
public enum RuntimeFlavor
{
    /// <summary>For the CPU.</summary>
    Cpu,

    /// <summary>With CUDA, several GB.</summary>
    Cuda,
}
