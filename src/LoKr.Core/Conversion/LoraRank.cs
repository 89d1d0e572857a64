namespace LoKr.Core.Conversion;

/// <summary>How many ranks a conversion to LoRA keeps: the same number on every layer, or as many as hold a share of a layer's energy.</summary>
public sealed record LoraRank
{
    private LoraRank(int? rank, double? energy) => (Fixed, Energy) = (rank, energy);

    /// <summary>The rank of every layer, or null where the energy decides.</summary>
    public int? Fixed { get; }

    /// <summary>Share of the sum of squared singular values that the kept ones reach at least, in (0, 1]; or null.</summary>
    public double? Energy { get; }

    /// <summary>The same rank on every layer.</summary>
    /// <param name="rank">Positive number.</param>
    /// <exception cref="LoKrException"><c>LoKr.RankInvalid</c>.</exception>
    public static LoraRank OfSize(int rank)
    {
        if (rank <= 0)
        {
            throw new LoKrException(ErrorIds.RankInvalid, LoKrErrorKind.InvalidArgument, $"The rank is {rank}; a rank is a positive number.", "Use 8 or 16 to begin with, or give an energy instead.") { Target = rank };
        }

        return new(rank, null);
    }

    /// <summary>On each layer the smallest rank that holds a share of the energy, as PEFT reads a rank that is a float.</summary>
    /// <param name="share">Share of the sum of squared singular values, in (0, 1].</param>
    /// <exception cref="LoKrException"><c>LoKr.EnergyInvalid</c>.</exception>
    public static LoraRank OfEnergy(double share)
    {
        if (share is not (> 0 and <= 1))
        {
            throw new LoKrException(ErrorIds.EnergyInvalid, LoKrErrorKind.InvalidArgument, $"The share of energy is {share}; it is more than 0 and at most 1.", "0.9 keeps nine tenths of the squared norm of each layer.") { Target = share };
        }

        return new(null, share);
    }

    /// <inheritdoc/>
    public override string ToString() => Fixed is int rank ? $"rank {rank}" : FormattableString.Invariant($"energy {Energy}");
}
