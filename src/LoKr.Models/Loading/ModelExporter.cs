using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.IO;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Core.Safetensors;
using LoKr.Models.Families;
using static TorchSharp.torch;

namespace LoKr.Models.Loading;

/// <summary>Writes a model as a folder that transformers can load.</summary>
public static class ModelExporter
{
    // All files beside weights and config.json that transformers reads from a folder of these families.
    private static readonly string[] s_companionFiles = [.. TokenizerFiles.All, "generation_config.json", "preprocessor_config.json"];

    /// <summary>
    /// Writes config.json, weights, tokenizer and generation files; the folder appears complete or not at all. A module without a
    /// configuration (one created in a script) is written as weights only, under the names of its state.
    /// </summary>
    /// <param name="model">The model, merged or without adapters.</param>
    /// <param name="destination">Folder to write.</param>
    /// <param name="force">Whether an existing folder is replaced.</param>
    /// <param name="maxShardBytes">Largest size of one weights file in bytes.</param>
    /// <param name="cancellationToken">Checked before every tensor; nothing is written then.</param>
    /// <exception cref="LoKrException">
    /// <see cref="ErrorIds.ExportUnmerged"/>, <see cref="ErrorIds.ExportIntoSource"/>, or an error of <see cref="StagedDirectory"/>.
    /// </exception>
    public static void Export(LoKrModel model, string destination, bool force = false, long maxShardBytes = long.MaxValue, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(model);
        ArgumentException.ThrowIfNullOrEmpty(destination);
        CheckpointWriter.CheckShardSize(maxShardBytes);
        using IDisposable reading = model.BeginReading();
        CheckMerged(model);
        destination = Path.GetFullPath(destination);
        if (model.SourcePath is { } source)
        {
            FolderPaths.CheckApart(source, destination);
        }

        using StagedDirectory staged = new(destination, force);
        WriteInto(staged.Path, model, maxShardBytes, cancellationToken);
        staged.Commit();
    }

    /// <summary>Writes a model's files into an existing folder.</summary>
    internal static void WriteInto(string folder, LoKrModel model, long maxShardBytes, CancellationToken cancellationToken)
    {
        CheckpointLayout? layout = model.Pretrained is null ? null : ArchitectureRegistry.Default.Find(new ModelConfig(model.Pretrained.Config))?.Layout;
        string weights = (layout ?? new CheckpointLayout()).WeightsName;
        CheckpointWriter.Write(folder, GetState(model), maxShardBytes, weights, cancellationToken);
        if (model.Pretrained is { } pretrained)
        {
            ModelConfig.Write(folder, CreateConfig(pretrained, model));
        }

        if (model.Pretrained is ISentenceEncoder encoder)
        {
            int longest = Math.Min(encoder.MaxSequenceLength, model.Tokenizer?.MaxLength ?? encoder.MaxSequenceLength);
            SentenceFolder.Write(folder, encoder.Sentences, encoder.Dimension / encoder.Sentences.Pooling.Count, longest);
        }

        foreach ((string from, string name) in CompanionFiles(model))
        {
            string target = Path.Combine(folder, name);
            FileSystem.CreateFolder(Path.GetDirectoryName(target)!);
            MachinePaths.CopyWithout(ModelLinks.Check(from, Path.Combine(from, name)), target);
        }
    }

    // An export has the generation of names of its source, so that the same programs can read both.
    private static IReadOnlyDictionary<string, Tensor> GetState(LoKrModel model)
    {
        IReadOnlyDictionary<string, Tensor> state = model.GetBaseState();
        return model.Module is IPublishedNames { SavesPublishedNames: true } names
            ? state.ToDictionary(item => names.Published(item.Key), item => item.Value, StringComparer.Ordinal)
            : state;
    }

    private static JsonObject CreateConfig(IPretrainedModel pretrained, LoKrModel model)
    {
        JsonObject config = (JsonObject)pretrained.Config.DeepClone();

        // A model whose weights were quantized holds their values.
        config.Remove(ModelConfig.QuantizationKey);
        if (model.CountTokens() is long count)
        {
            ModelConfig.SetVocabularySize(config, count);
        }

        // diffusers reads the type from the weights.
        if (config.ContainsKey(ModelConfig.ClassNameKey))
        {
            return config;
        }

        string type = model.DType switch
        {
            ScalarType.Float32 => "float32",
            ScalarType.Float16 => "float16",
            ScalarType.BFloat16 => "bfloat16",
            ScalarType.Float64 => "float64",
            _ => throw new NotSupportedException($"A model in {model.DType} cannot be described in config.json."),
        };

        // transformers 5 reads both names of the element type; older releases read torch_dtype only.
        (config["dtype"], config["torch_dtype"]) = (type, type);
        return config;
    }

    // Folders and the names of files in them; those of the tokenizer before those of the model.
    private static IEnumerable<(string Folder, string Name)> CompanionFiles(LoKrModel model)
    {
        IEnumerable<(string Folder, string Name)> ofTokenizer = (model.Tokenizer?.SourceFiles ?? []).Select(static file => (Folder: Path.GetDirectoryName(file)!, Name: Path.GetFileName(file)));
        return (model.SourcePath is string folder ? ofTokenizer.Concat(NamesIn(folder, model).Select(name => (Folder: folder, Name: name))) : ofTokenizer)
            .DistinctBy(static file => file.Name, StringComparer.Ordinal);
    }

    private static IEnumerable<string> NamesIn(string folder, LoKrModel model)
    {
        IEnumerable<string> ofReranker = model.Pretrained is ISequenceClassifier { Labels.Count: 1 } && CrossEncoderConfig.IsFolder(folder) ? CrossEncoderConfig.Files : [];
        string templates = Path.Combine(folder, TokenizerFiles.TemplateFolder);
        return s_companionFiles.Concat(ofReranker).Where(name => File.Exists(Path.Combine(folder, name)))
            .Concat(Directory.Exists(templates) ? Directory.EnumerateFiles(templates, "*.jinja").Select(file => Path.GetRelativePath(folder, file)).Order(StringComparer.Ordinal) : []);
    }

    /// <summary>Refuses a model whose adapters would be lost with <see cref="ErrorIds.ExportUnmerged"/>.</summary>
    internal static void CheckMerged(LoKrModel model)
    {
        model.ThrowIfDisposed();
        string[] unmerged = [.. model.Adapters.Select(adapter => adapter.Name).Except(model.MergedAdapters, StringComparer.Ordinal)];
        string[] active = [.. model.ActiveAdapters.Except(model.MergedAdapters, StringComparer.Ordinal)];
        if (active.Length > 0 || (unmerged.Length > 0 && model.MergedAdapters.Count == 0))
        {
            throw new LoKrException(ErrorIds.ExportUnmerged, LoKrErrorKind.InvalidOperation,
                $"The {model.Name} has adapters that are not merged: {string.Join(", ", active.Length > 0 ? active : unmerged)}. A model folder has no place for them.",
                "Merge or remove them first, or export the adapter itself.") { Target = model };
        }
    }
}
