using System.Text.Json.Nodes;
using LoKr.Core.Nn;

namespace LoKr.Core.Configuration;

/// <summary>Meaning of the logits of a classifier, which decides its loss and its scores (<c>problem_type</c> of transformers).</summary>
public enum ClassificationProblem
{
    /// <summary>One label of several: cross entropy, probabilities by softmax.</summary>
    SingleLabel,

    /// <summary>Any number of labels at once: binary cross entropy of each, probabilities by sigmoid.</summary>
    SeveralLabels,

    /// <summary>Numbers: mean squared error, the logits themselves.</summary>
    Regression,

    /// <summary>
    /// One number for a pair of texts, how well they fit (a reranker): binary cross entropy; a score by sigmoid, or the logit where
    /// <see cref="CrossEncoderConfig"/> says so. It has no name in <c>problem_type</c>.
    /// </summary>
    Relevance,
}

/// <summary><c>problem_type</c> in a configuration.</summary>
public static class ClassificationProblems
{
    /// <summary>Name of the member of config.json.</summary>
    public const string Key = "problem_type";

    // Has no name in transformers.
    private const string Relevance = "relevance";

    private static readonly Dictionary<string, ClassificationProblem> s_names = new(StringComparer.Ordinal)
    {
        ["single_label_classification"] = ClassificationProblem.SingleLabel,
        ["multi_label_classification"] = ClassificationProblem.SeveralLabels,
        ["regression"] = ClassificationProblem.Regression,
    };

    /// <summary>Known values.</summary>
    public static IReadOnlyCollection<string> Names => s_names.Keys;

    /// <summary>The value in a configuration; null where it has none that is known.</summary>
    public static ClassificationProblem? Find(JsonObject config)
    {
        ArgumentNullException.ThrowIfNull(config);
        return config[Key] is JsonValue value && value.TryGetValue(out string? name) && s_names.TryGetValue(name, out ClassificationProblem problem) ? problem : null;
    }

    /// <summary>Meaning of the logits of a model; null where neither <c>problem_type</c> nor a mark of sentence-transformers says it.</summary>
    public static ClassificationProblem? Find(ISequenceClassifier classifier)
    {
        ArgumentNullException.ThrowIfNull(classifier);
        return Find(classifier.Config) ?? (classifier.Labels.Count == 1 && CrossEncoderConfig.IsIn(classifier.Config) ? ClassificationProblem.Relevance : null);
    }

    /// <summary>Writes what the logits of a model mean into its configuration, as transformers or, of a reranker, sentence-transformers reads it.</summary>
    /// <param name="config">The configuration, which is changed.</param>
    /// <param name="problem">What they mean.</param>
    internal static void Describe(JsonObject config, ClassificationProblem problem)
    {
        if (problem is ClassificationProblem.Relevance)
        {
            CrossEncoderConfig.Mark(config);
        }
        else
        {
            config[Key] = problem.ToName();
        }
    }

    /// <summary>The name in files of adapters, which have one for rerankers too.</summary>
    internal static string ToFileName(ClassificationProblem problem) => problem is ClassificationProblem.Relevance ? Relevance : problem.ToName();

    /// <summary>The value that a file of an adapter names; null for none and for an unknown one.</summary>
    internal static ClassificationProblem? OfFileName(string? name) =>
        name is null ? null : name == Relevance ? ClassificationProblem.Relevance : s_names.TryGetValue(name, out ClassificationProblem problem) ? problem : null;

    /// <summary>The value as config.json has it.</summary>
    public static string ToName(this ClassificationProblem problem) => s_names.First(pair => pair.Value == problem).Key;
}
