using LoKr.PowerShell.Binding;
using System.Management.Automation;
using LoKr.Core.Layouts;
using LoKr.Core.Model;
using LoKr.PowerShell.Base;

namespace LoKr.PowerShell.Commands;

/// <summary>Checks adapter files of any layout, and lists what is wrong with each.</summary>
[Cmdlet(VerbsDiagnostic.Test, "LoKrAdapter", DefaultParameterSetName = "Path")]
[OutputType(typeof(LoKrAdapterCheck), typeof(bool))]
public sealed class TestLoKrAdapterCommand : PathCommand
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

    /// <summary>Read every tensor too, and look for NaN and infinity.</summary>
    [Parameter]
    public SwitchParameter Values { get; set; }

    /// <summary>A model that the files have to fit. It is not changed.</summary>
    [Parameter]
    [LoKrModelTransformation]
    [ValidateNotNull]
    public LoKrModel? Model { get; set; }

    /// <summary>Folder or safetensors file of a base model that the files have to fit; only its headers are read.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public string? BasePath { get; set; }

    /// <summary>Part of a pipeline whose modules are checked, for files that have several.</summary>
    [Parameter]
    public AdapterComponent? Component { get; set; }

    /// <summary>Layout of the files, where the names of their tensors mislead.</summary>
    [Parameter]
    public AdapterLayout? SourceFormat { get; set; }

    /// <summary>Say only whether each file is valid.</summary>
    [Parameter]
    public SwitchParameter Quiet { get; set; }

    /// <inheritdoc/>
    protected override void Process()
    {
        bool literal = ParameterSetName == "LiteralPath";
        AdapterCheckOptions options = new()
        {
            Read = new() { Layout = SourceFormat, Component = Component },
            Values = Values,
            Model = Model,
            BasePath = BasePath is null ? null : OnlyOne(BasePath, literal: false),
        };
        if (Values || Model is not null || BasePath is not null)
        {
            EnsureRuntime();
        }

        foreach (string path in ResolveExisting(literal ? LiteralPath : Path, literal))
        {
            ForOne(path, () => Write(AdapterValidator.Check(path, options)));
        }
    }

    private void Write(LoKrAdapterCheck check)
    {
        if (Quiet)
        {
            WriteObject(check.IsValid);
        }
        else
        {
            WriteObject(check);
        }
    }
}
