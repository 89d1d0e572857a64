using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Data;
using LoKr.Core.Errors;
using LoKr.Core.Inference;
using LoKr.Core.Layouts;
using LoKr.Core.Model;
using LoKr.Core.Safetensors;
using LoKr.Core.Training;
using LoKr.Models.Families;
using LoKr.Models.Loading;
using LoKr.Models.Tests.Support;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Models.Tests.Training;

/// <summary>Rerankers: one label for pairs of texts, against sentence-transformers' CrossEncoder, transformers and PEFT.</summary>
public sealed class RerankerTests : IDisposable
{
    private const string Name = "bert-reranker";

    private static readonly TrainingOptions s_tenSteps = new()
    {
        MaxSteps = 10,
        BatchSize = 16,
        LearningRate = 5e-3,
        Schedule = LearningRateSchedule.Constant,
        MaxGradientNorm = 1,
    };

    private readonly TempFolder _folder = new();
    private int _loaded;

    /// <summary>Keys that a small configuration of a family needs beside the sizes of a BERT or, for decoders, of a Llama.</summary>
    private static readonly Dictionary<string, string> s_overlays = new(StringComparer.Ordinal)
    {
        ["bert"] = """{"type_vocab_size": 2}""",
        ["roberta"] = """{"pad_token_id": 0, "type_vocab_size": 1}""",
        ["xlm-roberta"] = """{"pad_token_id": 0, "type_vocab_size": 1}""",
        ["distilbert"] = """{"dim": 8, "n_layers": 1, "n_heads": 2, "hidden_dim": 16}""",
        ["modernbert"] = """{"num_hidden_layers": 2, "local_attention": 4}""",
        ["deberta-v2"] = """{"relative_attention": true, "pos_att_type": ["c2p", "p2c"], "max_relative_positions": 4, "type_vocab_size": 2}""",
        ["mpnet"] = """{"pad_token_id": 0}""",
        ["electra"] = """{"embedding_size": 6, "type_vocab_size": 2}""",
        ["albert"] = """{"embedding_size": 6, "num_hidden_layers": 2, "type_vocab_size": 2}""",
        ["gemma3_text"] = """{"sliding_window": 6, "sliding_window_pattern": 2}""",
        ["smollm3"] = """{"no_rope_layers": [1, 0]}""",
        ["gpt2"] = """{"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 40}""",
    };

    /// <summary>Every family of texts, by whether it has a class with a head that scores them.</summary>
    private static readonly ILookup<bool, ModelArchitecture> s_families = ArchitectureRegistry.Default.All.Where(static item => item.TakesTokens)
        .GroupBy(static item => item.ModelType, StringComparer.Ordinal).Select(static family => family.FirstOrDefault(static item => item.Task is TaskType.SequenceClassification) ?? family.First())
        .ToLookup(static item => item.Task is TaskType.SequenceClassification);

    public static TheoryData<string> Families => [.. s_families[true].Select(static item => item.ModelType)];

    public static TheoryData<string> OtherFamilies => [.. s_families[false].Select(static item => item.ModelType)];

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void Pairs_have_the_loss_of_transformers_and_ten_steps_those_of_PEFT()
    {
        JsonNode expected = Case();
        using LoKrModel model = Load(static config => (config["hidden_dropout_prob"], config["attention_probs_dropout_prob"]) = (0, 0));
        using SafetensorsReader io = SafetensorsReader.Open(Fixtures.Require("text", Name, "io.safetensors"));
        using DisposeScope scope = NewDisposeScope();
        double[] labels = io.Read("labels").to(ScalarType.Float64).flatten().data<double>().ToArray();
        using ITrainingTask task = TrainingTaskFactory.Create(
            model, [.. Pairs(expected).Zip(labels, static (pair, label) => Row(pair.Text, pair.Pair!, label))], (int)expected["max_length"]!, Token);
        Assert.DoesNotContain(task.Warnings, static warning => warning.Contains("problem_type", StringComparison.Ordinal));
        TensorAssert.Close(io.Read("base_loss").item<float>(), Evaluator.Evaluate(model, task, 4, Token).Loss, TensorAssert.Model, "loss");

        string adapter = Fixtures.Require("text", Name, "adapters", "default");
        PeftStart.Load(model, adapter);
        LoKrTrainingResult result = Trainer.Run(model, task, null, s_tenSteps, null, Token);
        double[] losses = [.. JsonNode.Parse(File.ReadAllText(Path.Combine(adapter, "case.json")))!["losses"]!.AsArray().Select(static loss => (double)loss!)];
        Assert.Equal(losses.Length, result.History.Count);
        for (int i = 0; i < losses.Length; i++)
        {
            TensorAssert.Close(losses[i], result.History[i].Loss, TensorAssert.Model, $"loss {i + 1}");
        }

        using SafetensorsReader after = SafetensorsReader.Open(Path.Combine(adapter, "io.safetensors"));
        using IDisposable noGrad = no_grad();
        model.Module.eval();
        TensorAssert.Close(after.Read("after_output"), ReferenceInput.Run(model, io), TensorAssert.Model, "output after");
    }

