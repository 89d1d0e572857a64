using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Data;
using LoKr.Core.Errors;
using LoKr.Core.Layers;
using LoKr.Core.Layouts;
using LoKr.Core.Model;
using LoKr.Core.Runs;
using LoKr.Core.Tests.Training;
using LoKr.Core.Training;
using LoKr.Testing;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Runs;

/// <summary>The gate: its statistics against tables and simulations, its verdicts, and what it leaves on a model.</summary>
public sealed class PromotionGateTests : IDisposable
{
    private const int Nights = 1000;

    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void McNemars_test_gives_the_reference_p_values()
    {
        JsonArray table = JsonNode.Parse(File.ReadAllText(Fixtures.Require("metrics", "mcnemar.json")))!.AsArray();
        Assert.NotEmpty(table);
        foreach (JsonNode? row in table)
        {
            (int first, int second) = (row!["only_first_right"]!.GetValue<int>(), row["only_second_right"]!.GetValue<int>());
            Assert.Equal(row["exact_p"]!.GetValue<double>(), McNemarTest.PValue(first, second), 1e-12);
            Assert.Equal(McNemarTest.PValue(second, first), McNemarTest.PValue(first, second));
        }
    }

    [Theory]
    [InlineData(0, 5, 0.0625)]
    [InlineData(1, 9, 22.0 / 1024)]
    [InlineData(2, 2, 1)]
    // 10,200 coins: z = 199 / sqrt(10200) with the continuity correction.
    [InlineData(5000, 5200, 0.04880)]
    public void McNemars_test_is_the_exact_binomial_one_at_any_count(int first, int second, double expected) =>
        Assert.Equal(expected, McNemarTest.PValue(first, second), 5e-5);

    [Fact]
    public void Accuracy_and_macro_F1_are_the_reference_values()
    {
        foreach (JsonNode? table in JsonNode.Parse(File.ReadAllText(Fixtures.Require("metrics", "classification.json")))!.AsArray())
        {
            int[] labels = [.. table!["true"]!.AsArray().Select(static value => value!.GetValue<int>())];
            int[] answers = [.. table["predicted"]!.AsArray().Select(static value => value!.GetValue<int>())];
            RowScore[] rows = [.. labels.Zip(answers, static (label, answer) => new RowScore(0, 1, label, answer))];
            Assert.Equal(table["accuracy"]!.GetValue<double>(), new RowMetric(EvaluationMetric.Accuracy, rows).Value, 1e-12);
            Assert.Equal(table["macro"]!["f1"]!.GetValue<double>(), new RowMetric(EvaluationMetric.F1, rows).Value, 1e-12);
        }
    }

    [Fact]
    public void Tags_are_compared_by_entities_and_types_are_guarded()
    {
        string[] right = ["B-HOST", "I-HOST", "O", "B-PKG"];
        string[] host = ["B-HOST", "I-HOST", "O", "O"];
        string[] package = ["O", "O", "O", "B-PKG"];

        // The champion finds every package, the challenger every host and half of the packages.
        RowScore[] champion = [.. Enumerable.Range(0, 40).Select(_ => Tagged(right, package))];
        RowScore[] challenger = [.. Enumerable.Range(0, 40).Select(row => Tagged(right, row % 2 == 0 ? right : host))];
        LoKrGateResult gate = PromotionGate.Decide(champion, challenger, new() { Metric = EvaluationMetric.EntityRecall });
        Assert.Equal((0.5, 0.75, true, "Bootstrap"), (gate.ChampionValue, gate.ChallengerValue, gate.Passed, gate.Test));
        Assert.Equal((20, 0), (gate.CorrectedCount, gate.BrokenCount));
        Assert.Equal([("HOST", 40, 0, 1), ("PKG", 40, 1, 0.5)], gate.Labels.Select(static type => (type.Label, type.RowCount, type.ChampionValue, type.ChallengerValue)));
        Assert.Equal((0, 20), (gate.Labels[1].CorrectedCount, gate.Labels[1].BrokenCount));

        LoKrGateResult guarded = PromotionGate.Decide(champion, challenger, new() { Metric = EvaluationMetric.EntityRecall, MaximumRegression = 0.1 });
        Assert.False(guarded.Passed);
        Assert.Contains("entity recall of 'PKG'", Assert.Single(guarded.Reasons), StringComparison.Ordinal);

        LoKrGateResult whole = PromotionGate.Decide(champion, challenger, new() { Metric = EvaluationMetric.ExactMatch });
        Assert.Equal(("McNemar", 0.0, 0.5), (whole.Test, whole.ChampionValue, whole.ChallengerValue));
        Assert.Equal(EvaluationMetric.EntityF1, PromotionGate.Decide(champion, challenger).Metric);

        static RowScore Tagged(string[] actual, string[] predicted) => new(0, actual.Length) { Tags = TagScore.Of(actual, predicted) };
    }

