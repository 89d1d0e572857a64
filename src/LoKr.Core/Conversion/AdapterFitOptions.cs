using LoKr.Core.Errors;
using LoKr.Core.Layouts;
using static TorchSharp.torch;

namespace LoKr.Core.Conversion;

/// <summary>Limits and form of an adapter that is fitted to given deltas. At most one of rank, full matrices, energy, error and parameters limits it.</summary>
public sealed record AdapterFitOptions
{
    /// <summary>Rank of every layer; null for another limit.</summary>
    public int? R { get; init; }

    /// <summary>Whether w1 and w2 are full matrices, which is a limit too.</summary>
    public bool FullMatrix { get; init; }

    /// <summary>Candidates for the decompose factor. One is taken for the whole adapter, as PEFT has it; empty for the one that is natural to the command.</summary>
    public IReadOnlyList<int> DecomposeFactors { get; init; } = [];

    /// <summary>Least share of the squared norm of the nearest full w2 that the rank of each layer keeps, in (0, 1].</summary>
    public double? Energy { get; init; }

    /// <summary>Largest relative error of each layer, in (0, 1): each gets the fewest parameters that reach it.</summary>
    public double? MaxError { get; init; }

    /// <summary>Largest number of parameters of all factors together: they go where they lower the error most.</summary>
    public long? MaxParameters { get; init; }

    /// <summary>Whether w1 is low-rank too where the rank is small enough (PEFT <c>decompose_both</c>).</summary>
    public bool DecomposeBoth { get; init; }

    /// <summary>Whether a low-rank w2 of a convolution is a Tucker product (PEFT <c>use_effective_conv2d</c>); null for what the command takes by itself.</summary>
    public bool? UseEffectiveConv2d { get; init; }

    /// <summary>Type of the written factors; null for what the command takes by itself.</summary>
    public ScalarType? DType { get; init; }

    /// <summary>Layout to write; null for PEFT's, or that of the first source.</summary>
    public AdapterLayout? Layout { get; init; }

    /// <summary>Replace an existing destination.</summary>
    public bool Force { get; init; }

    /// <summary>Whether no rank, energy, error or number of parameters is given.</summary>
    internal bool HasNoLimit => !FullMatrix && R is null && Energy is null && MaxError is null && MaxParameters is null;

    /// <summary>Checks the values.</summary>
    /// <exception cref="LoKrException"><c>LoKr.RankInvalid</c>, <c>LoKr.EnergyInvalid</c>, <c>LoKr.InvalidArgument</c>.</exception>
    internal void Check()
    {
        if (R is int rank)
        {
            LoraRank.OfSize(rank);
        }

        if (Energy is double energy)
        {
            LoraRank.OfEnergy(energy);
        }

        if (MaxError is double error && error is not (> 0 and < 1))
        {
            throw Invalid($"The largest error is {error}; it is relative, more than 0 and less than 1.", "0.1 keeps 99 % of the squared norm of each delta.", error);
        }

        if (MaxParameters is long parameters && parameters <= 0)
        {
            throw Invalid($"The largest number of parameters is {parameters}; it must be positive.", "Give the number of all parameters together.", parameters);
        }

        if (new[] { FullMatrix, R is not null, Energy is not null, MaxError is not null, MaxParameters is not null }.Count(static given => given) > 1)
        {
            throw Invalid("Full matrices, a rank, an energy, a largest error and a largest number of parameters exclude each other.", "Give one of them.", null);
        }
    }

    private static LoKrException Invalid(string message, string advice, object? target) =>
        new(ErrorIds.InvalidArgument, LoKrErrorKind.InvalidArgument, message, advice) { Target = target };
}
