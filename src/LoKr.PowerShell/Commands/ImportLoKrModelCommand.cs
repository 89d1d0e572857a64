using System.Management.Automation;
using LoKr.Core.Configuration;
using LoKr.Core.Distributed;
using LoKr.Core.Errors;
using LoKr.Core.Layouts;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Core.Runtime;
using LoKr.Models.Diffusion;
using LoKr.Models.Loading;
using LoKr.PowerShell.Base;
using LoKr.PowerShell.Binding;

namespace LoKr.PowerShell.Commands;

/// <summary>Loads a model and its tokenizer from a Hugging Face folder, or a Stable Diffusion pipeline from a diffusers folder.</summary>
[Cmdlet(VerbsData.Import, "LoKrModel", DefaultParameterSetName = PathSet)]
[OutputType(typeof(LoKrModel), typeof(StableDiffusionPipeline))]
public sealed class ImportLoKrModelCommand : PathCommand
{
    /// <summary>The task of the model: SequenceClassification, TokenClassification, CausalLanguageModeling or FeatureExtraction, a sentence encoder (also PEFT's SEQ_CLS, TOKEN_CLS, CAUSAL_LM, FEATURE_EXTRACTION). The default is the class that config.json names; with -Label one that classifies texts. A checkpoint of another class gets a new head.</summary>
    [Parameter]
    [TaskTypeTransformation]
    [ValidateSet(nameof(TaskType.SequenceClassification), nameof(TaskType.TokenClassification), nameof(TaskType.CausalLanguageModeling), nameof(TaskType.FeatureExtraction))]
    public TaskType? Task { get; set; }

    /// <summary>Labels of the classification head in the order of its outputs. A checkpoint without a head gets a new one. A checkpoint with a head has labels of its own and does not need this parameter.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    [ArgumentCompleter(typeof(LabelCompleter))]
    public string[]? Label { get; set; }

    /// <summary>Adapter, a file or a folder, whose labels the classification head gets: those that it was trained for, and its task where it tags words. Wildcards are allowed if they match one item.</summary>
    [Parameter]
    [SupportsWildcards]
    [ValidateNotNullOrEmpty]
    public string? LabelFrom { get; set; }

    /// <summary>Makes the model a sentence encoder, whose vector of a text is made from those of its tokens: Mean, Cls (the first token), LastToken, Max, MeanSqrtLen or WeightedMean; of several the results follow each other. The default is what a folder of sentence-transformers says.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public SentencePooling[]? Pooling { get; set; }

    /// <summary>Scales the vectors of a sentence encoder to length one. The default is what a folder of sentence-transformers says, else not.</summary>
    [Parameter]
    public SwitchParameter Normalize { get; set; }

    /// <summary>Element type of the weights: float32, bfloat16 or float16. The default is the type of the checkpoint on a GPU, and float32 on the CPU.</summary>
    [Parameter]
    [ValidateSet("float32", "bfloat16", "float16")]
    public string? DType { get; set; }

    /// <summary>Device of the model: auto (a GPU if there is one), cpu, cuda or cuda:N. Naming a GPU that does not exist is an error.</summary>
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

    /// <summary>Accepts a libtorch of another version than TorchSharp was built for.</summary>
    [Parameter]
    public SwitchParameter AllowVersionMismatch { get; set; }

    /// <summary>Number of threads that torch computes with in this process. The default is LOKR_THREADS, or one for each processor.</summary>
    [Parameter]
    [ValidateRange(1, 4096)]
    public int? Threads { get; set; }

    /// <inheritdoc/>
    protected override void Begin() => WorkerGroup.Meet();

    /// <inheritdoc/>
    protected override void Process() => ForEachPath(Load);

    private IReadOnlyList<string>? ReadLabels()
    {
        if (LabelFrom is null)
        {
            return Label;
        }

        return Label is null ? AdapterLabels.Read(Paths.ExistingOne(LabelFrom)) : throw new LoKrException(ErrorIds.InvalidArgument, LoKrErrorKind.InvalidArgument,
            "-Label and -LabelFrom are both given.", "Give the labels, or an adapter to take them from.") { Target = nameof(LabelFrom) };
    }

    private void Load(string folder)
    {
        EnsureRuntime(new RuntimeOptions(RuntimePath is null ? null : Paths.New(RuntimePath), AllowVersionMismatch, Threads));
        ModelLoadOptions options = new()
        {
            Task = Task ?? (LabelFrom is not null && AdapterLabels.AreOfTokens(Paths.ExistingOne(LabelFrom)) ? TaskType.TokenClassification : null),
            Labels = ReadLabels(),
            Pooling = Pooling,
            Normalize = MyInvocation.BoundParameters.ContainsKey(nameof(Normalize)) ? Normalize.IsPresent : null,
            DType = ElementTypes.Find(DType),
            Device = DeviceSelector.Select(Device),
            Seed = Seed,
        };
        ModelFolderResult result = RunReported(
            $"Importing {System.IO.Path.GetFileName(folder)}",
            static share => $"{share:P0} of the weights",
            (report, token) => ModelFolder.Load(folder, options with { OnProgress = report }, token));
        IAdaptable model = result.Model;
        WriteWarnings(result.Warnings);
        WriteVerbose($"{model.Name} from {folder}: {model.CountParameters().Total:N0} parameters, {model.DType}, {model.Device}.");
        WriteObject(model);
    }
}