    [Fact]
    public void Rows_add_up_to_the_evaluation_of_the_model()
    {
        using LoKrModel classifier = TinyClassifier.Create("a", "b", "c");
        using ITrainingTask labeled = TrainingTaskFactory.Create(classifier, Labeled(30));
        LoKrEvaluation evaluation = Evaluator.Evaluate(classifier, labeled, 8);
        IReadOnlyList<RowScore> rows = RowScores.Compute(classifier, labeled, 8);
        Assert.Equal(30, rows.Count);
        foreach (EvaluationMetric metric in (EvaluationMetric[])[EvaluationMetric.Loss, EvaluationMetric.Accuracy, EvaluationMetric.F1])
        {
            Assert.Equal(evaluation.ValueOf(metric), new RowMetric(metric, rows).Value, 1e-6);
        }

        using LoKrModel tagger = TinyClassifier.Create("a", "b", "c");
        using ITrainingTask tagged = TrainingTaskFactory.Create(tagger, Tagged(30));
        evaluation = Evaluator.Evaluate(tagger, tagged, 8);
        rows = RowScores.Compute(tagger, tagged, 8);
        foreach (EvaluationMetric metric in Enum.GetValues<EvaluationMetric>().Where(static metric => metric.IsOfLabels() && metric is not EvaluationMetric.MatthewsCorrelation))
        {
            Assert.Equal(evaluation.ValueOf(metric), new RowMetric(metric, rows).Value, 1e-12);
        }

        ErrorAssert.Throws(ErrorIds.MetricUnavailable, () => _ = new RowMetric(EvaluationMetric.MatthewsCorrelation, rows), "Matthews");

        using LoKrModel language = TinyLanguageModel.Create();
        using ITrainingTask texts = TrainingTaskFactory.Create(language, [.. Enumerable.Range(1, 11).Select(static i => Rows.Pair("q ", new string('x', i)))]);
        evaluation = Evaluator.Evaluate(language, texts, 4);
        rows = RowScores.Compute(language, texts, 4);
        Assert.Equal(evaluation.TokenCount, rows.Sum(static row => row.LossCount));
        Assert.Equal(evaluation.Perplexity!.Value, new RowMetric(EvaluationMetric.Perplexity, rows).Value, 1e-4);
        ErrorAssert.Throws(ErrorIds.MetricUnavailable, () => _ = new RowMetric(EvaluationMetric.F1, rows), "macro F1");
    }

    [Fact]
    public void Decisions_on_several_labels_are_compared_and_every_label_has_its_own_figures()
    {
        // 100 rows with the labels 0 and 1; the challenger finds 1 in 40 more of them, and loses 0 in 5.
        RowScore[] champion = [.. Enumerable.Range(0, 100).Select(static i => Decided(true, i < 50))];
        RowScore[] challenger = [.. Enumerable.Range(0, 100).Select(static i => Decided(i >= 5, i < 90))];
        LoKrGateResult result = PromotionGate.Decide(champion, challenger, new() { Metric = EvaluationMetric.MicroF1, MaximumRegression = 0.01 }, ["use", "role"]);
        Assert.Equal("Bootstrap", result.Test);
        Assert.Equal(2 * 150.0 / (150 + 200), result.ChampionValue, 1e-12);
        Assert.Equal(2 * 185.0 / (185 + 200), result.ChallengerValue, 1e-12);
        Assert.Equal(["use", "role"], result.Labels.Select(static label => label.Label));
        Assert.Equal([(0, 5), (40, 0)], result.Labels.Select(static label => (label.CorrectedCount, label.BrokenCount)));
        Assert.Equal([true, false], result.Labels.Select(static label => label.IsRegression));
        Assert.False(result.Passed);

        result = PromotionGate.Decide(champion, challenger, new() { MaximumRegression = 0.06 });
        Assert.Equal((EvaluationMetric.Accuracy, "McNemar"), (result.Metric, result.Test));
        Assert.Equal((0.5, 0.85), (result.ChampionValue, result.ChallengerValue));
        Assert.Equal((40, 5), (result.CorrectedCount, result.BrokenCount));
        Assert.True(result.Passed);

        static RowScore Decided(bool first, bool second) => new(1, 1) { Decisions = [new(true, first), new(true, second)] };
    }

