using LoKr.Core.Configuration;
using LoKr.Core.Data;
using LoKr.Core.Errors;
using LoKr.Core.Metrics;
using LoKr.Core.Model;
using LoKr.Core.Training;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Training;

/// <summary>Words with tags: which tokens have labels, what the loss is taken over, what the evaluation says.</summary>
public sealed class TokenClassificationTaskTests
{
    private static readonly string[] s_tags = ["O", "B-HOST", "I-HOST", "B-PKG", "I-PKG"];

    [Fact]
    public void The_first_token_of_a_word_has_its_label()
    {
        using LoKrModel model = TinyTagger.Create(s_tags);
        using TokenClassificationTask task = new(model, [Rows.Tagged("on web1 .", "O B-HOST O")]);
        TagBatch batch = Only(task);
        Assert.Equal([1L, 3, 7], batch.Positions);
        Assert.Equal([0L, 1, 0], batch.Targets);
        Assert.Equal(3, batch.LossCount);
        Assert.Equal(TrainingMetric.EntityF1, task.Metric);
    }

    [Fact]
    public void A_tag_may_be_an_index_and_minus_100_is_none()
    {
        using LoKrModel model = TinyTagger.Create(s_tags);
        DataRow row = new(new Dictionary<string, object?> { ["words"] = new[] { "a", "b", "c" }, ["tags"] = new object[] { 3L, -100L, 4L } }, "t.jsonl:1");
        using TokenClassificationTask task = new(model, [row]);
        Assert.Equal([1L, 3], Only(task).Positions);
        Assert.Equal([3L, 4], Only(task).Targets);
        DataRow beyond = new(new Dictionary<string, object?> { ["words"] = new[] { "a" }, ["tags"] = new object[] { 5L } }, "t.jsonl:2");
        ErrorAssert.Throws(ErrorIds.LabelUnknown, () => new TokenClassificationTask(model, [beyond]).Dispose(), "'5' of t.jsonl:2");
    }

    [Fact]
    public void Labels_that_are_not_tags_of_entities_are_measured_by_accuracy()
    {
        using LoKrModel model = TinyTagger.Create("NOUN", "VERB");
        using TokenClassificationTask task = new(model, [Rows.Tagged("a b", "NOUN VERB")]);
        Assert.Equal(TrainingMetric.Accuracy, task.Metric);
    }

    [Fact]
    public void Rows_that_do_not_fit_are_named()
    {
        using LoKrModel model = TinyTagger.Create(s_tags);
        ErrorAssert.Throws(ErrorIds.LabelUnknown, () => new TokenClassificationTask(model, [Rows.Tagged("a b", "O B-USER", 4)]).Dispose(), "'B-USER' of t.jsonl:4", "O, B-HOST");
        ErrorAssert.Throws(ErrorIds.DataValueInvalid, () => new TokenClassificationTask(model, [Rows.Tagged("a b", "O", 5)]).Dispose(), "t.jsonl:5 has 2 words, but 1 tags");
        ErrorAssert.Throws(ErrorIds.DataColumnMissing, () => new TokenClassificationTask(model, [Rows.Labeled("a", "O", 6)]).Dispose(), "t.jsonl:6 has no column 'tokens'", "ner_tags");
        DataRow text = new(new Dictionary<string, object?> { ["tokens"] = "a b", ["ner_tags"] = "O O" }, "t.jsonl:7");
        ErrorAssert.Throws(ErrorIds.DataValueInvalid, () => new TokenClassificationTask(model, [text]).Dispose(), "tokens of t.jsonl:7");
        using TokenClassificationTask kept = new(model, [Rows.Tagged("a b", "O B-USER", 4), Rows.Tagged("a", "O")], reading: new() { SkipInvalid = true });
        Assert.Equal(1, kept.RowCount);
        Assert.Contains("t.jsonl:4", Assert.Single(kept.Warnings), StringComparison.Ordinal);
    }

    [Fact]
    public void A_row_whose_words_with_tags_are_cut_off_is_left_out()
    {
        using LoKrModel model = TinyTagger.Create(s_tags);
        DataRow late = new(new Dictionary<string, object?> { ["words"] = new[] { "abcdef", "g" }, ["tags"] = new object[] { -100L, 1L } }, "t.jsonl:8");
        using TokenClassificationTask task = new(model, [late, Rows.Tagged("a b", "O O")], maxLength: 5);
        Assert.Equal(1, task.RowCount);
        Assert.Contains("1 of 2 rows have no word with a tag within 5 tokens and are left out: t.jsonl:8.", task.Warnings);
        ErrorAssert.Throws(ErrorIds.DataWithoutLoss, () => new TokenClassificationTask(model, [late], maxLength: 5).Dispose());
    }

