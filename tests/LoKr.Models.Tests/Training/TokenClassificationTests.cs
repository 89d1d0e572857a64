using System.Text.Json.Nodes;
using LoKr.Core.Data;
using LoKr.Core.Inference;
using LoKr.Core.Metrics;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Core.Safetensors;
using LoKr.Core.Training;
using LoKr.Models.Loading;
using LoKr.Models.Tests.Support;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Models.Tests.Training;

/// <summary>Words with tags in training, evaluation and inference, against transformers.</summary>
public sealed class TokenClassificationTests
{
    private static readonly string[] s_models = ["bert-tokens", "distilbert-tokens", "roberta-tokens", "modernbert-tokens"];

    public static TheoryData<string> Models => [.. s_models];

    public static TheoryData<string, string> Adapters => AdapterCases.Of("text", s_models);

    [Theory]
    [MemberData(nameof(Models))]
    public void Rows_have_the_ids_the_labels_and_the_loss_of_transformers(string name)
    {
        using DisposeScope scope = NewDisposeScope();
        using LoKrModel model = Load(name, out ITrainingTask task, out SafetensorsReader io);
        using (task)
        using (io)
        {
            TagBatch batch = Assert.IsType<TagBatch>(Assert.Single(task.Batches(new BatchOrder(task.RowCount, Shuffle: false, Bucket: false))));
            Assert.Equal(io.Read("in.input_ids").data<long>().ToArray(), batch.Tokens.Ids.ToArray());
            Assert.Equal(io.Read("in.attention_mask").data<long>().ToArray(), batch.Tokens.Mask.ToArray());
            long[] labels = [.. batch.Labels];
            Assert.Equal(io.Read("labels").data<long>().ToArray(), labels);
            LoKrEvaluation evaluation = Evaluator.Evaluate(model, task, 2, TestContext.Current.CancellationToken);
            TensorAssert.Close(io.Read("base_loss").item<float>(), evaluation.Loss, TensorAssert.Model, name);
            Assert.Equal(labels.Count(static label => label != -100), evaluation.TokenCount);
            Check(evaluation, io, labels, (ITokenClassifier)model.Module);
        }
    }

    [Theory]
    [MemberData(nameof(Adapters))]
    public void Ten_steps_on_words_with_tags_have_the_losses_of_PEFT(string name, string adapter)
    {
        string folder = Fixtures.Require("text", name, "adapters", adapter);
        using DisposeScope scope = NewDisposeScope();
        using LoKrModel model = Load(name, out ITrainingTask task, out SafetensorsReader io);
        using (task)
        using (io)
        {
            PeftStart.Load(model, folder);
            using EvaluationModeTask steady = new(task);
            double[] losses = [.. JsonNode.Parse(File.ReadAllText(Path.Combine(folder, "case.json")))!["losses"]!.AsArray().Select(static loss => (double)loss!)];

            // Two batches a step, whose loss is the mean over the labeled tokens of both.
            TrainingOptions options = new() { MaxSteps = losses.Length, BatchSize = (task.RowCount + 1) / 2, GradientAccumulation = 2, LearningRate = 5e-3, Schedule = LearningRateSchedule.Constant, MaxGradientNorm = 1, Seed = 1 };
            LoKrTrainingResult result = Trainer.Run(model, steady, null, options, null, TestContext.Current.CancellationToken);
            Assert.All(losses.Zip(result.History), static pair => TensorAssert.Close(pair.First, pair.Second.Loss, TensorAssert.Model, $"loss {pair.Second.Step}"));
        }
    }

