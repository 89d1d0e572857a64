using System.Management.Automation;
using LoKr.Core.Configuration;
using LoKr.Core.Layouts;
using LoKr.Core.Model;
using LoKr.Core.Runs;
using LoKr.Models.Diffusion;
using LoKr.PowerShell.Base;
using LoKr.PowerShell.Binding;
using LoKr.PowerShell.Hosting;

namespace LoKr.PowerShell.Commands;

/// <summary>Loads an adapter file of any layout onto a model or a whole pipeline.</summary>
[Cmdlet(VerbsData.Import, "LoKrAdapter", DefaultParameterSetName = PathSet, SupportsShouldProcess = true)]
[OutputType(typeof(LoKrModel), typeof(StableDiffusionPipeline))]
public sealed class ImportLoKrAdapterCommand : PassThruCommand
{
    private const string PathSet = "Path";
    private const string LiteralPathSet = "LiteralPath";
    private const string PipelinePathSet = "PipelinePath";
    private const string PipelineLiteralPathSet = "PipelineLiteralPath";
    private const string RegistrySet = "Registry";
    private const string PipelineRegistrySet = "PipelineRegistry";

    /// <summary>The model: from Import-LoKrModel, or any torch.nn.Module.</summary>
    [Parameter(Mandatory = true, Position = 1, ValueFromPipeline = true, ParameterSetName = PathSet)]
    [Parameter(Mandatory = true, Position = 1, ValueFromPipeline = true, ParameterSetName = LiteralPathSet)]
    [Parameter(Mandatory = true, Position = 1, ValueFromPipeline = true, ParameterSetName = RegistrySet)]
    [LoKrModelTransformation]
    [ValidateNotNull]
    public LoKrModel Model { get; set; } = null!;

    /// <summary>A Stable Diffusion pipeline. Each component gets its own modules of the file.</summary>
    [Parameter(Mandatory = true, Position = 1, ValueFromPipeline = true, ParameterSetName = PipelinePathSet)]
    [Parameter(Mandatory = true, Position = 1, ValueFromPipeline = true, ParameterSetName = PipelineLiteralPathSet)]
    [Parameter(Mandatory = true, Position = 1, ValueFromPipeline = true, ParameterSetName = PipelineRegistrySet)]
    [ValidateNotNull]
    public StableDiffusionPipeline Pipeline { get; set; } = null!;

    /// <summary>Safetensors file, or a folder as PEFT writes it; for a pipeline also a folder with one of these for each component. Wildcards are allowed if they match one item.</summary>
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

    /// <summary>Folder of a registry; -Name names the adapter in it.</summary>
    [Parameter(Mandatory = true, ParameterSetName = RegistrySet)]
    [Parameter(Mandatory = true, ParameterSetName = PipelineRegistrySet)]
    [ValidateNotNullOrEmpty]
    [ArgumentCompleter(typeof(FolderCompleter))]
    public string? Registry { get; set; }

    /// <summary>Which version of the registry to load.</summary>
    [Parameter(ParameterSetName = RegistrySet)]
    [Parameter(ParameterSetName = PipelineRegistrySet)]
    [ValidateNotNullOrEmpty]
    public string Alias { get; set; } = "champion";

    /// <summary>Name of the adapter in this model, and in the registry where it comes from one.</summary>
    [Parameter]
    [ValidateNotNull]
    public string Name { get; set; } = "default";

    /// <summary>Lets the adapter be trained further; without it the adapter takes no gradients.</summary>
    [Parameter]
    public SwitchParameter Trainable { get; set; }

    /// <summary>Component of a pipeline to load, if the file has several; the rest of the file is ignored.</summary>
    [Parameter]
    public AdapterComponent? Component { get; set; }

    /// <summary>Alpha of every module; it overrides the file.</summary>
    [Parameter]
    public double? Alpha { get; set; }

    /// <summary>Convention by which alpha becomes a factor; it overrides that of the program that wrote the file: Peft, Lycoris, or None for 1.</summary>
    [Parameter]
    public ScalingConvention? Scaling { get; set; }

    /// <summary>Rank of modules whose factors are both whole, for a Scaling that depends on it; without it the one that kohya's trainers write into the header.</summary>
    [Parameter]
    [ValidateRange(1, int.MaxValue)]
    public int? Rank { get; set; }

    /// <summary>Leaves out tensors of other kinds of adapters, with a warning, in place of an error.</summary>
    [Parameter]
    public SwitchParameter SkipUnsupported { get; set; }

    /// <summary>Layout of the file; it overrides the one that the names of its tensors suggest.</summary>
    [Parameter]
    public AdapterLayout? SourceFormat { get; set; }

    /// <inheritdoc/>
    protected override string? Subject => Registry ?? (LiteralPath.Length > 0 ? LiteralPath : Path);

    /// <inheritdoc/>
    protected override void Begin() => WriteWarnings(Scaling is ScalingConvention.None ? Ignored($"beside -{nameof(Scaling)} {Scaling}", nameof(Alpha)) : []);

    /// <inheritdoc/>
    protected override void Process()
    {
        IAdaptable target = ParameterSetName is PipelinePathSet or PipelineLiteralPathSet or PipelineRegistrySet ? Pipeline : Model;
        string path = Registry is null ? Paths.ExistingOne(Path, LiteralPath) : new AdapterRegistry(Paths.New(Registry)).Get(Name, Alias).Path;
        AdapterReadOptions options = new() { Layout = SourceFormat, Component = Component, Alpha = Alpha, Scaling = Scaling, Rank = Rank, Foreign = SkipUnsupported ? ForeignTensors.Skip : ForeignTensors.Refuse };
        if (IsRehearsal)
        {
            EnsureRuntime();
            AdapterImporter.Check(target, path, options, Name, Trainable, Warn);
            Rehearsals.Remember(target, Name, () => AdapterImporter.Import(target, path, options, Name, Trainable));
        }

        if (ShouldProcess(target.Name, $"Import LoKr adapter '{Name}' from {path}"))
        {
            EnsureRuntime();
            foreach ((string component, LoKrAdapter adapter) in AdapterImporter.Import(target, path, options, Name, Trainable, Warn))
            {
                WriteWarnings(adapter.Warnings);
                WriteVerbose($"Adapter '{Name}' on {adapter.Layers.Count} modules of {(component.Length == 0 ? target.Name : component)}.");
            }
        }

        PassOn(target);
    }

    private void Warn(LoKrAdapterFinding finding)
    {
        if (finding.Severity == LoKrFindingSeverity.Warning)
        {
            WriteWarning(finding.Message);
        }
    }
}