    [Fact]
    public void The_loss_of_a_step_is_the_mean_over_the_labeled_tokens_of_all_its_batches()
    {
        DataRow[] rows = [Rows.Tagged("on web1 and web2 .", "O B-HOST O B-HOST O"), Rows.Tagged("x", "B-PKG", 2), Rows.Tagged("install nginx", "O B-PKG", 3)];
        Assert.Equal(Train(batchSize: 3, accumulation: 1), Train(batchSize: 1, accumulation: 3), static (one, other) => Math.Abs(one - other) < 1e-5);

        double[] Train(int batchSize, int accumulation)
        {
            using Generator generator = random.manual_seed(3);
            using LoKrModel model = TinyTagger.Create(s_tags);
            model.AddAdapter(new LoKrConfig { R = 2, TargetModules = ModuleSelector.FromNames(["mix"]), InitWeights = InitWeights.Random }, seed: 1);
            using TokenClassificationTask task = new(model, rows);
            TrainingOptions options = new() { MaxSteps = 3, BatchSize = batchSize, GradientAccumulation = accumulation, Seed = 1 };
            return [.. Trainer.Run(model, task, null, options, null, TestContext.Current.CancellationToken).History.Select(static step => step.Loss)];
        }
    }

    [Fact]
    public void An_evaluation_has_the_figures_of_entities()
    {
        using LoKrModel model = Scripted();
        DataRow[] rows = [Rows.Tagged("h i x p", "B-HOST I-HOST O B-PKG"), Rows.Tagged("x x h", "O B-PKG B-HOST", 2), Rows.Tagged("x", "O", 3)];
        using TokenClassificationTask task = new(model, rows);
        LoKrEvaluation evaluation = Evaluator.Evaluate(model, task, 2, TestContext.Current.CancellationToken);
        EntityMetrics expected = new(
            [["B-HOST", "I-HOST", "O", "B-PKG"], ["O", "B-PKG", "B-HOST"], ["O"]],
            [["B-HOST", "I-HOST", "O", "B-PKG"], ["O", "O", "B-HOST"], ["O"]]);
        Assert.Equal((1, 0.75, expected.Micro.F1), (evaluation.EntityPrecision, evaluation.EntityRecall, evaluation.EntityF1));
        Assert.Equal((expected.Macro!.Value.F1, expected.Weighted.F1), (evaluation.F1, evaluation.WeightedF1));
        Assert.Equal((7.0 / 8, 2.0 / 3), (evaluation.Accuracy!.Value, evaluation.ExactMatch!.Value));
        Assert.Null(evaluation.MatthewsCorrelation);
        Assert.Equal(evaluation.EntityF1, evaluation.ValueOf(EvaluationMetric.EntityF1));

        LabelReport report = Evaluator.EvaluateByLabel(model, task, 2, cancellationToken: TestContext.Current.CancellationToken);
        Assert.Equal([("HOST", 2, 2, 1.0), ("PKG", 2, 1, 2.0 / 3)], report.Labels.Select(static label => (label.Label, (int)label.RowCount, (int)label.AnswerCount, label.F1)));
        Assert.Equal([("B-PKG", "O", 1)], report.Confusion.Where(static field => !field.IsRight).Select(static field => (field.Label, field.Answer, field.RowCount)));
    }

    [Fact]
    public void Scores_of_rows_give_the_metrics_of_the_evaluation()
    {
        using LoKrModel model = Scripted();
        DataRow[] rows = [Rows.Tagged("h i x p", "B-HOST I-HOST O B-PKG"), Rows.Tagged("i x h", "B-HOST B-PKG B-HOST", 2), Rows.Tagged("x", "O", 3), Rows.Tagged("p p", "B-PKG I-PKG", 4)];
        using TokenClassificationTask task = new(model, rows);
        LoKrEvaluation evaluation = Evaluator.Evaluate(model, task, 2, TestContext.Current.CancellationToken);
        IReadOnlyList<RowScore> scores = RowScores.Compute(model, task, 2, null, TestContext.Current.CancellationToken);
        Assert.Equal(evaluation.Loss, new RowMetric(EvaluationMetric.Loss, scores).Value, 1e-6);
        EvaluationMetric[] metrics =
        [
            EvaluationMetric.Accuracy, EvaluationMetric.ExactMatch, EvaluationMetric.EntityF1, EvaluationMetric.EntityPrecision, EvaluationMetric.EntityRecall,
            EvaluationMetric.StrictEntityF1, EvaluationMetric.StrictEntityPrecision, EvaluationMetric.StrictEntityRecall,
            EvaluationMetric.F1, EvaluationMetric.MicroF1, EvaluationMetric.WeightedF1, EvaluationMetric.Precision, EvaluationMetric.Recall,
        ];
        Assert.All(metrics, metric => Assert.Equal(evaluation.ValueOf(metric), new RowMetric(metric, scores).Value, 1e-12));
        Assert.NotEqual(evaluation.EntityF1, evaluation.StrictEntityF1);
        foreach (EvaluationMetric metric in (EvaluationMetric[])[EvaluationMetric.Perplexity, EvaluationMetric.MatthewsCorrelation])
        {
            ErrorAssert.Throws(ErrorIds.MetricUnavailable, () => _ = new RowMetric(metric, scores), metric.ToText());
        }
    }

    // Characters h, i and p are tagged, whatever stands beside them.
    internal static LoKrModel Scripted() => new(new TinyTagger(s_tags) { Scores = static letter => Peak(letter switch { 'h' => 1, 'i' => 2, 'p' => 3, _ => 0 }) }, tokenizer: new TinyTokenizer());

    private static double[] Peak(int label) => [.. Enumerable.Range(0, s_tags.Length).Select(i => i == label ? 2.0 : 0)];

    private static TagBatch Only(TokenClassificationTask task) => Assert.IsType<TagBatch>(Assert.Single(task.Batches(new BatchOrder(task.RowCount, Bucket: false))));
}
