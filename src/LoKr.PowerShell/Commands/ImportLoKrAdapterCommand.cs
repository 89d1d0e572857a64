using System.Management.Automation;
using LoKr.Core.Adapters;
using LoKr.Core.Formats.AdapterFiles;
using LoKr.Models.StableDiffusion;
using LoKr.PowerShell.Base;
using LoKr.PowerShell.Binding;

namespace LoKr.PowerShell.Commands;

/// <summary>Loads an adapter file of any layout onto a model or a pipeline, and passes it on.</summary>
[Cmdlet(VerbsData.Import, "LoKrAdapter", DefaultParameterSetName = PathSet, SupportsShouldProcess = true)]
[OutputType(typeof(LoKrModel), typeof(StableDiffusionPipeline))]
public sealed class ImportLoKrAdapterCommand : PathCommand
{
    private const string PathSet = "Path";
    private const string LiteralSet = "LiteralPath";
    private const string PipelinePathSet = "PipelinePath";
    private const string PipelineLiteralSet = "PipelineLiteralPath";

    /// <summary>The model: from Import-LoKrModel, or any torch.nn.Module.</summary>
    [Parameter(Mandatory = true, ValueFromPipeline = true, ParameterSetName = PathSet)]
    [Parameter(Mandatory = true, ValueFromPipeline = true, ParameterSetName = LiteralSet)]
    [LoKrModelTransformation]
    [ValidateNotNull]
    public LoKrModel Model { get; set; } = null!;

    /// <summary>A Stable Diffusion pipeline from Import-LoKrModel; its text encoders and its UNet each get their modules of the file.</summary>
    [Parameter(Mandatory = true, ValueFromPipeline = true, ParameterSetName = PipelinePathSet)]
    [Parameter(Mandatory = true, ValueFromPipeline = true, ParameterSetName = PipelineLiteralSet)]
    [ValidateNotNull]
    public StableDiffusionPipeline Pipeline { get; set; } = null!;

    /// <summary>Safetensors file, or a folder as PEFT writes it. Wildcards are allowed where they match one.</summary>
    [Parameter(Mandatory = true, Position = 0, ParameterSetName = PathSet)]
    [Parameter(Mandatory = true, Position = 0, ParameterSetName = PipelinePathSet)]
    [SupportsWildcards]
    [ValidateNotNullOrEmpty]
    public string Path { get; set; } = "";

    /// <summary>File or folder, taken as it is written.</summary>
    [Parameter(Mandatory = true, ParameterSetName = LiteralSet)]
    [Parameter(Mandatory = true, ParameterSetName = PipelineLiteralSet)]
    [Alias("PSPath")]
    [ValidateNotNullOrEmpty]
    public string LiteralPath { get; set; } = "";

    /// <summary>Name that the adapter gets in this model.</summary>
    [Parameter]
    [ValidateNotNull]
    public string Name { get; set; } = "default";

    /// <summary>The adapter is to be trained further; otherwise it takes no gradients.</summary>
    [Parameter]
    public SwitchParameter Trainable { get; set; }

    /// <summary>Part of a pipeline whose modules are wanted, for a file that has several; the rest of the file is left out.</summary>
    [Parameter]
    public AdapterComponent? Component { get; set; }

    /// <summary>Alpha of every module, in place of what the file says.</summary>
    [Parameter]
    public double? Alpha { get; set; }

    /// <summary>Convention by which alpha becomes a factor, in place of the one of the file's origin: Peft, Lycoris, or None for 1.</summary>
    [Parameter]
    public ScalingConvention? Scaling { get; set; }

    /// <summary>Layout of the file, where the names of its tensors mislead.</summary>
    [Parameter]
    public AdapterLayout? SourceFormat { get; set; }

    /// <inheritdoc/>
    protected override void Process()
    {
        bool literal = ParameterSetName is LiteralSet or PipelineLiteralSet;
        bool whole = ParameterSetName is PipelinePathSet or PipelineLiteralSet;
        string path = OnlyOne(literal ? LiteralPath : Path, literal);
        if (ShouldProcess(whole ? Pipeline.Name : Model.Name, $"Import LoKr adapter '{Name}' from {path}"))
        {
            EnsureRuntime();
            Load(path, whole);
        }

        WriteObject(whole ? Pipeline : Model);
    }

    private void Load(string path, bool whole)
    {
        using AdapterFile file = AdapterFile.Open(path, SourceFormat);
        foreach (LoKrAdapterFinding finding in file.Findings.Where(static finding => finding.Severity == LoKrFindingSeverity.Warning))
        {
            WriteWarning(finding.Message);
        }

        AdapterReadOptions options = new() { Layout = SourceFormat, Component = Component, Alpha = Alpha, Scaling = Scaling };
        LoKrAdapter[] adapters = whole
            ? [.. AdapterImporter.Import(Pipeline.Models, file, options, Name, Trainable).Values]
            : [AdapterImporter.Import(Model, file, options, Name, Trainable)];
        foreach (LoKrAdapter adapter in adapters)
        {
            foreach (string warning in adapter.Warnings)
            {
                WriteWarning(warning);
            }

            WriteVerbose($"Adapter '{Name}' on {adapter.Layers.Count} modules; {adapter.ParameterCount} parameters.");
        }
    }
}
