using System.Text.Json.Nodes;
using LoKr.Core.Configuration;

namespace LoKr.Core.Merging.Checkpoints;

/// <summary>Describes in <c>config.json</c> the head that an adapter adds to a model without one.</summary>
internal static class HeadConfig
{
    // Ends of class names of transformers, longest first; the rest of the name is the family.
    private static readonly string[] s_heads =
    [
        "ForSequenceClassification", "ForConditionalGeneration", "ForImageClassification", "ForTokenClassification", "ForQuestionAnswering",
        "WithLMHeadModel", "ForPreTraining", "LMHeadModel", "ForMaskedLM", "ForCausalLM", "Model",
    ];

    /// <summary>The configuration of the model with the head.</summary>
    /// <param name="config">Configuration of the base model.</param>
    /// <param name="className">Class of the model that the adapter was trained on, or null.</param>
    /// <param name="headSuffix">End of the class name that the task asks for, or null.</param>
    /// <param name="rows">Rows of the head's last weight, one per label, or null.</param>
    /// <param name="warnings">Receives what a person should know.</param>
    public static JsonObject Create(ModelConfig config, string? className, string? headSuffix, int? rows, List<string> warnings)
    {
        JsonObject json = config.ToJsonObject();
        string? family = config.Architectures is [string first, ..] ? Family(first) : null;
        string? name = className ?? (family is not null && headSuffix is not null ? family + headSuffix : null);
        if (name is null)
        {
            warnings.Add("config.json does not name the class of the model, so that readers may leave out the head of the adapter; add it as 'architectures'.");
        }
        else
        {
            json["architectures"] = new JsonArray(name);
        }

        if (rows is int labels && Labels(config) != labels)
        {
            ModelLabels.Write(json, ModelLabels.Generic(labels));
            warnings.Add($"The adapter has a head with {labels} labels, whose names no file holds; config.json calls them LABEL_0 to LABEL_{labels - 1}.");
        }

        return json;
    }

    // transformers takes two labels where the configuration says nothing.
    private static int Labels(ModelConfig config) => config.FindObject("id2label")?.Count ?? config.FindInt("num_labels") ?? 2;

    private static string? Family(string name) => s_heads.FirstOrDefault(head => name.EndsWith(head, StringComparison.Ordinal) && name.Length > head.Length) is string found
        ? name[..^found.Length]
        : null;
}
