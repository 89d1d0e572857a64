namespace LoKr.Core.Metrics;

/// <summary>Precision, recall and F1; 0 where one is not defined, as scikit-learn reports them.</summary>
/// <param name="Precision">Right answers among all answers.</param>
/// <param name="Recall">Right answers among all that there were to find.</param>
/// <param name="F1">2·TP / (2·TP + FP + FN).</param>
public readonly record struct PrecisionRecall(double Precision, double Recall, double F1)
{
    /// <summary>Computes the three from counts.</summary>
    /// <param name="right">Right answers.</param>
    /// <param name="answers">All answers.</param>
    /// <param name="actual">All that there were to find.</param>
    public static PrecisionRecall Of(long right, long answers, long actual) => new(Share(right, answers), Share(right, actual), Share(2 * right, answers + actual));

    /// <summary>The mean of some, each with its weight; 0 where all weights are 0.</summary>
    internal static PrecisionRecall Mean(IEnumerable<(PrecisionRecall Value, long Weight)> values)
    {
        (double precision, double recall, double f1, long weights) = (0, 0, 0, 0);
        foreach ((PrecisionRecall value, long weight) in values)
        {
            precision += weight * value.Precision;
            recall += weight * value.Recall;
            f1 += weight * value.F1;
            weights += weight;
        }

        return weights == 0 ? default : new(precision / weights, recall / weights, f1 / weights);
    }

    private static double Share(long part, long whole) => whole == 0 ? 0 : (double)part / whole;
}

/// <summary>
/// For each label: rows that have it, answers that name it, and both. Averages follow scikit-learn; a row may have several labels.
/// </summary>
/// <param name="labels">Number of labels.</param>
public sealed class LabelCounts(int labels)
{
    private readonly long[] _actual = new long[labels];
    private readonly long[] _answers = new long[labels];
    private readonly long[] _right = new long[labels];
    private long _rows;

    /// <summary>Number of labels.</summary>
    public int LabelCount => _actual.Length;

    /// <summary>Share of right answers, for rows of one label.</summary>
    public double Accuracy => (double)_right.Sum() / _rows;

    /// <summary>Mean recall of the labels that rows have.</summary>
    public double BalancedAccuracy => Seen().Where(label => _actual[label] > 0).Average(label => Of(label).Recall);

    /// <summary>
    /// The correlation of Matthews for any number of labels (Gorodkin 2004), for rows of one label; 0 where all rows or all answers have one label.
    /// </summary>
    public double MatthewsCorrelation
    {
        get
        {
            double rows = _rows;
            double covariance = (_right.Sum() * rows) - Products(_actual, _answers);
            double scale = Math.Sqrt(((rows * rows) - Products(_actual, _actual)) * ((rows * rows) - Products(_answers, _answers)));
            return scale == 0 ? 0 : covariance / scale;
        }
    }

    /// <summary>Cohen's kappa, for rows of one label; null where chance alone is always right.</summary>
    public double? Kappa
    {
        get
        {
            double chance = Products(_actual, _answers) / ((double)_rows * _rows);
            return chance == 1 ? null : (Accuracy - chance) / (1 - chance);
        }
    }

    /// <summary>Adds a row of one label.</summary>
    /// <param name="label">Index of its label.</param>
    /// <param name="answer">Index of the label that the model gave.</param>
    public void Add(int label, int answer)
    {
        _rows++;
        _actual[label]++;
        _answers[answer]++;
        _right[label] += label == answer ? 1 : 0;
    }

    /// <summary>Adds one of several labels of a row.</summary>
    /// <param name="label">Index of the label.</param>
    /// <param name="isActual">Whether the row has it.</param>
    /// <param name="isAnswer">Whether the model gave it.</param>
    public void Add(int label, bool isActual, bool isAnswer)
    {
        _actual[label] += isActual ? 1 : 0;
        _answers[label] += isAnswer ? 1 : 0;
        _right[label] += isActual && isAnswer ? 1 : 0;
    }

    /// <summary>Rows that have a label.</summary>
    public long Support(int label) => _actual[label];

    /// <summary>Answers that name a label.</summary>
    public long Answers(int label) => _answers[label];

