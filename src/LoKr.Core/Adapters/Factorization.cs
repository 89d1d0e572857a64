namespace LoKr.Core.Adapters;

/// <summary>Splits a dimension into two factors, as PEFT and LyCORIS do.</summary>
public static class Factorization
{
    /// <summary>Splits a dimension.</summary>
    /// <param name="dimension">Positive size to split.</param>
    /// <param name="factor">Preferred first factor; -1 for the most square split. PEFT takes 0 and less than -1 as "no split".</param>
    /// <param name="convention">Whether a factor that divides the dimension comes first (PEFT) or the smaller one does (LyCORIS).</param>
    /// <returns>Two numbers whose product is the dimension. The first belongs to w1, the second to w2.</returns>
    /// <remarks>
    /// A factor that does not divide the dimension is an upper limit: the result is the largest divisor that
    /// is at most the factor and at most the square root.
    /// </remarks>
    public static (long First, long Second) Split(long dimension, long factor, FactorizationConvention convention = FactorizationConvention.Peft)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(dimension);
        if (factor > 0 && dimension % factor == 0)
        {
            long other = dimension / factor;
            return convention == FactorizationConvention.Lycoris && factor > other ? (other, factor) : (factor, other);
        }

        bool unlimited = convention == FactorizationConvention.Lycoris ? factor < 0 : factor == -1;
        long limit = unlimited ? dimension : factor;
        long first = 1;
        for (long candidate = 2; candidate <= limit && candidate * candidate <= dimension; candidate++)
        {
            if (dimension % candidate == 0)
            {
                first = candidate;
            }
        }

        return (first, dimension / first);
    }
}
