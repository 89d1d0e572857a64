using System.Management.Automation;
using LoKr.Core;
using LoKr.Core.Adapters;
using LoKr.Core.Formats.AdapterFiles;
using LoKr.PowerShell.Base;
using LoKr.PowerShell.Binding;

namespace LoKr.PowerShell.Commands;

/// <summary>Writes an adapter as PEFT saves it, or in the layout of another program, and passes the model on.</summary>
[Cmdlet(VerbsData.Export, "LoKrAdapter", SupportsShouldProcess = true)]
[OutputType(typeof(LoKrModel))]
public sealed class ExportLoKrAdapterCommand : ModelCommand
{
    /// <summary>Folder to write, or a safetensors file. It appears complete or not at all; other files of a folder that is there stay.</summary>
    [Parameter(Mandatory = true, Position = 0)]
    [ValidateNotNullOrEmpty]
    public string Destination { get; set; } = "";

    /// <summary>Name of the adapter; without it the active one.</summary>
    [Parameter]
    [ArgumentCompleter(typeof(AdapterNameCompleter))]
    [ValidateNotNullOrEmpty]
    public string? Name { get; set; }

    /// <summary>Layout: Peft, as a folder, without it. Kohya, Lycoris, Comfy, OneTrainer, Hcp and Bare need a destination that ends with .safetensors.</summary>
    [Parameter]
    public AdapterLayout Format { get; set; } = AdapterLayout.Peft;

    /// <summary>Part of a pipeline that the model is, for layouts that name it, where the names of its modules do not tell.</summary>
    [Parameter]
    public AdapterComponent? Component { get; set; }

    /// <summary>Replace an adapter that is there.</summary>
    [Parameter]
    public SwitchParameter Force { get; set; }

    /// <inheritdoc/>
    protected override void Process()
    {
        LoKrAdapter adapter = Select();
        string destination = ResolveNew(Destination);
        if (ShouldProcess(destination, $"Export LoKr adapter '{adapter.Name}' as {Format}"))
        {
            foreach (string warning in AdapterExporter.Export(Model, adapter.Name, destination, Format, new() { Component = Component, Force = Force }))
            {
                WriteWarning(warning);
            }

            WriteVerbose($"Adapter '{adapter.Name}' written to {destination}.");
        }

        WriteObject(Model);
    }

    private LoKrAdapter Select()
    {
        if (Name is not null)
        {
            return Model.GetAdapter(Name);
        }

        return Model.ActiveAdapters.Count == 1
            ? Model.GetAdapter(Model.ActiveAdapters[0])
            : throw new LoKrException(ErrorIds.AdapterAmbiguous, LoKrErrorKind.InvalidArgument,
                Model.ActiveAdapters.Count == 0 ? $"{Model.Name} has no active adapter." : $"Several adapters are active: {string.Join(", ", Model.ActiveAdapters)}.",
                "Name the one to export with -Name, or add one with Add-LoKrAdapter.") { Target = Model };
    }
}
