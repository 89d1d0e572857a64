using System.Management.Automation;
using LoKr.Core.Adapters;
using LoKr.Core.Formats.AdapterFiles;
using LoKr.PowerShell.Base;

namespace LoKr.PowerShell.Commands;

/// <summary>Loads an adapter file of any layout onto a model, and passes the model on.</summary>
[Cmdlet(VerbsData.Import, "LoKrAdapter", DefaultParameterSetName = "Path", SupportsShouldProcess = true)]
[OutputType(typeof(LoKrModel))]
public sealed class ImportLoKrAdapterCommand : ModelCommand
{
    /// <summary>Safetensors file, or a folder as PEFT writes it. Wildcards are allowed where they match one.</summary>
    [Parameter(Mandatory = true, Position = 0, ParameterSetName = "Path")]
    [SupportsWildcards]
    [ValidateNotNullOrEmpty]
    public string Path { get; set; } = "";

    /// <summary>File or folder, taken as it is written.</summary>
    [Parameter(Mandatory = true, ParameterSetName = "LiteralPath")]
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
        bool literal = ParameterSetName == "LiteralPath";
        string path = OnlyOne(literal ? LiteralPath : Path, literal);
        if (ShouldProcess(Model.Name, $"Import LoKr adapter '{Name}' from {path}"))
        {
            EnsureRuntime();
            LoKrAdapter adapter = Load(path);
            foreach (string warning in adapter.Warnings)
            {
                WriteWarning(warning);
            }

            WriteVerbose($"Adapter '{Name}' on {adapter.Layers.Count} modules; {Model.CountParameters()}.");
        }

        WriteObject(Model);
    }

    private LoKrAdapter Load(string path)
    {
        using AdapterFile file = AdapterFile.Open(path, SourceFormat);
        foreach (LoKrAdapterFinding finding in file.Findings.Where(static finding => finding.Severity == LoKrFindingSeverity.Warning))
        {
            WriteWarning(finding.Message);
        }

        return AdapterImporter.Import(Model, file, new() { Layout = SourceFormat, Component = Component, Alpha = Alpha, Scaling = Scaling }, Name, Trainable);
    }
}
