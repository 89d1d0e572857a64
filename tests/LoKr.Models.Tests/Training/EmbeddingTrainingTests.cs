using System.Text.Json.Nodes;
using LoKr.Core.Data;
using LoKr.Core.Errors;
using LoKr.Core.Inference;
using LoKr.Core.Layouts;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Core.Runs;
using LoKr.Core.Safetensors;
using LoKr.Core.Training;
using LoKr.Models.Loading;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Models.Tests.Training;

/// <summary>Sentence encoders that learn, against sentence-transformers: losses, ten steps, batches, measures.</summary>
public sealed class EmbeddingTrainingTests : IDisposable
{
    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    public static TheoryData<string, string> Trainings()
    {
        TheoryData<string, string> rows = [];
        string? root = Fixtures.Root is null ? null : Path.Combine(Fixtures.Root, "embeddings");
        foreach (string folder in root is null || !Directory.Exists(root) ? (IEnumerable<string>)[] : Directory.EnumerateDirectories(root).Order(StringComparer.Ordinal))
        {
            JsonNode adapter = JsonNode.Parse(File.ReadAllText(Path.Combine(folder, "adapters", "default", "case.json")))!;
            foreach ((string name, _) in adapter["train"]?.AsObject() ?? [])
            {
                rows.Add(Path.GetFileName(folder), name);
            }
        }

        if (rows.Count == 0)
        {
            rows.Add("", "");
        }

        return rows;
    }

    [Fact]
    public void Losses_and_similarities_are_those_of_sentence_transformers()
    {
        using SafetensorsReader table = SafetensorsReader.Open(Fixtures.Require("embeddings", "losses.safetensors"));
        JsonNode expected = JsonNode.Parse(File.ReadAllText(Fixtures.Require("embeddings", "losses.json")))!["values"]!;
        using DisposeScope scope = NewDisposeScope();
        (Tensor a, Tensor p, Tensor n, Tensor labels) = (table.Read("a"), table.Read("p"), table.Read("n"), table.Read("labels"));
        Tensor both = cat([p, n], 0);
        (string Name, Tensor Losses)[] cases =
        [
            ("MultipleNegativesRankingLoss pairs", EmbeddingLosses.MultipleNegativesRanking(a, p)),
            ("MultipleNegativesRankingLoss triplets", EmbeddingLosses.MultipleNegativesRanking(a, both)),
            ("MultipleNegativesRankingLoss scale 5 dot", EmbeddingLosses.MultipleNegativesRanking(a, p, 5, SimilarityFunction.Dot)),
            ("CoSENTLoss", EmbeddingLosses.CoSent(a, p, labels)),
            ("CosineSimilarityLoss", EmbeddingLosses.CosineSimilarity(a, p, labels)),
            ("TripletLoss EUCLIDEAN margin 5", EmbeddingLosses.Triplet(a, p, n)),
            ("TripletLoss COSINE margin 5", EmbeddingLosses.Triplet(a, p, n, TripletDistance.Cosine)),
            ("TripletLoss MANHATTAN margin 5", EmbeddingLosses.Triplet(a, p, n, TripletDistance.Manhattan)),
            ("TripletLoss EUCLIDEAN margin 0.3", EmbeddingLosses.Triplet(a, p, n, TripletDistance.Euclidean, 0.3)),
        ];
        Assert.All(cases, item => TensorAssert.Close((double)expected[item.Name]!, item.Losses.mean().item<float>(), TensorAssert.Layer, item.Name));
        foreach ((string name, SimilarityFunction function) in new[]
        {
            ("cos_sim", SimilarityFunction.Cosine), ("dot_score", SimilarityFunction.Dot), ("euclidean_sim", SimilarityFunction.Euclidean), ("manhattan_sim", SimilarityFunction.Manhattan),
        })
        {
            TensorAssert.Close(table.Read(name), function.All(a, p), TensorAssert.Layer, name);
            TensorAssert.Close(table.Read(name).diagonal(), function.Pairs(a, p), TensorAssert.Layer, $"{name} by rows");
        }

        TensorAssert.Close(table.Read("pairwise_cos_sim"), SimilarityFunction.Cosine.Pairs(a, p), TensorAssert.Layer, "pairwise");
    }

