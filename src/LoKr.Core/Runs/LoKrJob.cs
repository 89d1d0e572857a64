using System.Text.Json.Serialization;
using LoKr.Core.Configuration;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Core.Training;

namespace LoKr.Core.Runs;

/// <summary>
/// A job: what is trained from which data, when the result is better, and where it is published. One file says it all; <see cref="JobFile"/> reads
/// it, <see cref="JobRunner"/> does it. Relative paths are relative to the folder of the file.
/// </summary>
public sealed record LoKrJob
{
    /// <summary>Full path of the job file; not in the file.</summary>
    [JsonIgnore]
    public string Path { get; init; } = "";

    /// <summary>Name of the job, of its folder of runs and, by default, of its adapter in the registry. The default is the name of the file, up to its first period.</summary>
    public string Name { get; init; } = "";

    /// <summary>The model that is adapted.</summary>
    public required JobBase Base { get; init; }

    /// <summary>Training data.</summary>
    public required JobData Data { get; init; }

    /// <summary>The adapter: the fields of a configuration.</summary>
    public LoKrConfig Configuration { get; init; } = new();

    /// <summary>The training.</summary>
    public TrainingOptions Training { get; init; } = new();

    /// <summary>Where and how runs are kept.</summary>
    public JobRuns Runs { get; init; } = new();

    /// <summary>When the result is good enough to be published; without a gate every result is.</summary>
    public JobGate? Gate { get; init; }

    /// <summary>Where the result is published; without a registry it stays in its run folder.</summary>
    public JobRegistry? Registry { get; init; }

    /// <summary>Retention of versions and runs.</summary>
    public JobRetention Retention { get; init; } = new();

    /// <summary>The report that is written about a run that ended; none by default beside the one in its folder.</summary>
    public JobReport? Report { get; init; }

    /// <summary>Who is told how it ended.</summary>
    public JobNotification? Notify { get; init; }

    /// <summary>The folder that relative paths begin at.</summary>
    [JsonIgnore]
    public string Folder => System.IO.Path.GetDirectoryName(Path) is { Length: > 0 } folder ? folder : Environment.CurrentDirectory;

    /// <summary>Name of the adapter in the registry.</summary>
    internal string AdapterName => Registry?.Name ?? Name;

    /// <summary>The alias that gets the version; empty without a registry.</summary>
    internal string Alias => Registry?.Alias ?? "";

    /// <summary>Full path of a path of the job.</summary>
    /// <param name="path">Absolute, or relative to the folder of the job file.</param>
    public string FullPath(string path) => System.IO.Path.GetFullPath(path, Folder);

    /// <inheritdoc/>
    public override string ToString() => Name;
}

/// <summary>The model of a job.</summary>
public sealed record JobBase
{
    /// <summary>Folder of the model, as transformers stores it.</summary>
    public required string Path { get; init; }

    /// <summary>The task of the model: SequenceClassification, TokenClassification, CausalLanguageModeling or FeatureExtraction, a sentence encoder. Without it the class that config.json names, or for data with labels one that classifies texts.</summary>
    public TaskType? Task { get; init; }

    /// <summary>Labels of the classification head in the order of its outputs. Without them they are those of the champion, of the checkpoint, or of the data.</summary>
    public IReadOnlyList<string>? Labels { get; init; }

    /// <summary>Makes the model a sentence encoder with this pooling: Mean, Cls, LastToken, Max, MeanSqrtLen or WeightedMean. The default is what a folder of sentence-transformers says.</summary>
    public IReadOnlyList<SentencePooling>? Pooling { get; init; }

    /// <summary>Whether vectors of a sentence encoder are scaled to length one; the default is what a folder of sentence-transformers says, else not.</summary>
    public bool? Normalize { get; init; }

    /// <summary>Device of the model: auto, cpu, cuda or cuda:N.</summary>
    public string Device { get; init; } = "auto";

    /// <summary>Element type of the weights; the default is the type of the checkpoint on a GPU, and float32 on the CPU.</summary>
    [JsonPropertyName("dtype")]
    public JobDType? DType { get; init; }

    /// <summary>Number of threads that torch computes with; the default is one for each processor.</summary>
    public int? Threads { get; init; }
}

/// <summary>Element types that a model can be loaded in.</summary>
public enum JobDType
{
    /// <summary>32 bits.</summary>
    Float32,

    /// <summary>16 bits with the range of 32.</summary>
    BFloat16,

    /// <summary>16 bits.</summary>
    Float16,
}

/// <summary>The data of a job.</summary>
public sealed record JobData
{
    /// <summary>Data files (.jsonl, .json, .csv, .tsv, .conll, each also with .gz, and .parquet), with * and ? in names and ** for any folders.</summary>
    public required IReadOnlyList<string> Path { get; init; }

    /// <summary>Data files to evaluate on.</summary>
    public IReadOnlyList<string> Validation { get; init; } = [];

