using LoKr.Core.Configuration;
using LoKr.Core.Data;
using LoKr.Core.Errors;
using LoKr.Core.Inference;
using LoKr.Core.Model;
using LoKr.Core.Training;
using LoKr.Testing;
using TorchSharp;
using TorchSharp.Modules;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Training;

public sealed class TrainerTests : IDisposable
{
    private static readonly TrainingOptions s_options = new() { Epochs = 2, BatchSize = 4, LearningRate = 1e-2, Seed = 1 };

    private readonly Tensor _inputs;
    private readonly Tensor _targets;

    public TrainerTests()
    {
        random.manual_seed(3);
        _inputs = randn(8, 12, 8);
        using var scope = NewDisposeScope();
        _targets = (_inputs.matmul(randn(8, 6)) * 0.5).DetachFromDisposeScope();
    }

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public void Dispose()
    {
        _inputs.Dispose();
        _targets.Dispose();
    }

    [Fact]
    public void A_custom_loss_trains_a_plain_module_and_only_its_adapter()
    {
        using LoKrModel model = Plain();
        using CustomLossTask task = Task();
        using Tensor before = model.Module.get_parameter("lin0.weight")!.clone();
        List<LoKrTrainingStep> seen = [];
        LoKrTrainingResult result = Trainer.Run(model, task, task, s_options with { EvaluateBefore = true, LearningRate = 5e-2 }, seen.Add, Token);

        Assert.Equal("Completed", result.StopReason);
        Assert.Equal(16, result.History.Count);
        Assert.Equal(result.History, seen);
        Assert.Equal(Enumerable.Range(1, 16), seen.Select(step => step.Step));
        Assert.Equal(2.0, seen[^1].Epoch, 12);
        Assert.True(result.After!.Loss < 0.85 * result.Before!.Loss, $"{result.Before.Loss} to {result.After.Loss}");
        Assert.Equal([8, 16], seen.Where(step => step.EvaluationLoss is not null).Select(step => step.Step));
        Assert.Equal(result.After.Loss, seen[^1].EvaluationLoss);
        Assert.Same(result, model.LastTraining);
        TensorAssert.Close(before, model.Module.get_parameter("lin0.weight")!, 0, "base weight");
    }

    [Fact]
    public void Live_tensors_stay_flat_over_twenty_steps()
    {
        using LoKrModel model = Plain();
        using CustomLossTask task = Task();
        List<long> counts = [];
        TensorCount.Settled();
        Trainer.Run(model, task, task, s_options with { MaxSteps = 24, EvaluateEvery = 5 }, _ => counts.Add(Tensor.TotalCount), Token);
        Assert.Equal(24, counts.Count);
        TensorCount.AssertFlat(counts, 4);
    }

    [Fact]
    public void Max_steps_goes_before_epochs_and_on_through_them()
    {
        using LoKrModel model = Plain();
        using CustomLossTask task = Task();
        LoKrTrainingResult result = Trainer.Run(model, task, null, s_options with { Epochs = 1, MaxSteps = 11 }, null, Token);
        Assert.Equal(11, result.History.Count);
        Assert.Equal(11.0 / 8, result.History[^1].Epoch, 12);
        Assert.Null(result.After);
    }

    [Fact]
    public void The_same_seed_gives_the_same_run()
    {
        Assert.Equal(Losses(s_options), Losses(s_options));
        Assert.NotEqual(Losses(s_options), Losses(s_options with { Seed = 2 }));

        static double[] Losses(TrainingOptions options)
        {
            random.manual_seed(5);
            using LoKrModel model = TinyClassifier.Create("odd", "even");
            model.AddAdapter(new LoKrConfig { TargetModules = ModuleSelector.FromNames(["mix"]), ModulesToSave = ["classifier"] }, seed: 1);
            using ITrainingTask task = new TextClassificationTask(model, Texts(40));
            return [.. Trainer.Run(model, task, null, options, null, Token).History.Select(step => step.Loss)];
        }
    }

    [Fact]
    public void A_classifier_learns_and_reports_accuracy()
    {
        random.manual_seed(5);
        using LoKrModel model = TinyClassifier.Create("odd", "even");
        model.AddAdapter(new LoKrConfig { R = 4, TargetModules = ModuleSelector.FromNames(["mix"]), ModulesToSave = ["classifier"] }, seed: 1);
        using ITrainingTask task = new TextClassificationTask(model, Texts(64));
        LoKrTrainingResult result = Trainer.Run(model, task, task, s_options with { Epochs = 6, LearningRate = 5e-2 }, null, Token);
        Assert.True(result.After!.Accuracy > 0.95, $"accuracy {result.After.Accuracy}");
        Assert.True(result.History[^1].TokensPerSecond > 0);
    }

