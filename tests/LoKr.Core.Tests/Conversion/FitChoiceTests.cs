using LoKr.Core.Conversion;
using LoKr.Core.Factors;
using Xunit;

namespace LoKr.Core.Tests.Conversion;

public sealed class FitChoiceTests
{
    // Two layers of equal shape: the first has nearly all of the norm.
    private static readonly FitCandidate[][] s_layers = [Candidates(100, 0.9, 0.5, 0.1), Candidates(1, 0.9, 0.5, 0.1)];

    [Fact]
    public void A_budget_goes_where_it_lowers_the_error_most_and_is_never_exceeded()
    {
        long[] sizes = [.. s_layers[0].Select(static candidate => candidate.Shapes.ParameterCount)];
        FitChoice one = FitChoice.Of(s_layers, new() { MaxParameters = sizes[0] });
        Assert.Equal((sizes[0], null), (one.Shapes[0]!.ParameterCount, one.Shapes[1]));
        for (long budget = 0; budget <= 2 * sizes[^1]; budget++)
        {
            Assert.InRange(FitChoice.Of(s_layers, new() { MaxParameters = budget }).Shapes.Sum(static shapes => shapes?.ParameterCount ?? 0), 0, budget);
        }

        Assert.Equal([sizes[^1], sizes[^1]], FitChoice.Of(s_layers, new() { MaxParameters = 2 * sizes[^1] }).Shapes.Select(static shapes => shapes!.ParameterCount));
    }

    [Fact]
    public void A_largest_error_takes_the_fewest_parameters_that_reach_it_and_counts_what_misses_it()
    {
        FitChoice choice = FitChoice.Of(s_layers, new() { MaxError = 0.5 });
        Assert.Equal([s_layers[0][1].Shapes, s_layers[1][1].Shapes], choice.Shapes);
        Assert.Equal(0, choice.Merit.First);
        Assert.Equal(-2 * s_layers[0][1].Shapes.ParameterCount, choice.Merit.Second);
        FitChoice missed = FitChoice.Of(s_layers, new() { MaxError = 0.01 });
        Assert.Equal([s_layers[0][2].Shapes, s_layers[1][2].Shapes], missed.Shapes);
        Assert.Equal(-(0.01 * 101), missed.Merit.First, 1e-9);
    }

    [Fact]
    public void A_layer_without_candidates_has_no_factors()
    {
        FitCandidate[][] layers = [s_layers[0][..1], []];
        foreach (AdapterFitOptions options in new AdapterFitOptions[] { new() { R = 1 }, new() { MaxError = 0.5 }, new() { MaxParameters = 1000 } })
        {
            FitChoice choice = FitChoice.Of(layers, options);
            Assert.Equal((true, null), (choice.Shapes[0] is not null, choice.Shapes[1]));
        }
    }

    private static FitCandidate[] Candidates(double squaredNorm, params double[] errors) =>
        [.. errors.Select((error, index) => new FitCandidate(FactorShapes.Create(16, 16, [], 1 << index, new() { DecomposeFactor = 2 }), error, squaredNorm))];
}