    [Fact]
    public void Scores_and_ranks_are_those_of_CrossEncoder()
    {
        JsonNode expected = Case();
        using LoKrModel model = ModelLoader.Load(Fixtures.Require("text", Name));
        AssertClose(expected["scores"]!, Scores(model, Pairs(expected), expected));

        JsonNode rank = expected["rank"]!;
        string[] documents = [.. rank["documents"]!.AsArray().Select(static text => (string)text!)];
        double[] scores = Scores(model, [.. documents.Select(document => new TextInput((string)rank["query"]!, document))], expected);
        foreach (JsonNode? item in rank["result"]!.AsArray())
        {
            TensorAssert.Close((double)item!["score"]!, scores[(int)item["index"]!], TensorAssert.Model, "rank");
        }
    }

    [Fact]
    public void A_score_has_the_activation_that_the_configuration_names()
    {
        foreach (JsonNode? way in Case()["activation"]!.AsArray())
        {
            using LoKrModel model = Load(config =>
            {
                foreach ((string key, JsonNode? value) in way!["config_has"]!.AsObject())
                {
                    config[key] = value?.DeepClone();
                }
            }, withFile: false);
            double[] scores = Scores(model, Pairs(Case()), Case());
            AssertClose(way!["scores"]!, scores);

            // An export scores alike, without the file beside config.json too.
            ModelExporter.Export(model, _folder["out"], force: true);
            using LoKrModel again = ModelLoader.Load(_folder["out"]);
            Assert.Equal(scores, Scores(again, Pairs(Case()), Case()));
        }
    }

    [Fact]
    public void The_file_of_sentence_transformers_overrides_config_json_and_is_exported()
    {
        using LoKrModel model = Load(
            static config => config["sentence_transformers"] = new JsonObject { ["activation_fn"] = "torch.nn.modules.activation.Sigmoid" },
            file: """{"model_type": "CrossEncoder", "activation_fn": "torch.nn.modules.linear.Identity"}""");
        AssertClose(Case()["logits"]!, Scores(model, Pairs(Case()), Case()));
        ModelExporter.Export(model, _folder["out"]);
        Assert.Equal("torch.nn.modules.linear.Identity", (string?)JsonNode.Parse(File.ReadAllText(_folder["out", "config.json"]))!["sentence_transformers"]!["activation_fn"]);
        Assert.True(File.Exists(_folder["out", "config_sentence_transformers.json"]));
        Assert.True(File.Exists(_folder["out", "modules.json"]));
    }

    [Theory]
    [InlineData("sentence_transformers.activation_fn", """{"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Tanh"}}""")]
    [InlineData("sbert_ce_default_activation_function", """{"sbert_ce_default_activation_function": "own.Identity"}""")]
    public void An_activation_that_is_not_known_is_refused_by_its_key(string key, string overlay) =>
        ErrorAssert.Throws(ErrorIds.ModelConfigUnsupported, () => Load(config => Lay(config, overlay), withFile: false).Dispose(), key);

