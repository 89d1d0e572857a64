using System.Collections.Concurrent;
using System.Globalization;
using LoKr.Core.Factors;
using LoKr.Core.Model;
using LoKr.Core.Safetensors;

namespace LoKr.Core.Merging.Checkpoints;

/// <summary>
/// Measures what rounding to the type of a weight leaves of the adapters' change. A weight sits on the points of a grid, wide ones where it is
/// quantized and narrow ones in 16 bits, and a change that is small beside their distance is rounded back to where it started.
/// </summary>
internal sealed class QuantizationLoss
{
    /// <summary>Share of a change below which a quantized weight is reported as one that lost it.</summary>
    public const double LeastKept = 0.9;

    /// <summary>The same for floats of 16 bits, which round every change a little: reported is what mostly disappears.</summary>
    public const double LeastKeptInHalf = 0.5;

    // All rows of a weight up to this size are measured, and one of so many of a larger one: a prime, so that the rows are those of no pattern of the factors.
    private const long MostMeasured = 1 << 22;
    private const int MeasuredStride = 7;

    private readonly ConcurrentDictionary<string, Entry> _entries = new(StringComparer.Ordinal);

    /// <summary>One row of so many is measured, for all of them: those whose number it divides.</summary>
    /// <param name="shape">Shape of the weight.</param>
    public static int Stride(IReadOnlyList<long> shape) => shape.Product() > MostMeasured ? MeasuredStride : 1;

    /// <summary>Adds the sums of some rows to those of their weight; from any thread.</summary>
    /// <param name="name">The weight.</param>
    /// <param name="type">Its type in the result.</param>
    /// <param name="sums">The sums.</param>
    public void Add(string name, string type, in RoundingSums sums)
    {
        Entry entry = _entries.GetOrAdd(name, static (_, type) => new(type), type);
        lock (entry)
        {
            entry.Sums = entry.Sums.Plus(sums);
        }
    }

    /// <summary>The measures by weight, the one that keeps least first.</summary>
    public IReadOnlyList<LoKrMergedWeight> Report() =>
    [
        .. _entries.Select(static pair => new LoKrMergedWeight
        {
            Name = pair.Key,
            Type = pair.Value.Type,
            Kept = pair.Value.Sums.Delta > 0 ? pair.Value.Sums.Along / pair.Value.Sums.Delta : 1,
            ErrorOverDelta = pair.Value.Sums.Delta > 0 ? Math.Sqrt(pair.Value.Sums.Error / pair.Value.Sums.Delta) : 0,
            DeltaNorm = Math.Sqrt(pair.Value.Sums.Delta),
            Unchanged = pair.Value.Sums.Count > 0 ? (double)pair.Value.Sums.Unchanged / pair.Value.Sums.Count : 0,
            AtLimit = pair.Value.Sums.AtLimit,
        }).OrderBy(static weight => weight.Kept).ThenBy(static weight => weight.Name, StringComparer.Ordinal),
    ];

    /// <summary>Warnings about weights that lost some of their change.</summary>
    /// <param name="weights">The measures.</param>
    /// <param name="advice">What keeps the change of quantized weights.</param>
    public static IEnumerable<string> Warnings(IReadOnlyList<LoKrMergedWeight> weights, string advice)
    {
        foreach ((LoKrMergedWeight[] kind, double least, string keeping) in ((LoKrMergedWeight[], double, string)[])
            [
                ([.. weights.Where(static weight => !IsHalf(weight))], LeastKept, advice),
                ([.. weights.Where(IsHalf)], LeastKeptInHalf, "Merge into float32 weights, or load the adapter beside the model."),
            ])
        {
            LoKrMergedWeight[] lost = [.. kind.Where(weight => weight.Kept < least && weight.DeltaNorm > 0)];
            if (lost.Length > 0)
            {
                yield return string.Create(CultureInfo.InvariantCulture,
                    $"{lost.Length} of {kind.Length} weights keep less than {least:P0} of the change, because it is small beside the steps of their types; the least is '{lost[0].Name}' ({lost[0].Type}) with {lost[0].Kept:P0}. {keeping}");
            }
        }
    }

    private static bool IsHalf(LoKrMergedWeight weight) => weight.Type is "BF16" or "F16";

    /// <summary>The warning about files whose weights, or rows of them, were measured by a run that was interrupted.</summary>
    /// <param name="files">Their names.</param>
    public static string Unknown(IEnumerable<string> files) => $"What rounding left of the changes is not known, or for some rows only, in {string.Join(", ", files)}, of which an interrupted run had written all or a part.";

    private sealed class Entry(string type)
    {
        public string Type { get; } = type;

        public RoundingSums Sums { get; set; }
    }
}
