using System.Management.Automation;
using LoKr.Core.Conversion;
using LoKr.Core.Layouts;
using LoKr.PowerShell.Base;
using LoKr.PowerShell.Binding;

namespace LoKr.PowerShell.Commands;

/// <summary>Writes the weighted sum of adapters as one adapter: exact where one Kronecker product for each layer can hold it, and the nearest one otherwise.</summary>
[Cmdlet(VerbsCommon.Join, "LoKrAdapter", DefaultParameterSetName = "Path", SupportsShouldProcess = true)]
[OutputType(typeof(LoKrFitResult))]
public sealed class JoinLoKrAdapterCommand : FitCommand
{
    private readonly List<string> _paths = [];
    private bool _isIncomplete;

    /// <summary>Safetensors files or adapter folders. Wildcards are allowed.</summary>
    [Parameter(Mandatory = true, Position = 0, ValueFromPipeline = true, ParameterSetName = "Path")]
    [SupportsWildcards]
    [ValidateNotNullOrEmpty]
    [ArgumentCompleter(typeof(PathCompleter))]
    public string[] Path { get; set; } = [];

    /// <summary>Safetensors files or adapter folders, taken as they are written.</summary>
    [Parameter(Mandatory = true, ValueFromPipelineByPropertyName = true, ParameterSetName = "LiteralPath")]
    [Alias("PSPath", "FullName")]
    [ValidateNotNullOrEmpty]
    public string[] LiteralPath { get; set; } = [];

    /// <summary>Safetensors file to write. For PEFT's and diffusers' layouts a name without that extension is a folder.</summary>
    [Parameter(Mandatory = true, Position = 1)]
    [ValidateNotNullOrEmpty]
    public string Destination { get; set; } = "";

    /// <summary>Weight of each adapter, in the order of the adapters; one number for all, or one for each. Negative ones subtract.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public double[] Weight { get; set; } = [1];

    /// <summary>Folder or safetensors file of the base model. Its headers resolve names with underscores, and tell convolutions from linear layers.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public string? BasePath { get; set; }

    /// <summary>Component of a pipeline to take, if the files have several.</summary>
    [Parameter]
    public AdapterComponent? Component { get; set; }

    /// <inheritdoc/>
    protected override string? Subject => string.Join(", ", LiteralPath.Length > 0 ? LiteralPath : Path);

    /// <inheritdoc/>
    protected override void Process()
    {
        bool literal = ParameterSetName == "LiteralPath";
        try
        {
            foreach (string path in literal ? LiteralPath : Path)
            {
                _paths.AddRange(Paths.Existing(path, literal));
            }
        }
        catch
        {
            // A sum without one of its terms is another adapter.
            _isIncomplete = true;
            throw;
        }
    }

    /// <inheritdoc/>
    protected override void End()
    {
        if (_isIncomplete)
        {
            WriteWarning($"No adapter is written to '{Destination}': one that was to be joined was not found.");
            return;
        }

        AdapterTerm[] terms = [.. AdapterWeights.For(Weight, _paths).Select(static adapter => new AdapterTerm(adapter.Path, adapter.Weight))];
        AdapterSumOptions options = new() { Fit = FitOptions, BasePath = BasePath is null ? null : Paths.ExistingOne(BasePath), Component = Component };
        WriteSum(terms, Paths.New(Destination), options, $"Join LoKr adapters {string.Join(", ", terms.Select(static term => FormattableString.Invariant($"{term.Weight} × {term.Path}")))}");
    }
}
