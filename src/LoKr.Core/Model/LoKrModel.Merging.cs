using System.Diagnostics;
using LoKr.Core.Errors;
using LoKr.Core.Layers;

namespace LoKr.Core.Model;

public sealed partial class LoKrModel
{
    /// <summary>Adds the deltas of adapters into the base weights. Dropout takes no part. An adapter that is merged already is not merged again.</summary>
    /// <param name="names">Adapters; null for the active ones.</param>
    /// <param name="safe">Refuse results that are not finite and leave the weights alone.</param>
    /// <remarks>As in PEFT, a layer with a merged adapter runs on its weight alone: an active adapter that is not merged rests there.</remarks>
    /// <exception cref="LoKrException">Nothing to merge, a weight is shared, or (safe) a result is not finite; the weights are as before.</exception>
    public LoKrMergeResult Merge(IReadOnlyList<string>? names = null, bool safe = false)
    {
        long started = Stopwatch.GetTimestamp();
        LoKrAdapter[] adapters = [.. (names?.Distinct(StringComparer.Ordinal).Select(GetAdapter) ?? _active).Where(adapter => !_merger.Merged.Contains(adapter))];
        if (adapters.Length == 0)
        {
            throw new LoKrException(ErrorIds.NothingToMerge, LoKrErrorKind.InvalidOperation,
                _adapters.Count == 0 ? "The model has no adapter to merge." : _merger.Merged.Count > 0 ? "All these adapters are merged already." : "No adapter is active.",
                _adapters.Count == 0 ? "Add one with Add-LoKrAdapter or Import-LoKrAdapter." : "Name the adapters to merge.");
        }

        if (!_enabled)
        {
            throw new LoKrException(ErrorIds.AdaptersDisabled, LoKrErrorKind.InvalidOperation, "The adapters are switched off.", "Switch them on with Enable-LoKrAdapter before merging.");
        }

        CheckSavedModules(_active.Union(_merger.Merged).Union(adapters));
        foreach (LoKrLayer layer in adapters.SelectMany(static adapter => adapter.Layers))
        {
            if (TiedPartner(layer.ModuleName) is string partner)
            {
                throw new LoKrException(ErrorIds.TiedWeight, LoKrErrorKind.NotSupported,
                    $"'{layer.ModuleName}' shares its weight with '{partner}': merging the adapter would change both.",
                    "Leave the adapter unmerged, or leave this module out of TargetModules.")
                { Target = layer.ModuleName };
            }
        }

        int changed = _merger.Merge(adapters, safe);
        Apply();
        return LastMerge = new()
        {
            Adapters = [.. adapters.Select(static adapter => adapter.Name)],
            ModuleCount = changed,
            SavedModuleCount = adapters.Sum(static adapter => adapter.SavedModules.Count),
            Warnings = [.. _active.Where(adapter => !_merger.Merged.Contains(adapter) && adapter.Layers.Any(layer => _layers[layer.ModuleName].Layers.Any(entry => _merger.Merged.Contains(entry.Adapter))))
                .Select(static adapter => $"Adapter '{adapter.Name}' is active but not merged; as in PEFT it rests on layers into which another adapter is merged.")],
            Elapsed = Stopwatch.GetElapsedTime(started),
        };
    }

    /// <summary>Takes every merged adapter out again; the base weights are bit for bit as before.</summary>
    public void UndoMerge()
    {
        if (_merger.Merged.Count == 0)
        {
            throw new LoKrException(ErrorIds.NothingToMerge, LoKrErrorKind.InvalidOperation, "No adapter is merged.", null);
        }

        _merger.Undo();
        Apply();
    }
}
