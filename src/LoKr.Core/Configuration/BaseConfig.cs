using System.Text.Json;
using System.Text.Json.Nodes;
using LoKr.Core.Errors;
using LoKr.Core.IO;

namespace LoKr.Core.Configuration;

/// <summary>What a merge on disk reads of a model's config.json; a folder without one is taken as it is.</summary>
internal sealed class BaseConfig
{
    /// <summary>Name of the file.</summary>
    public const string FileName = "config.json";

    // Stems of class names of transformers, longest first: what stands before is the family.
    private static readonly string[] s_heads =
    [
        "ForSequenceClassification", "ForConditionalGeneration", "ForImageClassification", "ForTokenClassification", "ForQuestionAnswering",
        "WithLMHeadModel", "ForPreTraining", "LMHeadModel", "ForMaskedLM", "ForCausalLM", "Model",
    ];

    private static readonly string[] s_languageModels = ["CausalLM", "LMHead", "MaskedLM", "ConditionalGeneration", "PreTraining"];

    private readonly JsonObject _json;

    private BaseConfig(JsonObject json) => _json = json;

    /// <summary><c>model_type</c>, or null.</summary>
    public string? ModelType => Text(_json["model_type"]);

    /// <summary>Class names.</summary>
    public IReadOnlyList<string> Architectures => _json["architectures"] is JsonArray names ? [.. names.Select(Text).OfType<string>()] : [];

    /// <summary>Whether input and output embeddings are one weight, or null where the file does not say.</summary>
    public bool? TiesEmbeddings => _json["tie_word_embeddings"] is JsonValue value && value.TryGetValue(out bool ties) ? ties : null;

    /// <summary>Whether the model predicts tokens, so that it has output embeddings; null where the file does not say.</summary>
    public bool? PredictsTokens => Architectures.Count == 0 ? null : Architectures.Any(static name => s_languageModels.Any(part => name.Contains(part, StringComparison.Ordinal)));

    /// <summary>Whether the weights are quantized.</summary>
    public bool IsQuantised => _json["quantization_config"] is JsonObject;

    /// <summary>Reads the file of a folder.</summary>
    /// <exception cref="LoKrException"><c>LoKr.ModelConfigInvalid</c>.</exception>
    public static BaseConfig Read(string folder)
    {
        string path = Path.Combine(folder, FileName);
        if (!File.Exists(path))
        {
            return new BaseConfig([]);
        }

        try
        {
            return new BaseConfig(JsonNode.Parse(FileErrors.ReadText(path)) as JsonObject ?? throw Invalid(path, "it is not an object", null));
        }
        catch (JsonException exception)
        {
            throw Invalid(path, exception.Message, exception);
        }
    }

    /// <summary>The configuration of the model with a head that the adapter brought.</summary>
    /// <param name="className">Class of the model that the adapter was trained on, or null.</param>
    /// <param name="headSuffix">End of the class name that the task asks for, or null.</param>
    /// <param name="rows">Rows of the head's last weight, one per label, or null.</param>
    /// <param name="warnings">What a person should know.</param>
    public JsonObject WithHead(string? className, string? headSuffix, long? rows, List<string> warnings)
    {
        JsonObject json = (JsonObject)_json.DeepClone();
        string? family = Architectures.Count == 0 ? null : Family(Architectures[0]);
        string? name = className ?? (family is not null && headSuffix is not null ? family + headSuffix : null);
        if (name is null)
        {
            warnings.Add("config.json does not name the class of the model, so that readers may leave out the head that the adapter brought; add it as 'architectures'.");
        }
        else
        {
            json["architectures"] = new JsonArray(name);
        }

        if (rows is long labels && Labels(json) != labels)
        {
            JsonObject ids = [];
            JsonObject names = [];
            for (long i = 0; i < labels; i++)
            {
                names[FormattableString.Invariant($"{i}")] = FormattableString.Invariant($"LABEL_{i}");
                ids[FormattableString.Invariant($"LABEL_{i}")] = i;
            }

            json["id2label"] = names;
            json["label2id"] = ids;
            json.Remove("num_labels");
            warnings.Add($"The adapter brought a head with {labels} labels, whose names no file holds; config.json calls them LABEL_0 to LABEL_{labels - 1}.");
        }

        return json;
    }

    private static long Labels(JsonObject json) => json["id2label"] is JsonObject names ? names.Count
        : json["num_labels"] is JsonValue value && value.TryGetValue(out long count) ? count
        : 2;

    private static string? Family(string name) => s_heads.FirstOrDefault(head => name.EndsWith(head, StringComparison.Ordinal) && name.Length > head.Length) is string found
        ? name[..^found.Length]
        : null;

    private static string? Text(JsonNode? node) => node is JsonValue value && value.TryGetValue(out string? text) ? text : null;

    private static LoKrException Invalid(string path, string why, Exception? inner) => new(
        ErrorIds.ModelConfigInvalid, LoKrErrorKind.InvalidData, $"'{path}' cannot be used: {why}.", "Get the file again.", inner) { Target = path };
}
