using LoKr.PowerShell.Binding;
using System.Management.Automation;
using LoKr.Core.Configuration;
using LoKr.Core.Model;
using LoKr.PowerShell.Base;

namespace LoKr.PowerShell.Commands;

/// <summary>Adds a fresh LoKr adapter to a model and passes the model on.</summary>
[Cmdlet(VerbsCommon.Add, "LoKrAdapter", DefaultParameterSetName = "Config", SupportsShouldProcess = true)]
[OutputType(typeof(LoKrModel))]
public sealed class AddLoKrAdapterCommand : LoKrCommand
{
    /// <summary>The model: from Import-LoKrModel, or any torch.nn.Module.</summary>
    [Parameter(Mandatory = true, Position = 0, ParameterSetName = "Config")]
    [Parameter(Mandatory = true, ValueFromPipeline = true, ParameterSetName = "Model")]
    [LoKrModelTransformation]
    [ValidateNotNull]
    public LoKrModel Model { get; set; } = null!;

    /// <summary>The configuration, from New-LoKrConfig or Get-LoKrConfig.</summary>
    [Parameter(Mandatory = true, ValueFromPipeline = true, ParameterSetName = "Config")]
    [Parameter(Mandatory = true, Position = 0, ParameterSetName = "Model")]
    [ValidateNotNull]
    public LoKrConfig Config { get; set; } = null!;

    /// <summary>Name of the adapter.</summary>
    [Parameter]
    [ValidateNotNull]
    public string Name { get; set; } = "default";

    /// <summary>Seed of the initialization.</summary>
    [Parameter]
    public long? Seed { get; set; }

    /// <inheritdoc/>
    protected override void Process()
    {
        if (ShouldProcess(Model.Name, $"Add LoKr adapter '{Name}'"))
        {
            EnsureRuntime();
            LoKrAdapter adapter = Model.AddAdapter(Config, Name, Seed);
            foreach (string warning in adapter.Warnings)
            {
                WriteWarning(warning);
            }

            WriteVerbose($"Adapter '{Name}' on {adapter.Layers.Count} modules; {Model.CountParameters()}.");
        }

        WriteObject(Model);
    }
}
