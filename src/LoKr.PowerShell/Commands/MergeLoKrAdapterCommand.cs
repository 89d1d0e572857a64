using System.Collections;
using System.Management.Automation;
using LoKr.Core.Configuration;
using LoKr.Core.Factors;
using LoKr.Core.Gguf;
using LoKr.Core.Layouts;
using LoKr.Core.Merging;
using LoKr.Core.Merging.Checkpoints;
using LoKr.Core.Model;
using LoKr.Models.Diffusion;
using LoKr.Models.Loading;
using LoKr.PowerShell.Base;
using LoKr.PowerShell.Binding;
using LoKr.PowerShell.Hosting;

namespace LoKr.PowerShell.Commands;

/// <summary>Merges adapters into base weights: in a model in memory, or from a folder, a single file or a GGUF file on disk into another one.</summary>
[Cmdlet(VerbsData.Merge, "LoKrAdapter", DefaultParameterSetName = ModelSet, SupportsShouldProcess = true)]
[OutputType(typeof(LoKrModel), typeof(StableDiffusionPipeline), ParameterSetName = [ModelSet, ModelAdapterSet])]
[OutputType(typeof(LoKrMergeResult), typeof(Job), ParameterSetName = [PathSet, LiteralPathSet])]
public sealed class MergeLoKrAdapterCommand : PassThruCommand
{
    private const string ModelSet = "Model";
    private const string ModelAdapterSet = "ModelAdapter";
    private const string PathSet = "Path";
    private const string LiteralPathSet = "LiteralPath";
    private bool _adaptersAreLiteral;

    /// <summary>The model or the pipeline: from Import-LoKrModel, or any torch.nn.Module.</summary>
    [Parameter(Mandatory = true, ValueFromPipeline = true, ParameterSetName = ModelSet)]
    [Parameter(Mandatory = true, ValueFromPipeline = true, ParameterSetName = ModelAdapterSet)]
    [LoKrModelTransformation]
    [ValidateNotNull]
    public IAdaptable Model { get; set; } = null!;

    /// <summary>Names of the adapters; without it the active ones. Wildcards are allowed.</summary>
    [Parameter(Position = 0, ParameterSetName = ModelSet)]
    [SupportsWildcards]
    [ArgumentCompleter(typeof(AdapterNameCompleter))]
    [ValidateNotNullOrEmpty]
    public string[]? Name { get; set; }

    /// <summary>
    /// The base model: a folder with weights as safetensors in one file or in shards, of any architecture; a component of a diffusers pipeline, or the
    /// whole pipeline; a single safetensors file in the names of ComfyUI, kohya or the model's authors; the index of shards; or a language model as
    /// GGUF, of which any part stands for all. Wildcards are allowed if they match one folder or file.
    /// </summary>
    [Parameter(Mandatory = true, ParameterSetName = PathSet)]
    [SupportsWildcards]
    [ValidateNotNullOrEmpty]
    [ArgumentCompleter(typeof(ModelPathCompleter))]
    public string Path { get; set; } = "";

    /// <summary>Folder or file of the base model, taken as it is written.</summary>
    [Parameter(Mandatory = true, ParameterSetName = LiteralPathSet)]
    [Alias("PSPath")]
    [ValidateNotNullOrEmpty]
    public string LiteralPath { get; set; } = "";

    /// <summary>
    /// Adapters of any program, safetensors files or folders, in the order in which they are added. Wildcards are allowed; adapters from the pipeline are taken
    /// as they are, each for a merge of its own. Beside a model in memory they are merged into it without becoming adapters of the model: LoRA and other kinds too.
    /// </summary>
    [Parameter(Mandatory = true, ParameterSetName = ModelAdapterSet)]
    [Parameter(Mandatory = true, ValueFromPipelineByPropertyName = true, ParameterSetName = PathSet)]
    [Parameter(Mandatory = true, ValueFromPipelineByPropertyName = true, ParameterSetName = LiteralPathSet)]
    [Alias("FullName")]
    [SupportsWildcards]
    [ValidateNotNullOrEmpty]
    public string[] Adapter { get; set; } = [];

