using System.Management.Automation;
using LoKr.Core.Configuration;
using LoKr.Core.Model;
using LoKr.Models.Diffusion;
using LoKr.PowerShell.Base;
using LoKr.PowerShell.Binding;
using LoKr.PowerShell.Hosting;

namespace LoKr.PowerShell.Commands;

/// <summary>Adds a fresh LoKr adapter to a model.</summary>
[Cmdlet(VerbsCommon.Add, "LoKrAdapter", DefaultParameterSetName = "Config", SupportsShouldProcess = true)]
[OutputType(typeof(LoKrModel), typeof(StableDiffusionPipeline))]
public sealed class AddLoKrAdapterCommand : PassThruCommand
{
    /// <summary>The model or the pipeline: from Import-LoKrModel, or any torch.nn.Module.</summary>
    [Parameter(Mandatory = true, Position = 0, ParameterSetName = "Config")]
    [Parameter(Mandatory = true, ValueFromPipeline = true, ParameterSetName = "Model")]
    [LoKrModelTransformation]
    [ValidateNotNull]
    public IAdaptable Model { get; set; } = null!;

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
    protected override string? Subject => NameOf(Model);

    /// <inheritdoc/>
    protected override void Process()
    {
        if (IsRehearsal)
        {
            Model.CheckAddAdapter(Config, Name, restart: true);

            // With a seed, torch's global generator stays as it is.
            (IAdaptable model, LoKrConfig config, string name) = (Model, Config, Name);
            Rehearsals.Remember(model, name, () => model.AddAdapter(config, name, seed: 0));
        }

        if (ShouldProcess(Model.Name, $"Add LoKr adapter '{Name}'"))
        {
            EnsureRuntime();
            foreach ((string component, LoKrAdapter adapter) in Model.AddAdapter(Config, Name, Seed, restart: true))
            {
                WriteWarnings(adapter.Warnings);
                WriteVerbose($"Adapter '{Name}' on {adapter.Layers.Count} modules of {(component.Length == 0 ? Model.Name : component)}.");
            }

            WriteVerbose($"{Model.CountParameters()}.");
        }

        PassOn(Model);
    }
}
