using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.IO;
using LoKr.Core.Targeting;

namespace LoKr.Core.Merging.Checkpoints;

/// <summary>
/// The files beside the weights that are copied: configuration, tokenizer, code. Other forms of the weights are left out, because the merge
/// does not change them, and so is the model card, which describes the base model.
/// </summary>
internal static class CompanionFiles
{
    private static readonly HashSet<string> s_weights = new(
        [".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".h5", ".msgpack", ".onnx", ".gguf", ".ggml", ".tflite", ".mlmodel", ".ot", ".npz"],
        StringComparer.OrdinalIgnoreCase);

    /// <summary>Whether a file belongs to a tokenizer.</summary>
    /// <param name="file">Path relative to the folder of the model.</param>
    public static bool IsOfTokenizer(string file) => TokenizerFiles.All.Contains(file, StringComparer.Ordinal);

    /// <summary>The tokenizer that was saved in the folder of an adapter: full paths, none where there is no vocabulary.</summary>
    /// <param name="folder">The folder.</param>
    /// <exception cref="LoKrException"><c>LoKr.LinkOutsideFolder</c>, <c>LoKr.FileNotReadable</c>: <see cref="ModelLinks.Check(string)"/>.</exception>
    public static IReadOnlyList<string> TokenizerIn(string folder) => TokenizerFiles.Vocabularies.Any(name => File.Exists(Path.Combine(folder, name)))
        ? [.. TokenizerFiles.All.Order(StringComparer.Ordinal).Select(name => Path.Combine(folder, name)).Where(File.Exists).Select(new ModelLinks(folder).Check)]
        : [];

    /// <summary>Files to copy, as paths relative to the folder.</summary>
    /// <exception cref="LoKrException"><c>LoKr.LinkOutsideFolder</c>, <c>LoKr.FileNotReadable</c>: <see cref="ModelLinks.Check(string)"/>.</exception>
    public static IReadOnlyList<string> List(string folder)
    {
        ModelLinks links = new(folder);
        return
        [
            .. Directory.EnumerateFiles(folder).Where(static path => IsCompanion(Path.GetFileName(path)))
                .Select(path => Path.GetFileName(links.Check(path))).Order(StringComparer.Ordinal),
            .. Directory.EnumerateDirectories(folder).Where(static path => !Path.GetFileName(path).StartsWith('.'))
                .SelectMany(inner => Inside(links, inner)).Select(path => Path.GetRelativePath(folder, path)).Order(StringComparer.Ordinal),
        ];
    }

    /// <summary>Copies the rest of a pipeline: its own files, and the folders of components without weights that can be merged into.</summary>
    /// <param name="from">Folder of the pipeline.</param>
    /// <param name="to">Folder to write into.</param>
    /// <param name="written">Folders of components that are written already.</param>
    /// <exception cref="LoKrException"><c>LoKr.LinkOutsideFolder</c>, <c>LoKr.FileNotReadable</c>: <see cref="ModelLinks.Check(string)"/>.</exception>
    public static void CopyPipeline(string from, string to, IEnumerable<string> written)
    {
        ModelLinks links = new(from);
        List<string> files = [.. Directory.EnumerateFiles(from).Where(static path => IsCompanion(Path.GetFileName(path))).Select(links.Check)];
        foreach (string folder in Directory.EnumerateDirectories(from).Where(path => !Path.GetFileName(path).StartsWith('.')).ExceptBy(written, static path => Path.GetFileName(path)))
        {
            Walk(links, folder, [], files);
        }

        foreach (string file in files)
        {
            string target = Path.Combine(to, Path.GetRelativePath(from, file));
            FileSystem.CreateFolder(Path.GetDirectoryName(target)!);
            MachinePaths.CopyWithout(links.Check(file), target);
        }
    }

    // A folder beside the weights belongs to them (1_Pooling) unless it has weights of its own.
    private static List<string> Inside(ModelLinks links, string folder)
    {
        List<string> files = [];
        Walk(links, folder, [], files);
        return files.Exists(static path => s_weights.Contains(Path.GetExtension(path))) ? [] : files.ConvertAll(links.Check);
    }

    // A folder that a link leads back to is listed once.
    private static void Walk(ModelLinks links, string folder, HashSet<string> seen, List<string> files)
    {
        if (seen.Add(FolderPaths.Resolve(links.Check(folder))))
        {
            files.AddRange(Directory.EnumerateFiles(folder));
            foreach (string inner in Directory.EnumerateDirectories(folder))
            {
                Walk(links, inner, seen, files);
            }
        }
    }

    private static bool IsCompanion(string name) => !name.StartsWith('.')
        && !s_weights.Contains(Path.GetExtension(name))
        && !name.EndsWith(".index.json", StringComparison.OrdinalIgnoreCase)
        && !name.StartsWith("adapter_", StringComparison.OrdinalIgnoreCase)
        && !name.Equals("README.md", StringComparison.OrdinalIgnoreCase);
}

/// <summary>Describes in <c>config.json</c> the head that an adapter adds to a model without one.</summary>
internal static class HeadConfig
{
    // Ends of class names of transformers, longest first; the rest of the name is the family.
    private static readonly string[] s_heads =
    [
        "ForSequenceClassification", "ForConditionalGeneration", "ForImageClassification", "ForTokenClassification", "ForQuestionAnswering",
        "WithLMHeadModel", "ForPreTraining", "LMHeadModel", "ForMaskedLM", "ForCausalLM", "Model",
    ];