    /// <summary>Strength of each adapter, 1 as trained; one number for all, or one for each. Modules that were trained whole are not scaled.</summary>
    [Parameter(ParameterSetName = PathSet)]
    [Parameter(ParameterSetName = ModelAdapterSet)]
    [Parameter(ParameterSetName = LiteralPathSet)]
    [ValidateNotNullOrEmpty]
    public double[] Weight { get; set; } = [1];

    /// <summary>
    /// Meaning of the strength s of an adapter with DoRA. Linear: W + s·(W' − W), where 0 is the base weight and 1 the trained weight W'.
    /// Lycoris: the multiplier of LyCORIS, which weakens the magnitudes alone: (W + Δ)·(s·(q − 1) + 1).
    /// For a model in memory use Set-LoKrAdapter.
    /// </summary>
    [Parameter(ParameterSetName = PathSet)]
    [Parameter(ParameterSetName = ModelAdapterSet)]
    [Parameter(ParameterSetName = LiteralPathSet)]
    public DoraStrength DoraStrength { get; set; }

    /// <summary>Folder to write, or the file where the base model is one file. It appears complete or not at all; an interrupted merge of safetensors, or of a model in several parts, is resumed when the command is repeated.</summary>
    [Parameter(Mandatory = true, ValueFromPipelineByPropertyName = true, ParameterSetName = PathSet)]
    [Parameter(Mandatory = true, ValueFromPipelineByPropertyName = true, ParameterSetName = LiteralPathSet)]
    [ValidateNotNullOrEmpty]
    [ArgumentCompleter(typeof(FolderCompleter))]
    public string Destination { get; set; } = "";

    /// <summary>Largest size of one weights file in bytes, for example 2GB. The default is the same files as in the base model.</summary>
    [Parameter(ParameterSetName = PathSet)]
    [Parameter(ParameterSetName = LiteralPathSet)]
    public long MaxShardSize { get; set; }

    /// <summary>Type of the adapted tensors of a GGUF file in the result; without it each keeps its type. A change that is small beside the steps of a type with few bits is lost in it; Q8_0 keeps it.</summary>
    [Parameter(ParameterSetName = PathSet)]
    [Parameter(ParameterSetName = LiteralPathSet)]
    [ValidateSet(nameof(GgmlType.F32), nameof(GgmlType.F16), nameof(GgmlType.BF16), nameof(GgmlType.Q8_0), nameof(GgmlType.Q4_0), nameof(GgmlType.Q4_1),
        nameof(GgmlType.Q5_0), nameof(GgmlType.Q5_1), nameof(GgmlType.Q2_K), nameof(GgmlType.Q3_K), nameof(GgmlType.Q4_K), nameof(GgmlType.Q5_K), nameof(GgmlType.Q6_K),
        nameof(GgmlType.IQ4_NL), nameof(GgmlType.IQ4_XS))]
    public GgmlType? TensorType { get; set; }

    /// <summary>
    /// Type of the quantized weights of a safetensors base (8-bit floats, NF4, FP4 and INT8 of bitsandbytes) in the result; without it 8-bit floats keep theirs, and
    /// the others are refused. Scales and marks of quantized weights are left out then. Weights that are not quantized keep their types.
    /// </summary>
    [Parameter(ParameterSetName = PathSet)]
    [Parameter(ParameterSetName = LiteralPathSet)]
    [ValidateSet("float32", "bfloat16", "float16")]
    public string? DType { get; set; }

    /// <summary>
    /// Treatment of the scales of weights of 8-bit floats that adapters change. Keep: they stay, and values beyond the range become the largest one.
    /// Refit: each is the largest merged value over the largest one of the type.
    /// </summary>
    [Parameter(ParameterSetName = PathSet)]
    [Parameter(ParameterSetName = LiteralPathSet)]
    public ScaleMode ScaleMode { get; set; }

    /// <summary>Component of a pipeline whose modules are merged, where the adapter has several; without it all of them.</summary>
    [Parameter(ParameterSetName = PathSet)]
    [Parameter(ParameterSetName = ModelAdapterSet)]
    [Parameter(ParameterSetName = LiteralPathSet)]
    public AdapterComponent? Component { get; set; }

    /// <summary>Alpha of every module; it overrides the files of the adapters.</summary>
    [Parameter(ParameterSetName = PathSet)]
    [Parameter(ParameterSetName = ModelAdapterSet)]
    [Parameter(ParameterSetName = LiteralPathSet)]
    public double? Alpha { get; set; }

