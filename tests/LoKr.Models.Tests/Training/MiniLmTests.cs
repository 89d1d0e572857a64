using System.Text.Json;
using LoKr.Core.Data;
using LoKr.Core.Model;
using LoKr.Core.Training;
using LoKr.Models.Loading;
using LoKr.Testing;
using TorchSharp;
using Xunit;

namespace LoKr.Models.Tests.Training;

/// <summary>A real encoder on real labels, from the start that PEFT saved.</summary>
public sealed class MiniLmTests
{
    [Fact]
    public void Ten_steps_on_text_have_the_losses_of_PEFT()
    {
        using JsonDocument steps = JsonDocument.Parse(File.ReadAllText(Fixtures.Require("minilm", "steps.json")));
        string[] labels = [.. steps.RootElement.GetProperty("labels").EnumerateArray().Select(label => label.GetString()!)];
        double[] losses = [.. steps.RootElement.GetProperty("losses").EnumerateArray().Select(loss => loss.GetDouble())];
        using DisposeScope scope = torch.NewDisposeScope();
        using LoKrModel model = ModelLoader.Load(Fixtures.RequireBeside("models", "minilm"), new ModelLoadOptions { Labels = labels });
        LoKrAdapter adapter = PeftStart.Load(model, Fixtures.Require("minilm", "start"));
        Assert.Equal(steps.RootElement.GetProperty("trainable")[0].GetInt64(), model.CountParameters().Trainable);
        Assert.Equal(steps.RootElement.GetProperty("trainable")[1].GetInt64(), model.CountParameters().Total);
        Assert.Equal(model.CountParameters().Trainable, adapter.ParameterCount);

        IReadOnlyList<DataRow> rows = DataReader.ReadFile(Fixtures.RequireBeside("data", "debian-sections", "train.jsonl"));
        using TextClassificationTask text = new(model, [.. rows.Take(16 * losses.Length)], 64, cancellationToken: TestContext.Current.CancellationToken);
        object[] batches = [.. text.Batches(new BatchOrder(16, Bucket: false))];
        Assert.Equal(losses.Length, batches.Length);

        // The reference has no dropout.
        using CustomLossTask task = new(batches, (m, batch) =>
        {
            m.Module.eval();
            return text.Loss(m, (TrainingBatch)batch);
        });
        TrainingOptions options = new() { Epochs = 1, LearningRate = 2e-3, Schedule = LearningRateSchedule.Constant };
        LoKrTrainingResult result = Trainer.Run(model, task, null, options, null, TestContext.Current.CancellationToken);
        for (int i = 0; i < losses.Length; i++)
        {
            TensorAssert.Close(losses[i], result.History[i].Loss, TensorAssert.Model, $"loss {i + 1}");
        }
    }
}
