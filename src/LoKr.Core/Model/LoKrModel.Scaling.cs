using LoKr.Core.Errors;

namespace LoKr.Core.Model;

public sealed partial class LoKrModel
{
    /// <summary>Sets how strong adapters are: 1 as trained, 0.5 half of it (PEFT <c>set_scale</c>). Modules that are saved whole are not scaled.</summary>
    /// <param name="names">Names of the adapters; all are checked before any changes.</param>
    /// <param name="scale">Finite factor.</param>
    /// <exception cref="LoKrException"><c>LoKr.AdapterNotFound</c>, <c>LoKr.AdapterMerged</c>, <c>LoKr.InvalidArgument</c>.</exception>
    public void SetAdapterScale(IReadOnlyList<string> names, double scale)
    {
        ArgumentNullException.ThrowIfNull(names);
        if (!double.IsFinite(scale))
        {
            throw new LoKrException(ErrorIds.InvalidArgument, LoKrErrorKind.InvalidArgument, $"An adapter cannot be scaled by {scale}.", "Give a finite number; 1 is as trained.") { Target = scale };
        }

        List<LoKrAdapter> adapters = [.. names.Select(GetAdapter)];

        // The weights hold a merged adapter at the strength it was merged with.
        if (adapters.Find(_merger.Merged.Contains) is LoKrAdapter merged)
        {
            throw new LoKrException(ErrorIds.AdapterMerged, LoKrErrorKind.InvalidOperation, $"Adapter '{merged}' is merged into the weights.", "Take the merge back with Undo-LoKrMerge first.") { Target = merged.Name };
        }

        foreach (LoKrAdapter adapter in adapters)
        {
            adapter.Scale = scale;
        }
    }
}
