using System.Management.Automation;
using LoKr.Core.Formats.AdapterFiles;
using LoKr.PowerShell.Base;

namespace LoKr.PowerShell.Commands;

/// <summary>Describes adapter files of any layout from their headers, without loading them.</summary>
[Cmdlet(VerbsCommon.Get, "LoKrAdapter", DefaultParameterSetName = "Path")]
[OutputType(typeof(LoKrAdapterInfo))]
public sealed class GetLoKrAdapterCommand : PathCommand
{
    /// <summary>Safetensors files, or adapter folders. Wildcards are allowed.</summary>
    [Parameter(Mandatory = true, Position = 0, ValueFromPipeline = true, ParameterSetName = "Path")]
    [SupportsWildcards]
    [ValidateNotNullOrEmpty]
    public string[] Path { get; set; } = [];

    /// <summary>Safetensors files, or adapter folders, taken as they are written.</summary>
    [Parameter(Mandatory = true, ValueFromPipelineByPropertyName = true, ParameterSetName = "LiteralPath")]
    [Alias("PSPath", "FullName")]
    [ValidateNotNullOrEmpty]
    public string[] LiteralPath { get; set; } = [];

    /// <summary>Layout of the files, where the names of their tensors mislead.</summary>
    [Parameter(ParameterSetName = "Path")]
    [Parameter(ParameterSetName = "LiteralPath")]
    public AdapterLayout? SourceFormat { get; set; }

    /// <inheritdoc/>
    protected override void Process()
    {
        bool literal = ParameterSetName == "LiteralPath";
        foreach (string path in ResolveExisting(literal ? LiteralPath : Path, literal))
        {
            ForOne(path, () => WriteObject(AdapterInspector.Inspect(path, SourceFormat)));
        }
    }
}
