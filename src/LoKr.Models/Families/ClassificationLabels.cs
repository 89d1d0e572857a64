using System.Globalization;
using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.IO;

namespace LoKr.Models.Families;

/// <summary>Label names of a classification head, from config.json or from the caller, and the check that the two agree.</summary>
internal static class ClassificationLabels
{
    /// <summary>Labels in the order of the logits.</summary>
    /// <param name="config">The configuration; its <c>id2label</c>, <c>label2id</c> or <c>num_labels</c>.</param>
    /// <param name="given">Labels that override those of the configuration, or null.</param>
    /// <param name="headRows">Rows of the checkpoint's head; null where it has none, so that one is initialized.</param>
    public static IReadOnlyList<string> Resolve(ModelConfig config, IReadOnlyList<string>? given, long? headRows)
    {
        if (config.FindString(ClassificationProblems.Key) is string problem && !ClassificationProblems.Names.Contains(problem))
        {
            throw config.Unsupported(ClassificationProblems.Key, $"is '{problem}'; known are {string.Join(", ", ClassificationProblems.Names)}");
        }

        if (given is not null)
        {
            CheckGiven(given);
        }

        if (headRows is null)
        {
            // transformers defaults to two labels.
            return given ?? Read(config) ?? [.. ModelLabels.Generic(2)];
        }

        string[] known = Read(config) ?? [.. ModelLabels.Generic((int)headRows.Value)];
        if (known.Length != headRows)
        {
            throw config.Invalid("id2label", $"names {known.Length} labels ({Join(known)}), but the classification head of the checkpoint has {headRows} rows");
        }

        if (given is null || given.SequenceEqual(known, StringComparer.Ordinal))
        {
            return known;
        }

        // transformers writes LABEL_0, LABEL_1, … where labels have no names: naming them is not a change of labels.
        return given.Count == known.Length && IsGeneric(known)
            ? given
            : throw new LoKrException(ErrorIds.LabelsMismatch, LoKrErrorKind.InvalidArgument,
                $"The checkpoint classifies into {known.Length} labels ({Join(known)}), but {given.Count} were given ({Join(given)}).",
                "Leave the labels out to keep the checkpoint's head, or start from an encoder without a head to train a new one.") { Target = config.Source };
    }

    /// <summary>The labels that a configuration names, or null.</summary>
    private static string[]? Read(ModelConfig config)
    {
        JsonFields? names = config.FindObject("id2label");
        if (names is { Count: > 0 })
        {
            return Order("id2label", names.Members.Select(pair => (Id: ParseId(config, pair.Key), Name: names.GetString(pair.Key))));
        }

        JsonFields? ids = config.FindObject("label2id");
        if (ids is { Count: > 0 })
        {
            return Order("label2id", ids.Members.Select(pair => (Id: ids.FindInt(pair.Key) ?? -1, Name: pair.Key)));
        }

        return config.Has("num_labels") ? [.. ModelLabels.Generic(config.GetSize("num_labels"))] : null;

        string[] Order(string key, IEnumerable<(int Id, string Name)> labels)
        {
            (int Id, string Name)[] sorted = [.. labels.OrderBy(label => label.Id)];
            return sorted.Select((label, index) => label.Id == index).All(ok => ok)
                ? [.. sorted.Select(label => label.Name)]
                : throw config.Invalid(key, "does not number its labels 0, 1, 2, … without gaps");
        }
    }

    private static int ParseId(ModelConfig config, string text) =>
        int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out int id) ? id : throw config.Invalid("id2label", $"has the id '{text}', not a number");

    private static void CheckGiven(IReadOnlyList<string> labels)
    {
        string? problem = labels.Count == 0 ? "No labels were given."
            : labels.Any(string.IsNullOrWhiteSpace) ? "A label is empty."
            : labels.GroupBy(label => label, StringComparer.Ordinal).FirstOrDefault(group => group.Count() > 1) is { } twice ? $"The label '{twice.Key}' was given twice."
            : null;
        if (problem is not null)
        {
            throw new LoKrException(ErrorIds.LabelsInvalid, LoKrErrorKind.InvalidArgument, problem, "Give each label once, in the order of the logits.");
        }
    }

    private static bool IsGeneric(string[] labels) => labels.SequenceEqual(ModelLabels.Generic(labels.Length), StringComparer.Ordinal);

    private static string Join(IReadOnlyList<string> labels) =>
        labels.Count <= 12 ? string.Join(", ", labels) : string.Join(", ", labels.Take(12)) + ", …";
}
