using System.Globalization;
using LoKr.Core.Factors;

namespace LoKr.Core.Model;

/// <summary>Warnings about adapters that work but do nothing, or next to nothing.</summary>
internal static class AdapterWarnings
{
    private const double SmallestUsualScale = 1e-3;

    /// <summary>The warning about an adapter whose delta is zero everywhere.</summary>
    public static string Zero(string name) => $"Adapter '{name}' changes nothing: on every layer the product of its factors is zero. It is as before its training.";

    /// <summary>The warning about modules with random values that an adapter does not hold, if there are any.</summary>
    /// <param name="name">Name of the adapter.</param>
    /// <param name="modules">The modules.</param>
    public static IEnumerable<string> Unsaved(string name, IReadOnlyList<string> modules) => modules.Count == 0 ? [] :
    [
        $"Adapter '{name}' does not save {string.Join(", ", modules)}. The checkpoint lacked {(modules.Count == 1 ? "it" : "them")}, so the values are random and differ at every load: "
            + "on a model that is loaded again, the adapter gives other results. ModulesToSave trains and saves modules with the adapter.",
    ];

    /// <summary>The warning about an adapter that was made for other weights than those it is used with.</summary>
    /// <param name="adapter">Name or file of the adapter.</param>
    /// <param name="madeFor">Name of the base model that it was made for, or null.</param>
    /// <param name="model">Name of the model that it is used with.</param>
    public static string OtherBase(string adapter, string? madeFor, string model) =>
        $"'{adapter}' was made for another base model{(madeFor is null ? "" : $" ({madeFor})")}: the weights of {model} are not those that it was trained on, so its results may be worse.";

    /// <summary>Warnings about layers whose scale is zero or unusually small.</summary>
    public static IEnumerable<string> OfScales(AdapterPlan plan)
    {
        double[] scales = [.. plan.Layers.Select(static layer => Math.Abs(LoKrScaling.Compute(layer.Config, layer.Rank, layer.Alpha, layer.Shapes.BothFull)))];
        int zero = scales.Count(static scale => scale == 0);
        if (zero > 0)
        {
            yield return string.Create(CultureInfo.InvariantCulture, $"Alpha is 0 on {zero} of {scales.Length} layers: the adapter has no effect there, and cannot learn.");
        }

        double[] small = [.. scales.Where(static scale => scale is > 0 and < SmallestUsualScale)];
        if (small.Length > 0)
        {
            yield return string.Create(CultureInfo.InvariantCulture,
                $"The scale (alpha / r) is {small.Min():G3} on {small.Length} of {scales.Length} layers: the adapter has almost no effect there. Usual values are 0.5 to 2.");
        }
    }
}
