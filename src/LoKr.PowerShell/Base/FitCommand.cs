using System.ComponentModel;
using System.Management.Automation;
using LoKr.Core.Conversion;
using LoKr.Core.Layouts;
using LoKr.PowerShell.Binding;

namespace LoKr.PowerShell.Base;

/// <summary>Base of the cmdlets that make a new adapter whose factors are fitted to given deltas: what it may cost, and how it is written.</summary>
[EditorBrowsable(EditorBrowsableState.Never)]
public abstract class FitCommand : LoKrCommand
{
    /// <summary>Rank of every layer. A factor whose larger side is at most twice the rank is a full matrix, as in PEFT.</summary>
    [Parameter]
    [Alias("Rank")]
    public int? R { get; set; }

    /// <summary>Writes full matrices instead of low-rank factors.</summary>
    [Parameter]
    public SwitchParameter FullMatrix { get; set; }

    /// <summary>Least share of the squared norm of the nearest full w2 that each layer keeps, in (0, 1]: each gets the smallest rank that does.</summary>
    [Parameter]
    public double? Energy { get; set; }

    /// <summary>Largest relative error of each layer, more than 0 and less than 1: each gets the fewest parameters that reach it. 0.1 keeps 99 % of the squared norm.</summary>
    [Parameter]
    public double? MaxError { get; set; }

    /// <summary>Largest number of parameters of all factors together. They go where they lower the error most; a layer may get none.</summary>
    [Parameter]
    public long? MaxParameters { get; set; }

    /// <summary>Size of w1. Of several candidates the whole adapter gets the one that is best under the limit. -1 is the most square split.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public int[]? DecomposeFactor { get; set; }

    /// <summary>Makes w1 low-rank too where the rank is small enough.</summary>
    [Parameter]
    public SwitchParameter DecomposeBoth { get; set; }

    /// <summary>Makes a low-rank w2 of a convolution a Tucker product, which has fewer parameters; -UseEffectiveConv2d:$false makes it flat.</summary>
    [Parameter]
    public SwitchParameter UseEffectiveConv2d { get; set; }

    /// <summary>Element type of the written factors: float32, bfloat16 or float16. What rounding to it costs is part of the error.</summary>
    [Parameter]
    [ValidateSet("float32", "bfloat16", "float16")]
    public string? DType { get; set; }

    /// <summary>Layout to write. The default is that of the source, and PEFT's for an adapter that is extracted from models.</summary>
    [Parameter]
    public AdapterLayout? Format { get; set; }

    /// <summary>Replaces the destination if it exists.</summary>
    [Parameter]
    public SwitchParameter Force { get; set; }

    /// <summary>The limits and the form.</summary>
    private protected AdapterFitOptions FitOptions => new()
    {
        R = R,
        FullMatrix = FullMatrix,
        Energy = Energy,
        MaxError = MaxError,
        MaxParameters = MaxParameters,
        DecomposeFactors = DecomposeFactor ?? [],
        DecomposeBoth = DecomposeBoth,
        UseEffectiveConv2d = MyInvocation.BoundParameters.ContainsKey(nameof(UseEffectiveConv2d)) ? UseEffectiveConv2d.IsPresent : null,
        DType = ElementTypes.Find(DType),
        Layout = Format,
        Force = Force,
    };

    /// <inheritdoc/>
    private protected override bool IsForFirstWorker => true;

    /// <inheritdoc/>
    protected override void Begin() => WriteWarnings(FullMatrix ? Ignored($"beside -{nameof(FullMatrix)}", nameof(DecomposeBoth), nameof(UseEffectiveConv2d)) : []);

    /// <summary>Writes a weighted sum of adapters, with progress, and its description.</summary>
    /// <param name="terms">Full paths with weights.</param>
    /// <param name="destination">Full path.</param>
    /// <param name="options">Limits, base model, component.</param>
    /// <param name="action">What ShouldProcess says.</param>
    private protected void WriteSum(IReadOnlyList<AdapterTerm> terms, string destination, AdapterSumOptions options, string action)
    {
        EnsureRuntime();
        if (IsRehearsal)
        {
            AdapterSum.Check(terms, destination, options);
        }

        if (!ShouldProcess(destination, action))
        {
            return;
        }

        IReadOnlyList<string> warnings = [];
        LoKrFitResult result = RunReported("Fitting factors", static share => $"{share:P0} of the layers", (report, token) => AdapterSum.Write(terms, destination, options, out warnings, report, token));
        WriteWarnings(warnings);
        WriteObject(result);
    }
}
