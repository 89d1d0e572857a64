using System.Runtime.InteropServices;
using LoKr.Core.Distributed;
using LoKr.Core.Metrics;
using static TorchSharp.torch;

namespace LoKr.Core.Training;

/// <summary>The scores of batches, in their order.</summary>
/// <param name="Values">Sum of the loss and number of correct answers of each batch, one after the other.</param>
/// <param name="Answers">Right label and answer of each row that has them, one after the other, of tags of each word, with -1 twice behind a row; the order of the rows does not matter.</param>
/// <param name="Ranked">Row, query, relevance and score of each text that a query ranks, one after the other, in any order.</param>
internal sealed record BatchScores(double[] Values, long[] Answers, double[] Ranked)
{
    private const int RankedSize = 4;

    /// <summary>Reads what was computed on a device.</summary>
    /// <param name="scores">Two numbers of each batch, float64.</param>
    /// <param name="answers">Right labels and answers of batches, int64 [2, rows].</param>
    /// <param name="ranked">Ranked texts of batches, float64 [4, rows].</param>
    public static BatchScores Of(List<Tensor> scores, List<Tensor> answers, List<Tensor> ranked) => new(
        scores.Count == 0 ? [] : stack(scores).cpu().data<double>().ToArray(),
        answers.Count == 0 ? [] : cat(answers, 1).t().cpu().contiguous().data<long>().ToArray(),
        ranked.Count == 0 ? [] : cat(ranked, 1).t().cpu().contiguous().data<double>().ToArray());

    /// <summary>Adds the scores of the other workers, of which each has every batch whose index has its rank as remainder.</summary>
    /// <param name="workers">The workers.</param>
    /// <param name="batches">Number of all batches.</param>
    public BatchScores WithThoseOf(WorkerGroup workers, int batches)
    {
        WorkerMessages messages = workers.Exchange(WorkerCall.Evaluate,
            [.. BitConverter.GetBytes(Answers.Length), .. MemoryMarshal.AsBytes(Values.AsSpan()), .. MemoryMarshal.AsBytes(Answers.AsSpan()), .. MemoryMarshal.AsBytes(Ranked.AsSpan())]);
        double[] values = new double[2 * batches];
        List<long> answers = [];
        List<double> ranked = [];
        for (int rank = 0; rank < workers.Size; rank++)
        {
            int own = (batches - rank + workers.Size - 1) / workers.Size;
            ReadOnlySpan<byte> bytes = messages[rank].Span;
            int answered = BitConverter.ToInt32(bytes) * sizeof(long);
            bytes = bytes[sizeof(int)..];
            ReadOnlySpan<double> theirs = MemoryMarshal.Cast<byte, double>(bytes[..(own * 2 * sizeof(double))]);
            for (int i = 0; i < own; i++)
            {
                theirs.Slice(2 * i, 2).CopyTo(values.AsSpan(2 * ((i * workers.Size) + rank)));
            }

            bytes = bytes[(own * 2 * sizeof(double))..];
            answers.AddRange(MemoryMarshal.Cast<byte, long>(bytes[..answered]));
            ranked.AddRange(MemoryMarshal.Cast<byte, double>(bytes[answered..]));
        }

        return new(values, [.. answers], [.. ranked]);
    }

    /// <summary>The texts that queries rank, in the order of their rows.</summary>
    public IEnumerable<RankedText> RankedTexts => Ranked.Chunk(RankedSize).OrderBy(static text => text[0]).Select(static text => new RankedText((int)text[1], text[2] == 1, text[3]));

    /// <summary>The loss and the correct answers of all batches, added in their order.</summary>
    public (double Loss, double Correct) Sum()
    {
        (double loss, double correct) = (0, 0);
        for (int i = 0; i < Values.Length; i += 2)
        {
            (loss, correct) = (loss + Values[i], correct + Values[i + 1]);
        }

        return (loss, correct);
    }

    /// <summary>Right label and answer of every row or word that has them.</summary>
    public IReadOnlyList<(int Label, int Answer)> Pairs => [.. All.Where(static pair => pair.Label >= 0)];

    private IEnumerable<(int Label, int Answer)> All => Enumerable.Range(0, Answers.Length / 2).Select(row => ((int)Answers[2 * row], (int)Answers[(2 * row) + 1]));

