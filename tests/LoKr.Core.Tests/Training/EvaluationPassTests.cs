using LoKr.Core.Data;
using LoKr.Core.Model;
using LoKr.Core.Tests.Distributed;
using LoKr.Core.Training;
using Xunit;

namespace LoKr.Core.Tests.Training;

public sealed class EvaluationPassTests
{
    [Fact]
    public void Sums_and_rows_walk_the_same_batches_and_leave_the_model_as_it_was()
    {
        using LoKrModel model = TinyClassifier.Create("odd", "even");
        model.Module.train();
        using ITrainingTask task = new TextClassificationTask(model, Numbers(10));
        (List<double> ofSums, List<double> ofRows) = ([], []);
        LoKrEvaluation evaluation = Evaluator.Evaluate(model, task, 3, ofSums.Add, TestContext.Current.CancellationToken);
        IReadOnlyList<RowScore> rows = RowScores.Compute(model, task, 3, ofRows.Add, TestContext.Current.CancellationToken);
        Assert.Equal([0.25, 0.5, 0.75, 1], ofSums);
        Assert.Equal(ofSums, ofRows);
        Assert.Equal(evaluation.Loss, rows.Average(static row => row.LossSum), 1e-6);
        Assert.True(model.Module.training);
        Assert.True(TorchSharp.torch.is_grad_enabled());
    }

    [Fact]
    public void Each_worker_takes_its_batches_and_counts_all()
    {
        (string? Result, Exception? Error)[] all = ThreadWorkers.Run(2, static group =>
        {
            using LoKrModel model = TinyClassifier.Create("odd", "even");
            using ITrainingTask task = new TextClassificationTask(model, Numbers(10));
            using EvaluationPass pass = new([model]);
            int taken = 0;
            pass.Run(task, 4, group, _ => taken++, onProgress: null, CancellationToken.None);
            return FormattableString.Invariant($"{taken} of {pass.BatchCount} batches, {pass.LossCount} rows");
        });
        Assert.Equal(["2 of 3 batches, 10 rows", "1 of 3 batches, 10 rows"], all.Select(static one => one.Result));
    }

    private static DataRow[] Numbers(int count) => [.. Enumerable.Range(0, count).Select(static i => Rows.Labeled(FormattableString.Invariant($"{i}"), i % 2 == 0 ? "even" : "odd", i + 1))];
}
