namespace LoKr.Core.Metrics;

/// <summary>Measures of numbers that a model predicts (scikit-learn and SciPy). Null where a measure is not defined.</summary>
public static class NumberMetrics
{
    /// <summary>Mean squared error.</summary>
    public static double MeanSquaredError(IReadOnlyList<double> actual, IReadOnlyList<double> predicted) =>
        Pairs(actual, predicted).Average(static pair => (pair.First - pair.Second) * (pair.First - pair.Second));

    /// <summary>Mean absolute error.</summary>
    public static double MeanAbsoluteError(IReadOnlyList<double> actual, IReadOnlyList<double> predicted) =>
        Pairs(actual, predicted).Average(static pair => Math.Abs(pair.First - pair.Second));

    /// <summary>The coefficient of determination R²; where all right values are equal, 1 for exact predictions and 0 for others.</summary>
    public static double R2(IReadOnlyList<double> actual, IReadOnlyList<double> predicted)
    {
        double error = Pairs(actual, predicted).Sum(static pair => (pair.First - pair.Second) * (pair.First - pair.Second));
        double mean = actual.Average();
        double total = actual.Sum(value => (value - mean) * (value - mean));
        return total > 0 ? 1 - (error / total) : error == 0 ? 1 : 0;
    }

    /// <summary>Pearson's correlation; null where one side is constant.</summary>
    public static double? Pearson(IReadOnlyList<double> first, IReadOnlyList<double> second)
    {
        IEnumerable<(double First, double Second)> pairs = Pairs(first, second);
        (double meanFirst, double meanSecond) = (first.Average(), second.Average());
        (double both, double squaresFirst, double squaresSecond) = (0, 0, 0);
        foreach ((double a, double b) in pairs)
        {
            both += (a - meanFirst) * (b - meanSecond);
            squaresFirst += (a - meanFirst) * (a - meanFirst);
            squaresSecond += (b - meanSecond) * (b - meanSecond);
        }

        double scale = Math.Sqrt(squaresFirst) * Math.Sqrt(squaresSecond);
        return scale == 0 ? null : both / scale;
    }

    /// <summary>Spearman's correlation: that of the ranks, where equal values share the mean of theirs; null where one side is constant.</summary>
    public static double? Spearman(IReadOnlyList<double> first, IReadOnlyList<double> second) => Pearson(Ranks(first), Ranks(second));

    /// <summary>Kendall's correlation tau-b; null where one side is constant. Takes time in the square of the number of values.</summary>
    public static double? Kendall(IReadOnlyList<double> first, IReadOnlyList<double> second)
    {
        ArgumentNullException.ThrowIfNull(first);
        ArgumentNullException.ThrowIfNull(second);
        ArgumentOutOfRangeException.ThrowIfNotEqual(second.Count, first.Count);
        (double balance, double ordersFirst, double ordersSecond) = (0, 0, 0);
        for (int i = 1; i < first.Count; i++)
        {
            for (int j = 0; j < i; j++)
            {
                (int a, int b) = (first[i].CompareTo(first[j]), second[i].CompareTo(second[j]));
                balance += a * b;
                ordersFirst += a * a;
                ordersSecond += b * b;
            }
        }

        double scale = Math.Sqrt(ordersFirst) * Math.Sqrt(ordersSecond);
        return scale == 0 ? null : balance / scale;
    }

    private static double[] Ranks(IReadOnlyList<double> values)
    {
        int[] order = [.. Enumerable.Range(0, values.Count).OrderBy(i => values[i])];
        double[] ranks = new double[values.Count];
        int from = 0;
        while (from < order.Length)
        {
            int to = from + 1;
            while (to < order.Length && values[order[to]] == values[order[from]])
            {
                to++;
            }

            foreach (int i in order.AsSpan(from, to - from))
            {
                ranks[i] = (from + 1 + to) / 2.0;
            }

            from = to;
        }

        return ranks;
    }

    private static IEnumerable<(double First, double Second)> Pairs(IReadOnlyList<double> first, IReadOnlyList<double> second)
    {
        ArgumentNullException.ThrowIfNull(first);
        ArgumentNullException.ThrowIfNull(second);
        ArgumentOutOfRangeException.ThrowIfZero(first.Count);
        ArgumentOutOfRangeException.ThrowIfNotEqual(second.Count, first.Count);
        return first.Zip(second);
    }
}

/// <summary>Measures of language models.</summary>
public static class LanguageMetrics
{
    /// <summary>exp of the mean loss of a token in nats.</summary>
    public static double Perplexity(double meanLoss) => Math.Exp(meanLoss);

    /// <summary>Share of answers that are the expected text to the character.</summary>
    public static double ExactMatch(IReadOnlyList<string> expected, IReadOnlyList<string> answers)
    {
        ArgumentNullException.ThrowIfNull(expected);
        ArgumentNullException.ThrowIfNull(answers);
        ArgumentOutOfRangeException.ThrowIfZero(expected.Count);
        ArgumentOutOfRangeException.ThrowIfNotEqual(answers.Count, expected.Count);
        return expected.Zip(answers).Average(static pair => string.Equals(pair.First, pair.Second, StringComparison.Ordinal) ? 1.0 : 0.0);
    }
}
