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

    /// <summary>A loss curve falls steepest at its start, so that a share of the reference's steps reaches at least that share of its gain.</summary>
    [Fact]
    public void Training_gains_its_share_of_the_reference_run_and_keeps_live_tensors_flat()
    {
        using JsonDocument reference = JsonDocument.Parse(File.ReadAllText(Fixtures.Require("debian-lm", "perplexity.json")));
        JsonElement results = reference.RootElement.GetProperty("results");
        JsonElement lokr = results.GetProperty("lokr-all-linear-r8");
        using LoKrModel model = ModelLoader.Load(Fixtures.RequireBeside("models", "debian-lm"));
        IReadOnlyList<DataRow> rows = DataReader.ReadFile(Fixtures.RequireBeside("data", "debian-lm", "gnu-r.train.jsonl"));
        model.AddAdapter(new LoKrConfig { R = 8, Alpha = 16, TargetModules = ModuleSelector.FromPattern("all-linear") }, seed: 1);
        using ITrainingTask train = TrainingTaskFactory.Create(model, [.. rows.Take(200)], 128, TestContext.Current.CancellationToken);
        using ITrainingTask held = TrainingTaskFactory.Create(model, [.. rows.TakeLast(40)], 128, TestContext.Current.CancellationToken);
        TrainingOptions options = new() { MaxSteps = 24, BatchSize = 8, LearningRate = lokr.GetProperty("lr").GetDouble(), WarmupRatio = 0.06, EvaluateBefore = true, EvaluateEvery = 12, Seed = 1 };
        List<long> live = [];
        TensorCount.Settled();
        LoKrTrainingResult result = Trainer.Run(model, train, held, options, _ => live.Add(TorchSharp.torch.Tensor.TotalCount), TestContext.Current.CancellationToken);

        double referenceGain = Math.Log(results.GetProperty("base")[0].GetDouble() / lokr.GetProperty("perplexity").GetDouble());
        double share = (double)options.MaxSteps!.Value / lokr.GetProperty("steps").GetInt32();
        double gain = result.Before!.Loss - result.After!.Loss;
        Assert.True(gain >= share * referenceGain, $"The loss fell by {gain:F3}; {share:P0} of the reference's {referenceGain:F3} was expected.");
        TensorCount.AssertFlat(live, 4);
    }
}
