using System.Collections.Concurrent;
using LoKr.Core.Configuration;
using LoKr.Core.Data;
using LoKr.Core.Errors;
using LoKr.Core.Model;
using LoKr.Core.Training;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Training;

public sealed class TextTaskTests
{
    [Fact]
    public void A_label_the_model_does_not_know_is_named_with_its_row_and_the_known_ones()
    {
        using LoKrModel model = TinyClassifier.Create("red", "green");
        LoKrException e = Assert.Throws<LoKrException>(() => new TextClassificationTask(model, [Rows.Labeled("a", "red"), Rows.Labeled("b", "Blue", 7)]));
        Assert.Equal(ErrorIds.LabelUnknown, e.ErrorId);
        Assert.Contains("'Blue' of t.jsonl:7", e.Message, StringComparison.Ordinal);
        Assert.Contains("red, green", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Labels_without_names_are_known_by_number()
    {
        using LoKrModel model = TinyClassifier.Create("LABEL_0", "LABEL_1");
        using TextClassificationTask task = new(model, [Rows.Labeled("a", 1L), Rows.Labeled("b", "0"), Rows.Labeled("c", "LABEL_1")]);
        Assert.Equal([1L, 0, 1], Only<ClassificationBatch>(task).Labels.Select(static label => label.Index));
        Assert.Equal(ErrorIds.LabelUnknown, Assert.Throws<LoKrException>(() => new TextClassificationTask(model, [Rows.Labeled("a", 2L)])).ErrorId);
    }

    [Fact]
    public void Numbers_are_not_labels_of_a_model_with_names()
    {
        using LoKrModel model = TinyClassifier.Create("red", "green");
        Assert.Equal(ErrorIds.LabelUnknown, Assert.Throws<LoKrException>(() => new TextClassificationTask(model, [Rows.Labeled("a", 1L)])).ErrorId);
    }

    [Fact]
    public void A_missing_column_is_told_with_those_found_and_those_expected()
    {
        using LoKrModel model = TinyClassifier.Create("red", "green");
        LoKrException e = Assert.Throws<LoKrException>(() => new TextClassificationTask(model, [Rows.Pair("a", "b", 4)]));
        Assert.Equal(ErrorIds.DataColumnMissing, e.ErrorId);
        Assert.Contains("t.jsonl:4 has no column 'text'; its columns are: prompt, completion. The required columns are text and label.", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Values_of_the_wrong_type_and_empty_data_are_refused()
    {
        using LoKrModel model = TinyClassifier.Create("red", "green");
        DataRow wrong = new(new Dictionary<string, object?> { ["text"] = 5L, ["label"] = "red" }, "t.jsonl:9");
        Assert.Equal(ErrorIds.DataValueInvalid, Assert.Throws<LoKrException>(() => new TextClassificationTask(model, [wrong])).ErrorId);
        Assert.Equal(ErrorIds.DataValueInvalid, Assert.Throws<LoKrException>(() => new TextClassificationTask(model, [Rows.Labeled("a", null)])).ErrorId);
        Assert.Equal(ErrorIds.DataEmpty, Assert.Throws<LoKrException>(() => new TextClassificationTask(model, [])).ErrorId);
        Assert.Equal(ErrorIds.MaxLengthTooLarge, Assert.Throws<LoKrException>(() => new TextClassificationTask(model, [Rows.Labeled("a", "red")], 33)).ErrorId);
    }

    [Theory]
    [InlineData("", "empty")]
    [InlineData(" \t ", "blank")]
    public void An_empty_or_blank_text_is_refused_with_its_row(string text, string found)
    {
        using LoKrModel classifier = TinyClassifier.Create("red", "green");
        using LoKrModel language = TinyLanguageModel.Create();
        ErrorAssert.Throws(ErrorIds.DataValueInvalid, () => new TextClassificationTask(classifier, [Rows.Labeled("a", "red"), Rows.Labeled(text, "red", 3)]).Dispose(), "t.jsonl:3", found);
        ErrorAssert.Throws(ErrorIds.DataValueInvalid, () => new CausalLanguageTask(language, [Rows.Text("a"), Rows.Text(text, 3)]).Dispose(), "t.jsonl:3", found);
        ErrorAssert.Throws(ErrorIds.DataValueInvalid, () => new CausalLanguageTask(language, [Rows.Pair("a", text, 3)]).Dispose(), "completion of t.jsonl:3", found);
        using CausalLanguageTask unconditional = new(language, [Rows.Pair(text, "a")]);
        Assert.Equal(1, unconditional.RowCount);
    }

    [Fact]
    public void Texts_to_classify_that_are_cut_are_counted()
    {
        using LoKrModel model = TinyClassifier.Create("red", "green");
        DataRow[] rows = [Rows.Labeled("abcdefghi", "red"), Rows.Labeled("abcde", "red"), Rows.Labeled("abc", "green")];
        using TextClassificationTask cut = new(model, rows, 5);
        Assert.Equal("2 of 3 texts are cut to 5 tokens; the longest has 10.", Assert.Single(cut.Warnings));
        Assert.Equal(5, Only<ClassificationBatch>(cut).Tokens.Length);
        using TextClassificationTask whole = new(model, rows);
        Assert.Empty(whole.Warnings);

        List<CutText> told = [];
        LoKr.Core.Inference.TextClassifier.Classify(model, ["abcdefghi", "abc"], 5, told.Add);
        Assert.Equal((10, 5), (Assert.Single(told).TokenCount, told[0].Ids.Length));
    }

    [Fact]
    public void Columns_are_found_whatever_their_case()
    {
        using LoKrModel model = TinyClassifier.Create("red", "green");
        DataRow row = new(new Dictionary<string, object?> { ["Text"] = "a", ["LABEL"] = "green" }, "object 1");
        using TextClassificationTask task = new(model, [row]);
        Assert.Equal(1, Assert.Single(Only<ClassificationBatch>(task).Labels).Index);
    }

    [Fact]
    public void Batches_are_padded_on_the_right_to_the_longest()
    {
        using LoKrModel model = TinyClassifier.Create("red", "green");
        using TextClassificationTask task = new(model, [Rows.Labeled("abcd", "red"), Rows.Labeled("x", "green")]);
        ClassificationBatch batch = Only<ClassificationBatch>(task);
        Assert.Equal([1, 'a', 'b', 'c', 'd', 1, 'x', 0, 0, 0], batch.Tokens.Ids);
        Assert.Equal([1, 1, 1, 1, 1, 1, 1, 0, 0, 0], batch.Tokens.Mask);
        Assert.Equal(7, batch.UnitCount);
        Assert.Equal(10, task.LargestBatch(16));
    }

    [Fact]
    public void Only_the_completion_and_the_end_carry_loss()
    {
        using LoKrModel model = TinyLanguageModel.Create();
        using CausalLanguageTask task = new(model, [Rows.Pair("pq", "xy")]);
        LanguageBatch batch = Only<LanguageBatch>(task);
        Assert.Equal([1, 'p', 'q', 'x', 'y', 2], batch.Tokens.Ids);
        Assert.Equal(['x', 'y', 2], batch.Targets);
        Assert.Equal([2, 3, 4], batch.Positions);
    }

    [Fact]
    public void Every_token_of_a_text_but_the_first_carries_loss()
    {
        using LoKrModel model = TinyLanguageModel.Create();
        using CausalLanguageTask task = new(model, [Rows.Text("xy")]);
        Assert.Equal(['x', 'y', 2], Only<LanguageBatch>(task).Targets);
    }

    [Fact]
    public void A_prompt_keeps_its_own_tokens_where_the_tokenizer_would_join_it_with_the_completion()
    {
        using LoKrModel model = TinyLanguageModel.Create(new TinyTokenizer { JoinsAb = true });
        using CausalLanguageTask task = new(model, [Rows.Pair("pa", "bab")]);
        Assert.Equal([1, 'p', 'a', 'b', 127, 2], Only<LanguageBatch>(task).Tokens.Ids);
    }

    [Fact]
    public void Rows_are_cut_on_the_right_and_those_without_loss_left_out_by_name()
    {
        using LoKrModel model = TinyLanguageModel.Create();
        using CausalLanguageTask task = new(model, [Rows.Pair("abcdefgh", "x", 1), Rows.Pair("ab", "cdefgh", 2), Rows.Pair("a", "b", 3)], maxLength: 6);
        Assert.Equal(2, task.RowCount);
        Assert.Contains(task.Warnings, warning => warning.Contains("1 of 3", StringComparison.Ordinal) && warning.Contains("t.jsonl:1.", StringComparison.Ordinal));
        Assert.Contains("1 of 3 rows are cut to 6 tokens; the longest has 10.", task.Warnings);
        LoKrException e = Assert.Throws<LoKrException>(() => new CausalLanguageTask(model, [Rows.Pair("abcdefgh", "x")], maxLength: 6));
        Assert.Equal(ErrorIds.DataWithoutLoss, e.ErrorId);
    }

    [Fact]
    public void The_language_loss_is_the_mean_over_labels_shifted_by_one()
    {
        using var scope = NewDisposeScope();
        using LoKrModel model = TinyLanguageModel.Create();
        using CausalLanguageTask task = new(model, [Rows.Pair("pq", "xyz"), Rows.Pair("p", "x"), Rows.Text("uvw")]);
        LanguageBatch batch = Only<LanguageBatch>(task);
        Tensor ids = batch.Tokens.IdsOn(CPU);

        // As transformers: labels are the ids, -100 where there is no loss; position i predicts label i + 1.
        Tensor labels = full_like(ids, -100);
        foreach ((int row, int start, int end) in (ReadOnlySpan<(int, int, int)>)[(0, 3, 7), (1, 2, 4), (2, 1, 5)])
        {
            labels[row, start..end] = ids[row, start..end];
        }

        Tensor logits = ((TinyLanguageModel)model.Module).Logits(ids);
        Tensor expected = nn.functional.cross_entropy(
            logits.narrow(1, 0, batch.Tokens.Length - 1).flatten(0, 1), labels.narrow(1, 1, batch.Tokens.Length - 1).flatten(), ignore_index: -100);
        TensorAssert.Close(expected, task.Loss(model, batch), 1e-6, "loss");
    }

    [Fact]
    public void Evaluation_does_not_depend_on_the_batch_size_and_leaves_modes_alone()
    {
        using LoKrModel model = TinyLanguageModel.Create();
        model.Module.train();
        using CausalLanguageTask task = new(model, [.. Enumerable.Range(1, 11).Select(i => Rows.Text(new string('x', i), i))]);
        LoKrEvaluation one = Evaluator.Evaluate(model, task, 1, TestContext.Current.CancellationToken);
        LoKrEvaluation all = Evaluator.Evaluate(model, task, 11, TestContext.Current.CancellationToken);
        TensorAssert.Close(one.Loss, all.Loss, 1e-6, "loss");
        Assert.Equal(Math.Exp(all.Loss), all.Perplexity!.Value, 6);
        Assert.Equal(Enumerable.Range(1, 11).Sum(i => i + 1), all.TokenCount);
        Assert.True(model.Module.training);
    }

    [Fact]
    public void Accuracy_is_the_share_of_right_answers()
    {
        using LoKrModel model = TinyClassifier.Create("red", "green");
        string[] texts = ["a", "b", "cd", "efg", "h"];
        long[] answers;
        using (NewDisposeScope())
        {
            answers = [.. texts.Select(text => ((TinyClassifier)model.Module).Classify(tensor(new TinyTokenizer().Encode(text).Select(id => (long)id).ToArray(), [1, text.Length + 1]), ones(1, text.Length + 1, ScalarType.Int64)).argmax(-1).ToInt64())];
        }

        // Right for the first three rows, wrong for the others.
        DataRow[] rows = [.. texts.Select((text, i) => Rows.Labeled(text, (i < 3) == (answers[i] == 0) ? "red" : "green", i))];
        using TextClassificationTask task = new(model, rows);
        LoKrEvaluation evaluation = Evaluator.Evaluate(model, task, 2, TestContext.Current.CancellationToken);
        Assert.Equal(0.6, evaluation.Accuracy!.Value, 12);
        Assert.Null(evaluation.Perplexity);
        Assert.Equal(5, evaluation.TokenCount);
    }

    [Fact]
    public void The_factory_follows_the_model()
    {
        using LoKrModel classifier = TinyClassifier.Create("red", "green");
        using LoKrModel language = TinyLanguageModel.Create();
        using LoKrModel other = new(nn.Sequential(("lin", nn.Linear(4, 4))));
        using ITrainingTask first = TrainingTaskFactory.Create(classifier, [Rows.Labeled("a", "red")], cancellationToken: TestContext.Current.CancellationToken);
        using ITrainingTask second = TrainingTaskFactory.Create(language, [Rows.Text("a")], cancellationToken: TestContext.Current.CancellationToken);
        Assert.IsType<TextClassificationTask>(first);
        Assert.IsType<CausalLanguageTask>(second);
        LoKrException e = Assert.Throws<LoKrException>(() => TrainingTaskFactory.Create(other, [Rows.Text("a")], cancellationToken: TestContext.Current.CancellationToken));
        Assert.Equal(ErrorIds.TaskUnknown, e.ErrorId);
        Assert.Contains("loss and batches of your own", e.Message, StringComparison.Ordinal);
    }

    private static T Only<T>(ITrainingTask task)
        where T : TrainingBatch => Assert.IsType<T>(Assert.Single(task.Batches(new BatchOrder(16, Bucket: false))));

    [Fact]
    public void Tokenizing_and_measuring_report_how_far_they_are()
    {
        using LoKrModel model = TinyClassifier.Create("red", "green");
        DataRow[] rows = [.. Enumerable.Range(0, 200).Select(i => Rows.Labeled("a", i % 2 == 0 ? "red" : "green"))];
        ConcurrentBag<double> tokenized = [];
        using ITrainingTask task = TrainingTaskFactory.Create(model, rows, null, null, tokenized.Add, TestContext.Current.CancellationToken);
        Assert.Equal([0.32, 0.64, 0.96], tokenized.Order());

        List<double> measured = [];
        Evaluator.Evaluate(model, task, 50, measured.Add, TestContext.Current.CancellationToken);
        Assert.Equal([0.25, 0.5, 0.75, 1], measured);
    }

    [Fact]
    public void Evaluations_of_a_training_report_how_far_they_are()
    {
        using LoKrModel model = TinyClassifier.Create("red", "green");
        using TextClassificationTask task = new(model, [.. Enumerable.Range(0, 8).Select(i => Rows.Labeled("a", i % 2 == 0 ? "red" : "green"))]);
        model.AddAdapter(new LoKrConfig { R = 2, TargetModules = ModuleSelector.FromNames(["mix"]) });
        List<double> shares = [];
        Trainer.Run(model, task, task, new() { MaxSteps = 2, BatchSize = 4, EvaluateEvery = 1, OnEvaluation = shares.Add }, null, TestContext.Current.CancellationToken);
        Assert.Equal([0.5, 1, 0.5, 1], shares);
    }
}
