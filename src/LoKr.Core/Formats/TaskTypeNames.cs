using LoKr.Core.Adapters;

namespace LoKr.Core.Formats;

/// <summary>PEFT's names of the task types.</summary>
internal static class TaskTypeNames
{
    private static readonly (TaskType Type, string Name)[] s_names =
    [
        (TaskType.SequenceClassification, "SEQ_CLS"),
        (TaskType.Seq2SeqLanguageModeling, "SEQ_2_SEQ_LM"),
        (TaskType.CausalLanguageModeling, "CAUSAL_LM"),
        (TaskType.TokenClassification, "TOKEN_CLS"),
        (TaskType.QuestionAnswering, "QUESTION_ANS"),
        (TaskType.FeatureExtraction, "FEATURE_EXTRACTION"),
    ];

    /// <summary>All names.</summary>
    public static IEnumerable<string> All => s_names.Select(entry => entry.Name);

    /// <summary>The name of a type.</summary>
    public static string Name(TaskType type) => s_names.First(entry => entry.Type == type).Name;

    /// <summary>The type of a name, or null.</summary>
    public static TaskType? Parse(string name)
    {
        foreach ((TaskType type, string known) in s_names)
        {
            if (known == name)
            {
                return type;
            }
        }

        return null;
    }
}