    [Theory]
    [MemberData(nameof(Trainings))]
    public void Ten_steps_have_the_losses_and_the_vectors_of_sentence_transformers(string name, string lossName)
    {
        string folder = Fixtures.Require("embeddings", name);
        string adapter = Path.Combine(folder, "adapters", "default");
        JsonNode texts = JsonNode.Parse(File.ReadAllText(Path.Combine(folder, "case.json")))!;
        JsonNode train = JsonNode.Parse(File.ReadAllText(Path.Combine(adapter, "case.json")))!["train"]![lossName]!;
        string[] columns = [.. train["columns"]!.AsArray().Select(static column => (string)column!)];
        double[]? labels = train["labels"] is JsonArray list ? [.. list.Select(static label => (double)label!)] : null;
        DataRow[] rows = [.. Enumerable.Range(0, texts["columns"]!["a"]!.AsArray().Count).Select(row =>
        {
            Dictionary<string, object?> fields = columns.ToDictionary(Column, column => (object?)(string)texts["columns"]![column]![row]!);
            if (labels is not null)
            {
                fields["score"] = labels[row];
            }

            return new DataRow(fields, $"row {row}");
        })];

        using DisposeScope scope = NewDisposeScope();
        using LoKrModel model = ModelLoader.Load(folder);
        PeftStart.Load(model, adapter);
        TrainingOptions options = new()
        {
            MaxSteps = 10,
            LearningRate = 5e-3,
            Schedule = LearningRateSchedule.Constant,
            EmbeddingLoss = lossName.Split(' ')[0] switch
            {
                "MultipleNegativesRankingLoss" => null,
                "CoSENTLoss" => null,
                "CosineSimilarityLoss" => EmbeddingLoss.CosineSimilarity,
                "TripletLoss" => EmbeddingLoss.Triplet,
                _ => throw new NotSupportedException(lossName),
            },
            TripletDistance = lossName.Contains("cosine", StringComparison.Ordinal) ? TripletDistance.Cosine : TripletDistance.Euclidean,
            TripletMargin = lossName.Split(" margin ") is [_, string margin] ? double.Parse(margin, System.Globalization.CultureInfo.InvariantCulture) : 5,
        };
        using WithoutDropout task = new(new EmbeddingTask(model, rows, options));
        LoKrTrainingResult result = Trainer.Run(model, task, null, options, null, TestContext.Current.CancellationToken);
        double[] losses = [.. train["losses"]!.AsArray().Select(static loss => (double)loss!)];
        Assert.Equal(losses.Length, result.History.Count);
        for (int i = 0; i < losses.Length; i++)
        {
            TensorAssert.Close(losses[i], result.History[i].Loss, TensorAssert.Model, $"loss {i + 1}");
        }

        using SafetensorsReader io = SafetensorsReader.Open(Path.Combine(adapter, "io.safetensors"));
        float[] after = [.. TextEmbedder.Embed(model, [.. texts["texts"]!.AsArray().Select(static text => (string)text!)]).SelectMany(static embedding => embedding.Vector)];
        Tensor expected = io.Read($"after {lossName}");
        TensorAssert.Close(expected, tensor(after, expected.shape), TensorAssert.Model, "after");

        static string Column(string column) => column switch { "a" => "anchor", "p" => "positive", _ => "negative" };
    }

