using System.Management.Automation;
using LoKr.Core.Configuration;
using LoKr.Core.Layouts;
using LoKr.Core.Model;
using LoKr.PowerShell.Base;
using LoKr.PowerShell.Binding;

namespace LoKr.PowerShell.Commands;

/// <summary>Reads the configuration of adapters: from adapter folders, or from a model.</summary>
[Cmdlet(VerbsCommon.Get, "LoKrConfig", DefaultParameterSetName = "Path")]
[OutputType(typeof(LoKrConfig))]
public sealed class GetLoKrConfigCommand : PathCommand
{
    /// <summary>Adapter folders, or adapter_config.json files. Wildcards are allowed.</summary>
    [Parameter(Mandatory = true, Position = 0, ValueFromPipeline = true, ParameterSetName = "Path")]
    [SupportsWildcards]
    [ValidateNotNullOrEmpty]
    public string[] Path { get; set; } = [];

    /// <summary>Adapter folders, or adapter_config.json files, taken as they are written.</summary>
    [Parameter(Mandatory = true, ValueFromPipelineByPropertyName = true, ParameterSetName = "LiteralPath")]
    [Alias("PSPath", "FullName")]
    [ValidateNotNullOrEmpty]
    public string[] LiteralPath { get; set; } = [];

    /// <summary>A model with adapters.</summary>
    [Parameter(Mandatory = true, ValueFromPipeline = true, ParameterSetName = "Model")]
    [LoKrModelTransformation]
    [ValidateNotNull]
    public LoKrModel Model { get; set; } = null!;

    /// <summary>Names of adapters of the model; all of them without it. Wildcards are allowed.</summary>
    [Parameter(ParameterSetName = "Model")]
    [SupportsWildcards]
    [ArgumentCompleter(typeof(AdapterNameCompleter))]
    public string[]? Name { get; set; }

    /// <inheritdoc/>
    protected override void Process()
    {
        if (ParameterSetName == "Model")
        {
            foreach (LoKrAdapter adapter in AdapterNames.Select(Model, Name))
            {
                WriteObject(adapter.Config);
            }

            return;
        }

        bool literal = ParameterSetName == "LiteralPath";
        foreach (string path in ResolveExisting(literal ? LiteralPath : Path, literal))
        {
            ForOne(path, () => WriteObject(Read(path)));
        }
    }

    private LoKrConfig Read(string path)
    {
        LoKrConfig config = File.Exists(path)
            ? LoKrConfigJson.Read(path, out IReadOnlyList<string> warnings)
            : PeftAdapterFolder.ReadConfig(path, out warnings);
        foreach (string warning in warnings)
        {
            WriteWarning(warning);
        }

        return config;
    }
}