    [Fact]
    public void Rankings_are_compared_by_queries()
    {
        // 30 queries with three texts each: the champion puts the relevant one second, the challenger first for two of three queries.
        RowScore[] champion = [.. Ranked(static _ => 1)];
        RowScore[] challenger = [.. Ranked(static query => query % 3 == 0 ? 1 : 3)];
        LoKrGateResult result = PromotionGate.Decide(champion, challenger, new() { Metric = EvaluationMetric.MrrAt10 });
        Assert.Equal((30, "Bootstrap"), (result.RowCount, result.Test));
        Assert.Equal(0.5, result.ChampionValue, 1e-12);
        Assert.Equal((0.5 * 10 / 30) + (20.0 / 30), result.ChallengerValue, 1e-12);
        Assert.Empty(result.Labels);
        Assert.True(result.Passed);
        Assert.Contains("30 queries", result.Reasons[0], StringComparison.Ordinal);
        Assert.False(PromotionGate.Decide(champion, champion, new() { Metric = EvaluationMetric.NdcgAt10 }).Passed);
        ErrorAssert.Throws(ErrorIds.MetricUnavailable, () => PromotionGate.Decide([.. Row(0, true, 30)], [.. Row(0, true, 30)], new() { Metric = EvaluationMetric.NdcgAt10 }), "nDCG@10");

        static IEnumerable<RowScore> Ranked(Func<int, double> score) => Enumerable.Range(0, 90).Select(i =>
            new RowScore(1, 1) { Ranked = i % 3 == 0 ? new(i / 3, true, score(i / 3)) : new(i / 3, false, i % 3 == 1 ? 2 : 0) });
    }

    [Theory]
    [InlineData(EvaluationMetric.Accuracy, 300, 0.9)]
    [InlineData(EvaluationMetric.F1, 45, 0.7)]
    [InlineData(EvaluationMetric.Loss, 40, 0.7)]
    [InlineData(EvaluationMetric.Loss, PromotionGate.MinimumRows, 0.7)]
    public void An_equal_model_is_promoted_in_at_most_five_of_a_hundred_nights(EvaluationMetric metric, int rows, double accuracy) =>
        Assert.InRange(Promotions(metric, rows, _ => (accuracy, 1), _ => (accuracy, 1)), 0, Nights / 20);

    /// <summary>The rate of promotions is the power of the test, summed over all outcomes.</summary>
    [Theory]
    [InlineData(200, 0.80, 0.90)]
    [InlineData(400, 0.85, 0.90)]
    public void A_better_model_is_promoted_at_the_rate_of_the_power_of_the_test(int rows, double champion, double challenger)
    {
        double power = Power(rows, (1 - champion) * challenger, champion * (1 - challenger));
        Assert.InRange(power, 0.3, 0.95);
        int promoted = Promotions(EvaluationMetric.Accuracy, rows, _ => (champion, 1), _ => (challenger, 1));

        // Four standard deviations of a thousand nights.
        Assert.Equal(power, promoted / (double)Nights, 4 * Math.Sqrt(power * (1 - power) / Nights));
    }

