using System.Management.Automation;
using LoKr.Core.Adapters;
using LoKr.Core.Formats.AdapterFiles;
using LoKr.PowerShell.Base;
using LoKr.PowerShell.Binding;

namespace LoKr.PowerShell.Commands;

/// <summary>Converts an adapter file to another layout, without changing what it does to a model.</summary>
[Cmdlet(VerbsData.Convert, "LoKrAdapter", DefaultParameterSetName = "Path", SupportsShouldProcess = true)]
[OutputType(typeof(LoKrAdapterInfo))]
public sealed class ConvertLoKrAdapterCommand : PathCommand
{
    /// <summary>Safetensors file, or adapter folder. Wildcards are allowed where they match one.</summary>
    [Parameter(Mandatory = true, Position = 0, ValueFromPipeline = true, ParameterSetName = "Path")]
    [SupportsWildcards]
    [ValidateNotNullOrEmpty]
    public string Path { get; set; } = "";

    /// <summary>Safetensors file, or adapter folder, taken as it is written.</summary>
    [Parameter(Mandatory = true, ValueFromPipelineByPropertyName = true, ParameterSetName = "LiteralPath")]
    [Alias("PSPath", "FullName")]
    [ValidateNotNullOrEmpty]
    public string LiteralPath { get; set; } = "";

    /// <summary>Layout to write.</summary>
    [Parameter(Mandatory = true)]
    public AdapterLayout Format { get; set; }

    /// <summary>Safetensors file to write. For Peft, Diffusers and DiffusersModel a name without that extension is a folder.</summary>
    [Parameter(Mandatory = true, Position = 1)]
    [ValidateNotNullOrEmpty]
    public string Destination { get; set; } = "";

    /// <summary>Folder or safetensors file of the base model. Its headers tell where the dots of names with underscores belong, and the shapes of layers.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public string? BasePath { get; set; }

    /// <summary>A model in place of the base model's files. It is not changed.</summary>
    [Parameter]
    [LoKrModelTransformation]
    [ValidateNotNull]
    public LoKrModel? Model { get; set; }

    /// <summary>Part of a pipeline: the one that is wanted of a file with several, or what the only one is called in the result.</summary>
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

    /// <summary>Replace what is at the destination.</summary>
    [Parameter]
    public SwitchParameter Force { get; set; }

    /// <inheritdoc/>
    protected override void Process()
    {
        bool literal = ParameterSetName == "LiteralPath";
        string path = OnlyOne(literal ? LiteralPath : Path, literal);
        string destination = ResolveNew(Destination);
        if (!ShouldProcess(destination, $"Convert LoKr adapter {path} to {Format}"))
        {
            return;
        }

        EnsureRuntime();
        AdapterConvertOptions options = new()
        {
            Read = new() { Layout = SourceFormat, Component = Component, Alpha = Alpha, Scaling = Scaling },
            BasePath = BasePath is null ? null : OnlyOne(BasePath, literal: false),
            Model = Model,
            Force = Force,
        };
        LoKrAdapterInfo written = AdapterConverter.Convert(path, destination, Format, options, out IReadOnlyList<string> warnings);
        foreach (string warning in warnings)
        {
            WriteWarning(warning);
        }

        WriteObject(written);
    }
}
