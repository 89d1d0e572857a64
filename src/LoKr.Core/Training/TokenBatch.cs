namespace LoKr.Core.Training;

/// <summary>Token ids of a batch, padded on the right to its longest row.</summary>
public abstract class TokenBatch : TrainingBatch
{
    private protected TokenBatch(IReadOnlyList<int[]> rows, int padId)
    {
        RowCount = rows.Count;
        Length = rows.Max(row => row.Length);
        InputIds = new long[RowCount * Length];
        AttentionMask = new long[RowCount * Length];
        Array.Fill(InputIds, padId);
        for (int r = 0; r < rows.Count; r++)
        {
            int[] row = rows[r];
            int start = r * Length;
            for (int i = 0; i < row.Length; i++)
            {
                InputIds[start + i] = row[i];
            }

            AttentionMask.AsSpan(start, row.Length).Fill(1);
            UnitCount += row.Length;
        }
    }

    /// <inheritdoc/>
    public override int RowCount { get; }

    /// <inheritdoc/>
    public override long UnitCount { get; }

    /// <summary>Length of the longest row.</summary>
    public int Length { get; }

    /// <summary>Token ids, [rows, length].</summary>
    internal long[] InputIds { get; }

    /// <summary>1 for tokens, 0 for padding, [rows, length].</summary>
    internal long[] AttentionMask { get; }
}
