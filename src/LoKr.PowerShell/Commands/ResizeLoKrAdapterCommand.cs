using System.Management.Automation;
using LoKr.Core.Conversion;
using LoKr.Core.Layouts;
using LoKr.PowerShell.Base;

namespace LoKr.PowerShell.Commands;

/// <summary>Writes an adapter with other ranks, other factors or another type, as near to the adapter as these allow.</summary>
[Cmdlet(VerbsCommon.Resize, "LoKrAdapter", DefaultParameterSetName = "Path", SupportsShouldProcess = true)]
[OutputType(typeof(LoKrFitResult))]
public sealed class ResizeLoKrAdapterCommand : FitCommand
{
    /// <summary>Safetensors file, or adapter folder. Wildcards are allowed if they match one item.</summary>
    [Parameter(Mandatory = true, Position = 0, ValueFromPipeline = true, ParameterSetName = "Path")]
    [SupportsWildcards]
    [ValidateNotNullOrEmpty]
    public string Path { get; set; } = "";

    /// <summary>Safetensors file, or adapter folder, taken as it is written.</summary>
    [Parameter(Mandatory = true, ValueFromPipelineByPropertyName = true, ParameterSetName = "LiteralPath")]
    [Alias("PSPath", "FullName")]
    [ValidateNotNullOrEmpty]
    public string LiteralPath { get; set; } = "";

    /// <summary>Safetensors file to write. For PEFT's and diffusers' layouts a name without that extension is a folder.</summary>
    [Parameter(Mandatory = true, Position = 1, ValueFromPipelineByPropertyName = true)]
    [ValidateNotNullOrEmpty]
    public string Destination { get; set; } = "";

    /// <summary>Folder or safetensors file of the base model. Its headers resolve names with underscores, and tell convolutions from linear layers.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public string? BasePath { get; set; }

    /// <summary>Component of a pipeline to take, if the file has several.</summary>
    [Parameter]
    public AdapterComponent? Component { get; set; }

    /// <summary>Multiplies all deltas by a number.</summary>
    [Parameter]
    public double Weight { get; set; } = 1;

    /// <summary>Brings w1 and w2 of every layer to equal norms, also where their shapes stay.</summary>
    [Parameter]
    public SwitchParameter NormalizeFactors { get; set; }

    /// <inheritdoc/>
    protected override string? Subject => LiteralPath.Length > 0 ? LiteralPath : Path;

    /// <inheritdoc/>
    protected override void Process()
    {
        string path = Paths.ExistingOne(Path, LiteralPath);
        AdapterSumOptions options = new()
        {
            Fit = FitOptions,
            BasePath = BasePath is null ? null : Paths.ExistingOne(BasePath),
            Component = Component,
            Copies = !NormalizeFactors,
        };
        WriteSum([new(path, Weight)], Paths.Destination(Destination), options, $"Resize LoKr adapter {path}");
    }
}
