using System.Collections.Concurrent;
using System.Globalization;
using System.Numerics;
using System.Runtime.Intrinsics;
using LoKr.Core.Model;

namespace LoKr.Core.Merging.Checkpoints;

/// <summary>
/// Measures what rounding to the type of a weight leaves of the adapters' change. A quantized weight sits on the points of a grid, and a
/// change that is small beside their distance is rounded back to where it started.
/// </summary>
internal sealed class QuantizationLoss
{
    /// <summary>Share of a change below which a weight is reported as one that lost it.</summary>
    public const double LeastKept = 0.9;

    private readonly ConcurrentDictionary<string, Entry> _entries = new(StringComparer.Ordinal);

    /// <summary>Adds the sums of some rows to those of their weight; from any thread.</summary>
    /// <param name="name">The weight.</param>
    /// <param name="type">Its type in the result.</param>
    /// <param name="sums">The sums.</param>
    public void Add(string name, string type, in Sums sums)
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
    /// <param name="advice">What keeps the change.</param>
    public static IEnumerable<string> Warnings(IReadOnlyList<LoKrMergedWeight> weights, string advice)
    {
        LoKrMergedWeight[] lost = [.. weights.Where(static weight => weight.Kept < LeastKept && weight.DeltaNorm > 0)];
        if (lost.Length > 0)
        {
            yield return string.Create(CultureInfo.InvariantCulture,
                $"{lost.Length} of {weights.Count} weights keep less than {LeastKept:P0} of the change, because it is small beside the steps of their types; the least is '{lost[0].Name}' ({lost[0].Type}) with {lost[0].Kept:P0}. {advice}");
        }
    }

    /// <summary>The warning about files whose weights, or rows of them, were measured by a run that was interrupted.</summary>
    /// <param name="files">Their names.</param>
    public static string Unknown(IEnumerable<string> files) => $"What rounding left of the changes is not known, or for some rows only, in {string.Join(", ", files)}, of which an interrupted run had written all or a part.";

    /// <summary>Sums over values of a weight.</summary>
    /// <param name="Delta">⟨delta, delta⟩, delta = merged − before.</param>
    /// <param name="Along">⟨after − before, delta⟩.</param>
    /// <param name="Error">⟨after − merged, after − merged⟩.</param>
    /// <param name="Count">Number of values.</param>
    /// <param name="Unchanged">Values that are stored as they were, with the same sign of zero.</param>
    internal readonly record struct Sums(double Delta, double Along, double Error, long Count, long Unchanged)
    {
        // Values that are summed in float32.
        private const int Run = 4096;

        /// <summary>Values beyond the largest one that their type and scale hold.</summary>
        public long AtLimit { get; init; }

        /// <summary>Both sums.</summary>
        public Sums Plus(in Sums other) => new(Delta + other.Delta, Along + other.Along, Error + other.Error, Count + other.Count, Unchanged + other.Unchanged) { AtLimit = AtLimit + other.AtLimit };

        /// <summary>The sums of some values.</summary>
        /// <param name="before">Values of the base model.</param>
        /// <param name="merged">Values with the change, before they are rounded.</param>
        /// <param name="after">Values as they are stored.</param>
        public static Sums Of(ReadOnlySpan<float> before, ReadOnlySpan<float> merged, ReadOnlySpan<float> after)
        {
            Sums sums = default;
            for (int start = 0; start < before.Length; start += Run)
            {
                int count = Math.Min(Run, before.Length - start);
                sums = sums.Plus(OfRun(before.Slice(start, count), merged.Slice(start, count), after.Slice(start, count)));
            }

            return sums;
        }

        private static Sums OfRun(ReadOnlySpan<float> before, ReadOnlySpan<float> merged, ReadOnlySpan<float> after)
        {
            Vector256<float> deltas = Vector256<float>.Zero;
            Vector256<float> alongs = Vector256<float>.Zero;
            Vector256<float> errors = Vector256<float>.Zero;
            long unchanged = 0;
            int i = 0;
            for (; i <= before.Length - Vector256<float>.Count; i += Vector256<float>.Count)
            {
                Vector256<float> start = Vector256.Create(before[i..]);
                Vector256<float> wanted = Vector256.Create(merged[i..]);
                Vector256<float> stored = Vector256.Create(after[i..]);
                Vector256<float> delta = wanted - start;
                Vector256<float> error = stored - wanted;
                deltas += delta * delta;
                alongs += (stored - start) * delta;
                errors += error * error;
                unchanged += BitOperations.PopCount(Vector256.Equals(stored.AsUInt32(), start.AsUInt32()).ExtractMostSignificantBits());
            }

            (double sumDelta, double sumAlong, double sumError) = (Vector256.Sum(deltas), Vector256.Sum(alongs), Vector256.Sum(errors));
            for (; i < before.Length; i++)
            {
                double delta = (double)merged[i] - before[i];
                double error = (double)after[i] - merged[i];
                sumDelta += delta * delta;
                sumAlong += ((double)after[i] - before[i]) * delta;
                sumError += error * error;
                unchanged += BitConverter.SingleToUInt32Bits(after[i]) == BitConverter.SingleToUInt32Bits(before[i]) ? 1 : 0;
            }

            return new(sumDelta, sumAlong, sumError, before.Length, unchanged);
        }
    }

    private sealed class Entry(string type)
    {
        public string Type { get; } = type;

        public Sums Sums { get; set; }
    }
}
