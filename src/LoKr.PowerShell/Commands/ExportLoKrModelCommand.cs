using System.Management.Automation;
using LoKr.Models;
using LoKr.PowerShell.Base;

namespace LoKr.PowerShell.Commands;

/// <summary>Writes a model as a Hugging Face folder that transformers and Import-LoKrModel load.</summary>
[Cmdlet(VerbsData.Export, "LoKrModel", SupportsShouldProcess = true)]
[OutputType(typeof(DirectoryInfo))]
public sealed class ExportLoKrModelCommand : ModelCommand
{
    /// <summary>Folder to write. It appears complete or not at all.</summary>
    [Parameter(Mandatory = true, Position = 0)]
    [ValidateNotNullOrEmpty]
    public string Destination { get; set; } = "";

    /// <summary>Replace a folder that is there.</summary>
    [Parameter]
    public SwitchParameter Force { get; set; }

    /// <summary>Largest size of one weights file in bytes, for example 2GB; more is split into shards with an index.</summary>
    [Parameter]
    public long MaxShardSize { get; set; } = long.MaxValue;

    /// <summary>Write the folder to the pipeline.</summary>
    [Parameter]
    public SwitchParameter PassThru { get; set; }

    /// <inheritdoc/>
    protected override void Process()
    {
        string folder = ResolveNew(Destination);
        if (!ShouldProcess(folder, $"Export {Model.Name}"))
        {
            return;
        }

        ModelExporter.Export(Model, folder, Force, MaxShardSize);
        WriteVerbose($"{Model.Name} written to {folder}.");
        if (PassThru)
        {
            WriteObject(new DirectoryInfo(folder));
        }
    }
}
