using System.Collections;
using System.Globalization;
using System.Management.Automation;
using LoKr.Core.Configuration;
using LoKr.Core.Data;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Core.Runs;
using LoKr.Core.Runtime;
using LoKr.Core.Training;
using LoKr.Models.Diffusion;
using LoKr.PowerShell.Base;
using LoKr.PowerShell.Binding;
using LoKr.PowerShell.Hosting;

namespace LoKr.PowerShell.Commands;

/// <summary>Trains an adapter of a model; the figures are in the LastTraining of the model.</summary>
[Cmdlet(VerbsLifecycle.Start, "LoKrTraining", DefaultParameterSetName = DataSet, SupportsShouldProcess = true)]
[OutputType(typeof(LoKrModel), typeof(StableDiffusionPipeline), typeof(LoKrTrainingStep), ParameterSetName = [DataSet, RowSet, LossSet, ImageSet])]
[OutputType(typeof(Job), ParameterSetName = [JobSet])]
public sealed class StartLoKrTrainingCommand : ImageTrainingCommand
{
    private const string DataSet = "Data";
    private const string RowSet = "Row";
    private const string LossSet = "Loss";

    private static readonly string[] s_ofEncoders = [nameof(EmbeddingLoss), nameof(SimilarityScale), nameof(TripletMargin), nameof(TripletDistance), nameof(NoDuplicates)];

    private readonly List<object?> _rows = [];

    /// <summary>The model with an adapter.</summary>
    [Parameter(Mandatory = true, ValueFromPipeline = true, ParameterSetName = DataSet)]
    [Parameter(Mandatory = true, ParameterSetName = RowSet)]
    [Parameter(Mandatory = true, ValueFromPipeline = true, ParameterSetName = LossSet)]
    [LoKrModelTransformation]
    [ValidateNotNull]
    public LoKrModel Model { get; set; } = null!;

    /// <summary>A Stable Diffusion pipeline with adapters on its UNet, its text encoder or both.</summary>
    [Parameter(Mandatory = true, ValueFromPipeline = true, ParameterSetName = ImageSet)]
    [ValidateNotNull]
    public StableDiffusionPipeline Pipeline { get; set; } = null!;

    /// <summary>Data files (.jsonl, .json, .csv, .tsv, .conll, also with .gz, and .parquet; wildcards are allowed), or rows as hashtables or objects, with text and label for a classifier, tokens and ner_tags (words and their tags, also in .conll files) for one of words, text, prompt and completion, or messages for a language model, anchor (or query) and positive, or sentence1, sentence2 and score, for a sentence encoder. For a pipeline, folders of images with captions.</summary>
    [Parameter(Mandatory = true, Position = 0, ParameterSetName = DataSet)]
    [Parameter(Mandatory = true, Position = 0, ParameterSetName = ImageSet)]
    [Parameter(Mandatory = true, Position = 0, ParameterSetName = JobSet)]
    [SupportsWildcards]
    [AllowEmptyCollection]
    [ValidateNotNull]
    public object[] Data { get; set; } = [];

    /// <summary>Rows from the pipeline, as hashtables or objects.</summary>
    [Parameter(Mandatory = true, ValueFromPipeline = true, ParameterSetName = RowSet)]
    [ValidateNotNull]
    public PSObject? InputObject { get; set; }

    /// <summary>Data to evaluate on, given like -Data.</summary>
    [Parameter(ParameterSetName = DataSet)]
    [Parameter(ParameterSetName = RowSet)]
    [Parameter(ParameterSetName = ImageSet)]
    [Parameter(ParameterSetName = JobSet)]
    [AllowEmptyCollection]
    public object[]? ValidationData { get; set; }

    /// <summary>Names of columns in the data, by the name that is expected: @{ text = 'subject'; label = 'team' }.</summary>
    [Parameter(ParameterSetName = DataSet)]
    [Parameter(ParameterSetName = RowSet)]
    [Parameter(ParameterSetName = JobSet)]
    [ValidateNotNull]
    public Hashtable Column { get; set; } = [];

