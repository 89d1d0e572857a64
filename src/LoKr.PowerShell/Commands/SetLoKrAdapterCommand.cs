using System.Management.Automation;
using LoKr.Core.Errors;
using LoKr.Core.Factors;
using LoKr.Core.Model;
using LoKr.Models.Diffusion;
using LoKr.PowerShell.Base;
using LoKr.PowerShell.Binding;

namespace LoKr.PowerShell.Commands;

/// <summary>Sets which adapters of a model are active, their strength, and whether they are trained.</summary>
[Cmdlet(VerbsCommon.Set, "LoKrAdapter", SupportsShouldProcess = true)]
[OutputType(typeof(LoKrModel), typeof(StableDiffusionPipeline))]
public sealed class SetLoKrAdapterCommand : ModelCommand
{
    /// <summary>Names of the adapters. Wildcards are allowed.</summary>
    [Parameter(Mandatory = true, Position = 0)]
    [SupportsWildcards]
    [ArgumentCompleter(typeof(AdapterNameCompleter))]
    [ValidateNotNullOrEmpty]
    public string[] Name { get; set; } = [];

    /// <summary>Makes exactly these adapters active; their deltas are added.</summary>
    [Parameter]
    public SwitchParameter Active { get; set; }

    /// <summary>Strength of the adapters, 1 as trained; modules that are saved whole are not scaled.</summary>
    [Parameter]
    public double? Scale { get; set; }

    /// <summary>
    /// Meaning of the strength s of an adapter with DoRA. Linear: W + s·(W' − W), where 0 is the base weight and 1 the trained weight W'.
    /// Lycoris: the multiplier of LyCORIS, which weakens the magnitudes alone: (W + Δ)·(s·(q − 1) + 1).
    /// </summary>
    [Parameter]
    public DoraStrength DoraStrength { get; set; }

    /// <summary>Lets the adapters be trained while they are active; -Trainable:$false freezes them.</summary>
    [Parameter]
    public SwitchParameter Trainable { get; set; }

    private bool SetsDoraStrength => MyInvocation.BoundParameters.ContainsKey(nameof(DoraStrength));

    /// <inheritdoc/>
    protected override void Process()
    {
        bool setsTrainable = MyInvocation.BoundParameters.ContainsKey(nameof(Trainable));
        if (!Active && Scale is null && !SetsDoraStrength && !setsTrainable)
        {
            throw new LoKrException(ErrorIds.InvalidArgument, LoKrErrorKind.InvalidArgument, "There is nothing to set.", "Give -Active, -Scale, -DoraStrength or -Trainable.");
        }

        IReadOnlyList<string> names = AdapterNames.Require(Model, Name);
        if (ShouldProcess(Model.Name, $"Set LoKr adapters {string.Join(", ", names)} to {Describe(setsTrainable)}"))
        {
            Apply(names, setsTrainable);
        }

        PassOn(Model);
    }

    private string Describe(bool setsTrainable) => string.Join(", ", ((string?[])[
        Scale is double scale ? FormattableString.Invariant($"scale {scale}") : null,
        SetsDoraStrength ? $"DoRA strength {DoraStrength}" : null,
        setsTrainable ? (Trainable ? "trainable" : "frozen") : null,
        Active ? "active" : null,
    ]).Where(part => part is not null));

    private void Apply(IReadOnlyList<string> names, bool setsTrainable)
    {
        // Strength first: nothing else can be refused.
        if (SetsDoraStrength)
        {
            Model.SetDoraStrength(names, DoraStrength);
        }

        if (Scale is double scale)
        {
            Model.SetAdapterScale(names, scale);
        }

        foreach (string name in setsTrainable ? names : [])
        {
            Model.SetAdapterTrainable(name, Trainable);
        }

        if (Active)
        {
            Model.SetActiveAdapters(names);
        }
    }
}