    [Fact]
    public void A_lower_loss_is_promoted_at_the_rate_of_the_power_of_the_test()
    {
        // The differences of losses have the mean 0.1 and the standard deviation 0.5 on 100 rows: the mean is two standard errors above 0.
        Random random = new(5);
        int promoted = 0;
        for (int night = 0; night < Nights; night++)
        {
            RowScore[] champion = [.. Enumerable.Range(0, 100).Select(_ => new RowScore(1 + random.NextDouble(), 1))];
            RowScore[] challenger = [.. champion.Select(row => row with { LossSum = row.LossSum - 0.1 - (0.5 * Normal(random)) })];
            promoted += Decide(champion, challenger, EvaluationMetric.Loss).Passed ? 1 : 0;
        }

        // P(Z > 1.96 - 2) = 0.516.
        Assert.Equal(0.516, promoted / (double)Nights, 0.065);
    }

    [Fact]
    public void The_bootstrap_depends_only_on_rows_and_seed_and_covers_the_difference()
    {
        Random random = new(3);
        RowScore[] champion = [.. Enumerable.Range(0, 200).Select(_ => new RowScore(2 + Normal(random), 1))];
        RowScore[] challenger = [.. champion.Select(row => row with { LossSum = row.LossSum - 0.2 + (0.1 * Normal(random)) })];
        (RowMetric first, RowMetric second) = (new(EvaluationMetric.Loss, champion), new(EvaluationMetric.Loss, challenger));
        PairedBootstrap one = PairedBootstrap.Compare(first, second, 0.95, 2000, seed: 4);
        Assert.Equal(one, PairedBootstrap.Compare(first, second, 0.95, 2000, seed: 4));
        Assert.NotEqual(one, PairedBootstrap.Compare(first, second, 0.95, 2000, seed: 5));

        // ± 1.96 · 0.1 / sqrt(200) around 0.2.
        double mean = first.Value - second.Value;
        Assert.Equal(mean - 0.0139, one.LowerBound, 0.003);
        Assert.Equal(mean + 0.0139, one.UpperBound, 0.003);
        Assert.Equal(2.0 / 2001, one.PValue, 1e-12);
        Assert.Equal(1, PairedBootstrap.Compare(first, first, 0.95, 200).PValue);
    }

    [Fact]
    public void A_verdict_names_every_objection()
    {
        // Of label 0 all 50 are corrected, of label 1 five of 50 are broken.
        RowScore[] champion = [.. Row(0, false, 50), .. Row(1, true, 50)];
        RowScore[] challenger = [.. Row(0, true, 50), .. Row(1, false, 5), .. Row(1, true, 45)];
        GateOptions options = new() { MaximumRegression = 0.1, MinimumImprovement = 0.45 };
        LoKrGateResult passed = PromotionGate.Decide(champion, challenger, options, ["odd", "even"]);
        Assert.True(passed.Passed);
        Assert.Equal((0.5, 0.95, 50, 5, "McNemar", 0), (passed.ChampionValue, passed.ChallengerValue, passed.CorrectedCount, passed.BrokenCount, passed.Test, passed.ExitCode));
        Assert.Contains("from 0.5000 to 0.9500 on 100 rows, better by 0.4500", Assert.Single(passed.Reasons), StringComparison.Ordinal);
        Assert.Equal(["odd +1.0000", "even -0.1000"], passed.Labels.Select(static label => label.ToString()));

        LoKrGateResult refused = PromotionGate.Decide(champion, challenger, options with { MaximumRegression = 0.09, MinimumImprovement = 0.46 }, ["odd", "even"]);
        Assert.False(refused.Passed);
        Assert.Equal(RunExitCodes.NotBetter, refused.ExitCode);
        Assert.Equal(2, refused.Reasons.Count);
        Assert.Contains("0.4600 is asked for", refused.Reasons[0], StringComparison.Ordinal);
        Assert.Contains("'even' went from 1.0000 to 0.9000 on 50 rows", refused.Reasons[1], StringComparison.Ordinal);

        LoKrGateResult chance = PromotionGate.Decide(champion, [.. Row(0, true, 4), .. Row(0, false, 46), .. Row(1, true, 50)]);
        Assert.Equal(0.125, chance.PValue, 1e-12);
        Assert.Contains("may be chance", Assert.Single(chance.Reasons), StringComparison.Ordinal);
        Assert.Contains("it is worse", PromotionGate.Decide(challenger, champion).Reasons[0], StringComparison.Ordinal);
        Assert.Contains("no better", Assert.Single(PromotionGate.Decide(champion, champion).Reasons), StringComparison.Ordinal);

        RowScore[] few = [.. Enumerable.Range(0, 19).Select(static _ => new RowScore(1, 1))];
        Assert.Contains("too few", Assert.Single(PromotionGate.Decide(few, [.. few.Select(static row => row with { LossSum = 0.5 })]).Reasons), StringComparison.Ordinal);
        ErrorAssert.Throws(ErrorIds.InvalidArgument, () => PromotionGate.Decide(champion, challenger, new() { Confidence = 1 }), "Confidence is 1");
    }

