using System.Management.Automation;
using LoKr.Core.Layouts;
using LoKr.Core.Model;
using LoKr.PowerShell.Base;
using LoKr.PowerShell.Binding;

namespace LoKr.PowerShell.Commands;

/// <summary>Checks adapter files of any layout, and lists the problems of each.</summary>
[Cmdlet(VerbsDiagnostic.Test, "LoKrAdapter", DefaultParameterSetName = PathSet)]
[OutputType(typeof(LoKrAdapterCheck), typeof(bool))]
public sealed class TestLoKrAdapterCommand : PathCommand
{
    /// <summary>Reads every tensor too, and looks for NaN and infinity.</summary>
    [Parameter]
    public SwitchParameter Values { get; set; }

    /// <summary>A model that the files must fit. It is not changed.</summary>
    [Parameter]
    [LoKrModelTransformation]
    [ValidateNotNull]
    public LoKrModel? Model { get; set; }

    /// <summary>Folder or safetensors file of a base model that the files must fit; only its headers are read.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public string? BasePath { get; set; }

    /// <summary>Program that is to read the files as they are: findings say what it will leave out, refuse, or scale otherwise.</summary>
    [Parameter]
    public AdapterProgram? For { get; set; }

    /// <summary>Component of a pipeline to check, if the files have several.</summary>
    [Parameter]
    public AdapterComponent? Component { get; set; }

    /// <summary>Layout of the files; it overrides the one that the names of their tensors suggest.</summary>
    [Parameter]
    public AdapterLayout? SourceFormat { get; set; }

    /// <summary>Writes $true or $false for each file instead of the findings.</summary>
    [Parameter]
    public SwitchParameter Quiet { get; set; }

    /// <inheritdoc/>
    protected override void Begin() => WriteWarnings(Model is null ? [] : Ignored($"beside -{nameof(Model)}", nameof(BasePath)));

    /// <inheritdoc/>
    protected override void Process()
    {
        AdapterCheckOptions options = new()
        {
            Read = new() { Layout = SourceFormat, Component = Component },
            Values = Values,
            Program = For,
            Model = Model,
            BasePath = BasePath is null ? null : Paths.ExistingOne(BasePath),
        };
        if (Values || Model is not null || BasePath is not null)
        {
            EnsureRuntime();
        }

        ForEachPath(path =>
        {
            LoKrAdapterCheck check = AdapterValidator.Check(path, options);
            WriteObject(Quiet ? check.IsValid : check);
        });
    }
}
