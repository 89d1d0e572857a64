using System.Management.Automation;
using LoKr.Core.Configuration;
using LoKr.Core.Conversion;
using LoKr.PowerShell.Base;
using LoKr.PowerShell.Binding;

namespace LoKr.PowerShell.Commands;

/// <summary>Extracts a LoKr adapter from a base model and its fine-tuning: for every weight the Kronecker product nearest to what changed.</summary>
[Cmdlet(VerbsCommon.New, "LoKrAdapter", SupportsShouldProcess = true)]
[OutputType(typeof(LoKrFitResult))]
public sealed class NewLoKrAdapterCommand : FitCommand
{
    /// <summary>The base model: folder of transformers, pipeline folder of diffusers, or one safetensors file. Wildcards are allowed if they match one item.</summary>
    [Parameter(Mandatory = true, Position = 0)]
    [SupportsWildcards]
    [ValidateNotNullOrEmpty]
    public string BasePath { get; set; } = "";

    /// <summary>The fine-tuned model, in the same form; the adapter gets its names. Wildcards are allowed if they match one item.</summary>
    [Parameter(Mandatory = true, Position = 1, ValueFromPipeline = true, ValueFromPipelineByPropertyName = true)]
    [Alias("PSPath", "FullName")]
    [SupportsWildcards]
    [ValidateNotNullOrEmpty]
    public string FineTunedPath { get; set; } = "";

    /// <summary>Folder to write; for other layouts than PEFT's the name of a safetensors file.</summary>
    [Parameter(Mandatory = true, Position = 2, ValueFromPipelineByPropertyName = true)]
    [ValidateNotNullOrEmpty]
    public string Destination { get; set; } = "";

    /// <summary>Names, or endings of names, of the modules to adapt. The default is every linear and convolutional layer but embeddings and output layers.</summary>
    [Parameter]
    [Alias("TargetModule")]
    [ModuleNamesTransformation]
    [ValidateNotNullOrEmpty]
    public string[]? TargetModules { get; set; }

    /// <summary>One regular expression that must match the whole name of a module to be adapted.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public string? TargetModulePattern { get; set; }

    /// <summary>Names, or endings of names, of modules that are left out.</summary>
    [Parameter]
    [Alias("ExcludeModule")]
    [ModuleNamesTransformation]
    [ValidateNotNullOrEmpty]
    public string[]? ExcludeModules { get; set; }

    /// <summary>Modules that are kept whole, as the fine-tuned model has them, such as norms and a head: names or endings of names.</summary>
    [Parameter]
    [Alias("ModuleToSave")]
    [ModuleNamesTransformation]
    [ValidateNotNullOrEmpty]
    public string[]? ModulesToSave { get; set; }

    /// <inheritdoc/>
    protected override string? Subject => FineTunedPath;

    /// <inheritdoc/>
    protected override void Process()
    {
        AdapterExtractionOptions options = new()
        {
            BasePath = Paths.ExistingOne(BasePath),
            FineTunedPath = Paths.ExistingOnePiped(FineTunedPath),
            Destination = Paths.Destination(Destination),
            TargetModules = SelectorReader.Read(TargetModules, nameof(TargetModules), TargetModulePattern, nameof(TargetModulePattern)),
            ExcludeModules = ExcludeModules is null ? null : ModuleSelector.FromNames(ExcludeModules),
            ModulesToSave = ModulesToSave ?? [],
            Fit = FitOptions,
        };
        EnsureRuntime();
        if (IsRehearsal)
        {
            AdapterExtraction.Check(options);
        }

        if (!ShouldProcess(options.Destination, $"Extract a LoKr adapter from {options.FineTunedPath} and {options.BasePath}"))
        {
            return;
        }

        IReadOnlyList<string> warnings = [];
        LoKrFitResult result = RunReported("Fitting factors", static share => $"{share:P0} of the layers", (report, token) => AdapterExtraction.Extract(options, out warnings, report, token));
        WriteWarnings(warnings);
        WriteObject(result);
    }
}
