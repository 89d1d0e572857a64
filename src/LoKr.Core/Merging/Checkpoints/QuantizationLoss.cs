using System.Collections.Concurrent;
using System.Runtime.Intrinsics;
using LoKr.Core.Model;

namespace LoKr.Core.Merging.Checkpoints;

/// <summary>
/// Measures what rounding to the type of a weight leaves of the adapters' change. A quantized weight sits on the points of a grid, and a
/// change that is small beside their distance is rounded back to where it started.
/// </summary>
internal sealed class QuantizationLoss
{
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
        }).OrderBy(static weight => weight.Kept).ThenBy(static weight => weight.Name, StringComparer.Ordinal),
    ];

    /// <summary>Sums over values of a weight.</summary>
    /// <param name="Delta">⟨delta, delta⟩, delta = merged − before.</param>
    /// <param name="Along">⟨after − before, delta⟩.</param>
    /// <param name="Error">⟨after − merged, after − merged⟩.</param>
    internal readonly record struct Sums(double Delta, double Along, double Error)
    {
        /// <summary>Both sums.</summary>
        public Sums Plus(in Sums other) => new(Delta + other.Delta, Along + other.Along, Error + other.Error);

        /// <summary>The sums of a row.</summary>
        /// <param name="before">Values of the base model.</param>
        /// <param name="merged">Values with the change, before they are rounded.</param>
        /// <param name="after">Values as they are stored.</param>
        public static Sums Of(ReadOnlySpan<float> before, ReadOnlySpan<float> merged, ReadOnlySpan<float> after)
        {
            Vector256<float> deltas = Vector256<float>.Zero;
            Vector256<float> alongs = Vector256<float>.Zero;
            Vector256<float> errors = Vector256<float>.Zero;
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
            }

            (double sumDelta, double sumAlong, double sumError) = (Vector256.Sum(deltas), Vector256.Sum(alongs), Vector256.Sum(errors));
            for (; i < before.Length; i++)
            {
                double delta = (double)merged[i] - before[i];
                double error = (double)after[i] - merged[i];
                sumDelta += delta * delta;
                sumAlong += ((double)after[i] - before[i]) * delta;
                sumError += error * error;
            }

            return new(sumDelta, sumAlong, sumError);
        }
    }

    private sealed class Entry(string type)
    {
        public string Type { get; } = type;

        public Sums Sums { get; set; }
    }
}