    /// <summary>The figures of one label.</summary>
    public PrecisionRecall Of(int label) => PrecisionRecall.Of(_right[label], _answers[label], _actual[label]);

    /// <summary>The mean over labels.</summary>
    /// <param name="all">Whether labels count that neither a row nor an answer has, with 0; scikit-learn counts them where rows have several labels.</param>
    public PrecisionRecall Macro(bool all = false) =>
        PrecisionRecall.Mean((all ? Enumerable.Range(0, LabelCount) : Seen()).Select(label => (Of(label), 1L)));

    /// <summary>The figures of all labels together; for rows of one label all three are the accuracy.</summary>
    public PrecisionRecall Micro() => PrecisionRecall.Of(_right.Sum(), _answers.Sum(), _actual.Sum());

    /// <summary>The mean over labels, each with the number of its rows.</summary>
    public PrecisionRecall Weighted() => PrecisionRecall.Mean(Seen().Select(label => (Of(label), _actual[label])));

    private IEnumerable<int> Seen() => Enumerable.Range(0, LabelCount).Where(label => _actual[label] + _answers[label] > 0);

    private static double Products(long[] first, long[] second)
    {
        double sum = 0;
        for (int label = 0; label < first.Length; label++)
        {
            sum += (double)first[label] * second[label];
        }

        return sum;
    }
}

/// <summary>Measures of rows that have any number of labels each (scikit-learn's definitions).</summary>
public sealed class MultiLabelMetrics
{
    /// <summary>Compares rows. A label is given where its probability is greater than the threshold.</summary>
    /// <param name="probabilities">The probability of every label, by row.</param>
    /// <param name="actual">Whether a row has a label, by row.</param>
    /// <param name="threshold">The threshold.</param>
    public MultiLabelMetrics(IReadOnlyList<IReadOnlyList<double>> probabilities, IReadOnlyList<IReadOnlyList<bool>> actual, double threshold = 0.5)
    {
        ArgumentNullException.ThrowIfNull(probabilities);
        ArgumentNullException.ThrowIfNull(actual);
        ArgumentOutOfRangeException.ThrowIfZero(probabilities.Count);
        ArgumentOutOfRangeException.ThrowIfNotEqual(actual.Count, probabilities.Count);
        Counts = new LabelCounts(actual[0].Count);
        List<(PrecisionRecall, long)> rows = [];
        (int exact, int wrong) = (0, 0);
        for (int row = 0; row < actual.Count; row++)
        {
            bool[] answers = [.. probabilities[row].Select(probability => probability > threshold)];
            ArgumentOutOfRangeException.ThrowIfNotEqual(answers.Length, actual[row].Count);
            for (int label = 0; label < answers.Length; label++)
            {
                Counts.Add(label, actual[row][label], answers[label]);
            }

            int different = answers.Where((answer, label) => answer != actual[row][label]).Count();
            exact += different == 0 ? 1 : 0;
            wrong += different;
            int right = answers.Where((answer, label) => answer && actual[row][label]).Count();
            rows.Add((PrecisionRecall.Of(right, answers.Count(static answer => answer), actual[row].Count(static has => has)), 1));
        }

        SubsetAccuracy = (double)exact / actual.Count;
        HammingLoss = (double)wrong / (actual.Count * Counts.LabelCount);
        Samples = PrecisionRecall.Mean(rows);
    }

    /// <summary>Rows and answers by label.</summary>
    public LabelCounts Counts { get; }

    /// <summary>Share of rows whose labels are all right.</summary>
    public double SubsetAccuracy { get; }

    /// <summary>Share of wrong decisions over all rows and labels.</summary>
    public double HammingLoss { get; }

    /// <summary>The mean over rows of the figures of each.</summary>
    public PrecisionRecall Samples { get; }

    /// <summary>The figures of all decisions together.</summary>
    public PrecisionRecall Micro => Counts.Micro();

    /// <summary>The mean over all labels.</summary>
    public PrecisionRecall Macro => Counts.Macro(all: true);

    /// <summary>The mean over labels, each with the number of its rows.</summary>
    public PrecisionRecall Weighted => Counts.Weighted();
}
