using LoKr.Core.Configuration;
using LoKr.Core.Distributed;
using LoKr.Core.Errors;
using LoKr.Core.Model;
using LoKr.Core.Tests.Training;
using LoKr.Core.Training;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Distributed;

/// <summary>Training shared by workers, which are threads here: without dropout, whose generator a process has one of. Processes are in LoKr.Reliability.</summary>
public sealed class WorkerTrainingTests
{
    private static readonly TrainingOptions s_options = new() { Epochs = 2, BatchSize = 2, GradientAccumulation = 8, LearningRate = 2e-2, WeightDecay = 0.01, Seed = 1, EvaluateEvery = 3, KeepBest = true };

    /// <summary>41 rows make 21 batches: steps of 8, 8 and 5 batches, the last with a single row.</summary>
    [Theory]
    [InlineData(2)]
    [InlineData(3)]
    [InlineData(8)]
    [InlineData(9)]
    public void The_bits_do_not_depend_on_the_number_of_workers(int size)
    {
        foreach ((TinyKind kind, bool packing) in Enum.GetValues<TinyKind>().Select(static kind => (kind, false)).Append((TinyKind.Language, true)))
        {
            TrainingOptions options = s_options with { Packing = packing };
            Outcome alone = Train(kind, options, seed: 1);
            LoKrModel[] models = [.. Enumerable.Range(1, size).Select(seed => Create(kind, seed))];
            (Outcome? Result, Exception? Error)[] all = ThreadWorkers.Run(size, group => Train(models[group.Rank], options with { Workers = group }, kind));

            Assert.All(all, one =>
            {
                Assert.Null(one.Error);
                Assert.Equal(alone.Values, one.Result!.Values);
                Assert.Equal(alone.Steps, one.Result.Steps);
                Assert.Equal(alone.Evaluation, one.Result.Evaluation);
            });
        }
    }

    /// <summary>The wrong answers to a text follow from the batches, whoever has them: larger steps do not make it harder.</summary>
    [Fact]
    public void The_partners_of_other_batches_are_not_wrong_answers()
    {
        TrainingOptions options = s_options with { Epochs = 1, MaxSteps = 1, EvaluateEvery = null, KeepBest = false };
        LoKrModel[] models = [Create(TinyKind.Encoder, 1), Create(TinyKind.Encoder, 1), Create(TinyKind.Encoder, 1)];
        double[] together = [.. ThreadWorkers.Run(2, group => FirstLoss(models[group.Rank], options with { Workers = group })).Select(static one => one.Result)];
        Assert.Equal(together[0], together[1]);

        // Eight batches of two texts are not one batch of sixteen, in which each text has eight times as many wrong answers.
        double oneBatch = FirstLoss(models[2], options with { BatchSize = 16, GradientAccumulation = 1 });
        Assert.True(oneBatch > together[0] + 0.5, $"{oneBatch} of one batch, {together[0]} of eight");
    }

    [Fact]
    public void The_order_of_the_sum_is_that_of_the_tree_and_one_batch_is_its_own_sum()
    {
        Assert.NotEqual(Train(TinyKind.Classifier, s_options, 1).Values, Train(TinyKind.Classifier, s_options with { GradientAccumulation = 1 }, 1).Values);
        Assert.Equal(Train(TinyKind.Classifier, s_options, 1).Values, Train(TinyKind.Classifier, s_options, 1).Values);
    }

    [Fact]
    public void A_worker_gives_the_bytes_of_its_sums()
    {
        TrainingOptions options = s_options with { MaxSteps = 2, EvaluateEvery = null, KeepBest = false, Epochs = 1 };
        LoKrModel[] models = [.. Enumerable.Range(1, 3).Select(static seed => Create(TinyKind.Classifier, seed))];
        (long Result, Exception? Error)[] all = ThreadWorkers.Run(3, group =>
        {
            using ITrainingTask task = Task(models[group.Rank], TinyKind.Classifier, 40, options);
            List<long> given = [];
            Trainer.Run(models[group.Rank], task, null, options with { MaxSteps = 3, Workers = group }, _ => given.Add(group.BytesGiven));
            return given[1] - given[0];
        });
        Assert.All(all, static one => Assert.Null(one.Error));

        // The second step has 8 batches for 3 workers and compares nothing: each gives its sums, of the gradient and the loss.
        long gradient = 4 * models[0].GetAdapter("default").ParameterCount;
        Assert.Equal(Enumerable.Range(0, 3).Select(rank => TreeSum.NodesOf(8, TreeSum.ShareOf(8, rank, 3)).Count * (gradient + 4)), all.Select(static one => one.Result));
    }