    /// <summary>Skips rows that do not fit (a line that is not JSON, a missing column, an empty text, an unknown label), and says how many they are and which. Without it the first is an error.</summary>
    [Parameter(ParameterSetName = DataSet)]
    [Parameter(ParameterSetName = RowSet)]
    [Parameter(ParameterSetName = JobSet)]
    public SwitchParameter SkipInvalid { get; set; }

    /// <summary>Batches for -Loss, one object each, in the order in which they are trained on.</summary>
    [Parameter(Mandatory = true, ParameterSetName = LossSet)]
    [AllowEmptyCollection]
    [ValidateNotNull]
    public object[] Batch { get; set; } = [];

    /// <summary>Script block that gets the model and a batch and writes the mean loss, a tensor of one number: { param($model, $batch) … }.</summary>
    [Parameter(Mandatory = true, ParameterSetName = LossSet)]
    [ValidateNotNull]
    public ScriptBlock Loss { get; set; } = null!;

    /// <summary>Rows in a batch, or with -Packing lines of packed rows; the default is 16, and 1 for images.</summary>
    [Parameter(ParameterSetName = DataSet)]
    [Parameter(ParameterSetName = RowSet)]
    [Parameter(ParameterSetName = ImageSet)]
    [Parameter(ParameterSetName = JobSet)]
    public int BatchSize { get; set; } = s_defaults.BatchSize;

    /// <summary>Highest learning rate of the head, which the adapter trains whole (embeddings do not count). Without it a new head beside adapted layers has ten times -LearningRate, every other one -LearningRate.</summary>
    [Parameter(ParameterSetName = DataSet)]
    [Parameter(ParameterSetName = RowSet)]
    [Parameter(ParameterSetName = LossSet)]
    [Parameter(ParameterSetName = JobSet)]
    public double? HeadLearningRate { get; set; }

    /// <summary>Steps between evaluations; without it there is one at the end of each epoch.</summary>
    [Parameter(ParameterSetName = DataSet)]
    [Parameter(ParameterSetName = RowSet)]
    [Parameter(ParameterSetName = ImageSet)]
    [Parameter(ParameterSetName = JobSet)]
    public int? EvaluateEvery { get; set; }

    /// <summary>Evaluates before the first step too.</summary>
    [Parameter(ParameterSetName = DataSet)]
    [Parameter(ParameterSetName = RowSet)]
    [Parameter(ParameterSetName = ImageSet)]
    [Parameter(ParameterSetName = JobSet)]
    public SwitchParameter EvaluateBefore { get; set; }

    /// <summary>Longest sequence in tokens; longer ones are cut. The default is the most that the model allows.</summary>
    [Parameter(ParameterSetName = DataSet)]
    [Parameter(ParameterSetName = RowSet)]
    [Parameter(ParameterSetName = JobSet)]
    public int? MaxLength { get; set; }

    /// <summary>Which tokens of conversations, and of prompts with completions, carry loss: Answers, what the assistant says and the completions, or All.</summary>
    [Parameter(ParameterSetName = DataSet)]
    [Parameter(ParameterSetName = RowSet)]
    [Parameter(ParameterSetName = JobSet)]
    public LossOn LossOn { get; set; }

    /// <summary>Packs short rows into lines of -MaxLength tokens, or without it of the longest row, for language models: less padding, and no row sees another. -BatchSize then counts lines. The validation data are not packed.</summary>
    [Parameter(ParameterSetName = DataSet)]
    [Parameter(ParameterSetName = RowSet)]
    [Parameter(ParameterSetName = JobSet)]
    public SwitchParameter Packing { get; set; }

    /// <summary>The loss of a sentence encoder: MultipleNegativesRanking (the partners of the other rows of a batch are wrong answers), CoSent, CosineSimilarity or Triplet. The default follows from the columns: MultipleNegativesRanking for anchor (or query) and positive, CoSent for sentence1, sentence2 and score.</summary>
    [Parameter(ParameterSetName = DataSet)]
    [Parameter(ParameterSetName = RowSet)]
    [Parameter(ParameterSetName = JobSet)]
    public EmbeddingLoss? EmbeddingLoss { get; set; }

