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
        IReadOnlyList<string> names = SelectEach(Model, Name, AdapterNames.Require);
        foreach (string name in names)
        {
            if (ShouldProcess(Model.Name, $"Remove LoKr adapter '{name}'"))
            {
                ForOne(name, () => Model.RemoveAdapter(name));
            }
        }

        if (names.Count > 0)
        {
            PassOn(Model);
        }
    }
}
