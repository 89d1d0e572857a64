using LoKr.Core.Distributed;
using LoKr.Core.Errors;
using LoKr.Core.Inference;
using LoKr.Core.Model;
using LoKr.Core.Tests.Training;
using LoKr.Core.Training;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Distributed;

public sealed class SharedResultsTests
{
    [Theory]
    [InlineData(6)]
    [InlineData(7)]
    public void The_first_worker_gets_all_results_in_order_and_each_is_computed_once(int pieces)
    {
        LoKrModel[] models = [Create(5), Create(5), Create(5)];
        int[] computed = new int[pieces];
        (string? Result, Exception? Error)[] all = ThreadWorkers.Run(3, group =>
        {
            List<string> results = [];
            List<string> errors = [];
            SharedResults shared = new(group, models[group.Rank]);
            for (int piece = 0; piece < pieces; piece++)
            {
                int own = piece;
                results.AddRange(shared.Add(() => Compute(own), error => errors.Add(error.Message)).Select(static item => $"{item.Value:R}"));
            }

            results.AddRange(shared.Complete<Item>().Select(static item => $"{item.Value:R}"));
            return string.Join(" ", results) + "|" + string.Join(" ", errors);
        });

        Assert.All(all, static one => Assert.Null(one.Error));
        Assert.Equal(string.Join(" ", Enumerable.Range(0, pieces).Where(static piece => piece != 4).Select(static piece => $"{piece / 7.0:R}")) + "|", all[0].Result);
        Assert.Equal(["|Bad input.", "|"], [all[1].Result, all[2].Result]);
        Assert.All(computed, static count => Assert.Equal(1, count));

        Item Compute(int piece)
        {
            Interlocked.Increment(ref computed[piece]);
            return piece == 4 ? throw new InvalidOperationException("Bad input.") : new() { Value = piece / 7.0 };
        }
    }

    [Fact]
    public void Inputs_of_different_length_are_an_error()
    {
        LoKrModel[] models = [Create(5), Create(5)];
        (int Result, Exception? Error)[] all = ThreadWorkers.Run(2, group =>
        {
            SharedResults shared = new(group, models[group.Rank]);
            for (int piece = 0; piece < 2 + group.Rank; piece++)
            {
                shared.Add(static () => new Item(), static _ => { });
            }

            return shared.Complete<Item>().Count;
        });
        Assert.All(all, static one => Assert.Equal(ErrorIds.WorkersDiffer, Assert.IsType<LoKrException>(one.Error).ErrorId));
    }

    /// <summary>Heads that a checkpoint lacks are random on every worker, and figures of a mixture of them would mean nothing.</summary>
    [Fact]
    public void Models_that_differ_are_not_measured_together()
    {
        LoKrModel[] models = [Create(5), Create(6)];
        (LoKrEvaluation? Result, Exception? Error)[] all = ThreadWorkers.Run(2, group =>
        {
            using ITrainingTask task = new TextClassificationTask(models[group.Rank], [Rows.Labeled("abc", "odd"), Rows.Labeled("de", "even")]);
            return Evaluator.Evaluate(models[group.Rank], task, 1, group, null, CancellationToken.None);
        });
        Assert.All(all, static one => Assert.Contains("in model, ", Assert.IsType<LoKrException>(one.Error).Summary, StringComparison.Ordinal));
    }

    private static LoKrModel Create(int seed)
    {
        random.manual_seed(seed);
        return TinyClassifier.Create("odd", "even");
    }

    private sealed record Item
    {
        public double Value { get; init; }
    }
}
