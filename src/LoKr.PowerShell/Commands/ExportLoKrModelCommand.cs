using System.Management.Automation;
using LoKr.Core.IO;
using LoKr.Core.Model;
using LoKr.Models.Diffusion;
using LoKr.Models.Loading;
using LoKr.PowerShell.Base;
using LoKr.PowerShell.Binding;

namespace LoKr.PowerShell.Commands;

/// <summary>Writes a model or a pipeline as a Hugging Face folder that transformers, diffusers and Import-LoKrModel load.</summary>
[Cmdlet(VerbsData.Export, "LoKrModel", DefaultParameterSetName = ModelSet, SupportsShouldProcess = true)]
[OutputType(typeof(DirectoryInfo))]
public sealed class ExportLoKrModelCommand : LoKrCommand
{
    private const string ModelSet = "Model";
    private const string PipelineSet = "Pipeline";

    /// <summary>The model: from Import-LoKrModel, or any torch.nn.Module.</summary>
    [Parameter(Mandatory = true, Position = 1, ValueFromPipeline = true, ParameterSetName = ModelSet)]
    [LoKrModelTransformation]
    [ValidateNotNull]
    public LoKrModel Model { get; set; } = null!;

    /// <summary>A Stable Diffusion pipeline from Import-LoKrModel.</summary>
    [Parameter(Mandatory = true, Position = 1, ValueFromPipeline = true, ParameterSetName = PipelineSet)]
    [ValidateNotNull]
    public StableDiffusionPipeline Pipeline { get; set; } = null!;

    /// <summary>Folder to write. It appears complete or not at all.</summary>
    [Parameter(Mandatory = true, Position = 0, ValueFromPipelineByPropertyName = true)]
    [ValidateNotNullOrEmpty]
    [ArgumentCompleter(typeof(FolderCompleter))]
    public string Destination { get; set; } = "";

    /// <summary>Replaces an existing folder.</summary>
    [Parameter]
    public SwitchParameter Force { get; set; }

    /// <summary>Largest size of one weights file in bytes, for example 2GB; larger weights are split into shards with an index.</summary>
    [Parameter]
    public long MaxShardSize { get; set; } = long.MaxValue;

    /// <summary>Writes the folder to the pipeline as an object.</summary>
    [Parameter]
    public SwitchParameter PassThru { get; set; }

    /// <inheritdoc/>
    private protected override bool IsForFirstWorker => true;

    /// <inheritdoc/>
    protected override void Process()
    {
        IAdaptable target = ParameterSetName == PipelineSet ? Pipeline : Model;
        string folder = Paths.Destination(Destination);
        if (IsRehearsal)
        {
            StagedDirectory.Check(folder, Force);
        }

        if (!ShouldProcess(folder, $"Export {target.Name}"))
        {
            return;
        }

        ModelFolder.Export(target, folder, Force, MaxShardSize, StopToken);
        WriteVerbose($"{target.Name} written to {folder}.");
        if (PassThru)
        {
            WriteObject(new DirectoryInfo(folder));
        }
    }
}