    /// <summary>Factor on the cosines in the losses MultipleNegativesRanking and CoSent.</summary>
    [Parameter(ParameterSetName = DataSet)]
    [Parameter(ParameterSetName = RowSet)]
    [Parameter(ParameterSetName = JobSet)]
    public double SimilarityScale { get; set; } = s_defaults.SimilarityScale;

    /// <summary>How much nearer than a wrong text a partner has to be for the loss Triplet.</summary>
    [Parameter(ParameterSetName = DataSet)]
    [Parameter(ParameterSetName = RowSet)]
    [Parameter(ParameterSetName = JobSet)]
    public double TripletMargin { get; set; } = s_defaults.TripletMargin;

    /// <summary>How the loss Triplet measures distances: Euclidean, Cosine or Manhattan.</summary>
    [Parameter(ParameterSetName = DataSet)]
    [Parameter(ParameterSetName = RowSet)]
    [Parameter(ParameterSetName = JobSet)]
    public TripletDistance TripletDistance { get; set; } = s_defaults.TripletDistance;

    /// <summary>Keeps rows with an equal text apart, so that no text is a wrong answer to itself: none occurs twice in a batch of a sentence encoder.</summary>
    [Parameter(ParameterSetName = DataSet)]
    [Parameter(ParameterSetName = RowSet)]
    [Parameter(ParameterSetName = JobSet)]
    public SwitchParameter NoDuplicates { get; set; }

    /// <summary>Folder of the model that a job trains, as for Import-LoKrModel: a job is a process of its own, to which a model in memory cannot go. Wildcards are allowed if they match one folder.</summary>
    [Parameter(Mandatory = true, ParameterSetName = JobSet)]
    [SupportsWildcards]
    [ArgumentCompleter(typeof(FolderCompleter))]
    [ValidateNotNullOrEmpty]
    public string Path { get; set; } = "";

    /// <summary>Configuration of the adapter that a job adds and trains, from New-LoKrConfig or Get-LoKrConfig. Several are a job each.</summary>
    [Parameter(Mandatory = true, ValueFromPipeline = true, ParameterSetName = JobSet)]
    [ValidateNotNull]
    public LoKrConfig Config { get; set; } = null!;

    /// <summary>The task of the model, as for Import-LoKrModel: SequenceClassification, TokenClassification, CausalLanguageModeling or FeatureExtraction.</summary>
    [Parameter(ParameterSetName = JobSet)]
    [TaskTypeTransformation]
    [ValidateSet(nameof(TaskType.SequenceClassification), nameof(TaskType.TokenClassification), nameof(TaskType.CausalLanguageModeling), nameof(TaskType.FeatureExtraction))]
    public TaskType? Task { get; set; }

    /// <summary>Labels of the classification head, as for Import-LoKrModel.</summary>
    [Parameter(ParameterSetName = JobSet)]
    [ArgumentCompleter(typeof(LabelCompleter))]
    [ValidateNotNullOrEmpty]
    public string[]? Label { get; set; }

    /// <summary>Element type of the base weights, as for Import-LoKrModel: float32, bfloat16 or float16.</summary>
    [Parameter(ParameterSetName = JobSet)]
    [ValidateSet("float32", "bfloat16", "float16")]
    public string? DType { get; set; }

    /// <summary>Device of the model, as for Import-LoKrModel: auto, cpu, cuda or cuda:N.</summary>
    [Parameter(ParameterSetName = JobSet)]
    [ArgumentCompleter(typeof(DeviceCompleter))]
    [ValidateNotNullOrEmpty]
    public string? Device { get; set; }

    /// <summary>Trains in a process of its own and returns a job at once. Receive-Job gives progress, steps and, at the end, the figures of the training; Stop-Job ends it with a checkpoint in -RunPath.</summary>
    [Parameter(Mandatory = true, ParameterSetName = JobSet)]
    [Parameter(ParameterSetName = DataSet)]
    [Parameter(ParameterSetName = RowSet)]
    [Parameter(ParameterSetName = LossSet)]
    [Parameter(ParameterSetName = ImageSet)]
    public SwitchParameter AsJob { get; set; }

