namespace LoKr.Core.Training;

/// <summary>Texts and, for every token that carries loss, the position that predicts it.</summary>
public sealed class LanguageBatch : TokenBatch
{
    internal LanguageBatch(IReadOnlyList<int[]> rows, IReadOnlyList<int> lossStarts, int padId)
        : base(rows, padId)
    {
        List<long> positions = [];
        List<long> targets = [];
        for (int r = 0; r < rows.Count; r++)
        {
            // Token i is predicted from position i - 1; nothing predicts the first.
            for (int i = Math.Max(lossStarts[r], 1); i < rows[r].Length; i++)
            {
                positions.Add(((long)r * Length) + i - 1);
                targets.Add(rows[r][i]);
            }
        }

        (Positions, Targets) = ([.. positions], [.. targets]);
    }

    /// <inheritdoc/>
    public override long LossCount => Positions.Length;

    /// <summary>Indices into the flattened [rows · length] whose hidden state predicts a target.</summary>
    internal long[] Positions { get; }

    internal long[] Targets { get; }
}