    [Theory]
    [MemberData(nameof(Families))]
    public void Every_family_learns_to_score_pairs_and_is_exported_as_a_reranker(string family)
    {
        ModelArchitecture architecture = s_families[true].First(item => item.ModelType == family);
        bool isDecoder = ArchitectureRegistry.Default.All.First(item => item.ModelType == family).Task is TaskType.CausalLanguageModeling;
        string folder = TinyModel.WriteBert(_folder["model"]);
        JsonObject config = isDecoder ? TinyDecoder.Config(family, """{"pad_token_id": 0, "id2label": {"0": "relevance"}}""") : TinyModel.BertConfig("relevance");
        (config["model_type"], config["architectures"], config["max_position_embeddings"]) = (family, new JsonArray(architecture.Name), 40);
        Lay(config, s_overlays.GetValueOrDefault(family, "{}"));
        using (DisposeScope scope = NewDisposeScope())
        {
            TinyModel.Write(folder, config);
        }

        using LoKrModel model = ModelLoader.Load(folder, new ModelLoadOptions { Labels = ["relevance"] });
        ModuleSelector targets = ModuleSelector.FromPattern("all-linear");
        LoKrAdapter adapter = model.AddAdapter(new LoKrConfig { R = 4, TargetModules = targets, TaskType = TaskType.SequenceClassification }, seed: 1);
        Assert.Contains(adapter.SavedModules, static name => name.EndsWith("classifier", StringComparison.Ordinal) || name.EndsWith("score", StringComparison.Ordinal));
        using ITrainingTask task = TrainingTaskFactory.Create(model, TinyPairs(), 24, Token);
        Assert.Contains("reranker", Assert.Single(task.Warnings), StringComparison.Ordinal);
        double before = Evaluator.Evaluate(model, task, 8, Token).Loss;
        LoKrTrainingResult result = Trainer.Run(model, task, task, new() { MaxSteps = 40, BatchSize = 8, LearningRate = 2e-2, Seed = 1 }, null, Token);
        Assert.True(result.After!.Loss < before, $"{before} before, {result.After.Loss} after");
        Assert.InRange(result.After.NdcgAt10!.Value, double.Epsilon, 1);

        TextInput[] texts = [new("printer", "network"), new("login", "password")];
        double[] scores = [.. TextClassifier.Classify(model, texts).Select(static answer => answer.Score)];
        Assert.All(scores, static score => Assert.InRange(score, 0, 1));
        model.Merge();
        ModelExporter.Export(model, _folder["out"]);
        JsonNode exported = JsonNode.Parse(File.ReadAllText(_folder["out", "config.json"]))!;
        Assert.Equal("torch.nn.modules.activation.Sigmoid", (string?)exported["sentence_transformers"]!["activation_fn"]);
        Assert.Null(exported["problem_type"]);
        Assert.Equal("relevance", (string?)exported["id2label"]!["0"]);
        Assert.Equal(architecture.Name, (string?)exported["architectures"]![0]);
        using LoKrModel again = ModelLoader.Load(_folder["out"]);
        double[] same = [.. TextClassifier.Classify(again, texts).Select(static answer => answer.Score)];
        Assert.All(scores.Zip(same), static pair => Assert.Equal(pair.First, pair.Second, 1e-5));

        // It is known as one now: rows need not tell.
        using ITrainingTask more = TrainingTaskFactory.Create(again, [Row("printer", "network", 1)], 24, Token);
        Assert.Empty(more.Warnings);
        Assert.Equal(ClassificationProblem.Relevance, ((TextClassificationTask)more).Problem);
    }

    [Theory]
    [MemberData(nameof(OtherFamilies))]
    public void A_family_without_a_head_that_scores_texts_is_refused_by_its_class(string family)
    {
        ModelArchitecture architecture = s_families[false].First(item => item.ModelType == family);
        JsonObject config = TinyDecoder.Config(family);
        ErrorAssert.Throws(ErrorIds.LabelsInvalid, () => ModelLoader.Build(new ModelConfig(config), new() { Labels = ["relevance"] }), architecture.Name, "does not classify");
    }

    [Fact]
    public void One_label_is_a_regression_for_single_texts_other_numbers_and_where_config_json_says_so()
    {
        using LoKrModel model = ModelLoader.Load(TinyModel.WriteBert(_folder["bert"]), new ModelLoadOptions { Labels = ["relevance"], Seed = 1 });
        Assert.Equal(ClassificationProblem.Relevance, Problem(Row("printer", "network", 0.5)));
        Assert.Equal(ClassificationProblem.Regression, Problem(Row("printer", "network", 1.5)));
        Assert.Equal(ClassificationProblem.Regression, Problem(Row("printer", "network", 1), new(new Dictionary<string, object?> { ["text"] = "network", ["label"] = 0.5 }, "row")));
        model.Pretrained!.Config["problem_type"] = "regression";
        Assert.Equal(ClassificationProblem.Regression, Problem(Row("printer", "network", 0.5)));

        ClassificationProblem Problem(params DataRow[] rows)
        {
            using TextClassificationTask task = new(model, rows, 16, cancellationToken: Token);
            return task.Problem;
        }
    }

    [Fact]
    public void A_label_outside_0_to_1_is_an_error_for_a_reranker()
    {
        using LoKrModel model = ModelLoader.Load(Fixtures.Require("text", Name));
        ErrorAssert.Throws(ErrorIds.DataValueInvalid, () => TrainingTaskFactory.Create(model, [Row("a disk", "b", 1), Row("a disk", "c", 2)], 24, Token), "from 0 to 1");
    }