    /// <summary>Data files of an earlier time, whose labels and lengths are those to expect; none by default.</summary>
    public IReadOnlyList<string> Reference { get; init; } = [];

    /// <summary>Names of columns in the data, by the name that is expected: @{ text = 'subject'; label = 'team' }.</summary>
    public IReadOnlyDictionary<string, string> Columns { get; init; } = new Dictionary<string, string>();

    /// <summary>Whether rows that do not fit are skipped and counted in a warning, instead of ending the job.</summary>
    public bool SkipInvalid { get; init; }

    /// <summary>The most that is allowed of what may be wrong with the data, as a share, a count or an index; more ends the job. What is not named is allowed.</summary>
    public IReadOnlyDictionary<DataFindingKind, double> Limits { get; init; } = new Dictionary<DataFindingKind, double>();

    /// <summary>Treatment of a label in the data that the champion, or the model, does not know: Refuse ends the job, Grow adds a row to the head.</summary>
    public NewLabels NewLabels { get; init; }
}

/// <summary>Treatments of new labels in data.</summary>
public enum NewLabels
{
    /// <summary>The job ends and names the label.</summary>
    Refuse,

    /// <summary>The head gets a row for it; the other rows keep their weights.</summary>
    Grow,
}

/// <summary>The run folders of a job.</summary>
public sealed record JobRuns
{
    /// <summary>Folder that gets a folder with the name of the job, and in it one for each run.</summary>
    public string Path { get; init; } = "runs";

    /// <summary>Steps (200) or time ("10m") between checkpoints.</summary>
    public RunInterval CheckpointEvery { get; init; } = new(TimeSpan.FromMinutes(10));

    /// <summary>Number of checkpoints that stay; the one of the best evaluation stays as well.</summary>
    public int CheckpointLimit { get; init; } = 3;

    /// <summary>Bytes that have to stay free on the disk; checked before every checkpoint.</summary>
    public long MinimumFreeSpace { get; init; }
}

/// <summary>When the result of a job is better than what is in use.</summary>
public sealed record JobGate
{
    /// <summary>Data files to compare on; the default is the validation data.</summary>
    public IReadOnlyList<string> Data { get; init; } = [];

    /// <summary>The measure that is compared; the default is that of the task.</summary>
    public EvaluationMetric? Metric { get; init; }

    /// <summary>How much better the result has to be, in units of the metric.</summary>
    public double MinimumImprovement { get; init; }

    /// <summary>How much worse a single label may become, in units of the metric; no limit by default.</summary>
    public double? MaximumRegression { get; init; }

    /// <summary>Confidence that the result is better and not lucky.</summary>
    public double Confidence { get; init; } = 0.95;
}

/// <summary>Where the result of a job is published.</summary>
public sealed record JobRegistry
{
    /// <summary>Folder of the registry.</summary>
    public required string Path { get; init; }

    /// <summary>Name of the adapter in the registry; the default is the name of the job.</summary>
    public string? Name { get; init; }

    /// <summary>The alias that means the version in use.</summary>
    public string Alias { get; init; } = "champion";

    /// <summary>Start of a training: Base is the model with a fresh adapter, Champion is the version in use.</summary>
    public JobStart StartFrom { get; init; }
}

/// <summary>Starts of a training of a job.</summary>
public enum JobStart
{
    /// <summary>A fresh adapter.</summary>
    Base,

    /// <summary>The version in use; a fresh adapter where there is none yet.</summary>
    Champion,
}

/// <summary>Versions and runs that a job removes when it has published.</summary>
public sealed record JobRetention
{
    /// <summary>Number of the newest versions that stay, beside those in use and those that they came from; all by default.</summary>
    public int? Versions { get; init; }

    /// <summary>Number of the newest runs that stay; all by default.</summary>
    public int? Runs { get; init; }
}

/// <summary>A report of a job: one file with the figures of the run, the gate and the lineage.</summary>
public sealed record JobReport
{
    /// <summary>Folder for the reports, which have the names of the runs.</summary>
    public required string Path { get; init; }

    /// <summary>Html, one file with its pictures, or Markdown.</summary>
    public ReportFormat As { get; init; }
}

/// <summary>Who is told how a job ended. A failure of a notification is a warning.</summary>
public sealed record JobNotification
{
    /// <summary>A program and its arguments, started without a shell. It reads the result as JSON from its standard input, and finds LOKR_JOB_NAME, LOKR_JOB_STATE and LOKR_JOB_EXIT_CODE in its environment.</summary>
    public IReadOnlyList<string> Command { get; init; } = [];

    /// <summary>PowerShell code that gets the result as its first argument; in a .psd1 file a script block. It runs in the session that runs the job, with its rights.</summary>
    public string? Script { get; init; }

    /// <summary>The states that are told; all by default.</summary>
    public IReadOnlyList<LoKrJobState> On { get; init; } = [];
}