    [Fact]
    public void Values_that_differ_end_the_run_with_the_first_layer_that_does()
    {
        LoKrModel[] models = [.. Enumerable.Range(1, 3).Select(static seed => Create(TinyKind.Classifier, seed))];
        (Outcome? Result, Exception? Error)[] all = ThreadWorkers.Run(3, group => Train(models[group.Rank], s_options with { Workers = group }, onStep: step =>
        {
            if (group.Rank == 2 && step.Step == 2)
            {
                using var noGrad = no_grad();
                models[2].GetAdapter("default").Layers[0].Factors.Tensors.First().Value[0, 0].add_(1);
            }
        }));
        Assert.All(all, static one =>
        {
            LoKrException error = Assert.IsType<LoKrException>(one.Error);
            Assert.Equal(ErrorIds.WorkersDiffer, error.ErrorId);
            Assert.Matches("after step 6 'mix.lokr_[a-z0-9_]+' has other values on worker 2 than on worker 0", error.Summary);
        });
    }

    [Fact]
    public void An_error_after_a_step_ends_all_workers()
    {
        LoKrModel[] models = [.. Enumerable.Range(1, 2).Select(static seed => Create(TinyKind.Classifier, seed))];
        (Outcome? Result, Exception? Error)[] all = ThreadWorkers.Run(2, group => Train(models[group.Rank], s_options with { Workers = group }, onStep: step =>
        {
            if (group.Rank == 1 && step.Step == 2)
            {
                throw new InvalidOperationException("Disk on fire.");
            }
        }));
        Assert.Contains("Worker 1 on", Assert.IsType<LoKrException>(all[0].Error).Summary, StringComparison.Ordinal);
        Assert.Contains("Disk on fire.", all[0].Error!.Message, StringComparison.Ordinal);
        Assert.IsType<InvalidOperationException>(all[1].Error);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void A_worker_that_is_canceled_or_out_of_time_stops_all_after_the_same_step(bool canceled)
    {
        LoKrModel[] models = [.. Enumerable.Range(1, 2).Select(static seed => Create(TinyKind.Classifier, seed))];
        (Outcome? Result, Exception? Error)[] all = ThreadWorkers.Run(2, group =>
        {
            using CancellationTokenSource source = new();
            TrainingOptions options = s_options with { Workers = group, Epochs = 200, TimeLimit = !canceled && group.Rank == 1 ? TimeSpan.FromMilliseconds(50) : null };
            return Train(models[group.Rank], options, onStep: step =>
            {
                if (canceled && group.Rank == 1 && step.Step == 4)
                {
                    source.Cancel();
                }
            }, token: source.Token);
        });
        Assert.All(all, one =>
        {
            Assert.Null(one.Error);
            Assert.Equal(all[0].Result!.Steps, one.Result!.Steps);
            Assert.Equal(all[0].Result!.Values, one.Result.Values);
        });

        // Only a signal ends another worker than the first.
        Assert.Equal(canceled ? ["Signal", "Canceled"] : ["TimeLimit", "TimeLimit"], all.Select(static one => one.Result!.StopReason));
    }

    private static Outcome Train(TinyKind kind, TrainingOptions options, int seed) => Train(Create(kind, seed), options, kind);

    private static double FirstLoss(LoKrModel model, TrainingOptions options)
    {
        using ITrainingTask task = Task(model, TinyKind.Encoder, 16, options);
        return Trainer.Run(model, task, null, options).History[0].Loss;
    }

    private static Outcome Train(
        LoKrModel model, TrainingOptions options, TinyKind kind = TinyKind.Classifier, Action<LoKrTrainingStep>? onStep = null, CancellationToken token = default)
    {
        using ITrainingTask task = Task(model, kind, 41, options);
        using ITrainingTask validation = Task(model, kind, 7, options);
        LoKrTrainingResult result = Trainer.Run(model, task, validation, options, onStep, token);
        return new(
            string.Join(" ", model.GetAdapter("default").FlatParameters.Select(static flat => Convert.ToHexString(flat.Value.detach().bytes))),
            string.Join(" ", result.History.Select(static step => FormattableString.Invariant($"{step.Loss:R}/{step.GradientNorm:R}/{step.EvaluationLoss:R}"))),
            result.After is null ? "" : (result.After with { Elapsed = default }).ToString(),
            result.StopReason);
    }

    // The rows of a language model have prompts, over which no loss is taken, so that batches differ in the number of tokens that count.
    private static ITrainingTask Task(LoKrModel model, TinyKind kind, int rows, TrainingOptions options) => kind is TinyKind.Language
        ? new CausalLanguageTask(model, [.. Enumerable.Range(1, rows).Select(static i => Rows.Pair(new string('p', i % 5), new string((char)('a' + (i % 20)), 1 + (i % 9)), i))])
        : kind.TaskOn(model, rows, options);

    // The base is the same everywhere; an adapter begins with other random values on every worker, and has those of the first.
    private static LoKrModel Create(TinyKind kind, int seed)
    {
        random.manual_seed(5);
        LoKrModel model = kind.Create();
        model.AddAdapter(
            new LoKrConfig { R = 2, TargetModules = ModuleSelector.FromNames(["mix"]), ModulesToSave = kind.HeadTask() is null ? null : ["classifier"], InitWeights = InitWeights.Random }, seed: seed);
        return model;
    }

    private sealed record Outcome(string Values, string Steps, string Evaluation, string StopReason);
}
