using System.Management.Automation.Language;
using System.Text.Json.Nodes;
using LoKr.Core.IO;

namespace LoKr.PowerShell.Binding;

/// <summary>A job file to begin with: what is given, and every other key with its default as a comment.</summary>
internal sealed record JobTemplate(string Name, string Base, string[] Data, string[] Validation, string Registry)
{
    /// <summary>The schema for editors.</summary>
    public const string Schema = "https://raw.githubusercontent.com/lokr-powershell/LoKr/main/docs/lokr-job.schema.json";

    /// <summary>The file as PowerShell data.</summary>
    public string ToScript() => $$"""
        # A job for Invoke-LoKrJob. Relative paths begin at the folder of this file. A key behind # has the value that it has without being written.
        @{
            Name = {{Quote(Name)}}

            Base = @{
                Path = {{Quote(Base)}}
                # Task = 'TokenClassification'     # tags of words; otherwise what config.json names, or labels of texts
                # Labels = 'access', 'billing'     # of the head, in order; otherwise those of the champion, the checkpoint or the data
                # Pooling = 'Mean'                 # makes it a sentence encoder: Mean, Cls, LastToken, Max, MeanSqrtLen, WeightedMean
                # Normalize = $true                # vectors of length one
                # Device = 'auto'                  # auto, cpu, cuda, cuda:0
                # DType = 'Float32'                # Float32, BFloat16, Float16
                # Threads = 4                      # one for each processor
            }

            Data = @{
                Path = {{List(Data)}}
                Validation = {{List(Validation)}}
                # Reference = './last-week.jsonl'  # whose labels and lengths are those to expect
                # Columns = @{ text = 'subject'; label = 'team' } # columns that have other names than those that are expected
                # SkipInvalid = $false             # $true skips rows that do not fit, and counts them in a warning
                # Limits = @{ Duplicates = 0.1; Shared = 0; LabelShift = 0.25 } # the kinds of Measure-LoKrData
                # NewLabels = 'Refuse'             # Grow adds a row to the head for a label that is new
            }

            # The adapter: the parameters of New-LoKrConfig.
            Configuration = @{
                R = 8
                Alpha = 16
                # TargetModules = 'query', 'value' # the default of the architecture; one text is a pattern, or all-linear
                # TaskType = 'SequenceClassification'
            }

            # The training: the parameters of Start-LoKrTraining.
            Training = @{
                Epochs = 3
                # MaxSteps = 1000
                BatchSize = 16
                # GradientAccumulation = 1
                # MaxLength = 128
                # LossOn = 'Answers'               # what the assistant says, and completions; All trains every token
                # Packing = $false                 # $true puts short rows of a language model side by side, up to MaxLength
                # EmbeddingLoss = 'CoSent'         # of a sentence encoder; otherwise what the columns say
                # NoDuplicates = $true             # no text twice in a batch of a sentence encoder
                LearningRate = 1e-3
                # HeadLearningRate = 1e-2          # of the head; otherwise ten times LearningRate for a new one
                # Schedule = 'Linear'              # Constant, Linear, Cosine
                # WarmupRatio = 0.1
                # WeightDecay = 0
                Seed = 1
                # EvaluateEvery = 200              # steps; otherwise at the end of each epoch
                # Metric = 'Accuracy'              # Accuracy, ExactMatch, F1, MicroF1, WeightedF1, Precision, Recall, MatthewsCorrelation, EntityF1, StrictEntityF1, RecallAt1, RecallAt10, MrrAt10, NdcgAt10, Spearman, Loss, Perplexity
                # Patience = 3                     # evaluations without improvement
                # MinimumImprovement = 0.002
                KeepBest = $true
                # TimeLimit = '2h'                 # ends with exit code 75; the next start goes on
            }

            Runs = @{
                Path = './runs'
                CheckpointEvery = '10m'            # or a number of steps
                # CheckpointLimit = 3
                # MinimumFreeSpace = 2GB
            }

            # Without a gate every result is published.
            Gate = @{
                # Data = './eval.jsonl'            # otherwise the validation data
                # Metric = 'Accuracy'
                # MinimumImprovement = 0.005
                # MaximumRegression = 0.02         # of any one label
                Confidence = 0.95
            }

            Registry = @{
                Path = {{Quote(Registry)}}
                # Name = {{Quote(Name)}}
                # Alias = 'champion'
                # StartFrom = 'Base'               # Champion continues the version in use
            }

            Retention = @{
                Versions = 5                       # beside those in use and their ancestors
                Runs = 5
            }

            # Report = @{ Path = './reports'; As = 'Html' } # or Markdown

            # Notify = @{
            #     Command = 'logger', '-t', 'lokr' # a program and its arguments; it gets the result as JSON
            #     Script = { param($result) "$($result.Job): $($result.State)" }
            #     On = 'Published', 'NotBetter', 'Failed'
            # }
        }

        """;

    /// <summary>The file as JSON, which has no comments: the schema describes the keys.</summary>
    public string ToJson() => JsonRecords.ToLines(new JsonObject
    {
        ["$schema"] = Schema,
        ["name"] = Name,
        ["base"] = new JsonObject { ["path"] = Base },
        ["data"] = new JsonObject { ["path"] = Array(Data), ["validation"] = Array(Validation) },
        ["configuration"] = new JsonObject { ["r"] = 8, ["alpha"] = 16 },
        ["training"] = new JsonObject { ["epochs"] = 3, ["batchSize"] = 16, ["learningRate"] = 0.001, ["seed"] = 1, ["keepBest"] = true },
        ["runs"] = new JsonObject { ["path"] = "./runs", ["checkpointEvery"] = "10m" },
        ["gate"] = new JsonObject { ["confidence"] = 0.95 },
        ["registry"] = new JsonObject { ["path"] = Registry },
        ["retention"] = new JsonObject { ["versions"] = 5, ["runs"] = 5 },
    }) + "\n";

    private static string Quote(string text) => $"'{CodeGeneration.EscapeSingleQuotedStringContent(text)}'";

    private static string List(string[] texts) => string.Join(", ", texts.Select(Quote));

    private static JsonArray Array(string[] texts) => [.. texts.Select(static text => (JsonNode)text)];
}