    /// <summary>Convention by which alpha becomes a factor; it overrides that of the program that wrote the adapter: Peft, Lycoris, or None for 1.</summary>
    [Parameter(ParameterSetName = PathSet)]
    [Parameter(ParameterSetName = ModelAdapterSet)]
    [Parameter(ParameterSetName = LiteralPathSet)]
    public ScalingConvention? Scaling { get; set; }

    /// <summary>Rank of modules whose factors are both whole, for a Scaling that depends on it; without it the one that kohya's trainers write into the header.</summary>
    [Parameter(ParameterSetName = PathSet)]
    [Parameter(ParameterSetName = ModelAdapterSet)]
    [Parameter(ParameterSetName = LiteralPathSet)]
    [ValidateRange(1, int.MaxValue)]
    public int? Rank { get; set; }

    /// <summary>Leaves out tensors of other kinds of adapters that cannot be merged (OFT, IA3), with a warning, in place of an error. LoCon, LoRA, LoHa, differences and norms are merged.</summary>
    [Parameter(ParameterSetName = PathSet)]
    [Parameter(ParameterSetName = ModelAdapterSet)]
    [Parameter(ParameterSetName = LiteralPathSet)]
    public SwitchParameter SkipUnsupported { get; set; }

    /// <summary>Replaces an existing folder or file.</summary>
    [Parameter(ParameterSetName = PathSet)]
    [Parameter(ParameterSetName = LiteralPathSet)]
    public SwitchParameter Force { get; set; }

    /// <summary>Refuses a result that is not finite, and leaves weights and destination unchanged.</summary>
    [Parameter]
    public SwitchParameter Safe { get; set; }

    /// <summary>Merges folders in a process of its own and returns a job at once. Receive-Job gives progress and the result; Stop-Job ends it, and finished files stay for the next time.</summary>
    [Parameter]
    public SwitchParameter AsJob { get; set; }

    /// <summary>Writes the model even where no command follows in the pipeline: for a variable, or as the result of a function or script block.</summary>
    [Parameter(ParameterSetName = ModelSet)]
    [Parameter(ParameterSetName = ModelAdapterSet)]
    public override SwitchParameter PassThru { get; set; }

    /// <inheritdoc/>
    protected override void Begin() => _adaptersAreLiteral = Paths.IsLiteral || !MyInvocation.BoundParameters.ContainsKey(nameof(Adapter));

    /// <inheritdoc/>
    protected override string? Subject => ParameterSetName is ModelSet or ModelAdapterSet ? NameOf(Model) : string.Join(", ", Adapter);

    /// <inheritdoc/>
    private protected override bool IsForFirstWorker => Destination.Length > 0;

    /// <inheritdoc/>
    protected override void Process()
    {
        if (ParameterSetName == ModelSet)
        {
            MergeModel();
        }
        else if (ParameterSetName == ModelAdapterSet)
        {
            MergeIntoModel();
        }
        else
        {
            MergeFiles();
        }
    }

    private void MergeModel()
    {
        if (AsJob)
        {
            throw CommandJob.InMemory("The model", Subject);
        }

        using IDisposable? rehearsed = IsRehearsal ? Rehearsals.Adopt(Model, Name) : null;
        IReadOnlyList<string>? names = Name is null ? null : AdapterNames.Require(Model, Name);
        if (IsRehearsal)
        {
            Model.CheckMerge(names, Safe, StopToken);
            Rehearsals.RememberMerge(Model);
        }

        if (ShouldProcess(Model.Name, $"Merge LoKr adapters {string.Join(", ", names ?? Model.GetActiveAdapters())}".TrimEnd()))
        {
            LoKrMergeResult result = Model.Merge(names, Safe, StopToken);
            WriteWarnings(result.Warnings);
            WriteVerbose($"Merged {result}, {result.Elapsed.TotalSeconds:F2} s.");
        }

        PassOn(Model);
    }

