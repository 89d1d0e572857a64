using LoKr.Core.Adapters;
using LoKr.Core.Modeling;
using LoKr.Core.Training.Data;

namespace LoKr.Core.Training;

/// <summary>Picks the task that fits a model.</summary>
public static class TrainingTaskFactory
{
    /// <summary>Classification for a sequence classifier, next-token prediction for a language model; tokenises the rows.</summary>
    /// <param name="model">The model.</param>
    /// <param name="rows">Its data: see <see cref="TextClassificationTask"/> and <see cref="CausalLanguageTask"/>.</param>
    /// <param name="maxLength">Longest sequence, special tokens included; null for what the model allows.</param>
    /// <param name="cancellationToken">Stops tokenising.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.TaskUnknown"/>, or what the task finds wrong with the rows.</exception>
    public static ITrainingTask Create(LoKrModel model, IReadOnlyList<DataRow> rows, int? maxLength = null, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(model);
        return model.Pretrained switch
        {
            ISequenceClassifier => new TextClassificationTask(model, rows, maxLength, cancellationToken),
            ICausalLanguageModel => new CausalLanguageTask(model, rows, maxLength, cancellationToken),
            _ => throw new LoKrException(
                ErrorIds.TaskUnknown,
                LoKrErrorKind.InvalidOperation,
                $"{model.Name} is neither a text classifier nor a causal language model, so its loss is not known.",
                "Give a loss of your own with -Loss and the batches it is for."),
        };
    }
}
