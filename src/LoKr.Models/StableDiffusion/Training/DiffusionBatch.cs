using LoKr.Core.Training;

namespace LoKr.Models.StableDiffusion.Training;

/// <summary>Pictures of one size, and the seed of everything that is drawn for them.</summary>
public sealed class DiffusionBatch : TrainingBatch
{
    internal DiffusionBatch(IReadOnlyList<LatentRow> rows, ulong seed) => (Rows, Seed) = (rows, seed);

    /// <inheritdoc/>
    public override int RowCount => Rows.Count;

    /// <inheritdoc/>
    public override long UnitCount => Rows.Count;

    /// <inheritdoc/>
    public override long LossCount => Rows.Count;

    internal IReadOnlyList<LatentRow> Rows { get; }

    internal ulong Seed { get; }
}
