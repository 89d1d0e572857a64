using LoKr.Core.Adapters;

namespace LoKr.Core.Training;

/// <summary>A model and the adapter of it that a run trains.</summary>
internal sealed record Trainee(LoKrModel Model, LoKrAdapter Adapter)
{
    /// <summary>What a run trains: of a single model its adapter, of several models that of each that has one.</summary>
    /// <exception cref="LoKrException">Nothing can be trained, or it is not clear which adapter is meant; or an option is out of its range.</exception>
    public static IReadOnlyList<Trainee> Select(IReadOnlyList<LoKrModel> models, TrainingOptions options)
    {
        ArgumentNullException.ThrowIfNull(models);
        ArgumentNullException.ThrowIfNull(options);
        options.Validate();
        LoKrModel[] adapted = models.Count == 1 ? [.. models] : [.. models.Where(model => IsReady(model, options.AdapterName))];
        if (adapted.Length == 0)
        {
            // Those that have adapters say what keeps them from being trained.
            adapted = [.. models.Where(model => options.AdapterName is null ? model.Adapters.Count > 0 : model.Adapters.Any(adapter => adapter.Name == options.AdapterName))];
        }

        Trainee[] trainees = adapted.Length > 0
            ? [.. adapted.Select(model => new Trainee(model, SelectAdapter(model, options.AdapterName)))]
            : throw new LoKrException(ErrorIds.NoAdapter, LoKrErrorKind.InvalidOperation,
                $"None of {string.Join(", ", models.Select(model => model.Name))} has an adapter{(options.AdapterName is null ? "" : $" '{options.AdapterName}'")} to train.",
                "Add one with Add-LoKrAdapter.");
        if (options.GradientCheckpointing)
        {
            CheckpointedBlocks.Require(trainees);
        }

        return trainees;
    }

    /// <summary>Names of the adapters in one line; usually one name.</summary>
    public static string NameOf(IEnumerable<Trainee> trainees) => string.Join(", ", trainees.Select(trainee => trainee.Adapter.Name).Distinct(StringComparer.Ordinal));

    private static bool IsReady(LoKrModel model, string? name) => model.AdaptersEnabled && model.MergedAdapters.Count == 0
        && model.Adapters.Any(adapter => name is null ? adapter.IsTrainable && model.ActiveAdapters.Contains(adapter.Name) : adapter.Name == name);

    private static LoKrAdapter SelectAdapter(LoKrModel model, string? name)
    {
        ArgumentNullException.ThrowIfNull(model);
        if (model.Adapters.Count == 0)
        {
            throw new LoKrException(ErrorIds.NoAdapter, LoKrErrorKind.InvalidOperation, $"{model.Name} has no adapter to train.", "Add one with Add-LoKrAdapter.");
        }

        if (model.MergedAdapters.Count > 0)
        {
            throw new LoKrException(
                ErrorIds.AdapterNotTrainable,
                LoKrErrorKind.InvalidOperation,
                $"Adapters are merged into the base weights: {string.Join(", ", model.MergedAdapters)}.",
                "Take them out with Undo-LoKrMerge, then train.");
        }

        if (!model.AdaptersEnabled)
        {
            throw new LoKrException(
                ErrorIds.AdapterNotTrainable, LoKrErrorKind.InvalidOperation, "The adapters of the model are disabled.", "Switch them on with Enable-LoKrAdapter.");
        }

        LoKrAdapter adapter = name is null ? OnlyActive(model) : model.GetAdapter(name);
        return adapter.IsTrainable ? adapter : throw new LoKrException(
            ErrorIds.AdapterNotTrainable,
            LoKrErrorKind.InvalidOperation,
            $"Adapter '{adapter.Name}' was made for inference only (InferenceMode).",
            "Make it with InferenceMode off to train it.");
    }

    private static LoKrAdapter OnlyActive(LoKrModel model) =>
        model.ActiveAdapters.Count switch
        {
            1 => model.GetAdapter(model.ActiveAdapters[0]),
            0 => throw new LoKrException(ErrorIds.NoAdapter, LoKrErrorKind.InvalidOperation, $"No adapter of {model.Name} is active.", "Name the one to train (-AdapterName)."),
            _ => throw new LoKrException(
                ErrorIds.AdapterAmbiguous,
                LoKrErrorKind.InvalidArgument,
                $"Several adapters are active: {string.Join(", ", model.ActiveAdapters)}.",
                "Name the one to train (-AdapterName)."),
        };
}
