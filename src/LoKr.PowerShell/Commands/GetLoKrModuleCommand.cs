using System.Management.Automation;
using LoKr.Core.Model;
using LoKr.PowerShell.Base;
using LoKr.PowerShell.Binding;

namespace LoKr.PowerShell.Commands;

/// <summary>Lists the modules of a model with their shapes, parameters and adapters.</summary>
[Cmdlet(VerbsCommon.Get, "LoKrModule")]
[OutputType(typeof(LoKrModuleInfo))]
public sealed class GetLoKrModuleCommand : ModelCommand
{
    /// <summary>Full names of modules; wildcards are allowed (*.query). The default is all modules.</summary>
    [Parameter(Position = 0)]
    [SupportsWildcards]
    [ArgumentCompleter(typeof(ModuleNameCompleter))]
    [ValidateNotNullOrEmpty]
    public string[] Name { get; set; } = ["*"];

    /// <summary>Class names of modules, for example Linear. Wildcards are allowed.</summary>
    [Parameter]
    [SupportsWildcards]
    [ArgumentCompleter(typeof(ModuleTypeCompleter))]
    [ValidateNotNullOrEmpty]
    public string[] Type { get; set; } = ["*"];

    /// <summary>Lists only modules that have an adapter or are trained whole by one.</summary>
    [Parameter]
    public SwitchParameter Adapted { get; set; }

    /// <inheritdoc/>
    protected override void Process()
    {
        WildcardPattern[] names = Patterns(Name);
        WildcardPattern[] types = Patterns(Type);
        foreach (LoKrModuleInfo module in Model.GetModules())
        {
            if (Array.Exists(names, pattern => pattern.IsMatch(module.Name))
                && Array.Exists(types, pattern => pattern.IsMatch(module.ModuleType))
                && (!Adapted || module.IsAdapted || module.SavedBy.Count > 0))
            {
                WriteObject(module);
            }
        }
    }

    private static WildcardPattern[] Patterns(string[] texts) => [.. texts.Select(text => WildcardPattern.Get(text, WildcardOptions.IgnoreCase))];
}