    [Fact]
    public void Accumulated_batches_equal_one_large_batch()
    {
        // Rows of different length: a mean of means would differ from the mean over all tokens.
        TrainingOptions large = s_options with { BatchSize = 6, MaxSteps = 4, LengthBucketing = false, Schedule = LearningRateSchedule.Constant };
        (double Loss, double Norm)[] expected = Run(large);
        (double Loss, double Norm)[] actual = Run(large with { BatchSize = 2, GradientAccumulation = 3 });
        for (int i = 0; i < expected.Length; i++)
        {
            TensorAssert.Close(expected[i].Loss, actual[i].Loss, 1e-5, $"loss {i}");
            TensorAssert.Close(expected[i].Norm, actual[i].Norm, 1e-4, $"norm {i}");
        }

        static (double, double)[] Run(TrainingOptions options)
        {
            random.manual_seed(5);
            using LoKrModel model = TinyLanguageModel.Create();
            model.AddAdapter(new LoKrConfig { TargetModules = ModuleSelector.FromNames(["mix"]), InitWeights = InitWeights.Random }, seed: 1);
            using ITrainingTask task = new CausalLanguageTask(model, [.. Enumerable.Range(1, 24).Select(i => Rows.Text(new string((char)('a' + i), i), i))]);
            return [.. Trainer.Run(model, task, null, options, null, Token).History.Select(step => (step.Loss, step.GradientNorm))];
        }
    }

    [Fact]
    public void Canceling_returns_what_was_done_and_leaves_the_model_usable()
    {
        using LoKrModel model = Plain();
        using CustomLossTask task = Task();
        using CancellationTokenSource source = new();
        LoKrTrainingResult result = Trainer.Run(model, task, task, s_options with { Epochs = 100 }, step => Stop(step.Step), source.Token);
        Assert.Equal("Canceled", result.StopReason);
        Assert.Equal(5, result.History.Count);
        Assert.Null(result.After);
        Assert.Equal(0.0, model.Adapters[0].FlatParameters[0].Gradient.abs().max().ToDouble());
        Assert.Equal("Completed", Trainer.Run(model, task, null, s_options, null, Token).StopReason);

        void Stop(int step)
        {
            if (step == 5)
            {
                source.Cancel();
            }
        }
    }

    [Fact]
    public void Canceling_inside_an_evaluation_stops_there()
    {
        using LoKrModel model = Plain();
        using CustomLossTask task = Task();
        using CancellationTokenSource source = new();
        int scored = 0;
        using CustomLossTask validation = new([.. Enumerable.Range(0, 1000).Cast<object>()], (m, _) =>
        {
            if (++scored == 3)
            {
                source.Cancel();
            }

            return Loss(m, 0);
        });
        LoKrTrainingResult result = Trainer.Run(model, task, validation, s_options with { EvaluateEvery = 2 }, null, source.Token);
        Assert.Equal("Canceled", result.StopReason);
        Assert.Equal(2, result.History.Count);
        Assert.Equal(3, scored);
    }

    [Fact]
    public void A_run_that_diverges_ends_with_the_values_that_last_gave_a_finite_loss()
    {
        using LoKrModel model = Plain();
        int step = 0;
        using Tensor kept = model.Adapters[0].FlatParameters[0].Value.clone();
        using CustomLossTask task = new([1, 2, 3, 4], (m, _) =>
        {
            step++;
            if (step == 2)
            {
                using var noGrad = no_grad();
                kept.copy_(model.Adapters[0].FlatParameters[0].Value);
            }

            return step == 3 ? Loss(m, 0) * float.NaN : Loss(m, 0);
        });
        LoKrException e = Assert.Throws<LoKrException>(() => Trainer.Run(model, task, null, s_options, null, Token));
        Assert.Equal(ErrorIds.LossNotFinite, e.ErrorId);
        Assert.Contains("step 3 of 8", e.Message, StringComparison.Ordinal);
        Assert.Equal(3, e.Target);
        TensorAssert.Close(kept, model.Adapters[0].FlatParameters[0].Value, 0, "parameters");
        Assert.False(model.Module.training);
        Assert.Equal("Diverged", model.LastTraining!.StopReason);
        Assert.Equal([1, 2], model.LastTraining.History.Select(item => item.Step));
    }