    [Fact]
    public void An_evaluation_ranks_the_texts_of_every_query()
    {
        using LoKrModel model = ModelLoader.Load(TinyModel.WriteBert(_folder["bert"]), new ModelLoadOptions { Labels = ["relevance"], Seed = 1 });
        DataRow[] rows = TinyPairs();
        using ITrainingTask task = TrainingTaskFactory.Create(model, rows, 24, Token);
        LoKrEvaluation evaluation = Evaluator.Evaluate(model, task, 4, Token);

        // By hand: the scores of every query, the best first.
        double[] scores = [.. TextClassifier.Classify(model, [.. rows.Select(static row => TextInput.Of(row, "text"))], 24).Select(static answer => answer.Score)];
        double[][] gains = [.. rows.Zip(scores).GroupBy(static pair => (string)pair.First.Fields["text"]!)
            .Select(static query => query.OrderByDescending(static pair => pair.Second).Select(static pair => (double)pair.First.Fields["label"]!).ToArray())];
        Assert.Equal(gains.Average(static query => 1.0 / (Array.IndexOf(query, 1) + 1)), evaluation.MrrAt10!.Value, 1e-12);
        Assert.Equal(gains.Average(static query => 1 / Math.Log2(Array.IndexOf(query, 1) + 2)), evaluation.NdcgAt10!.Value, 1e-12);

        // The same rows with another way to name their query, and with one text for each.
        DataRow[] renamed = [.. rows.Select(static (row, i) => new DataRow(
            new Dictionary<string, object?>(row.Fields) { ["query"] = $"q{(string)row.Fields["text"]!}" }, row.Origin))];
        using ITrainingTask byName = TrainingTaskFactory.Create(model, renamed, 24, Token);
        Assert.Equal(evaluation.NdcgAt10, Evaluator.Evaluate(model, byName, 8, Token).NdcgAt10);
        using ITrainingTask single = TrainingTaskFactory.Create(model, [rows[0], rows[^1]], 24, Token);
        Assert.Null(Evaluator.Evaluate(model, single, 4, Token).NdcgAt10);

        // Scores of single rows, which the gate compares, add up to the same.
        IReadOnlyList<RowScore> scored = RowScores.Compute(model, task, 4, cancellation: Token);
        foreach (EvaluationMetric metric in (EvaluationMetric[])[EvaluationMetric.Loss, EvaluationMetric.Accuracy, EvaluationMetric.F1, EvaluationMetric.MrrAt10, EvaluationMetric.NdcgAt10])
        {
            Assert.Equal(evaluation.ValueOf(metric), new RowMetric(metric, scored).Value, 1e-6);
        }

        Assert.Equal(gains.Length, new RowMetric(EvaluationMetric.NdcgAt10, scored).UnitCount);
    }

    // Every query has one relevant text among four.
    private static DataRow[] TinyPairs() =>
    [
        .. TinyData.Words.Take(8).SelectMany((query, i) => Enumerable.Range(0, 4).Select(j =>
            Row(query, j == i % 4 ? $"{query} {TinyData.Words[8]}" : TinyData.Words[(i + j + 1) % 12], j == i % 4 ? 1 : 0))),
    ];

    private static DataRow Row(string text, string pair, double label) =>
        new(new Dictionary<string, object?> { ["text"] = text, ["text_pair"] = pair, ["label"] = label }, "row");

    private static JsonNode Case() => JsonNode.Parse(File.ReadAllText(Fixtures.Require("text", Name, "case.json")))!;

    private static TextInput[] Pairs(JsonNode expected) => [.. expected["pairs"]!.AsArray().Select(static pair => new TextInput((string)pair![0]!, (string)pair[1]!))];

    private static double[] Scores(LoKrModel model, TextInput[] pairs, JsonNode expected) =>
        [.. TextClassifier.Classify(model, pairs, (int)expected["max_length"]!).Select(static answer => answer.Score)];

    private static void AssertClose(JsonNode expected, double[] actual)
    {
        using DisposeScope scope = NewDisposeScope();
        double[] values = [.. expected.AsArray().Select(static value => (double)value!)];
        TensorAssert.Close(tensor(values), tensor(actual), TensorAssert.Model, "scores");
    }

    private static void Lay(JsonObject config, string overlay)
    {
        foreach ((string key, JsonNode? value) in JsonNode.Parse(overlay)!.AsObject())
        {
            config[key] = value?.DeepClone();
        }
    }

    // The reference folder with other values in config.json.
    private LoKrModel Load(Action<JsonObject> edit, bool withFile = true, string? file = null)
    {
        string source = Fixtures.Require("text", Name);
        string folder = _folder[$"in-{_loaded++}"];
        Directory.CreateDirectory(folder);
        foreach (string path in Directory.EnumerateFiles(source).Where(path => withFile || Path.GetFileName(path) != "config_sentence_transformers.json"))
        {
            File.WriteAllBytes(Path.Combine(folder, Path.GetFileName(path)), File.ReadAllBytes(path));
        }

        JsonObject config = JsonNode.Parse(File.ReadAllText(Path.Combine(source, "config.json")))!.AsObject();
        edit(config);
        File.WriteAllText(Path.Combine(folder, "config.json"), config.ToJsonString());
        if (file is not null)
        {
            File.WriteAllText(Path.Combine(folder, "config_sentence_transformers.json"), file);
        }

        return ModelLoader.Load(folder);
    }
}
