using LoKr.Core.Adapters;
using LoKr.Core.Training.Data;

namespace LoKr.Core.Training;

/// <summary>Picks the task that fits a model.</summary>
public static class TrainingTaskFactory
{
    /// <summary>Classification for a sequence classifier, next-token prediction for a language model; tokenises the rows.</summary>
    public static ITrainingTask Create(LoKrModel model, IReadOnlyList<DataRow> rows, int? maxLength = null) => throw new NotImplementedException();
}
