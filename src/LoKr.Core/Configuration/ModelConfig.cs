using System.Text.Json;
using System.Text.Json.Nodes;
using LoKr.Core.Errors;
using LoKr.Core.IO;
using static TorchSharp.torch;

namespace LoKr.Core.Configuration;

/// <summary>
/// The configuration of a base model as transformers and diffusers save it (<c>config.json</c>); <c>model_index.json</c> and
/// <c>scheduler_config.json</c> have the same form. As in transformers, null counts as absent.
/// </summary>
public sealed class ModelConfig : JsonFields
{
    /// <summary>Name of the file.</summary>
    public const string FileName = "config.json";

    /// <summary>Key of the class in the configurations of diffusers, which have no <c>model_type</c>.</summary>
    public const string ClassNameKey = "_class_name";

    /// <summary>Key under which transformers says how weights are quantized.</summary>
    public const string QuantizationKey = "quantization_config";

    private const string ModelTypeKey = "model_type";

    private static readonly JsonErrors s_errors = new(ErrorIds.ModelConfigInvalid, ErrorIds.ModelConfigUnsupported);

    // Parts of the class names of transformers whose models predict tokens.
    private static readonly string[] s_languageModels = ["CausalLM", "LMHead", "MaskedLM", "ConditionalGeneration", "PreTraining"];

    /// <summary>Wraps a configuration.</summary>
    /// <param name="json">The object; it is copied.</param>
    /// <param name="source">File or other origin, for error messages.</param>
    /// <param name="generation">The folder's generation_config.json, or null.</param>
    public ModelConfig(JsonObject json, string source = FileName, ModelConfig? generation = null)
        : this(JsonElement.Parse((json ?? throw new ArgumentNullException(nameof(json))).ToJsonString()), source, generation)
    {
    }

    private ModelConfig(JsonElement element, string source, ModelConfig? generation)
        : base(element, source, s_errors) => Generation = generation;

    /// <summary><c>generation_config.json</c> of the same folder, or null.</summary>
    public ModelConfig? Generation { get; }

    /// <summary><c>model_type</c>, or <c>_class_name</c> of diffusers.</summary>
    /// <exception cref="LoKrException"><c>LoKr.ModelTypeMissing</c> without either.</exception>
    public string ModelType => FindModelType() ?? throw new LoKrException(
        ErrorIds.ModelTypeMissing, LoKrErrorKind.InvalidData, $"'{Source}' names no model_type.",
        "Is this the config.json of a transformers model? Add its model_type, for example \"bert\".") { Target = Source };

    /// <summary>Class names of the model.</summary>
    public IReadOnlyList<string> Architectures => GetStrings("architectures");

    /// <summary>The element type that <c>dtype</c> (transformers 5) or <c>torch_dtype</c> names, or null.</summary>
    public ScalarType? DType
    {
        get
        {
            string key = Has("dtype") ? "dtype" : "torch_dtype";
            return FindString(key) switch
            {
                null => null,
                "float32" or "float" or "torch.float32" => ScalarType.Float32,
                "float16" or "half" or "torch.float16" => ScalarType.Float16,
                "bfloat16" or "torch.bfloat16" => ScalarType.BFloat16,
                "float64" or "double" or "torch.float64" => ScalarType.Float64,
                _ => throw Wrong(key, "one of float32, float16, bfloat16, float64", Get(key)),
            };
        }
    }

    /// <summary>Whether input and output embeddings are one weight; null where the file does not say.</summary>
    public bool? TiesEmbeddings => FindBool("tie_word_embeddings");

    /// <summary>Whether the model predicts tokens, so that it has output embeddings; null where the file does not say.</summary>
    public bool? PredictsTokens => Architectures is { Count: > 0 } names
        ? names.Any(static name => s_languageModels.Any(part => name.Contains(part, StringComparison.Ordinal)))
        : null;

    /// <summary>Reads <c>config.json</c>, and <c>generation_config.json</c> where there is one, from a model folder.</summary>
    /// <param name="folder">The folder.</param>
    /// <exception cref="LoKrException"><c>LoKr.PathNotFound</c>, <c>LoKr.ModelConfigNotFound</c>, <c>LoKr.ModelConfigInvalid</c>, <c>LoKr.FileNotReadable</c>.</exception>
    public static ModelConfig Load(string folder)
    {
        ArgumentException.ThrowIfNullOrEmpty(folder);
        if (!Directory.Exists(folder))
        {
            throw new LoKrException(ErrorIds.PathNotFound, LoKrErrorKind.NotFound, $"The folder '{folder}' does not exist.",
                "Name the folder that holds config.json and model.safetensors.") { Target = folder };
        }

        string path = Path.Combine(folder, FileName);
        if (!File.Exists(path))
        {
            throw new LoKrException(ErrorIds.ModelConfigNotFound, LoKrErrorKind.NotFound, $"'{folder}' has no config.json.",
                "A model folder holds config.json, model.safetensors and the tokenizer's files, as save_pretrained writes them; a pipeline's holds model_index.json.") { Target = folder };
        }

        string generation = Path.Combine(folder, "generation_config.json");
        return new ModelConfig(
            ReadElement(ModelLinks.Check(folder, path)), path, File.Exists(generation) ? Read(ModelLinks.Check(folder, generation)) : null);
    }

    /// <summary>Reads <c>config.json</c> of a folder that may have none.</summary>
    /// <param name="folder">The folder.</param>
    /// <returns>The configuration, or null where there is no such file.</returns>
    /// <exception cref="LoKrException"><c>LoKr.ModelConfigInvalid</c>, <c>LoKr.FileNotReadable</c>.</exception>
    public static ModelConfig? LoadIfPresent(string folder)
    {
        string path = Path.Combine(folder, FileName);
        return File.Exists(path) ? Read(ModelLinks.Check(folder, path)) : null;
    }

    /// <summary>Reads one file.</summary>
    /// <param name="path">The file.</param>
    /// <exception cref="LoKrException"><c>LoKr.PathNotFound</c>, <c>LoKr.ModelConfigInvalid</c>, <c>LoKr.FileNotReadable</c>.</exception>
    public static ModelConfig Read(string path) => new(ReadElement(path), path, null);

    /// <summary>Writes a configuration as the <c>config.json</c> of a folder; paths of this machine become names.</summary>
    /// <param name="folder">Folder of the model, which has to exist.</param>
    /// <param name="config">The configuration.</param>
    /// <exception cref="LoKrException"><c>LoKr.FileNotWritable</c>, <c>LoKr.DiskFull</c>.</exception>
    public static void Write(string folder, JsonObject config) =>
        AtomicFile.WriteText(Path.Combine(folder, FileName), MachinePaths.RemoveFromConfiguration(JsonRecords.ToLines(config)) + "\n");

    /// <summary>
    /// Writes another number of tokens where a configuration has one: as <c>vocab_size</c>, and in the <c>text_config</c> of a model of several parts.
    /// </summary>
    /// <param name="config">The configuration.</param>
    /// <param name="count">Number of tokens.</param>
    public static void SetVocabularySize(JsonObject config, long count)
    {
        ArgumentNullException.ThrowIfNull(config);
        foreach (JsonObject place in new[] { config, config["text_config"] as JsonObject }.OfType<JsonObject>().Where(static place => place["vocab_size"] is not null))
        {
            place["vocab_size"] = count;
        }
    }

    /// <summary><see cref="ModelType"/>, or null.</summary>
    public string? FindModelType() => FindString(ModelTypeKey) ?? FindString(ClassNameKey);

    private static JsonElement ReadElement(string path) => ParseElement(FileSystem.ReadBytes(path), path, s_errors);
}
