using System.Management.Automation;
using LoKr.Core.Model;
using LoKr.Models.Diffusion;
using LoKr.PowerShell.Base;
using LoKr.PowerShell.Binding;

namespace LoKr.PowerShell.Commands;

/// <summary>Removes adapters from a model. The base weights are as they were before.</summary>
[Cmdlet(VerbsCommon.Remove, "LoKrAdapter", SupportsShouldProcess = true)]
[OutputType(typeof(LoKrModel), typeof(StableDiffusionPipeline))]
public sealed class RemoveLoKrAdapterCommand : ModelCommand
{
    /// <summary>Names of the adapters. Wildcards are allowed.</summary>
    [Parameter(Mandatory = true, Position = 0)]
    [SupportsWildcards]
    [ArgumentCompleter(typeof(AdapterNameCompleter))]
    [ValidateNotNullOrEmpty]
    public string[] Name { get; set; } = [];

    /// <inheritdoc/>
    protected override void Process()
    {
        foreach (string name in AdapterNames.Require(Model, Name))
        {
            if (ShouldProcess(Model.Name, $"Remove LoKr adapter '{name}'"))
            {
                ForOne(name, () => Model.RemoveAdapter(name));
            }
        }

        PassOn(Model);
    }
}