    /// <summary>Describes the head in the configuration of the model.</summary>
    /// <param name="json">The configuration, which is changed.</param>
    /// <param name="model">The base model, with a configuration.</param>
    /// <param name="tensors">Tensors that adapters add.</param>
    /// <param name="owner">The adapter that adds the head.</param>
    /// <param name="warnings">Warnings are added here.</param>
    public static void Describe(JsonObject json, CheckpointBase model, IEnumerable<AdapterTensor> tensors, CheckpointMergeAdapter owner, List<string> warnings)
    {
        LoKrConfig adapter = owner.Config!;
        ModelConfig config = model.Config!;
        string? suffix = adapter.TaskType switch
        {
            TaskType.SequenceClassification => "ForSequenceClassification",
            TaskType.TokenClassification => "ForTokenClassification",
            TaskType.QuestionAnswering => "ForQuestionAnswering",
            _ => null,
        };
        string? family = config.Architectures is [string first, ..] ? Family(first) : null;
        string? className = adapter.AutoMapping?.BaseModelClass
            ?? (suffix is null ? model.HeadClass : family is null ? null : family + suffix);
        if (className is null)
        {
            warnings.Add("config.json does not name the class of the model, so readers may ignore the head of the adapter; add it as 'architectures'.");
        }
        else
        {
            json["architectures"] = new JsonArray(className);
        }

        if (owner.MadeFor?.Problem is ClassificationProblem problem && ClassificationProblems.Find(json) is null)
        {
            ClassificationProblems.Describe(json, problem);
        }

        bool classifies = (suffix ?? className)?.EndsWith("Classification", StringComparison.Ordinal) == true;
        int? count = classifies ? LabelCount(tensors, adapter) : null;
        if (count is int rows && owner.MadeFor?.Labels is { } names && names.Count == rows)
        {
            ModelLabels.Write(json, names);
        }
        else if (count is int labels && Labels(config) != labels)
        {
            ModelLabels.Write(json, ModelLabels.Generic(labels));
            warnings.Add($"The adapter has a head with {labels} labels without names; config.json calls them LABEL_0 to LABEL_{labels - 1}.");
        }
    }

    // One row for each label in the last weight of the head. What stands before it (a pooler, DistilBERT's pre_classifier) has other rows. A head
    // of another name than the task gives it (BART's classification_head) is a module at the root of the model.
    private static int? LabelCount(IEnumerable<AdapterTensor> tensors, LoKrConfig config)
    {
        IReadOnlyList<string> names = TargetResolver.TaskHead(TaskType.SequenceClassification);
        AdapterTensor[] weights = [.. tensors
            .Where(static tensor => tensor.Key.EndsWith(".weight", StringComparison.Ordinal) && tensor.Entry.Shape.Count == 2)
            .OrderBy(static tensor => tensor.Key, StringComparer.Ordinal)];
        AdapterTensor? last = Array.FindLast(weights, weight => weight.Key.Split('.').Any(names.Contains))
            ?? Array.FindLast(weights, weight => TargetResolver.SavedModule(config, weight.Key)?.Contains('.', StringComparison.Ordinal) == false);
        return (int?)last?.Entry.Shape[0];
    }

    // The default of transformers is two labels.
    private static int Labels(ModelConfig config) => config.FindObject("id2label")?.Count ?? config.FindInt("num_labels") ?? 2;

    private static string? Family(string name) => s_heads.FirstOrDefault(head => name.EndsWith(head, StringComparison.Ordinal) && name.Length > head.Length) is string found
        ? name[..^found.Length]
        : null;
}
