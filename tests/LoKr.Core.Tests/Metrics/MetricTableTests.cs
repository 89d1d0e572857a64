using System.Text.Json.Nodes;
using LoKr.Core.Metrics;
using LoKr.Core.Model;
using LoKr.Core.Training;
using LoKr.Testing;
using Xunit;

namespace LoKr.Core.Tests.Metrics;

/// <summary>Every table of the fixtures: values of seqeval, scikit-learn, SciPy and sentence-transformers.</summary>
public sealed class MetricTableTests
{
    private const double Tolerance = 1e-6;

    [Fact]
    public void Ends_and_single_words_are_entities_as_seqeval_has_them_by_default()
    {
        string[] tags = ["B-X", "I-X", "E-X", "E-X", "S-Y", "I-Y", "S-Y", "O", "E-X"];
        Assert.Equal(
            [("X", 0, 2), ("X", 3, 3), ("Y", 4, 4), ("Y", 5, 5), ("Y", 6, 6), ("X", 8, 8)],
            EntityMetrics.Find([tags]).Select(static entity => (entity.Type, entity.First, entity.Last)));
    }

    [Fact]
    public void Classification_gives_the_values_of_the_reference() => Check("classification", table =>
    {
        int[] actual = Ints(table["true"]);
        int[] predicted = Ints(table["predicted"]);
        LabelCounts counts = new(Math.Max(actual.Max(), predicted.Max()) + 1);
        foreach ((int label, int answer) in actual.Zip(predicted))
        {
            counts.Add(label, answer);
        }

        Equal(table["accuracy"], counts.Accuracy);
        Equal(table["balanced_accuracy"], counts.BalancedAccuracy);
        Equal(table["mcc"], counts.MatthewsCorrelation);
        Equal(table["kappa"], counts.Kappa);
        Equal(table["macro"], counts.Macro());
        Equal(table["micro"], counts.Micro());
        Equal(table["weighted"], counts.Weighted());
        foreach (JsonNode? row in table["per_class"]!.AsArray())
        {
            int label = row!["label"]!.GetValue<int>();
            Equal(row, counts.Of(label));
            Assert.Equal(row["support"]!.GetValue<long>(), counts.Support(label));
        }

        // By name, as training and gate use them.
        RowScore[] rows = [.. actual.Zip(predicted, static (label, answer) => new RowScore(0, 1, label, answer))];
        Equal(table["mcc"], new RowMetric(EvaluationMetric.MatthewsCorrelation, rows).Value);
        Equal(table["micro"]!["f1"], new RowMetric(EvaluationMetric.MicroF1, rows).Value);
        Equal(table["weighted"]!["f1"], new RowMetric(EvaluationMetric.WeightedF1, rows).Value);
        Equal(table["macro"]!["precision"], new RowMetric(EvaluationMetric.Precision, rows).Value);
        Equal(table["macro"]!["recall"], new RowMetric(EvaluationMetric.Recall, rows).Value);
    });

    [Fact]
    public void Confusion_is_that_of_the_reference() => Check("classification", table =>
    {
        int[] labels = Ints(table["labels"]);
        (int Label, int Answer)[] answers = [.. Ints(table["true"]).Zip(Ints(table["predicted"]))];
        LabelCounts counts = new(labels.Max() + 1);
        foreach ((int label, int answer) in answers)
        {
            counts.Add(label, answer);
        }

        LabelReport report = LabelReport.Of(
            new() { RowCount = 1, TokenCount = 1, Loss = 0, Elapsed = default },
            counts,
            answers,
            [.. Enumerable.Range(0, labels.Max() + 1).Select(static label => $"label {label}")]);
        for (int row = 0; row < labels.Length; row++)
        {
            int[] expected = Ints(table["confusion"]![row]);
            for (int column = 0; column < labels.Length; column++)
            {
                LoKrConfusion? field = report.Confusion.SingleOrDefault(field => field.Label == $"label {labels[row]}" && field.Answer == $"label {labels[column]}");
                Assert.Equal(expected[column], field?.RowCount ?? 0);
                Assert.Equal(expected[column] == 0, field is null);
                Assert.Equal(field is null ? 0 : expected[column] / (double)expected.Sum(), field?.Share ?? 0, Tolerance);
            }
        }
    });

    [Fact]
    public void Several_labels_give_the_values_of_the_reference() => Check("multilabel", table =>
    {
        MultiLabelMetrics metrics = new(
            [.. table["probabilities"]!.AsArray().Select(Doubles)],
            [.. table["true"]!.AsArray().Select(row => (IReadOnlyList<bool>)[.. Ints(row).Select(static value => value == 1)])],
            table["threshold"]!.GetValue<double>());
        Equal(table["subset_accuracy"], metrics.SubsetAccuracy);
        Equal(table["hamming"], metrics.HammingLoss);
        Equal(table["micro"], metrics.Micro);
        Equal(table["macro"], metrics.Macro);
        Equal(table["weighted"], metrics.Weighted);
        Equal(table["samples"], metrics.Samples);
    });