    [Fact]
    public void A_learning_rate_that_is_far_too_high_leaves_a_finite_adapter()
    {
        using LoKrModel model = Plain(InitWeights.Random);
        using CustomLossTask task = new([1, 2, 3, 4], (m, _) => Loss(m, 0));
        TrainingOptions options = s_options with { LearningRate = 1e25, MaxSteps = 6, WarmupRatio = 0, MaxGradientNorm = 0 };
        Assert.Equal(ErrorIds.LossNotFinite, Assert.Throws<LoKrException>(() => Trainer.Run(model, task, null, options, null, Token)).ErrorId);
        Assert.Equal("Diverged", model.LastTraining!.StopReason);
        using Tensor loss = Loss(model, 0);
        Assert.True(float.IsFinite(loss.ToSingle()));
    }

    [Fact]
    public void A_last_step_that_breaks_the_parameters_is_taken_back()
    {
        // Without gradient and epsilon the step of AdamW is 0 / 0.
        using LoKrModel model = Plain(InitWeights.Random);
        using Tensor before = model.Adapters[0].FlatParameters[0].Value.clone();
        using CustomLossTask task = new([1], (m, _) => Loss(m, 0) * 0);
        TrainingOptions options = s_options with { MaxSteps = 1, WarmupRatio = 0, Epsilon = 0 };
        Assert.Equal(ErrorIds.LossNotFinite, Assert.Throws<LoKrException>(() => Trainer.Run(model, task, null, options, null, Token)).ErrorId);
        Assert.Equal("Diverged", model.LastTraining!.StopReason);
        TensorAssert.Close(before, model.Adapters[0].FlatParameters[0].Value, 0, "parameters");
    }

    [Fact]
    public void Scores_that_are_not_finite_are_an_error_of_classification_and_evaluation()
    {
        using LoKrModel model = new(new TinyClassifier("odd", "even"), tokenizer: new TinyTokenizer());
        using ITrainingTask task = new TextClassificationTask(model, Texts(8));
        Assert.True(double.IsFinite(Evaluator.Evaluate(model, task, 4, Token).Loss));
        using (no_grad())
        {
            foreach (TorchSharp.Modules.Parameter parameter in model.Module.parameters())
            {
                parameter.fill_(float.NaN);
            }
        }

        Assert.Equal(ErrorIds.LogitsNotFinite, Assert.Throws<LoKrException>(() => Evaluator.Evaluate(model, task, 4, Token)).ErrorId);
        LoKrException e = Assert.Throws<LoKrException>(() => TextClassifier.Classify(model, ["1", "2"]));
        Assert.Equal((ErrorIds.LogitsNotFinite, "1"), (e.ErrorId, e.Target));
    }

    [Fact]
    public void A_gradient_that_is_not_finite_is_told_apart()
    {
        using LoKrModel model = Plain(InitWeights.Random);
        using CustomLossTask task = new([1], (m, _) => (Loss(m, 0) * 0).sqrt());
        Assert.Equal(ErrorIds.GradientNotFinite, Assert.Throws<LoKrException>(() => Trainer.Run(model, task, null, s_options, null, Token)).ErrorId);
    }