    private void MergeIntoModel()
    {
        if (AsJob)
        {
            throw CommandJob.InMemory("The model", Subject);
        }

        EnsureRuntime();
        CheckpointMergeSource[] sources = ReadAdapters();
        if (IsRehearsal)
        {
            FileMerge.Check(Model, sources, Safe, StopToken);
            Rehearsals.RememberMerge(Model);
        }

        if (ShouldProcess(Model.Name, $"Merge adapters {string.Join(", ", sources.Select(static source => source.Name))}"))
        {
            LoKrMergeResult result = FileMerge.Merge(Model, sources, Safe, StopToken);
            WriteWarnings(result.Warnings);
            WriteVerbose($"Merged {result}, {result.Elapsed.TotalSeconds:F2} s.");
        }

        PassOn(Model);
    }

    private void StartJob()
    {
        CommandJob job = new(this);
        Hashtable merge = job.Parameters(nameof(Path));
        merge[nameof(LiteralPath)] = Paths.ExistingOne(Path, LiteralPath);
        merge[nameof(Adapter)] = FindAdapters();
        merge[nameof(Destination)] = Paths.Destination(Destination);
        if (ShouldProcess(Destination, "Start a job that merges"))
        {
            WriteObject(job.Start("param($merge) Merge-LoKrAdapter @merge", merge));
        }
    }

    private void MergeFiles()
    {
        if (AsJob && !IsRehearsal)
        {
            StartJob();
            return;
        }

        using IDiskMerge merge = Open();
        WriteWarnings(merge.Warnings);
        if (!ShouldProcess(merge.Destination, $"Merge {merge}"))
        {
            return;
        }

        EnsureRuntime();
        int written = merge.Warnings.Count;
        LoKrMergeResult result = Run(merge);
        WriteWarnings(result.Warnings.Skip(written));
        WriteVerbose($"Merged {result}, {result.Elapsed.TotalSeconds:F2} s: {result.Files.Count} files, {result.ByteCount} bytes in {result.Destination}; {result.ResumedFileCount} of the files and {result.ResumedByteCount} of the bytes are from an interrupted run.");
        WriteObject(result);
    }

    private string[] FindAdapters() => [.. Adapter.SelectMany(path => Paths.Existing(path, _adaptersAreLiteral))];

    private IDiskMerge Open()
    {
        string source = Paths.ExistingOne(Path, LiteralPath);
        bool isGguf = GgufReader.IsGguf(source);
        WriteWarnings(isGguf ? Ignored("for a GGUF file", nameof(MaxShardSize), nameof(DType), nameof(ScaleMode)) : Ignored("for a base model that is not a GGUF file", nameof(TensorType)));
        return isGguf
            ? GgufMerge.Open(new() { Path = source, Adapters = ReadAdapters(), Destination = Paths.Destination(Destination), TensorType = TensorType, Force = Force, Safe = Safe })
            : CheckpointMerge.Open(new()
            {
                Base = BaseModel.Read(source),
                Adapters = ReadAdapters(),
                Destination = Paths.Destination(Destination),
                MaxShardBytes = MyInvocation.BoundParameters.ContainsKey(nameof(MaxShardSize)) ? MaxShardSize : null,
                DType = ElementTypes.Find(DType),
                ScaleMode = ScaleMode,
                Force = Force,
                Safe = Safe,
            });
    }

    private CheckpointMergeSource[] ReadAdapters() =>
        [.. AdapterWeights.For(Weight, FindAdapters()).Select(adapter => new AdapterMergeSource(adapter.Path, adapter.Weight)
        {
            DoraStrength = DoraStrength,
            Read = new() { Component = Component, Alpha = Alpha, Scaling = Scaling, Rank = Rank, Foreign = SkipUnsupported ? ForeignTensors.Skip : ForeignTensors.Refuse },
        })];

    private LoKrMergeResult Run(IDiskMerge merge)
    {
        using ProgressBar bar = new(this, $"Merging into {merge.Destination}");

        // Ctrl+C cancels the work and waits for it; finished files stay for the next time.
        using BackgroundRun<CheckpointMergeProgress, LoKrMergeResult> run = new((report, token) => merge.Run(bar.Throttle(report), token), StopToken);
        foreach (CheckpointMergeProgress step in run.Reports)
        {
            bar.Show((double)step.Bytes / step.TotalBytes,
                $"{step.File}: tensor {step.Tensors}/{step.TotalTensors}, {step.Bytes / 1e9:F2} of {step.TotalBytes / 1e9:F2} GB");
        }

        return run.Wait();
    }
}
