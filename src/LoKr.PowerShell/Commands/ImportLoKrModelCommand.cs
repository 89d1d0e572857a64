using System.Management.Automation;
using LoKr.Core.Model;
using LoKr.Core.Runtime;
using LoKr.Models.Diffusion;
using LoKr.Models.Loading;
using LoKr.PowerShell.Base;
using LoKr.PowerShell.Binding;
using static TorchSharp.torch;

namespace LoKr.PowerShell.Commands;

/// <summary>Loads a model and its tokenizer from a Hugging Face folder, or a Stable Diffusion pipeline from a diffusers folder.</summary>
[Cmdlet(VerbsData.Import, "LoKrModel", DefaultParameterSetName = "Path")]
[OutputType(typeof(LoKrModel), typeof(StableDiffusionPipeline))]
public sealed class ImportLoKrModelCommand : PathCommand
{
    /// <summary>Folders with config.json and safetensors weights, or with the model_index.json of a pipeline. Wildcards are allowed; each folder is a model.</summary>
    [Parameter(Mandatory = true, Position = 0, ValueFromPipeline = true, ParameterSetName = "Path")]
    [SupportsWildcards]
    [ValidateNotNullOrEmpty]
    public string[] Path { get; set; } = [];

    /// <summary>Folders, taken as they are written.</summary>
    [Parameter(Mandatory = true, ValueFromPipelineByPropertyName = true, ParameterSetName = "LiteralPath")]
    [Alias("PSPath", "FullName")]
    [ValidateNotNullOrEmpty]
    public string[] LiteralPath { get; set; } = [];

    /// <summary>Labels of the classification head in the order of its outputs. A checkpoint without a head gets a new one; one with a head keeps its own labels without this parameter.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public string[]? Label { get; set; }

    /// <summary>Element type of the weights: float32, bfloat16 or float16. Without it the type of the checkpoint on a GPU, and float32 on the CPU.</summary>
    [Parameter]
    [ValidateSet("float32", "bfloat16", "float16")]
    public string? DType { get; set; }

    /// <summary>Where the model runs: auto (a GPU if there is one), cpu, cuda or cuda:N. A GPU that is named and missing is an error.</summary>
    [Parameter]
    [ArgumentCompleter(typeof(DeviceCompleter))]
    [ValidateNotNullOrEmpty]
    public string Device { get; set; } = "auto";

    /// <summary>Seed of weights that the checkpoint lacks, such as a new classification head.</summary>
    [Parameter]
    public long? Seed { get; set; }

    /// <summary>Folder with libtorch, or the lib folder of an installed PyTorch. Only the first use in a process counts.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public string? RuntimePath { get; set; }

    /// <summary>Accept a libtorch of another version than TorchSharp was built for.</summary>
    [Parameter]
    public SwitchParameter AllowVersionMismatch { get; set; }

    /// <inheritdoc/>
    protected override void Process()
    {
        bool literal = ParameterSetName == "LiteralPath";
        foreach (string folder in ResolveExisting(literal ? LiteralPath : Path, literal))
        {
            ForOne(folder, () => Load(folder));
        }
    }

    private void Load(string folder)
    {
        EnsureRuntime(new RuntimeOptions(RuntimePath is null ? null : ResolveNew(RuntimePath), AllowVersionMismatch));
        ModelLoadOptions options = new()
        {
            Labels = Label,
            DType = DType?.ToUpperInvariant() switch
            {
                null => null,
                "BFLOAT16" => ScalarType.BFloat16,
                "FLOAT16" => ScalarType.Float16,
                _ => ScalarType.Float32,
            },
            Device = DeviceSelector.Select(Device),
            Seed = Seed,
        };
        if (StableDiffusionLoader.IsPipeline(folder))
        {
            StableDiffusionLoadResult loaded = StableDiffusionLoader.LoadWithReport(folder, options);
            Write(loaded.Pipeline, loaded.Warnings, $"{loaded.Pipeline.Name} from {folder}: {loaded.Pipeline.ParameterCount:N0} parameters, {loaded.Pipeline.DType}, {loaded.Pipeline.Device}.");
            return;
        }

        ModelLoadResult result = ModelLoader.LoadWithReport(folder, options);
        Write(result.Model, result.Warnings, $"{result.Model.Name} from {folder}: {result.Model.CountParameters().Total:N0} parameters, {result.Model.DType}, {result.Model.Device}.");
    }

    private void Write(object model, IReadOnlyList<string> warnings, string summary)
    {
        foreach (string warning in warnings)
        {
            WriteWarning(warning);
        }

        WriteVerbose(summary);
        WriteObject(model);
    }
}