    [Fact]
    public void Adapters_of_a_model_of_files_and_of_a_registry_are_compared_and_the_model_is_as_before()
    {
        using LoKrModel model = TinyClassifier.Create("a", "b");
        LoKrAdapter old = model.AddAdapter(Config(), "old", seed: 1);
        DataRow[] rows = Labeled(48, "a", "b");
        string file = _folder["new"];
        using (ITrainingTask task = TrainingTaskFactory.Create(model, rows))
        {
            model.AddAdapter(Config(), "new", seed: 2);
            model.SetActiveAdapters(["new"]);
            Trainer.Run(model, task, null, new() { AdapterName = "new", Epochs = 30, BatchSize = 8, LearningRate = 5e-2, Seed = 1 });
        }

        AdapterExporter.Export(model, "new", file, AdapterLayout.Peft);
        LoKrAdapterVersion version = new AdapterRegistry(_folder["registry"]).Register("tickets", file);
        model.RemoveAdapter("new");
        model.SetActiveAdapters(["old"]);
        model.SetAdaptersEnabled(false);

        LoKrGateResult better = PromotionGate.Evaluate(model, AdapterReference.OfModel(model, "old"), AdapterReference.OfFile(file), rows);
        LoKrGateResult first = PromotionGate.Evaluate(model, null, AdapterReference.OfFile(version.Path), rows);
        LoKrGateResult worse = PromotionGate.Evaluate(model, AdapterReference.OfFile(version.Path), AdapterReference.OfModel(model, "old"), rows);
        Assert.True(better.Passed, better.ToString());
        Assert.True(first.Passed, first.ToString());
        Assert.Null(first.Champion);
        Assert.Equal(["a", "b"], first.Labels.Select(static label => label.Label));
        Assert.False(worse.Passed);
        Assert.Equal(-better.Improvement, worse.Improvement, 12);

        Assert.Equal(["old"], model.Adapters.Select(static adapter => adapter.Name));
        Assert.Equal(["old"], model.ActiveAdapters);
        Assert.False(model.AdaptersEnabled);
        Assert.Same(old, model.Adapters[0]);
        model.SetAdaptersEnabled(true);
        model.Merge();
        ErrorAssert.Throws(ErrorIds.AdapterMerged, () => PromotionGate.Evaluate(model, null, AdapterReference.OfFile(file), rows));
    }

    [Fact]
    public void Language_models_are_compared_by_perplexity_and_a_limit_for_labels_has_no_effect()
    {
        using LoKrModel model = TinyLanguageModel.Create();
        model.AddAdapter(Config("lm_head"), "new", seed: 2);
        DataRow[] rows = [.. Enumerable.Range(0, 30).Select(static i => Rows.Pair($"{i % 7}: ", $"{(char)('a' + (i % 7))}{(char)('a' + (i % 5))}"))];
        using (ITrainingTask task = TrainingTaskFactory.Create(model, rows))
        {
            Trainer.Run(model, task, null, new() { AdapterName = "new", Epochs = 10, BatchSize = 8, LearningRate = 2e-2, Seed = 1 });
        }

        LoKrGateResult result = PromotionGate.Evaluate(model, null, AdapterReference.OfModel(model, "new"), rows, new() { MaximumRegression = 0.1, Resamples = 500 });
        Assert.True(result.Passed, result.ToString());
        Assert.Equal((EvaluationMetric.Perplexity, "Bootstrap"), (result.Metric, result.Test));
        Assert.True(result.ChallengerValue < result.ChampionValue);
        Assert.Equal(result.ChampionValue - result.ChallengerValue, result.Improvement, 12);
        Assert.InRange(result.Improvement, result.LowerBound, result.UpperBound);
        Assert.Empty(result.Labels);
        Assert.Contains(result.Warnings, static warning => warning.Contains("no effect", StringComparison.Ordinal));
        ErrorAssert.Throws(ErrorIds.MetricUnavailable, () =>
            PromotionGate.Evaluate(model, null, AdapterReference.OfModel(model, "new"), rows, new() { Metric = EvaluationMetric.Accuracy }), "accuracy");
    }

