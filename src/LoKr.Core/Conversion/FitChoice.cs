using LoKr.Core.Factors;

namespace LoKr.Core.Conversion;

/// <summary>Shapes that a layer could have, and how well they fit it.</summary>
/// <param name="Shapes">The shapes.</param>
/// <param name="Error">Relative error of the factors.</param>
/// <param name="SquaredNorm">‖Δ‖² of the layer, the same for all its candidates.</param>
internal sealed record FitCandidate(FactorShapes Shapes, double Error, double SquaredNorm)
{
    /// <summary>‖Δ − w1 ⊗ w2‖².</summary>
    public double SquaredError => Error * Error * SquaredNorm;
}

/// <summary>One of the candidates of every layer, chosen by the limits of a fit.</summary>
/// <param name="Shapes">The chosen shapes; null for a layer without factors.</param>
/// <param name="Merit">How good the choice is beside those under other decompose factors: larger is better, the second number where the first is equal.</param>
internal sealed record FitChoice(IReadOnlyList<FactorShapes?> Shapes, (double First, double Second) Merit)
{
    /// <summary>Chooses.</summary>
    /// <param name="candidates">The candidates of every layer; none for one whose delta is zero.</param>
    /// <param name="options">The limits.</param>
    public static FitChoice Of(IReadOnlyList<IReadOnlyList<FitCandidate>> candidates, AdapterFitOptions options) =>
        options.MaxParameters is long budget ? Spend(candidates, budget) : options.MaxError is double limit ? Reach(candidates, limit) : Compare(candidates);

    /// <summary>With a rank or an energy the factor that explains most per parameter is best.</summary>
    private static FitChoice Compare(IReadOnlyList<IReadOnlyList<FitCandidate>> candidates)
    {
        double explained = candidates.Sum(static of => of.Sum(static candidate => candidate.SquaredNorm - candidate.SquaredError));
        long parameters = candidates.Sum(static of => of.Sum(static candidate => candidate.Shapes.ParameterCount));
        return new([.. candidates.Select(static of => of.Count == 0 ? null : of[0].Shapes)], (parameters == 0 ? 0 : explained / parameters, 0));
    }

    /// <summary>With a largest error the factor that needs the fewest parameters is best, among those that miss it least.</summary>
    private static FitChoice Reach(IReadOnlyList<IReadOnlyList<FitCandidate>> candidates, double limit)
    {
        FitCandidate?[] chosen = [.. candidates.Select(of => of.Where(candidate => candidate.Error <= limit).MinBy(static candidate => candidate.Shapes.ParameterCount) ?? of.MinBy(static candidate => candidate.Error))];
        double missed = chosen.Sum(candidate => candidate is null || candidate.Error <= limit ? 0 : candidate.SquaredError);
        return new([.. chosen.Select(static candidate => candidate?.Shapes)], (-missed, -chosen.Sum(static candidate => candidate?.Shapes.ParameterCount ?? 0)));
    }

    /// <summary>With a number of parameters every step goes where it lowers the squared error most per parameter, as long as it can be paid.</summary>
    private static FitChoice Spend(IReadOnlyList<IReadOnlyList<FitCandidate>> candidates, long budget)
    {
        FitCandidate?[] chosen = new FitCandidate?[candidates.Count];
        long left = budget;
        while (true)
        {
            (int Layer, FitCandidate Candidate, double Gain)? best = null;
            for (int i = 0; i < candidates.Count; i++)
            {
                double error = chosen[i]?.SquaredError ?? SquaredNorm(candidates[i]);
                foreach (FitCandidate candidate in candidates[i])
                {
                    long price = candidate.Shapes.ParameterCount - (chosen[i]?.Shapes.ParameterCount ?? 0);
                    double gain = (error - candidate.SquaredError) / Math.Max(1, price);
                    if (error > candidate.SquaredError && price <= left && (best is null || gain > best.Value.Gain))
                    {
                        best = (i, candidate, gain);
                    }
                }
            }

            if (best is not (int layer, FitCandidate next, _))
            {
                break;
            }

            left -= next.Shapes.ParameterCount - (chosen[layer]?.Shapes.ParameterCount ?? 0);
            chosen[layer] = next;
        }

        double remaining = candidates.Select((of, i) => chosen[i]?.SquaredError ?? SquaredNorm(of)).Sum();
        return new([.. chosen.Select(static candidate => candidate?.Shapes)], (-remaining, 0));
    }

    private static double SquaredNorm(IReadOnlyList<FitCandidate> candidates) => candidates.Count == 0 ? 0 : candidates[0].SquaredNorm;
}