    [Fact]
    public void A_search_has_the_measures_of_its_ranks_and_documents_count_in_it_only()
    {
        using LoKrModel model = ModelLoader.Load(TinyModel.WriteBert(_folder["bert"]));
        DataRow[] rows =
        [
            Row(("query", "vpn"), ("positive", "vpn"), ("id", "a")),
            Row(("query", "wifi"), ("positive", "password login"), ("negative", "wifi")),
            Row(("query", "refund"), ("relevant", new object[] { "a", "c" })),
            Row(("document", "refund"), ("id", "c")),
            Row(("document", "refund"), ("id", "c")),
            Row(("document", "the price"), ("id", "d")),
        ];
        using EmbeddingTask task = new(model, rows);
        Assert.Equal(2, task.RowCount);
        Assert.Equal(1, task.CountBatches(4));
        Assert.Equal(3, task.CountEvaluationBatches(4));
        LoKrEvaluation evaluation = Evaluator.Evaluate(model, task, 4, TestContext.Current.CancellationToken);
        Assert.Equal(evaluation, Evaluator.Evaluate(model, task, 1, TestContext.Current.CancellationToken) with { Loss = evaluation.Loss, Elapsed = evaluation.Elapsed });

        // The first query is its own answer; the answer to the second comes behind its wrong one; of two for the third, one comes first.
        Assert.Equal(0.5, evaluation.RecallAt1);
        Assert.Equal(1, evaluation.RecallAt10);
        IReadOnlyList<RowScore> scores = RowScores.Compute(model, task, 4, cancellation: TestContext.Current.CancellationToken);
        Assert.Equal([1.0, 0, 0.5], scores.Select(static row => row.Ranks!.Recall(1)));
        Assert.Equal([1L, 1, 0], scores.Select(static row => row.LossCount));
        foreach (EvaluationMetric metric in new[] { EvaluationMetric.Loss, EvaluationMetric.RecallAt1, EvaluationMetric.RecallAt10, EvaluationMetric.MrrAt10, EvaluationMetric.NdcgAt10 })
        {
            Assert.Equal(evaluation.ValueOf(metric), new RowMetric(metric, scores).Value, 6);
        }

        Assert.All(new[] { EvaluationMetric.Accuracy, EvaluationMetric.Perplexity, EvaluationMetric.Spearman }, metric =>
        {
            ErrorAssert.Throws(ErrorIds.MetricUnavailable, () => evaluation.ValueOf(metric));
            ErrorAssert.Throws(ErrorIds.MetricUnavailable, () => _ = new RowMetric(metric, scores));
        });
    }

    [Fact]
    public void Documents_with_ids_are_told_apart_though_their_texts_are_equal()
    {
        using LoKrModel model = ModelLoader.Load(TinyModel.WriteBert(_folder["bert"]));
        DataRow[] ids = [Row(("query", "vpn"), ("positive", "vpn"), ("id", "2")), Row(("query", "wifi"), ("positive", "vpn"), ("id", "1")), Row(("document", "vpn"))];
        using EmbeddingTask apart = new(model, ids);
        using EmbeddingTask together = new(model, [.. ids.Select(static row => Row([.. row.Fields.Where(static field => field.Key != "id").Select(static field => (field.Key, field.Value!))]))]);
        Assert.Equal(1, Evaluator.Evaluate(model, together, 2, TestContext.Current.CancellationToken).RecallAt1);

        // Of equal scores one comes first.
        LoKrEvaluation evaluation = Evaluator.Evaluate(model, apart, 2, TestContext.Current.CancellationToken);
        Assert.Equal((0.5, 1.0, 0.75), (evaluation.RecallAt1!.Value, evaluation.RecallAt10!.Value, evaluation.MrrAt10!.Value));
    }

