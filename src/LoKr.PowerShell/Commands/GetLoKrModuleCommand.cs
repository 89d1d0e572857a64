using System.Management.Automation;
using LoKr.Core.Configuration;
using LoKr.Core.Gguf;
using LoKr.Core.Model;
using LoKr.PowerShell.Base;
using LoKr.PowerShell.Binding;

namespace LoKr.PowerShell.Commands;

/// <summary>Lists the modules of a model with their shapes, parameters and adapters, or the tensors of a GGUF file.</summary>
[Cmdlet(VerbsCommon.Get, "LoKrModule", DefaultParameterSetName = ModelSet)]
[OutputType(typeof(LoKrModuleInfo), ParameterSetName = [ModelSet])]
[OutputType(typeof(LoKrTensorInfo), ParameterSetName = [PathSet, LiteralPathSet])]
public sealed class GetLoKrModuleCommand : LoKrCommand
{
    private const string ModelSet = "Model";
    private const string PathSet = "Path";
    private const string LiteralPathSet = "LiteralPath";

    /// <summary>The model or the pipeline: from Import-LoKrModel, or any torch.nn.Module.</summary>
    [Parameter(Mandatory = true, ValueFromPipeline = true, ParameterSetName = ModelSet)]
    [LoKrModelTransformation]
    [ValidateNotNull]
    public IAdaptable Model { get; set; } = null!;

    /// <summary>GGUF file of a model or an adapter; one of several parts stands for all. Wildcards are allowed if they match one file.</summary>
    [Parameter(Mandatory = true, ParameterSetName = PathSet)]
    [SupportsWildcards]
    [ValidateNotNullOrEmpty]
    [ArgumentCompleter(typeof(PathCompleter))]
    public string Path { get; set; } = "";

    /// <summary>GGUF file, taken as it is written.</summary>
    [Parameter(Mandatory = true, ValueFromPipelineByPropertyName = true, ParameterSetName = LiteralPathSet)]
    [Alias("PSPath", "FullName")]
    [ValidateNotNullOrEmpty]
    public string LiteralPath { get; set; } = "";

    /// <summary>Names of modules, or endings of names (query), as for -TargetModules; wildcards are allowed (*.query). For a GGUF file names of tensors (attn_q.weight), or of the modules that they hold. The default is all.</summary>
    [Parameter(Position = 0)]
    [SupportsWildcards]
    [ArgumentCompleter(typeof(ModuleNameCompleter))]
    [ValidateNotNullOrEmpty]
    public string[] Name { get; set; } = ["*"];

    /// <summary>Class names of modules, for example Linear; for a GGUF file element types, for example Q4_K. Wildcards are allowed.</summary>
    [Parameter]
    [SupportsWildcards]
    [ArgumentCompleter(typeof(ModuleTypeCompleter))]
    [ValidateNotNullOrEmpty]
    public string[] Type { get; set; } = ["*"];

    /// <summary>Lists only modules that have an adapter or are trained whole by one.</summary>
    [Parameter(ParameterSetName = ModelSet)]
    public SwitchParameter Adapted { get; set; }

    /// <summary>Lists only modules that can take an adapter.</summary>
    [Parameter(ParameterSetName = ModelSet)]
    public SwitchParameter Adaptable { get; set; }

    /// <summary>One regular expression that must match the whole name of a module, as for -TargetModulePattern.</summary>
    [Parameter(ParameterSetName = ModelSet)]
    [ValidateNotNullOrEmpty]
    public string? Pattern { get; set; }

    /// <inheritdoc/>
    protected override void Process()
    {
        // A wildcard matches the whole name; a plain name is a name or an ending, as in a list of target modules.
        WildcardPattern[] names = Patterns([.. Name.SelectMany(static name => WildcardPattern.ContainsWildcardCharacters(name) ? (string[])[name] : [name, "*." + name])]);
        WildcardPattern[] types = Patterns(Type);
        if (ParameterSetName != ModelSet)
        {
            ListTensors(names, types);
            return;
        }

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

    private void ListTensors(WildcardPattern[] names, WildcardPattern[] types)
    {
        foreach (LoKrTensorInfo tensor in LoKrTensorInfo.List(Paths.ExistingOne(Path, LiteralPath)))
        {
            if (Array.Exists(names, pattern => tensor.Modules.Prepend(tensor.Name).Any(pattern.IsMatch)) && Array.Exists(types, pattern => pattern.IsMatch(tensor.Type)))
            {
                WriteObject(tensor);
            }
        }
    }

    private static WildcardPattern[] Patterns(string[] texts) => [.. texts.Select(text => WildcardPattern.Get(text, WildcardOptions.IgnoreCase))];
}
