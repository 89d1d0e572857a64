using System.Text.Json;
using LoKr.Core.Configuration;
using LoKr.Core.Data;
using LoKr.Core.Model;
using LoKr.Core.Training;
using LoKr.Models.Loading;
using LoKr.Testing;
using Xunit;

namespace LoKr.Models.Tests.Training;

/// <summary>A small language model on text it never saw.</summary>
public sealed class DebianLmTests
{
    [Fact]
    public void Perplexity_of_completions_is_that_of_transformers()
    {
        using JsonDocument reference = JsonDocument.Parse(File.ReadAllText(Fixtures.Require("debian-lm", "perplexity.json")));
        JsonElement expected = reference.RootElement.GetProperty("results").GetProperty("base");
        using LoKrModel model = ModelLoader.Load(Fixtures.RequireBeside("models", "debian-lm"));
        IReadOnlyList<DataRow> rows = DataReader.ReadFile(Fixtures.RequireBeside("data", "debian-lm", "gnu-r.eval.jsonl"));
        using ITrainingTask task = TrainingTaskFactory.Create(model, rows, 128, TestContext.Current.CancellationToken);
        Assert.Empty(task.Warnings);

        LoKrEvaluation evaluation = Evaluator.Evaluate(model, task, 16, TestContext.Current.CancellationToken);
        Assert.Equal(expected[1].GetInt64(), evaluation.TokenCount);
        TensorAssert.Close(expected[0].GetDouble(), evaluation.Perplexity!.Value, TensorAssert.Model, "perplexity");
    }

    [Fact]
    public void Training_takes_the_perplexity_down_and_keeps_live_tensors_flat()
    {
        using LoKrModel model = ModelLoader.Load(Fixtures.RequireBeside("models", "debian-lm"));
        IReadOnlyList<DataRow> rows = DataReader.ReadFile(Fixtures.RequireBeside("data", "debian-lm", "gnu-r.train.jsonl"));
        model.AddAdapter(new LoKrConfig { R = 8, Alpha = 16, TargetModules = ModuleSelector.FromPattern("all-linear") }, seed: 1);
        using ITrainingTask train = TrainingTaskFactory.Create(model, [.. rows.Take(200)], 128, TestContext.Current.CancellationToken);
        using ITrainingTask held = TrainingTaskFactory.Create(model, [.. rows.TakeLast(40)], 128, TestContext.Current.CancellationToken);
        TrainingOptions options = new() { MaxSteps = 24, BatchSize = 8, LearningRate = 5e-3, WarmupRatio = 0.06, EvaluateBefore = true, EvaluateEvery = 12, Seed = 1 };
        List<long> live = [];
        TensorCount.Settled();
        LoKrTrainingResult result = Trainer.Run(model, train, held, options, _ => live.Add(TorchSharp.torch.Tensor.TotalCount), TestContext.Current.CancellationToken);

        Assert.True(result.After!.Perplexity < 0.7 * result.Before!.Perplexity, $"{result.Before.Perplexity} to {result.After.Perplexity}");
        TensorCount.AssertFlat(live, 4);
    }
}
