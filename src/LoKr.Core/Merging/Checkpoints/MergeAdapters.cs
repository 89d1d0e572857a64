using System.Globalization;
using LoKr.Core.Errors;
using LoKr.Core.IO;
using LoKr.Core.Model;

namespace LoKr.Core.Merging.Checkpoints;

/// <summary>The open adapters of a merge on disk, matched with its base model, and what there is to say about them.</summary>
internal sealed class MergeAdapters : IDisposable
{
    private readonly List<CheckpointMergeAdapter> _opened = [];
    private readonly List<string> _warnings = [];

    private MergeAdapters()
    {
    }

    /// <summary>The adapters in the order in which they are added.</summary>
    public IReadOnlyList<CheckpointMergeAdapter> Opened => _opened;

    /// <summary>Warnings about them.</summary>
    public IReadOnlyList<string> Warnings => _warnings;

    /// <summary>Refuses a merge without adapters, with a strength that is not finite, or onto its own sources.</summary>
    /// <param name="adapters">The adapters.</param>
    /// <param name="basePath">The base model.</param>
    /// <param name="destination">Where the result goes.</param>
    /// <exception cref="LoKrException"><c>LoKr.InvalidArgument</c>, <c>LoKr.ExportIntoSource</c>.</exception>
    public static void Check(IReadOnlyList<CheckpointMergeSource> adapters, string basePath, string destination)
    {
        Check(adapters);
        foreach (string source in adapters.Select(static source => source.Path).Prepend(basePath))
        {
            FolderPaths.CheckApart(source, destination);
        }
    }

    /// <summary>Refuses a merge without adapters, or with a strength that is not finite.</summary>
    /// <param name="adapters">The adapters.</param>
    /// <exception cref="LoKrException"><c>LoKr.InvalidArgument</c>.</exception>
    public static void Check(IReadOnlyList<CheckpointMergeSource> adapters)
    {
        if (adapters is not { Count: > 0 })
        {
            throw Invalid("There is no adapter to merge.", "Name at least one.");
        }

        if (adapters.FirstOrDefault(static adapter => !double.IsFinite(adapter.Weight)) is { } odd)
        {
            throw Invalid($"The weight of adapter '{odd.Name}' is {odd.Weight.ToString(CultureInfo.InvariantCulture)}.", "Use a finite number; 1 is the strength as trained.");
        }
    }

    /// <summary>Opens adapters and puts their changes into the plans of a model.</summary>
    /// <param name="sources">The adapters.</param>
    /// <param name="model">The base model.</param>
    /// <param name="fingerprint">Returns the fingerprint of the base model; null where it has none that adapters could name.</param>
    public static MergeAdapters Open(IReadOnlyList<CheckpointMergeSource> sources, MergeBase model, Func<string>? fingerprint)
    {
        MergeAdapters adapters = new();
        try
        {
            foreach (CheckpointMergeSource source in sources)
            {
                adapters.Add(source, model, fingerprint);
            }

            return model.Parts.Any(static part => part.Plan.HasDora) || sources.All(static source => source.DoraStrength == default) ? adapters : throw ModelErrors.NoDora(sources.Select(static source => source.Name));
        }
        catch
        {
            adapters.Dispose();
            throw;
        }
    }

    /// <inheritdoc/>
    public void Dispose() => _opened.ForEach(static adapter => adapter.Dispose());

    private void Add(CheckpointMergeSource source, MergeBase model, Func<string>? fingerprint)
    {
        CheckpointMergeAdapter adapter = source.Open();
        _opened.Add(adapter);
        _warnings.AddRange(adapter.Warnings.Select(warning => $"{adapter.Name}: {warning}"));
        (int deltas, int saved) = Count(model);
        IReadOnlyList<string> found = adapter.Placement is IAdapterPlacement placement ? placement.Place(model, adapter) : AdapterMatcher.Match(model.Parts[0].Traits, adapter, model.Parts[0].Plan);
        _warnings.AddRange(found.Select(warning => $"{adapter.Name}: {warning}"));
        (int deltasAfter, int savedAfter) = Count(model);
        if ((deltasAfter, savedAfter) == (deltas, saved))
        {
            throw new LoKrException(ErrorIds.NothingToMerge, LoKrErrorKind.InvalidData, $"Adapter '{adapter.Name}' has no tensors.", "Train it, or name another folder.") { Target = source.Path };
        }

        if (fingerprint is not null && adapter.MadeFor?.HasOtherWeights(new(fingerprint(), null)) == true)
        {
            _warnings.Add(AdapterWarnings.OtherBase(adapter.Name, adapter.Config?.BaseModelNameOrPath, $"'{model.Path}'"));
        }

        if (adapter.Placement is IAdapterPlacement known ? known.IsZero : AdapterMatcher.IsZero(adapter))
        {
            _warnings.Add(AdapterWarnings.Zero(adapter.Name));
        }

        if (adapter.Weight != 1 && savedAfter > saved)
        {
            _warnings.Add($"The modules that '{adapter.Name}' trained whole are used as they are; its weight scales the deltas only.");
        }
    }

    private static (int Deltas, int Saved) Count(MergeBase model) => (model.Parts.Sum(static part => part.Plan.DeltaCount), model.Parts.Sum(static part => part.Plan.SavedModuleCount));

    private static LoKrException Invalid(string message, string advice) => new(ErrorIds.InvalidArgument, LoKrErrorKind.InvalidArgument, message, advice);
}
