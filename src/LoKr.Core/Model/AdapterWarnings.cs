using System.Globalization;
using LoKr.Core.Factors;

namespace LoKr.Core.Model;

/// <summary>Warnings about adapters that work but do nothing, or next to nothing.</summary>
internal static class AdapterWarnings
{
    private const double SmallestUsualScale = 1e-3;

    /// <summary>The warning about an adapter whose delta is zero everywhere.</summary>
    public static string Zero(string name) => $"Adapter '{name}' changes nothing: on every layer the product of its factors is zero. It is as before its training.";

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
