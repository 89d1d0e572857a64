using LoKr.PowerShell.Binding;
using System.Management.Automation;
using LoKr.Core.Configuration;
using LoKr.Core.Layouts;
using LoKr.Core.Model;
using LoKr.Models.Diffusion;
using LoKr.PowerShell.Base;

namespace LoKr.PowerShell.Commands;

/// <summary>Loads an adapter file of any layout onto a model or a whole pipeline, and passes it on.</summary>
[Cmdlet(VerbsData.Import, "LoKrAdapter", DefaultParameterSetName = PathSet, SupportsShouldProcess = true)]
[OutputType(typeof(LoKrModel), typeof(StableDiffusionPipeline))]
public sealed class ImportLoKrAdapterCommand : PathCommand
{
    private const string PathSet = "Path";
    private const string LiteralPathSet = "LiteralPath";
    private const string PipelinePathSet = "PipelinePath";
    private const string PipelineLiteralPathSet = "PipelineLiteralPath";

    /// <summary>The model: from Import-LoKrModel, or any torch.nn.Module.</summary>
    [Parameter(Mandatory = true, Position = 1, ValueFromPipeline = true, ParameterSetName = PathSet)]
    [Parameter(Mandatory = true, Position = 1, ValueFromPipeline = true, ParameterSetName = LiteralPathSet)]
    [LoKrModelTransformation]
    [ValidateNotNull]
    public LoKrModel Model { get; set; } = null!;

    /// <summary>A Stable Diffusion pipeline: each component gets the modules of the file that are its own.</summary>
    [Parameter(Mandatory = true, Position = 1, ValueFromPipeline = true, ParameterSetName = PipelinePathSet)]
    [Parameter(Mandatory = true, Position = 1, ValueFromPipeline = true, ParameterSetName = PipelineLiteralPathSet)]
    [ValidateNotNull]
    public StableDiffusionPipeline Pipeline { get; set; } = null!;

    /// <summary>Safetensors file, or a folder as PEFT writes it; for a pipeline also a folder with one of these for each component. Wildcards are allowed where they match one.</summary>
    [Parameter(Mandatory = true, Position = 0, ParameterSetName = PathSet)]
    [Parameter(Mandatory = true, Position = 0, ParameterSetName = PipelinePathSet)]
    [SupportsWildcards]
    [ValidateNotNullOrEmpty]
    public string Path { get; set; } = "";

    /// <summary>File or folder, taken as it is written.</summary>
    [Parameter(Mandatory = true, ParameterSetName = LiteralPathSet)]
    [Parameter(Mandatory = true, ParameterSetName = PipelineLiteralPathSet)]
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
        bool literal = ParameterSetName is LiteralPathSet or PipelineLiteralPathSet;
        bool whole = ParameterSetName is PipelinePathSet or PipelineLiteralPathSet;
        string path = OnlyOne(literal ? LiteralPath : Path, literal);
        if (ShouldProcess(whole ? Pipeline.Name : Model.Name, $"Import LoKr adapter '{Name}' from {path}"))
        {
            EnsureRuntime();
            IReadOnlyDictionary<string, LoKrAdapter> loaded = whole
                ? AdapterImporter.Import(Pipeline, path, ReadOptions(), Name, Trainable, Warn)
                : new Dictionary<string, LoKrAdapter> { [Model.Name] = Load(path) };
            foreach ((string place, LoKrAdapter adapter) in loaded)
            {
                foreach (string warning in adapter.Warnings)
                {
                    WriteWarning(warning);
                }

                WriteVerbose($"Adapter '{Name}' on {adapter.Layers.Count} modules of {place}.");
            }
        }

        WriteObject(whole ? Pipeline : Model);
    }

    private LoKrAdapter Load(string path)
    {
        using AdapterFile file = AdapterFile.Open(path, SourceFormat);
        foreach (LoKrAdapterFinding finding in file.Findings)
        {
            Warn(finding);
        }

        return AdapterImporter.Import(Model, file, ReadOptions(), Name, Trainable);
    }

    private void Warn(LoKrAdapterFinding finding)
    {
        if (finding.Severity == LoKrFindingSeverity.Warning)
        {
            WriteWarning(finding.Message);
        }
    }

    private AdapterReadOptions ReadOptions() => new() { Layout = SourceFormat, Component = Component, Alpha = Alpha, Scaling = Scaling };
}
