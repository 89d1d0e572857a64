using System.Management.Automation;
using LoKr.Core.Configuration;
using LoKr.Core.Model;
using LoKr.PowerShell.Base;
using LoKr.PowerShell.Binding;

namespace LoKr.PowerShell.Commands;

/// <summary>Lists the modules of a model with their shapes, parameters and adapters.</summary>
[Cmdlet(VerbsCommon.Get, "LoKrModule")]
[OutputType(typeof(LoKrModuleInfo))]
public sealed class GetLoKrModuleCommand : LoKrCommand
{
    /// <summary>The model or the pipeline: from Import-LoKrModel, or any torch.nn.Module.</summary>
    [Parameter(Mandatory = true, ValueFromPipeline = true)]
    [LoKrModelTransformation]
    [ValidateNotNull]
    public IAdaptable Model { get; set; } = null!;

    /// <summary>Names of modules, or endings of names (query), as for -TargetModules; wildcards are allowed (*.query). The default is all modules.</summary>
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

    /// <summary>Lists only modules that can take an adapter.</summary>
    [Parameter]
    public SwitchParameter Adaptable { get; set; }

    /// <summary>One regular expression that must match the whole name of a module, as for -TargetModulePattern.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public string? Pattern { get; set; }

    /// <inheritdoc/>
    protected override void Process()
    {
        // A wildcard matches the whole name; a plain name is a name or an ending, as in a list of target modules.
        WildcardPattern[] names = Patterns([.. Name.SelectMany(static name => WildcardPattern.ContainsWildcardCharacters(name) ? (string[])[name] : [name, "*." + name])]);
        WildcardPattern[] types = Patterns(Type);
        Func<string, bool> matches = Pattern is null ? static _ => true : ModuleSelector.FromPattern(Pattern).Matches;
        foreach (LoKrModuleInfo module in Model.GetModules())
        {
            if (Array.Exists(names, pattern => pattern.IsMatch(module.Name))
                && Array.Exists(types, pattern => pattern.IsMatch(module.ModuleType))
                && matches(module.Name)
                && (!Adaptable || module.IsSupported)
                && (!Adapted || module.IsAdapted || module.SavedBy.Count > 0))
            {
                WriteObject(module);
            }
        }
    }

    private static WildcardPattern[] Patterns(string[] texts) => [.. texts.Select(text => WildcardPattern.Get(text, WildcardOptions.IgnoreCase))];
}
