using System.Text.Json.Nodes;
using LoKr.Core.IO;

namespace LoKr.Core.Configuration;

/// <summary>
/// Settings that sentence-transformers writes for a reranker (<c>CrossEncoder</c>), a classifier of one label that scores pairs of texts. What turns its
/// logit into a score stands in <c>config_sentence_transformers.json</c>, else as <c>sentence_transformers.activation_fn</c> in config.json, else
/// as <c>sbert_ce_default_activation_function</c> (before release 4); without any of them it is a sigmoid.
/// </summary>
public static class CrossEncoderConfig
{
    private const string FileName = "config_sentence_transformers.json";
    private const string Key = "sentence_transformers";
    private const string ActivationKey = "activation_fn";
    private const string OldKey = "sbert_ce_default_activation_function";
    private const string Sigmoid = "torch.nn.modules.activation.Sigmoid";

    /// <summary>Files beside config.json that describe a reranker and that sentence-transformers reads.</summary>
    public static IReadOnlyList<string> Files { get; } = [FileName, "modules.json", "sentence_bert_config.json"];

    /// <summary>The configuration of a folder, with the activation that a file beside it names.</summary>
    /// <param name="config">The configuration.</param>
    /// <param name="folder">Its folder.</param>
    /// <exception cref="Errors.LoKrException"><c>LoKr.ModelConfigInvalid</c>, <c>LoKr.FileNotReadable</c>.</exception>
    public static ModelConfig Complete(ModelConfig config, string folder)
    {
        ArgumentNullException.ThrowIfNull(config);
        if (!IsFolder(folder, out string? activation) || activation is null)
        {
            return config;
        }

        JsonObject json = config.ToJsonObject();
        Set(json, activation);
        return new(json, config.Source, config.Generation);
    }

    /// <summary>Whether a folder is that of a reranker by the file of sentence-transformers.</summary>
    /// <param name="folder">The folder.</param>
    public static bool IsFolder(string folder) => IsFolder(folder, out _);

    /// <summary>Refuses an activation that is not known; for a model of one label, whose scores it makes.</summary>
    /// <exception cref="Errors.LoKrException"><c>LoKr.ModelConfigUnsupported</c>, naming key and value.</exception>
    public static void Check(ModelConfig config)
    {
        ArgumentNullException.ThrowIfNull(config);
        JsonObject json = config.ToJsonObject();
        if (Activation(json) is string name && Kind(name) is not ("Sigmoid" or "Identity"))
        {
            throw config.Unsupported(json[Key]?[ActivationKey] is null ? OldKey : $"{Key}.{ActivationKey}", $"is '{name}'; known are Sigmoid and Identity of torch.nn");
        }
    }

    /// <summary>Whether a configuration is that of a reranker, if it has one label.</summary>
    public static bool IsIn(JsonObject config)
    {
        ArgumentNullException.ThrowIfNull(config);
        return config[Key] is JsonObject || config[OldKey] is JsonValue;
    }

    /// <summary>Whether the scores of a reranker are its logits, without a sigmoid.</summary>
    public static bool ScoresAreLogits(JsonObject config) => Activation(config) is string name && Kind(name) == "Identity";

    /// <summary>Makes a configuration that of a reranker whose scores are probabilities, if it is not that of one.</summary>
    internal static void Mark(JsonObject config)
    {
        if (!IsIn(config))
        {
            Set(config, Sigmoid);
        }
    }

    /// <summary>Removes the mark of a reranker, which a training writes.</summary>
    internal static void Unmark(JsonObject config) => config.Remove(Key);

    private static bool IsFolder(string folder, out string? activation)
    {
        string path = Path.Combine(folder, FileName);
        ModelConfig? file = File.Exists(path) ? ModelConfig.Read(ModelLinks.Check(folder, path)) : null;
        activation = file?.FindString(ActivationKey);
        return file?.FindString("model_type") == "CrossEncoder";
    }

    private static void Set(JsonObject config, string activation)
    {
        JsonObject own = config[Key] as JsonObject ?? [];
        own[ActivationKey] = activation;
        if (own.Parent is null)
        {
            config[Key] = own;
        }
    }

    private static string? Activation(JsonObject config) => (config[Key]?[ActivationKey] ?? config[OldKey]) is JsonValue value && value.TryGetValue(out string? name) ? name : null;

    // The module that torch defines it in has changed and does not matter.
    private static string? Kind(string name) => name.StartsWith("torch.", StringComparison.Ordinal) ? name[(name.LastIndexOf('.') + 1)..] : null;
}