    [Fact]
    public void Pairs_with_scores_have_a_correlation()
    {
        using LoKrModel model = ModelLoader.Load(TinyModel.WriteBert(_folder["bert"]));
        DataRow[] rows = [.. new[] { "vpn wifi", "vpn vpn", "price card", "my account", "vpn" }.Select((text, i) => Row(("sentence1", "vpn"), ("sentence2", text), ("score", i / 4.0)))];
        using EmbeddingTask task = new(model, rows);
        Assert.Equal(EmbeddingLoss.CoSent, task.Loss);
        Assert.Contains("scores", Assert.Single(task.Notes), StringComparison.Ordinal);
        LoKrEvaluation evaluation = Evaluator.Evaluate(model, task, 2, TestContext.Current.CancellationToken);
        double[] similar = [.. rows.Select(row =>
        {
            IReadOnlyList<LoKrEmbedding> pair = TextEmbedder.Embed(model, ["vpn", (string)row.Fields["sentence2"]!]);
            return pair[0].Vector.Zip(pair[1].Vector, static (x, y) => (double)x * y).Sum() / Norm(pair[0].Vector) / Norm(pair[1].Vector);
        })];
        Assert.Equal(Core.Metrics.NumberMetrics.Spearman([0, 0.25, 0.5, 0.75, 1], similar)!.Value, evaluation.Spearman!.Value, 6);
        Assert.Null(evaluation.NdcgAt10);
        IReadOnlyList<RowScore> scores = RowScores.Compute(model, task, 2, cancellation: TestContext.Current.CancellationToken);
        Assert.Equal(evaluation.Spearman.Value, new RowMetric(EvaluationMetric.Spearman, scores).Value, 6);
        Assert.Equal(evaluation.Loss, new RowMetric(EvaluationMetric.Loss, scores).Value, 5);
    }