    /// <summary>Entities by type; null where the answers are not tags, or there are none.</summary>
    /// <param name="kind">What the answers are.</param>
    /// <param name="labels">Names of the tags.</param>
    /// <param name="isStrict">Whether only <c>B-</c> begins an entity.</param>
    public EntityMetrics? Entities(AnswerKind kind, IReadOnlyList<string> labels, bool isStrict = false)
    {
        if (kind is not AnswerKind.Tags || Answers.Length == 0)
        {
            return null;
        }

        (int Label, int Answer)[][] rows = [.. TagRows()];
        return new EntityMetrics([.. rows.Select(row => Names(row, static pair => pair.Label))], [.. rows.Select(row => Names(row, static pair => pair.Answer))], isStrict);

        string[] Names((int Label, int Answer)[] row, Func<(int Label, int Answer), int> choose) => [.. row.Select(pair => labels[choose(pair)])];
    }

    /// <summary>Share of the rows whose tags are all right.</summary>
    public double ShareOfRightRows() => TagRows().Average(static row => row.All(static pair => pair.Label == pair.Answer) ? 1.0 : 0);

    private IEnumerable<(int Label, int Answer)[]> TagRows()
    {
        List<(int Label, int Answer)> row = [];
        foreach ((int label, int answer) in All)
        {
            if (label >= 0)
            {
                row.Add((label, answer));
                continue;
            }

            yield return [.. row];
            row.Clear();
        }
    }

    /// <summary>Rows and answers by label; null without answers, and for tags, whose words are not rows.</summary>
    /// <param name="kind">What the answers are.</param>
    /// <param name="labels">Number of labels that are counted at least.</param>
    public LabelCounts? Count(AnswerKind kind, int labels = 0)
    {
        if (kind is AnswerKind.Tags || Answers.Length == 0)
        {
            return null;
        }

        bool hasSeveral = kind is AnswerKind.SeveralLabels;
        LabelCounts counts = new(Math.Max(labels, (int)(hasSeveral ? Answers.Max() / 2 : Answers.Max()) + 1));
        for (int i = 0; i < Answers.Length; i += 2)
        {
            if (hasSeveral)
            {
                counts.Add((int)Answers[i] / 2, Answers[i] % 2 == 1, Answers[i + 1] == 1);
            }
            else
            {
                counts.Add((int)Answers[i], (int)Answers[i + 1]);
            }
        }

        return counts;
    }
}

/// <summary>Numbers that were collected of batches.</summary>
internal static class CollectedNumbers
{
    /// <summary>Adds those of the other workers, of which each has every batch whose index has its rank as remainder.</summary>
    /// <param name="own">Those of the batches of this worker.</param>
    /// <param name="workers">The workers; null for one process.</param>
    /// <param name="batches">Number of all batches.</param>
    /// <returns>Those of all batches, in their order.</returns>
    public static IReadOnlyList<float[]> WithThoseOf(IReadOnlyList<float[]> own, WorkerGroup? workers, int batches)
    {
        if (workers is null)
        {
            return own;
        }

        // The number of numbers of each batch, then the numbers.
        int[] counts = [.. own.Select(static numbers => numbers.Length)];
        WorkerMessages messages = workers.Exchange(WorkerCall.Evaluate, [.. MemoryMarshal.AsBytes(counts.AsSpan()), .. own.SelectMany(static numbers => MemoryMarshal.AsBytes(numbers.AsSpan()).ToArray())]);
        float[][] all = new float[batches][];
        for (int rank = 0; rank < workers.Size; rank++)
        {
            int theirs = (batches - rank + workers.Size - 1) / workers.Size;
            ReadOnlySpan<byte> bytes = messages[rank].Span;
            ReadOnlySpan<int> lengths = MemoryMarshal.Cast<byte, int>(bytes[..(theirs * sizeof(int))]);
            ReadOnlySpan<float> numbers = MemoryMarshal.Cast<byte, float>(bytes[(theirs * sizeof(int))..]);
            for (int i = 0; i < theirs; i++)
            {
                all[(i * workers.Size) + rank] = numbers[..lengths[i]].ToArray();
                numbers = numbers[lengths[i]..];
            }
        }

        return all;
    }
}
