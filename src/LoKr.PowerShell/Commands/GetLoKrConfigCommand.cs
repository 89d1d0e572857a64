using System.Management.Automation;
using LoKr.Core.Configuration;
using LoKr.Core.Layouts;
using LoKr.Core.Model;
using LoKr.PowerShell.Base;
using LoKr.PowerShell.Binding;

namespace LoKr.PowerShell.Commands;

/// <summary>Reads the configuration of adapters: from adapter folders, or from a model.</summary>
[Cmdlet(VerbsCommon.Get, "LoKrConfig", DefaultParameterSetName = PathSet)]
[OutputType(typeof(LoKrConfig))]
public sealed class GetLoKrConfigCommand : PathCommand
{
    private const string ModelSet = "Model";

    /// <summary>A model or a pipeline with adapters.</summary>
    [Parameter(Mandatory = true, ValueFromPipeline = true, ParameterSetName = ModelSet)]
    [LoKrModelTransformation]
    [ValidateNotNull]
    public IAdaptable Model { get; set; } = null!;

    /// <summary>Names of adapters of the model; without it all of them. Wildcards are allowed.</summary>
    [Parameter(ParameterSetName = ModelSet)]
    [SupportsWildcards]
    [ArgumentCompleter(typeof(AdapterNameCompleter))]
    public string[]? Name { get; set; }

    /// <inheritdoc/>
    protected override void Process()
    {
        if (ParameterSetName == ModelSet)
        {
            IEnumerable<LoKrAdapter> adapters = SelectEach(Model, Name, AdapterNames.Select).SelectMany(name => Model.GetAdapters(name).Values);
            WriteObject(adapters.Select(adapter => adapter.Config), enumerateCollection: true);
            return;
        }

        ForEachPath(path => WriteObject(Read(path)));
    }

    private LoKrConfig Read(string path)
    {
        LoKrConfig config = File.Exists(path)
            ? LoKrConfigJson.Read(path, out IReadOnlyList<string> warnings)
            : PeftAdapterFolder.ReadConfig(path, out warnings);
        WriteWarnings(warnings);
        return config;
    }
}