    private static LoKrConfig Config(string head = "classifier") => new() { R = 4, TargetModules = ModuleSelector.FromNames(["mix"]), ModulesToSave = [head] };

    private static DataRow[] Labeled(int count, params string[] labels) =>
        [.. Enumerable.Range(0, count).Select(i => Rows.Labeled($"{(labels.Length == 0 ? "text" : i % labels.Length == 0 ? "xyx" : "uvw")} {i}", labels.Length == 0 ? "abc"[i % 3].ToString() : labels[i % labels.Length], i))];

    private static DataRow[] Tagged(int count) =>
        [.. Enumerable.Range(0, count).Select(static i => Rows.Labeled($"text {i}", ((string[])["a", "b", "c"]).Where((_, label) => (i >> label) % 2 == 0).ToArray(), i))];

    private static IEnumerable<RowScore> Row(int label, bool isRight, int count) => Enumerable.Repeat(new RowScore(1, 1, label, isRight ? label : 1 - label), count);

    private static LoKrGateResult Decide(RowScore[] champion, RowScore[] challenger, EvaluationMetric metric) =>
        PromotionGate.Decide(champion, challenger, new() { Metric = metric, Resamples = metric is EvaluationMetric.Accuracy ? 100 : 200 });

    // Each row is drawn anew: how likely the answer is right, and the mean of an exponential loss.
    private static int Promotions(EvaluationMetric metric, int count, Func<int, (double Accuracy, double Loss)> champion, Func<int, (double Accuracy, double Loss)> challenger)
    {
        Random random = new(11);
        int promoted = 0;
        for (int night = 0; night < Nights; night++)
        {
            RowScore[] first = [.. Enumerable.Range(0, count).Select(i => Draw(i % 3, champion(i)))];
            RowScore[] second = [.. Enumerable.Range(0, count).Select(i => Draw(i % 3, challenger(i)))];
            promoted += Decide(first, second, metric).Passed ? 1 : 0;
        }

        return promoted;

        RowScore Draw(int label, (double Accuracy, double Loss) model) => new(
            -Math.Log(1 - random.NextDouble()) * model.Loss, 1, label, random.NextDouble() < model.Accuracy ? label : (label + 1 + random.Next(2)) % 3);
    }

    private static double Normal(Random random) => Math.Sqrt(-2 * Math.Log(1 - random.NextDouble())) * Math.Cos(2 * Math.PI * random.NextDouble());

    // Over the number of rows that tell the models apart, and how many of them the challenger gets right.
    private static double Power(int rows, double corrected, double broken)
    {
        double power = 0;
        for (int different = 0; different <= rows; different++)
        {
            for (int right = (different / 2) + 1; right <= different; right++)
            {
                if (McNemarTest.PValue(different - right, right) <= 0.05)
                {
                    power += Binomial(rows, different, corrected + broken) * Binomial(different, right, corrected / (corrected + broken));
                }
            }
        }

        return power;
    }

    private static double Binomial(int n, int k, double p)
    {
        double log = 0;
        for (int i = 1; i <= k; i++)
        {
            log += Math.Log((n - k + i) / (double)i);
        }

        return Math.Exp(log + (k * Math.Log(p)) + ((n - k) * Math.Log(1 - p)));
    }
}