    [Fact]
    public void A_search_that_is_learned_passes_the_gate_and_the_best_evaluation_is_kept()
    {
        using LoKrModel model = ModelLoader.Load(TinyModel.WriteBert(_folder["bert"]));
        DataRow[] rows = Pairs(60);
        model.AddAdapter(new() { R = 4, Alpha = 8, TargetModules = Core.Configuration.ModuleSelector.FromNames(["query", "value", "dense"]) }, "new", seed: 1);
        TrainingOptions options = new() { Epochs = 6, BatchSize = 12, LearningRate = 2e-2, Seed = 1, KeepBest = true, Metric = EvaluationMetric.MrrAt10, EvaluateBefore = true };
        using EmbeddingTask task = new(model, rows, options);
        using EmbeddingTask validation = new(model, Pairs(24), options);
        LoKrTrainingResult result = Trainer.Run(model, task, validation, options, null, TestContext.Current.CancellationToken);
        Assert.True(result.After!.MrrAt10 > result.Before!.MrrAt10 + 0.1, $"{result.Before} → {result.After}");
        Assert.Equal(result.History.Max(static step => step.NdcgAt10 ?? 0), result.History[result.BestStep!.Value - 1].NdcgAt10!.Value, 1);

        LoKrGateResult gate = PromotionGate.Evaluate(model, null, AdapterReference.OfModel(model, "new"), validation, cancellation: TestContext.Current.CancellationToken);
        Assert.Equal((EvaluationMetric.NdcgAt10, "Bootstrap", 24), (gate.Metric, gate.Test, gate.RowCount));
        Assert.True(gate.Passed, gate.ToString());
        Assert.Contains("nDCG@10", gate.ToString(), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(EmbeddingLoss.CoSent, false, ErrorIds.TrainingOptionInvalid, "score")]
    [InlineData(EmbeddingLoss.MultipleNegativesRanking, true, ErrorIds.TrainingOptionInvalid, "CoSent")]
    [InlineData(EmbeddingLoss.Triplet, false, ErrorIds.DataValueInvalid, "negative")]
    [InlineData(EmbeddingLoss.CosineSimilarity, true, ErrorIds.DataValueInvalid, "1.5")]
    public void A_loss_that_the_rows_do_not_fit_is_refused(EmbeddingLoss loss, bool scored, string errorId, string says)
    {
        using LoKrModel model = ModelLoader.Load(TinyModel.WriteBert(_folder["bert"]));
        DataRow row = scored ? Row(("sentence1", "vpn"), ("sentence2", "wifi"), ("score", 1.5)) : Row(("anchor", "vpn"), ("positive", "wifi"));
        ErrorAssert.Throws(errorId, () => _ = new EmbeddingTask(model, [row], new() { EmbeddingLoss = loss }), says);
    }

    [Fact]
    public void Rows_that_do_not_fit_are_named()
    {
        using LoKrModel model = ModelLoader.Load(TinyModel.WriteBert(_folder["bert"]));
        ErrorAssert.Throws(ErrorIds.DataColumnMissing, () => _ = new EmbeddingTask(model, [Row(("text", "vpn"))]), "a row", "text", "positive");
        ErrorAssert.Throws(ErrorIds.DataColumnMissing, () => _ = new EmbeddingTask(model, [Row(("query", "vpn"))]), "positive");
        ErrorAssert.Throws(ErrorIds.DataValueInvalid, () => _ = new EmbeddingTask(model, [Row(("anchor", "vpn"), ("positive", " "))]), "positive");
        ErrorAssert.Throws(ErrorIds.DataValueInvalid, () => _ = new EmbeddingTask(model, [Row(("query", "vpn"), ("relevant", "x")), Row(("document", "wifi"), ("id", "y"))]), "'x'");
        ErrorAssert.Throws(ErrorIds.DataValueInvalid, () => _ = new EmbeddingTask(model, [Row(("document", "vpn"), ("id", "y")), Row(("document", "wifi"), ("id", "y"))]), "'y'");
        ErrorAssert.Throws(ErrorIds.DataValueInvalid, () => _ = new EmbeddingTask(model, [Row(("anchor", "vpn"), ("positive", "wifi")), Row(("sentence1", "vpn"), ("sentence2", "wifi"), ("score", 1))]), "unlike");
        using EmbeddingTask search = new(model, [Row(("query", "vpn"), ("relevant", "y")), Row(("document", "wifi"), ("id", "y"))]);
        ErrorAssert.Throws(ErrorIds.DataWithoutLoss, () => search.CountBatches(2), "learn");
        Assert.Equal(1, Evaluator.Evaluate(model, search, 2, TestContext.Current.CancellationToken).RecallAt1);
    }

    private static double Norm(float[] vector) => Math.Sqrt(vector.Sum(static value => (double)value * value));

    // Each of three words has answers with two words of their own.
    private static DataRow[] Pairs(int count) => [.. Enumerable.Range(0, count).Select(static row => Row(
        ("query", $"{TinyData.Words[row % 5]} {TinyData.Words[15 + (row / 5 % 5)]}"),
        ("positive", $"{TinyData.Words[5 + (row % 5)]} {TinyData.Words[10 + (row / 5 % 5)]} {TinyData.Words[row * 7 % 20]}")))];

    private static DataRow Row(params (string Name, object Value)[] fields) => new(fields.ToDictionary(static field => field.Name, static field => (object?)field.Value), "a row");

    /// <summary>The same task on a model in evaluation mode, as the reference trains.</summary>
    private sealed class WithoutDropout(EmbeddingTask task) : ITrainingTask
    {
        private readonly ITrainingTask _task = task;

        public string Unit => _task.Unit;

        public int RowCount => _task.RowCount;

        public TrainingMetric Metric => _task.Metric;

        public IReadOnlyList<string> Warnings => _task.Warnings;

        public int CountBatches(int batchSize) => _task.CountBatches(batchSize);

        public long LargestBatch(int batchSize) => _task.LargestBatch(batchSize);

        public IEnumerable<TrainingBatch> Batches(BatchOrder order) => _task.Batches(order);

        public Tensor Loss(LoKrModel model, TrainingBatch batch)
        {
            model.Module.eval();
            return _task.Loss(model, batch);
        }

        public BatchScore Score(LoKrModel model, TrainingBatch batch) => _task.Score(model, batch);

        public void Dispose() => _task.Dispose();
    }
}