    [Theory]
    [MemberData(nameof(Models))]
    public void Entities_of_words_are_those_of_the_tags_of_first_tokens(string name)
    {
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGrad = no_grad();
        using LoKrModel model = Load(name, out ITrainingTask task, out SafetensorsReader io);
        using (task)
        using (io)
        {
            IReadOnlyList<string> labels = ((ITokenClassifier)model.Module).Labels;
            JsonArray rows = Case(name)["rows"]!.AsArray();
            TextInput[] texts = [.. rows.Select(static row => TextInput.Of([.. row!["words"]!.AsArray().Select(static word => (string)word!)]))];
            IReadOnlyList<IReadOnlyList<LoKrEntity>> found = EntityTagger.Find(model, texts, EntityAggregation.First, (int)Case(name)["max_length"]!);
            Tensor answers = io.Read("base_output").argmax(-1);
            for (int row = 0; row < texts.Length; row++)
            {
                // The tag of each word from the reference's own output, and of words without a token none.
                Dictionary<int, string> tags = [];
                foreach ((JsonNode? word, int place) in rows[row]!["word_ids"]!.AsArray().Select(static (word, place) => (word, place)))
                {
                    if (word is not null)
                    {
                        tags.TryAdd((int)word, labels[(int)answers[row, place].item<long>()]);
                    }
                }

                string[] words = [.. texts[row].Words!];
                int[] kept = [.. tags.Keys.Order()];
                Assert.Equal(
                    EntityMetrics.Find([[.. kept.Select(word => tags[word])]]).Select(entity => (
                        entity.Type,
                        string.Join(' ', words[kept[entity.First]..(kept[entity.Last] + 1)]))),
                    found[row].Select(static entity => (entity.Type, entity.Text)));
                Assert.All(found[row], entity => Assert.Equal(entity.Text, texts[row].Text[entity.Start..entity.End]));
            }
        }
    }

    private static JsonObject Case(string name) => JsonNode.Parse(File.ReadAllText(Fixtures.Require("text", name, "case.json")))!.AsObject();

    private static LoKrModel Load(string name, out ITrainingTask task, out SafetensorsReader io)
    {
        LoKrModel model = ModelLoader.Load(Fixtures.Require("text", name), new() { Device = CPU });
        JsonObject given = Case(name);
        DataRow[] rows = [.. given["rows"]!.AsArray().Select(static (row, index) => new DataRow(
            new Dictionary<string, object?>
            {
                ["words"] = row!["words"]!.AsArray().Select(static word => (string)word!).ToArray(),
                ["tags"] = row["tags"]!.AsArray().Select(static tag => (string)tag!).ToArray(),
            },
            $"row {index}"))];
        task = TrainingTaskFactory.Create(model, rows, (int)given["max_length"]!, TestContext.Current.CancellationToken);
        io = SafetensorsReader.Open(Fixtures.Require("text", name, "io.safetensors"));
        return model;
    }

    // The figures again, from the reference's own output.
    private static void Check(LoKrEvaluation evaluation, SafetensorsReader io, long[] labels, ITokenClassifier tagger)
    {
        long[] answers = io.Read("base_output").argmax(-1).data<long>().ToArray();
        long[][] rows = [.. Enumerable.Range(0, labels.Length).Select(static index => (long)index).Where(index => labels[index] != -100).GroupBy(index => index / io.Read("labels").shape[1]).Select(static row => row.ToArray())];
        string[][] actual = [.. rows.Select(row => row.Select(index => tagger.Labels[(int)labels[index]]).ToArray())];
        string[][] predicted = [.. rows.Select(row => row.Select(index => tagger.Labels[(int)answers[index]]).ToArray())];
        EntityMetrics entities = new(actual, predicted);
        EntityMetrics strict = new(actual, predicted, isStrict: true);
        Assert.Equal(
            [entities.Accuracy, entities.Micro.Precision, entities.Micro.Recall, entities.Micro.F1, entities.Macro!.Value.F1, entities.Weighted.F1, strict.Micro.F1],
            [evaluation.Accuracy, evaluation.EntityPrecision, evaluation.EntityRecall, evaluation.EntityF1, evaluation.F1, evaluation.WeightedF1, evaluation.StrictEntityF1]);
    }

    /// <summary>The task without dropout, as the reference trains.</summary>
    private sealed class EvaluationModeTask(ITrainingTask task) : ITrainingTask
    {
        public string Unit => task.Unit;

        public int RowCount => task.RowCount;

        public TrainingMetric Metric => task.Metric;

        public IReadOnlyList<string> Warnings => task.Warnings;

        public int CountBatches(int batchSize) => task.CountBatches(batchSize);

        public long LargestBatch(int batchSize) => task.LargestBatch(batchSize);

        public IEnumerable<TrainingBatch> Batches(BatchOrder order) => task.Batches(order with { Shuffle = false });

        public Tensor Loss(LoKrModel model, TrainingBatch batch)
        {
            model.Module.eval();
            return task.Loss(model, batch);
        }

        public BatchScore Score(LoKrModel model, TrainingBatch batch) => task.Score(model, batch);

        public void Dispose()
        {
        }
    }
}
