using System.Globalization;
using System.Text.Json.Nodes;

namespace LoKr.Core.Configuration;

/// <summary>The labels of a classifier as <c>config.json</c> holds them.</summary>
public static class ModelLabels
{
    /// <summary>Writes <c>id2label</c> and <c>label2id</c>.</summary>
    /// <param name="config">The configuration.</param>
    /// <param name="labels">The labels in the order of the logits.</param>
    public static void Write(JsonObject config, IReadOnlyList<string> labels)
    {
        ArgumentNullException.ThrowIfNull(config);
        ArgumentNullException.ThrowIfNull(labels);
        JsonObject names = [];
        JsonObject ids = [];
        for (int i = 0; i < labels.Count; i++)
        {
            names[i.ToString(CultureInfo.InvariantCulture)] = labels[i];
            ids[labels[i]] = i;
        }

        config["id2label"] = names;
        config["label2id"] = ids;
        config.Remove("num_labels");
    }

    /// <summary>The labels that a configuration names, in the order of the logits; null where it names none, or LABEL_0, LABEL_1 and so on.</summary>
    /// <param name="config">The configuration.</param>
    public static IReadOnlyList<string>? FindNamed(JsonObject config)
    {
        ArgumentNullException.ThrowIfNull(config);
        if (config["id2label"] is not JsonObject { Count: > 0 } names)
        {
            return null;
        }

        string[] labels = [.. Enumerable.Range(0, names.Count)
            .Select(i => names[i.ToString(CultureInfo.InvariantCulture)] is JsonValue name && name.TryGetValue(out string? text) ? text : "")];
        return labels.Contains("") || labels.SequenceEqual(Generic(labels.Length), StringComparer.Ordinal) ? null : labels;
    }

    /// <summary>The names that transformers gives labels without names: LABEL_0, LABEL_1, ….</summary>
    /// <param name="count">Number of labels.</param>
    public static IReadOnlyList<string> Generic(int count) => [.. Enumerable.Range(0, count).Select(i => string.Create(CultureInfo.InvariantCulture, $"LABEL_{i}"))];
}