    /// <summary>Writes a LoKrTrainingStep after each step. The model is then written only with -PassThru, after the last one.</summary>
    [Parameter]
    public SwitchParameter ReportStep { get; set; }

    /// <summary>Number of threads that torch computes with in this process, from now on. The default is the number in use; Get-LoKrRuntime shows it.</summary>
    [Parameter]
    [ValidateRange(1, 4096)]
    public int? Threads { get; set; }

    /// <inheritdoc/>
    protected override string? Subject => ParameterSetName == JobSet ? Path : NameOf(ParameterSetName == ImageSet ? Pipeline : Model);

    /// <inheritdoc/>
    protected override void Begin()
    {
        if (AsJob && Path.Length == 0)
        {
            throw CommandJob.InMemory("The model", Subject);
        }
    }

    /// <inheritdoc/>
    protected override void Process()
    {
        switch (ParameterSetName)
        {
            case JobSet:
                StartJob();
                break;
            case RowSet:
                _rows.Add(InputObject);
                break;
            case ImageSet:
                Train(Pipeline, TrainOnImages);
                break;
            case LossSet:
                Train(Model, TrainOnBatches);
                break;
            default:
                Train(Model, () => TrainOnRows(Data));
                break;
        }
    }

    /// <inheritdoc/>
    protected override void End()
    {
        if (ParameterSetName == RowSet)
        {
            Train(Model, () => TrainOnRows(_rows));
        }
    }

    private void StartJob()
    {
        string folder = Paths.ExistingOne(Path);
        if (!ShouldProcess(folder, "Start a job that trains an adapter"))
        {
            return;
        }

        if (RunPath is null)
        {
            WriteWarning("Without -RunPath only the figures of the training come back: the adapter ends with the job.");
        }

        WriteObject(new TrainingJob(new CommandJob(this)).Start(folder, Config, AdapterName, Seed));
    }

    private void Train(IAdaptable target, Action train)
    {
        EnsureRuntime(new RuntimeOptions(Threads: Threads));
        using (IsRehearsal ? Rehearsals.Adopt(target, AdapterName is null ? null : [AdapterName]) : null)
        {
            train();
        }

        if (!ReportStep || PassThru)
        {
            PassOn(target);
        }
    }

    private void TrainOnRows(IReadOnlyList<object?> data)
    {
        TrainingOptions options = ReadOptions(BatchSize);
        RunOptions? run = ReadRunOptions();
        if (!TrainOnRows(data, options, FormerRun.DayOf(run, options.Workers), run))
        {
            TrainOnRows(data, options, DateTime.Today, former: null);
        }
    }

    // False where the rows were rendered with the day of a run that they are not of.
    private bool TrainOnRows(IReadOnlyList<object?> data, TrainingOptions options, DateTime day, RunOptions? former)
    {
        using ITrainingTask task = ReadTask(data, options, day);
        using ITrainingTask? validation = ValidationData is null ? null : ReadTask(ValidationData, options, day);
        if (FormerRun.NeedsToday(former, Model, task, validation, options))
        {
            return false;
        }

        if (Confirms(Trainer.Plan(Model, task, options), [.. validation?.Warnings ?? [], .. options.IgnoredOptions(validation is not null), .. IgnoredLossParameters()]))
        {
            Record(Model, task, validation, options);
        }

        return true;
    }

    private IEnumerable<string> IgnoredLossParameters() =>
    [
        .. Model.Pretrained is ICausalLanguageModel ? [] : Ignored("for a model that is not a language model", nameof(LossOn)),
        .. Model.Pretrained is ISentenceEncoder ? [] : Ignored("for a model that is not a sentence encoder", s_ofEncoders),
    ];

