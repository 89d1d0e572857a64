using LoKr.Core.Layers;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Core.Targeting;

namespace LoKr.Core.Training;

/// <summary>
/// The head that adapters train: modules that they train whole, embeddings apart. A new head starts from random values and needs larger steps than
/// the factors beside it, which change weights that are good already: one learning rate for both is too low for the head or too high for LoKr.
/// </summary>
internal sealed class TrainedHead
{
    /// <summary>Learning rate of a new head, as a multiple of that of the layers that are adapted beside it.</summary>
    public const double Factor = 10;

    private readonly TrainingOptions _options;
    private readonly bool _isUntrained;
    private readonly bool _isAlone;

    /// <summary>Finds the head.</summary>
    /// <param name="trainees">What is trained.</param>
    /// <param name="options">Options of the training: a head that the checkpoint had counts only where they name its learning rate.</param>
    public TrainedHead(IReadOnlyList<Trainee> trainees, TrainingOptions options)
    {
        _options = options;
        (Trainee Trainee, SavedModuleCopy[] Copies)[] heads = [.. trainees.Select(trainee => (trainee, CopiesOf(trainee)))];
        Modules = [.. heads.SelectMany(static head => head.Copies.Select(static copy => copy.ModuleName))];
        Ranges = FlatRange.Join(heads.SelectMany(static head => head.Copies).SelectMany(static copy => copy.Ranges));
        _isUntrained = heads.All(static head => head.Copies.Length == 0 || head.Trainee.Adapter.UntrainedFrom is not null);
        _isAlone = Ranges.Sum(static range => range.Count) == trainees.Sum(static trainee => trainee.Adapter.ParameterCount);

        SavedModuleCopy[] CopiesOf(Trainee trainee) =>
            [.. trainee.Adapter.Copies.Where(copy => !EmbeddingNames.IsEither(copy.ModuleName) && (options.HeadLearningRate is not null || IsFresh(trainee.Model, copy)))];
    }

    /// <summary>Full names of its modules; empty where the adapters have no head.</summary>
    public IReadOnlyList<string> Modules { get; }

    /// <summary>Its parameters.</summary>
    public IReadOnlyList<FlatRange> Ranges { get; }

    /// <summary>Its highest learning rate in a run that begins now; null where it is that of all parameters.</summary>
    public double? LearningRate => Modules.Count == 0 ? null : _options.HeadLearningRate ?? (_isUntrained && !_isAlone ? Factor * _options.LearningRate : null);

    /// <summary>A sentence for the user where the head has a learning rate that nobody asked for.</summary>
    public IEnumerable<string> Notes => _options.HeadLearningRate is not null || LearningRate is not double rate ? [] :
        [FormattableString.Invariant($"The new head ({string.Join(", ", Modules)}) has a learning rate of its own, {rate:G4}: {Factor:0} times that of the adapted layers. {nameof(TrainingOptions.HeadLearningRate)} sets it.")];

    /// <summary>A warning where a learning rate was given for nothing.</summary>
    public IEnumerable<string> Warnings => _options.HeadLearningRate is null || Modules.Count > 0 ? [] :
        [$"{nameof(TrainingOptions.HeadLearningRate)} has no effect: the adapter trains no head."];

    private static bool IsFresh(LoKrModel model, SavedModuleCopy copy) => model.FreshModules.Any(fresh => ModuleTree.IsWithin(fresh, copy.ModuleName));
}
