using System.Management.Automation;

namespace LoKr.PowerShell.Binding;

/// <summary>PowerShell may wrap any value on its way to a parameter.</summary>
internal static class PSObjectExtensions
{
    /// <summary>The value itself, without the wrapper that PowerShell may have put around it.</summary>
    public static object? Unwrap(this object? value) => value is PSObject wrapped ? wrapped.BaseObject : value;
}