    [Theory]
    [InlineData("default", false)]
    [InlineData("strict", true)]
    public void Entities_give_the_values_of_the_reference(string mode, bool isStrict) => Check("seqeval", table =>
    {
        string[][] actual = Sentences(table["true"]);
        string[][] predicted = Sentences(table["predicted"]);
        EntityMetrics metrics = new(actual, predicted, isStrict);
        Equal(table["accuracy"], metrics.Accuracy);
        JsonNode expected = table[mode]!;
        Equal(expected["micro"], metrics.Micro);
        foreach ((string name, JsonNode? figures) in expected["report"]!.AsObject())
        {
            (PrecisionRecall? value, long support) = name switch
            {
                "micro avg" => (metrics.Micro, metrics.Count),
                "macro avg" => (metrics.Macro, metrics.Count),
                "weighted avg" => (metrics.Weighted, metrics.Count),
                _ => (metrics.Of(name), metrics.Support(name)),
            };
            Equal(figures!["precision"], value?.Precision);
            Equal(figures["recall"], value?.Recall);
            Equal(figures["f1-score"], value?.F1);
            Assert.Equal(figures["support"]!.GetValue<long>(), support);
        }

        Assert.Equal(
            expected["report"]!.AsObject().Select(static entry => entry.Key).Where(static name => !name.EndsWith(" avg", StringComparison.Ordinal)).Order(StringComparer.Ordinal),
            metrics.Types);
        AssertEntities(table[$"entities_{mode}"]!["true"], EntityMetrics.Find(actual, isStrict));
        AssertEntities(table[$"entities_{mode}"]!["predicted"], EntityMetrics.Find(predicted, isStrict));
    });

    [Fact]
    public void Numbers_give_the_values_of_the_reference() => Check("regression", table =>
    {
        (double[] actual, double[] predicted) = (Doubles(table["true"]), Doubles(table["predicted"]));
        Equal(table["mse"], NumberMetrics.MeanSquaredError(actual, predicted));
        Equal(table["rmse"], Math.Sqrt(NumberMetrics.MeanSquaredError(actual, predicted)));
        Equal(table["mae"], NumberMetrics.MeanAbsoluteError(actual, predicted));
        Equal(table["r2"], NumberMetrics.R2(actual, predicted));
        Equal(table["pearson"], NumberMetrics.Pearson(actual, predicted));
        Equal(table["spearman"], NumberMetrics.Spearman(actual, predicted));
        Equal(table["kendall"], NumberMetrics.Kendall(actual, predicted));
    });

    [Fact]
    public void Search_gives_the_values_of_the_reference() => Check("retrieval", table =>
    {
        RetrievalMetrics metrics = new(
            [.. table["scores"]!.AsArray().Select(Doubles)],
            [.. table["relevant"]!.AsArray().Select(Ints)]);
        foreach ((string name, JsonNode? value) in table.Where(static entry => entry.Key.Contains('@', StringComparison.Ordinal)))
        {
            int k = int.Parse(name.Split('@')[1], System.Globalization.CultureInfo.InvariantCulture);
            Equal(value, name.Split('@')[0] switch
            {
                "recall" => metrics.Recall(k),
                "precision" => metrics.Precision(k),
                "accuracy" => metrics.Accuracy(k),
                "mrr" => metrics.MeanReciprocalRank(k),
                "ndcg" => metrics.NormalizedGain(k),
                "map" => metrics.MeanAveragePrecision(k),
                _ => throw new NotSupportedException(name),
            });
        }
    });

    [Fact]
    public void Graded_gain_gives_the_values_of_the_reference() => Check("ndcg", table =>
    {
        (double[] relevance, double[] scores) = (Doubles(table["relevance"]), Doubles(table["scores"]));
        Equal(table["ndcg@10"], RetrievalMetrics.NormalizedGain(relevance, scores, 10));
        if (table["ndcg@3"] is JsonNode three)
        {
            Equal(three, RetrievalMetrics.NormalizedGain(relevance, scores, 3));
            Equal(table["ndcg"], RetrievalMetrics.NormalizedGain(relevance, scores));
        }
    });

    [Fact]
    public void Exact_matches_are_counted_to_the_character() =>
        Assert.Equal(0.5, LanguageMetrics.ExactMatch(["a", "b", "c", ""], ["a", "B", "c ", ""]));

    private static void Check(string name, Action<JsonObject> check)
    {
        JsonArray tables = JsonNode.Parse(File.ReadAllText(Fixtures.Require("metrics", $"{name}.json")))!.AsArray();
        Assert.NotEmpty(tables);
        Assert.All(tables, table => check(table!.AsObject()));
    }

    // Large values to the tolerance of their size.
    private static void Equal(JsonNode? expected, double? value)
    {
        Assert.Equal(expected is null, value is null);
        if (expected is not null)
        {
            double number = expected.GetValue<double>();
            Assert.Equal(number, value!.Value, Tolerance * Math.Max(1, Math.Abs(number)));
        }
    }

    private static void Equal(JsonNode? expected, PrecisionRecall value)
    {
        Equal(expected!["precision"], value.Precision);
        Equal(expected["recall"], value.Recall);
        Equal(expected["f1"], value.F1);
    }

    private static void AssertEntities(JsonNode? expected, IReadOnlyList<TaggedEntity> entities) => Assert.Equal(
        expected!.AsArray().Select(static row => new TaggedEntity(row![0]!.GetValue<int>(), row[1]!.GetValue<string>(), row[2]!.GetValue<int>(), row[3]!.GetValue<int>())),
        entities);

    private static string[][] Sentences(JsonNode? node) => [.. node!.AsArray().Select(static row => row!.AsArray().Select(static tag => tag!.GetValue<string>()).ToArray())];

    private static int[] Ints(JsonNode? node) => [.. node!.AsArray().Select(static value => value!.GetValue<int>())];

    private static double[] Doubles(JsonNode? node) => [.. node!.AsArray().Select(static value => value!.GetValue<double>())];
}