    private void TrainOnBatches()
    {
        TrainingOptions options = ReadOptions(BatchSize);
        using CustomLossTask task = new(Batch, new ScriptLoss(Loss, Life).Compute);
        if (Confirms(Trainer.Plan(Model, task, options), options.IgnoredOptions(hasValidation: false)))
        {
            Record(Model, task, null, options, onPipelineThread: true);
        }
    }

    private void TrainOnImages()
    {
        TrainingOptions options = ReadOptions(MyInvocation.BoundParameters.ContainsKey(nameof(BatchSize)) ? BatchSize : 1);
        ImageTraining training = ImageTraining.Read(
            Pipeline, DataRows.ReadFolders(Data, Paths), DataRows.ReadFolders(ValidationData ?? [], Paths), ReadImageOptions(), StopToken);
        if (Confirms(training.Plan(options), [.. options.IgnoredOptions(ValidationData is { Length: > 0 }), .. IgnoredImageParameters()]))
        {
            ComputeLatents(training);
            RunOptions? run = ReadRunOptions();
            using RunWatch watch = RunWatch.Of(Life, run, options);
            Run(Pipeline, (report, evaluating, token) => training.Run(options with { OnEvaluation = evaluating }, run, watch.Begin, report, token));
            WriteWarnings(watch.Warnings);
        }
    }

    private void Record(LoKrModel model, ITrainingTask task, ITrainingTask? validation, TrainingOptions options, bool onPipelineThread = false)
    {
        RunOptions? run = ReadRunOptions();
        using RunWatch watch = RunWatch.Of(Life, run, options);
        Run(model, (report, evaluating, token) => RunRecorder.Train(run, model, task, validation, options, report, evaluating, watch.Begin, token), onPipelineThread);
        WriteWarnings(watch.Warnings);
    }

    private TrainingOptions ReadOptions(int batchSize) => WithSharing(WithEndings(
        ReadOptimizerOptions() with
        {
            BatchSize = batchSize,
            HeadLearningRate = HeadLearningRate,
            EvaluateEvery = EvaluateEvery,
            EvaluateBefore = EvaluateBefore,
            MaxLength = MaxLength,
            LossOn = LossOn,
            Packing = Packing,
            EmbeddingLoss = EmbeddingLoss,
            SimilarityScale = SimilarityScale,
            TripletMargin = TripletMargin,
            TripletDistance = TripletDistance,
            NoDuplicates = NoDuplicates,
        }));

    private ITrainingTask ReadTask(IReadOnlyList<object?> data, TrainingOptions options, DateTime day) =>
        ReadTask(Model, data, options, DataRows.BeginReading(Column, SkipInvalid, LossOn, day));

    private bool Confirms(TrainingPlan plan, IEnumerable<string>? moreWarnings = null)
    {
        WriteWarnings([.. plan.Warnings, .. moreWarnings ?? [], .. IgnoredLengthParameters(), .. IgnoredRunParameters()]);
        foreach (string note in IsFollower ? [] : plan.Notes)
        {
            WriteInformation(note, ["LoKr", "HeadLearningRate"]);
        }

        return IsFollower ? !IsRehearsal : ShouldProcess(plan.ToString(), $"{plan} Continue?", "Start-LoKrTraining");
    }

    private void Run(IAdaptable target, Func<Action<LoKrTrainingStep>, Action<double>, CancellationToken, LoKrTrainingResult> work, bool onPipelineThread = false) =>
        new TrainingHost(this, target, ReportStep && !IsFollower ? WriteObject : static _ => { }, Life).Run(work, onPipelineThread);

    private void ComputeLatents(ImageTraining training)
    {
        using ProgressBar bar = new(this, "Computing latents");
        foreach (LatentCache cache in training.ComputeLatents(
            image => bar.ShowIfDue((double)image.Done / image.Count, $"{image.Done}/{image.Count} of {image.Folder}, {image.Computed} computed"), StopToken))
        {
            WriteWarnings(cache.Warnings);
            WriteVerbose(string.Create(CultureInfo.InvariantCulture,
                $"Latents of {cache.Rows.Count} images in {cache.Folder}: {cache.ComputedCount} computed, {cache.Rows.Count - cache.ComputedCount} read."));
        }
    }
}
