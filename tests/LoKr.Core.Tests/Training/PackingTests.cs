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

/// <summary>Short rows side by side in lines of a batch. Losses of every family are in LoKr.Models.Tests.</summary>
public sealed class PackingTests
{
    private static readonly TrainingOptions s_options = new() { Epochs = 2, BatchSize = 2, LearningRate = 1e-2, Seed = 1, Packing = true };

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Fact]
    public void Every_row_is_in_exactly_one_line_and_no_line_is_longer_than_the_capacity()
    {
        int[] lengths = [.. Enumerable.Range(0, 203).Select(i => 1 + ((i * 7919) % 61))];
        IReadOnlyList<int[]> lines = RowPacking.Pack(lengths, 61);
        Assert.Equal(Enumerable.Range(0, lengths.Length), lines.SelectMany(line => line).Order());
        Assert.All(lines, line => Assert.InRange(line.Sum(row => lengths[row]), 1, 61));
        Assert.InRange(lines.Count, (lengths.Sum() + 60) / 61, 1.1 * lengths.Sum() / 61);
    }

    [Fact]
    public void A_row_goes_into_the_fullest_line_that_has_room_for_it()
    {
        // 7 and 6 begin lines; 4 fits the second only and fills it, 3 fills the first, and 2 begins a third.
        Assert.Equal([[1, 3], [0, 4], [2]], RowPacking.Pack([6, 7, 2, 3, 4], 10));
        Assert.Throws<ArgumentOutOfRangeException>(() => RowPacking.Pack([11], 10));
    }

    [Fact]
    public void A_packed_batch_has_the_positions_of_every_text_and_the_targets_of_all()
    {
        using LoKrModel model = TinyLanguageModel.Create();
        using CausalLanguageTask task = new(model, [Rows.Pair("pq", "xy"), Rows.Text("abcdef"), Rows.Pair("p", "z")], maxLength: 10);
        using ITrainingTask packed = task.Pack()!;
        Assert.Equal((3, 2, task.DataHash), (packed.RowCount, packed.LineCount, packed.DataHash));
        LanguageBatch batch = Assert.IsType<LanguageBatch>(Assert.Single(packed.Batches(new BatchOrder(4, Bucket: false))));
        Assert.Equal([1, 'a', 'b', 'c', 'd', 'e', 'f', 2, 0, 0, 1, 'p', 'q', 'x', 'y', 2, 1, 'p', 'z', 2], batch.Tokens.Ids);
        Assert.Equal([0, 1, 2, 3, 4, 5, 6, 7, 0, 0, 0, 1, 2, 3, 4, 5, 0, 1, 2, 3], batch.TextPositions!.Ids);
        Assert.Equal(['a', 'b', 'c', 'd', 'e', 'f', 2, 'x', 'y', 2, 'z', 2], batch.Targets);
        Assert.Equal([0, 1, 2, 3, 4, 5, 6, 12, 13, 14, 17, 18], batch.Positions);
        Assert.Equal((3, 18L, 12L), (batch.RowCount, batch.UnitCount, batch.LossCount));
    }

    [Fact]
    public void Without_a_length_lines_are_as_long_as_the_longest_row()
    {
        using LoKrModel model = TinyLanguageModel.Create();
        using CausalLanguageTask task = new(model, [Rows.Text("abcd"), Rows.Text("a"), Rows.Text("b"), Rows.Text("abc")]);
        using ITrainingTask packed = task.Pack()!;
        Assert.Equal((3, 18), (packed.LineCount, packed.LargestBatch(8)));
    }

    [Fact]
    public void The_scores_of_packed_rows_are_those_of_each_row()
    {
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGrad = no_grad();
        using LoKrModel model = TinyLanguageModel.Create();
        using CausalLanguageTask task = new(model, Texts(6), maxLength: 24);
        using ITrainingTask packed = task.Pack()!;
        double[] expected = [.. Scores(task).Order()];
        double[] actual = [.. Scores(packed).Order()];
        Assert.Equal(6, actual.Length);
        Assert.All(expected.Zip(actual), static pair => TensorAssert.Close(pair.First, pair.Second, 1e-5, "loss"));

        double[] Scores(ITrainingTask one) => [.. one.Batches(new BatchOrder(8)).SelectMany(batch => one.ScoreRows(model, batch)).Select(static score => score.LossSum)];
    }

    [Fact]
    public void A_run_has_a_step_for_every_batch_of_lines_and_the_plan_says_so()
    {
        using LoKrModel model = Adapted();
        using CausalLanguageTask task = new(model, Texts(40), maxLength: 32);
        TrainingPlan plan = Trainer.Plan(model, task, s_options);
        Assert.Equal((40, task.Pack()!.LineCount), (plan.RowCount, plan.LineCount));
        Assert.True(plan.LineCount <= 10);
        Assert.Contains($"on 40 rows packed into {plan.LineCount} lines;", plan.ToString(), StringComparison.Ordinal);
        LoKrTrainingResult result = Trainer.Run(model, task, null, s_options, null, Token);
        Assert.Equal(2 * ((plan.LineCount + 1) / 2), result.History.Count);
        Assert.Equal(plan.TotalSteps, result.History.Count);
        Assert.DoesNotContain("packed", Trainer.Plan(model, task, s_options with { Packing = false }).ToString(), StringComparison.Ordinal);
    }

    [Fact]
    public void A_step_over_all_rows_is_the_same_with_and_without_packing()
    {
        TrainingOptions options = s_options with { Epochs = 1, BatchSize = 64 };
        LoKrTrainingStep[] steps = [.. new[] { false, true }.Select(packing =>
        {
            using LoKrModel model = Adapted();
            using CausalLanguageTask task = new(model, Texts(40), maxLength: 32);
            return Assert.Single(Trainer.Run(model, task, null, options with { Packing = packing }, null, Token).History);
        })];
        TensorAssert.Close(steps[0].Loss, steps[1].Loss, 1e-6, "loss");
        TensorAssert.Close(steps[0].GradientNorm, steps[1].GradientNorm, 1e-5, "norm of the gradient");
    }

    [Fact]
    public void Rows_of_a_model_that_cannot_tell_them_apart_are_not_packed()
    {
        using LoKrModel model = TinyClassifier.Create("a", "b");
        model.AddAdapter(new LoKrConfig { R = 2, TargetModules = ModuleSelector.FromNames(["mix"]) });
        using TextClassificationTask task = new(model, [Rows.Labeled("x", "a")]);
        LoKrException refused = Assert.Throws<LoKrException>(() => Trainer.Plan(model, task, s_options));
        Assert.Equal((ErrorIds.TrainingOptionInvalid, nameof(TrainingOptions.Packing)), (refused.ErrorId, refused.Target));
        Assert.Equal(ErrorIds.TrainingOptionInvalid, Assert.Throws<LoKrException>(() => Trainer.Run(model, task, null, s_options, null, Token)).ErrorId);
    }

    private static LoKrModel Adapted()
    {
        random.manual_seed(5);
        LoKrModel model = TinyLanguageModel.Create();
        model.AddAdapter(new LoKrConfig { R = 2, TargetModules = ModuleSelector.FromNames(["mix"]), InitWeights = InitWeights.Random }, seed: 2);
        return model;
    }

    private static DataRow[] Texts(int count) => [.. Enumerable.Range(0, count).Select(static i => Rows.Text(new string((char)('a' + (i % 20)), 1 + ((i * 5) % 9)), i + 1))];
}
