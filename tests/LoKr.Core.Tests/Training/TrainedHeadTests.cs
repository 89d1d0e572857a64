using LoKr.Core.Configuration;
using LoKr.Core.Data;
using LoKr.Core.Layouts;
using LoKr.Core.Model;
using LoKr.Core.Training;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Training;

/// <summary>The learning rate of a head: its own where the head is new, that of the run otherwise.</summary>
public sealed class TrainedHeadTests
{
    private static readonly TrainingOptions s_options = new() { MaxSteps = 8, BatchSize = 4, LearningRate = 1e-3, WarmupSteps = 2, Seed = 1 };
    private static readonly LoKrConfig s_config = new() { R = 4, TargetModules = ModuleSelector.FromNames(["mix"]), InitWeights = InitWeights.Random };

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Fact]
    public void A_new_head_has_ten_times_the_learning_rate_and_the_plan_says_so()
    {
        using LoKrModel model = Fresh(s_config);
        using ITrainingTask task = Task(model);
        TrainingPlan plan = Trainer.Plan(model, task, s_options);
        Assert.Equal(0.01, plan.HeadLearningRate!.Value, 12);
        Assert.Equal(["classifier"], plan.HeadModules);
        Assert.Contains("0.001, 0.01 for the head (classifier)", plan.ToString(), StringComparison.Ordinal);
        Assert.Contains("HeadLearningRate", Assert.Single(plan.Notes), StringComparison.Ordinal);

        LoKrTrainingResult result = Trainer.Run(model, task, null, s_options, null, Token);
        Assert.Equal(plan.HeadLearningRate, result.HeadLearningRate);
        Assert.All(result.History, static step => Assert.Equal(10 * step.LearningRate, step.HeadLearningRate!.Value, 12));
        Assert.Equal([0, 0.005, 0.01], result.History.Take(3).Select(static step => step.HeadLearningRate!.Value));
    }

    [Theory]
    [InlineData(null, 0.01)]
    [InlineData(0.03, 0.03)]
    [InlineData(0.001, 0.001)]
    public void The_first_step_moves_the_head_and_the_factors_by_their_learning_rates(double? given, double expected)
    {
        using DisposeScope scope = NewDisposeScope();
        using LoKrModel model = Fresh(s_config);
        using ITrainingTask task = Task(model);
        Dictionary<string, Tensor> before = model.Adapters[0].GetTensors().ToDictionary(static pair => pair.Key, static pair => pair.Value.clone());
        Trainer.Run(model, task, null, s_options with { MaxSteps = 1, WarmupSteps = 0, Schedule = LearningRateSchedule.Constant, HeadLearningRate = given }, null, Token);

        // The first step of Adam is the learning rate, whatever the gradient is.
        foreach ((string name, Tensor tensor) in model.Adapters[0].GetTensors())
        {
            double moved = (tensor - before[name]).abs().max().ToDouble();
            TensorAssert.Close(name.StartsWith("classifier", StringComparison.Ordinal) ? expected : 1e-3, moved, 1e-3, name);
        }
    }

    [Fact]
    public void A_head_that_was_trained_keeps_one_learning_rate_unless_another_is_given()
    {
        using TempFolder folder = new();
        using LoKrModel model = Fresh(s_config);
        using ITrainingTask task = Task(model);
        Trainer.Run(model, task, null, s_options, null, Token);
        AssertOneRate(model, task);
        AdapterExporter.Export(model, "default", folder["adapter"], AdapterLayout.Peft);

        // Another process loads the adapter, with its head.
        using LoKrModel again = TinyClassifier.CreateFresh("odd", "even");
        AdapterImporter.Import(again, folder["adapter"], trainable: true);
        AssertOneRate(again, task);

        // The head came with the checkpoint, and is trained on.
        using LoKrModel trained = TinyClassifier.Create("odd", "even");
        trained.AddAdapter(s_config with { ModulesToSave = ["classifier"] }, seed: 1);
        AssertOneRate(trained, task);

        static void AssertOneRate(LoKrModel model, ITrainingTask task)
        {
            TrainingPlan plan = Trainer.Plan(model, task, s_options);
            Assert.Null(plan.HeadLearningRate);
            Assert.Empty(plan.Notes);
            Assert.DoesNotContain("head", plan.ToString(), StringComparison.Ordinal);
            Assert.Equal(0.02, Trainer.Plan(model, task, s_options with { HeadLearningRate = 0.02 }).HeadLearningRate);
        }
    }

    [Fact]
    public void A_head_alone_has_the_learning_rate_of_the_run()
    {
        using LoKrModel model = Fresh(new LoKrConfig { TargetModules = ModuleSelector.FromNames([]) });
        using ITrainingTask task = Task(model);
        Assert.Null(Trainer.Plan(model, task, s_options).HeadLearningRate);
        Assert.Null(Trainer.Run(model, task, null, s_options, null, Token).History[^1].HeadLearningRate);
    }

    [Fact]
    public void Embeddings_are_not_a_head_and_a_learning_rate_for_nothing_is_a_warning()
    {
        using LoKrModel model = TinyLanguageModel.Create();
        model.AddAdapter(s_config with { ModulesToSave = ["lm_head"] }, seed: 1);
        using CausalLanguageTask task = new(model, [Rows.Text("abc")]);
        TrainingPlan plan = Trainer.Plan(model, task, s_options with { HeadLearningRate = 0.02 });
        Assert.Null(plan.HeadLearningRate);
        Assert.Contains("HeadLearningRate has no effect", Assert.Single(plan.Warnings), StringComparison.Ordinal);
        Assert.Empty(Trainer.Plan(model, task, s_options).Warnings);
    }

    private static LoKrModel Fresh(LoKrConfig config)
    {
        LoKrModel model = TinyClassifier.CreateFresh("odd", "even");
        model.AddAdapter(config, seed: 1);
        return model;
    }

    private static TextClassificationTask Task(LoKrModel model) =>
        new(model, [.. Enumerable.Range(1, 16).Select(static i => Rows.Labeled(new string((char)('a' + i), i), i % 2 == 1 ? "odd" : "even", i))]);
}