    [Fact]
    public void A_layer_whose_hook_never_runs_is_named()
    {
        using LoKrModel model = new(new TinyClassifier("odd", "even") { CallsHooks = false }, tokenizer: new TinyTokenizer());
        model.AddAdapter(new LoKrConfig { TargetModules = ModuleSelector.FromNames(["mix"]), ModulesToSave = ["classifier"] });
        using ITrainingTask task = new TextClassificationTask(model, Texts(8));
        LoKrException e = Assert.Throws<LoKrException>(() => Trainer.Run(model, task, null, s_options, null, Token));
        Assert.Equal(ErrorIds.AdapterNotCalled, e.ErrorId);
        Assert.Contains("mix", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_loss_without_gradient_or_of_many_numbers_is_refused()
    {
        using LoKrModel model = Plain();
        using CustomLossTask detached = new([1], (m, _) => Loss(m, 0).detach());
        using CustomLossTask many = new([1], (m, _) => Output(m, 0));
        Assert.Equal(ErrorIds.LossInvalid, Assert.Throws<LoKrException>(() => Trainer.Run(model, detached, null, s_options, null, Token)).ErrorId);
        Assert.Equal(ErrorIds.LossInvalid, Assert.Throws<LoKrException>(() => Trainer.Run(model, many, null, s_options, null, Token)).ErrorId);
        Assert.Equal(ErrorIds.DataEmpty, Assert.Throws<LoKrException>(() => new CustomLossTask([], Loss)).ErrorId);
    }

    [Fact]
    public void Modules_go_back_to_the_mode_they_were_in()
    {
        using LoKrModel model = Plain();
        var sequential = (Sequential)model.Module;
        sequential.train();
        sequential.children().First().eval();
        using CustomLossTask task = new([1], (m, _) =>
        {
            Assert.All(m.Module.modules(), module => Assert.True(module.training));
            return Loss(m, 0);
        });
        Trainer.Run(model, task, null, s_options, null, Token);
        Assert.True(sequential.training);
        Assert.Equal([false, true, true], sequential.children().Select(child => child.training));
    }

    [Fact]
    public void Without_one_clear_adapter_nothing_is_trained()
    {
        using LoKrModel none = new(nn.Sequential(("lin0", nn.Linear(8, 6))));
        using CustomLossTask task = Task();
        Assert.Equal(ErrorIds.NoAdapter, Fails(none, s_options));

        using LoKrModel model = Plain();
        model.AddAdapter(model.Adapters[0].Config, "second");
        Assert.Equal(ErrorIds.AdapterNotFound, Fails(model, s_options with { AdapterName = "third" }));
        model.SetActiveAdapters(["default", "second"]);
        Assert.Equal(ErrorIds.AdapterAmbiguous, Fails(model, s_options));
        model.SetActiveAdapters(["default"]);
        model.SetAdaptersEnabled(false);
        Assert.Equal(ErrorIds.AdapterNotTrainable, Fails(model, s_options));
        model.SetAdaptersEnabled(true);
        model.Merge();
        Assert.Equal(ErrorIds.AdapterNotTrainable, Fails(model, s_options));

        string Fails(LoKrModel m, TrainingOptions options) => Assert.Throws<LoKrException>(() => Trainer.Run(m, task, null, options)).ErrorId;
    }

    [Fact]
    public void One_of_two_active_adapters_is_trained_on_top_of_the_other()
    {
        using LoKrModel model = Plain(InitWeights.Random);
        model.AddAdapter(model.Adapters[0].Config, "second", seed: 9);
        model.SetActiveAdapters(["default", "second"]);
        using Tensor first = model.Adapters[0].FlatParameters[0].Value.clone();
        using Tensor second = model.Adapters[1].FlatParameters[0].Value.clone();
        using CustomLossTask task = Task();
        Trainer.Run(model, task, null, s_options with { AdapterName = "second" }, null, Token);
        TensorAssert.Close(first, model.Adapters[0].FlatParameters[0].Value, 0, "first");
        Assert.True((second - model.Adapters[1].FlatParameters[0].Value).abs().max().ToDouble() > 1e-3);
        Assert.Equal(["default", "second"], model.ActiveAdapters);
        Assert.True(model.Adapters[0].FlatParameters[0].Views[0].requires_grad);
    }

    [Fact]
    public void The_plan_says_what_the_run_does()
    {
        using LoKrModel model = Plain();
        using CustomLossTask task = Task();
        TrainingOptions options = s_options with { GradientAccumulation = 3, WarmupRatio = 0.2 };
        TrainingPlan plan = Trainer.Plan(model, task, options);
        LoKrTrainingResult result = Trainer.Run(model, task, null, options, null, Token);
        Assert.Equal((8, 3, 6, 2), (plan.BatchesPerEpoch, plan.StepsPerEpoch, plan.TotalSteps, plan.WarmupSteps));
        Assert.Equal(plan.TotalSteps, result.History.Count);
        Assert.Equal(model.Adapters[0].ParameterCount, plan.TrainableParameterCount);
        Assert.Equal(5 * 4 * plan.TrainableParameterCount, plan.OptimizerBytes);
        Assert.Equal(0, result.History[0].LearningRate);
    }

    private static LoKrModel Plain(InitWeights init = InitWeights.Default)
    {
        LoKrModel model = new(nn.Sequential(("lin0", nn.Linear(8, 16)), ("act", nn.Tanh()), ("lin1", nn.Linear(16, 6))));
        model.Module.eval();
        model.AddAdapter(new LoKrConfig { R = 4, TargetModules = ModuleSelector.FromNames(["lin0", "lin1"]), InitWeights = init }, seed: 7);
        return model;
    }

    private static DataRow[] Texts(int count) =>
        [.. Enumerable.Range(0, count).Select(i => Rows.Labeled(new string(i % 2 == 0 ? 'e' : 'o', 1 + (i % 7)) + (char)('a' + (i % 3)), i % 2 == 0 ? "even" : "odd", i + 1))];

    private CustomLossTask Task() => new([.. Enumerable.Range(0, 8).Cast<object>()], Loss);

    private Tensor Loss(LoKrModel model, object batch) => (Output(model, batch) - _targets[(int)batch]).square().mean();

    private Tensor Output(LoKrModel model, object batch) => ((nn.Module<Tensor, Tensor>)model.Module).call(_inputs[(int)batch]);
}
