using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Model;
using LoKr.Core.Nn;

namespace LoKr.Core.Layouts;

/// <summary>Whether the model that an adapter is loaded onto is the one that it was made for, as far as its file says.</summary>
internal static class BaseModelCheck
{
    private const int ListedLabels = 12;

    /// <summary>Refuses an adapter with a head for other labels than the model's: its answers would have the wrong names.</summary>
    /// <param name="model">The model.</param>
    /// <param name="file">The file.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.LabelsMismatch"/>.</exception>
    public static void RequireLabels(LoKrModel model, AdapterFile file)
    {
        if (file.SavedTensors.Count > 0 && file.Labels is { } theirs && model.Identity.Labels is { } ours && !theirs.SequenceEqual(ours, StringComparer.Ordinal))
        {
            throw new LoKrException(ErrorIds.LabelsMismatch, LoKrErrorKind.InvalidData,
                $"The head in '{file.Path}' classifies into {theirs.Count} labels ({List(theirs)}), but the model into {ours.Count} ({List(ours)}).",
                "Load the model with the labels of the adapter, in their order.") { Target = file.Path };
        }
    }

    /// <summary>Lets a model whose configuration does not say what its logits mean have it from the adapter, which has its head.</summary>
    /// <param name="model">The model.</param>
    /// <param name="file">The file.</param>
    public static void TakeProblem(LoKrModel model, AdapterFile file)
    {
        if (ProblemOf(file) is ClassificationProblem problem && model.Pretrained is ISequenceClassifier classifier && ClassificationProblems.Find(classifier) is null)
        {
            ClassificationProblems.Describe(classifier.Config, problem);
        }
    }

    private static ClassificationProblem? ProblemOf(AdapterFile file) =>
        file.SavedTensors.Count == 0 ? null : file.BaseModels.Values.Select(static model => model.Problem).FirstOrDefault(static problem => problem is not null);

    /// <summary>Differences that an adapter works with all the same.</summary>
    /// <param name="model">The model.</param>
    /// <param name="file">The file.</param>
    /// <param name="component">Part of the pipeline that the model is.</param>
    public static IEnumerable<string> Warnings(LoKrModel model, AdapterFile file, AdapterComponent component)
    {
        ModelIdentity? madeFor = file.BaseModels.GetValueOrDefault(component) ?? file.BaseModels.GetValueOrDefault(AdapterComponent.Model);
        if (madeFor?.HasOtherWeights(model.Identity) == true)
        {
            yield return AdapterWarnings.OtherBase(file.Path, file.ConfigOf(component)?.BaseModelNameOrPath, $"this {model.Name}");
        }

        if (ProblemOf(file) is ClassificationProblem theirs && model.Pretrained is ISequenceClassifier classifier && ClassificationProblems.Find(classifier) is ClassificationProblem ours && ours != theirs)
        {
            yield return $"The head in '{file.Path}' was trained as {ClassificationProblems.ToFileName(theirs)}, but the logits of the model mean {ClassificationProblems.ToFileName(ours)}.";
        }

        if (file.SavedTensors.Count > 0 && file.Labels is { } labels && model.Identity.Labels is null)
        {
            yield return $"The labels of '{file.Path}' are {List(labels)}; those of the model have no names. Load the model with the labels of the adapter to get answers with these names.";
        }
    }

    private static string List(IReadOnlyList<string> labels) => labels.Count <= ListedLabels ? string.Join(", ", labels) : string.Join(", ", labels.Take(ListedLabels)) + ", …";
}

/// <summary>The labels that an adapter was trained for.</summary>
public static class AdapterLabels
{
    /// <summary>Reads the labels of an adapter, to load its base model with them.</summary>
    /// <param name="path">Safetensors file or adapter folder.</param>
    /// <returns>The labels in the order of the outputs.</returns>
    /// <exception cref="LoKrException"><see cref="ErrorIds.AdapterLabelsMissing"/>, and the errors of <see cref="AdapterFile.Open"/>.</exception>
    public static IReadOnlyList<string> Read(string path)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        using AdapterFile file = AdapterFile.Open(path);
        return file.Labels ?? throw new LoKrException(ErrorIds.AdapterLabelsMissing, LoKrErrorKind.InvalidData,
            $"'{file.Path}' does not name the labels of its classifier: it was written by another program or an older release, or for a model without labels.",
            "Give the labels themselves.") { Target = file.Path };
    }

    /// <summary>Whether an adapter is for a model that classifies words (<c>TOKEN_CLS</c>), so that its labels are those of tokens.</summary>
    /// <param name="path">Safetensors file or adapter folder.</param>
    /// <exception cref="LoKrException">The errors of <see cref="AdapterFile.Open"/>.</exception>
    public static bool AreOfTokens(string path)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        using AdapterFile file = AdapterFile.Open(path);
        return file.Configs.Values.Any(static config => config.TaskType is TaskType.TokenClassification);
    }
}
