using System.Text.Json;
using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Data;
using LoKr.Core.Errors;
using LoKr.Core.Inference;
using LoKr.Core.Metrics;
using LoKr.Core.Model;
using LoKr.Core.Safetensors;
using LoKr.Core.Training;
using LoKr.Models.Loading;
using LoKr.Models.Tests.Support;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Models.Tests.Training;

/// <summary>Several labels at once and numbers to learn, from rows of data: against transformers and PEFT, and rules of their own.</summary>
public sealed class ClassificationProblemTests
{
    private const int MaxLength = 40;

    private static readonly TrainingOptions s_tenSteps = new()
    {
        MaxSteps = 10,
        BatchSize = 6,
        LearningRate = 5e-3,
        Schedule = LearningRateSchedule.Constant,
        MaxGradientNorm = 1,
    };

    /// <summary>Models, and whether config.json names the problem.</summary>
    public static TheoryData<string, string> Models => new()
    {
        { "bert-multilabel", "config.json" },
        { "bert-multilabel", "config-inferred.json" },
        { "bert-regression", "config.json" },
        { "bert-regression", "config-inferred.json" },
        { "bert-regression-2", "config.json" },
    };

    [Theory]
    [MemberData(nameof(Models))]
    public void Rows_have_the_loss_of_transformers_and_ten_steps_those_of_PEFT(string name, string configuration)
    {
        using TempFolder folder = new();
        using LoKrModel model = Load(folder, name, configuration);
        string adapter = Fixtures.Require("text", name, "adapters", "default");
        using SafetensorsReader io = SafetensorsReader.Open(Fixtures.Require("text", name, "io.safetensors"));
        using ITrainingTask task = TrainingTaskFactory.Create(model, Rows(name, io), MaxLength, TestContext.Current.CancellationToken);
        using DisposeScope scope = NewDisposeScope();
        TensorAssert.Close(io.Read("base_loss").item<float>(), Evaluator.Evaluate(model, task, 4, TestContext.Current.CancellationToken).Loss, TensorAssert.Model, name);

        PeftStart.Load(model, adapter);
        LoKrTrainingResult result = Trainer.Run(model, task, null, s_tenSteps, null, TestContext.Current.CancellationToken);
        double[] losses = [.. JsonNode.Parse(File.ReadAllText(Path.Combine(adapter, "case.json")))!["losses"]!.AsArray().Select(loss => (double)loss!)];
        Assert.Equal(losses.Length, result.History.Count);
        for (int i = 0; i < losses.Length; i++)
        {
            TensorAssert.Close(losses[i], result.History[i].Loss, TensorAssert.Model, $"loss {i + 1}");
        }

        using SafetensorsReader expected = SafetensorsReader.Open(Path.Combine(adapter, "io.safetensors"));
        using IDisposable noGrad = no_grad();
        model.Module.eval();
        TensorAssert.Close(expected.Read("after_output"), ReferenceInput.Run(model, io), TensorAssert.Model, "output after");
    }

    [Theory]
    [MemberData(nameof(Models))]
    public void What_is_inferred_is_said_and_exported(string name, string configuration)
    {
        using TempFolder folder = new();
        using LoKrModel model = Load(folder, name, configuration);
        using SafetensorsReader io = SafetensorsReader.Open(Fixtures.Require("text", name, "io.safetensors"));
        using ITrainingTask task = TrainingTaskFactory.Create(model, Rows(name, io), MaxLength, TestContext.Current.CancellationToken);
        string expected = (string)JsonNode.Parse(File.ReadAllText(Fixtures.Require("text", name, "config.json")))!["problem_type"]!;
        bool isInferred = configuration != "config.json";
        Assert.Equal(isInferred, task.Warnings.Any(warning => warning.Contains(expected, StringComparison.Ordinal)));
        Assert.Equal(isInferred ? null : expected, (string?)model.Pretrained!.Config["problem_type"]);
        Evaluator.Evaluate(model, task, 4, TestContext.Current.CancellationToken);
        ModelExporter.Export(model, folder["out"]);
        Assert.Equal(expected, (string?)JsonNode.Parse(File.ReadAllText(folder["out", "config.json"]))!["problem_type"]);
    }

    [Fact]
    public void Texts_have_every_label_above_one_half_or_the_numbers_themselves()
    {
        foreach (string name in (string[])["bert-multilabel", "bert-regression", "bert-regression-2"])
        {
            using TempFolder folder = new();
            using DisposeScope scope = NewDisposeScope();
            using LoKrModel model = Load(folder, name, "config.json");
            using SafetensorsReader io = SafetensorsReader.Open(Fixtures.Require("text", name, "io.safetensors"));
            Tensor logits = io.Read("base_output");
            Tensor values = name == "bert-multilabel" ? logits.sigmoid() : logits;
            string[] texts = [.. JsonNode.Parse(File.ReadAllText(Fixtures.Require("text", name, "case.json")))!["texts"]!.AsArray().Select(text => (string)text!)];
            IReadOnlyList<LoKrClassification> answers = TextClassifier.Classify(model, texts, MaxLength);
            for (int row = 0; row < texts.Length; row++)
            {
                double[] expected = values[row].to(ScalarType.Float64).data<double>().ToArray();
                TensorAssert.Close(tensor(expected), tensor(answers[row].Scores.Values.ToArray()), TensorAssert.Model, $"{name} {row}");
                Assert.Equal(
                    name == "bert-multilabel" ? answers[row].Scores.Where(pair => pair.Value > 0.5).Select(pair => pair.Key) : answers[row].Scores.Keys,
                    answers[row].Labels);
            }
        }
    }

    [Fact]
    public void An_evaluation_of_several_labels_has_the_figures_of_all_decisions_and_of_every_label()
    {
        const string name = "bert-multilabel";
        using TempFolder folder = new();
        using DisposeScope scope = NewDisposeScope();
        using LoKrModel model = Load(folder, name, "config.json");
        using SafetensorsReader io = SafetensorsReader.Open(Fixtures.Require("text", name, "io.safetensors"));
        using ITrainingTask task = TrainingTaskFactory.Create(model, Rows(name, io), MaxLength, TestContext.Current.CancellationToken);
        (Tensor probabilities, Tensor labels) = (io.Read("base_output").sigmoid().to(ScalarType.Float64), io.Read("labels"));
        MultiLabelMetrics expected = new(
            [.. Enumerable.Range(0, task.RowCount).Select(row => probabilities[row].data<double>().ToArray())],
            [.. Enumerable.Range(0, task.RowCount).Select(row => labels[row].data<float>().Select(static value => value > 0.5f).ToArray())]);
        LabelReport report = Evaluator.EvaluateByLabel(model, task, 4, cancellationToken: TestContext.Current.CancellationToken);
        Assert.Equal(expected.SubsetAccuracy, report.Evaluation.Accuracy!.Value, 12);
        Assert.Equal(expected.Macro.F1, report.Evaluation.F1!.Value, 12);
        Assert.Equal(expected.Micro.F1, report.Evaluation.MicroF1!.Value, 12);
        Assert.Equal(expected.Weighted.F1, report.Evaluation.WeightedF1!.Value, 12);
        Assert.Equal(expected.Macro.Precision, report.Evaluation.Precision!.Value, 12);
        Assert.Null(report.Evaluation.MatthewsCorrelation);
        Assert.Equal(Enumerable.Range(0, 4).Select(label => expected.Counts.Of(label).F1), report.Labels.Select(static label => label.F1));
        Assert.Empty(report.Confusion);
    }

    [Fact]
    public void Names_of_labels_are_as_good_as_a_number_for_each()
    {
        using TempFolder folder = new();
        using LoKrModel model = ModelLoader.Load(TinyModel.WriteBert(folder["bert"]), new ModelLoadOptions { Labels = ["a", "b", "c"], Seed = 1 });
        double byName = Loss(model, """["c", "a"]""", """[]""", """["b"]""");
        Assert.Equal(byName, Loss(model, "[1, 0, 1]", "[0, 0, 0]", "[false, true, false]"));
        Assert.NotEqual(byName, Loss(model, "[1, 0, 1]", "[0, 0, 1]", "[0, 1, 0]"));
        Assert.Equal("multi_label_classification", (string?)model.Pretrained!.Config["problem_type"]);
    }

    [Theory]
    [InlineData("""["d"]""", ErrorIds.LabelUnknown)]
    [InlineData("[1, 0]", ErrorIds.DataValueInvalid)]
    [InlineData("[1, 0, 2]", ErrorIds.DataValueInvalid)]
    [InlineData("[null]", ErrorIds.DataValueInvalid)]
    public void Labels_that_do_not_fit_are_errors(string label, string id)
    {
        using TempFolder folder = new();
        using LoKrModel model = ModelLoader.Load(TinyModel.WriteBert(folder["bert"]), new ModelLoadOptions { Labels = ["a", "b", "c"], Seed = 1 });
        ErrorAssert.Throws(id, () => Loss(model, label), "row 0");
    }

    [Fact]
    public void A_regression_takes_numbers_only()
    {
        using TempFolder folder = new();
        using LoKrModel model = ModelLoader.Load(TinyModel.WriteBert(folder["bert"]), new ModelLoadOptions { Labels = ["urgency"], Seed = 1 });
        Assert.Equal(Loss(model, "0.5", "-2"), Loss(model, "\"0.5\"", "[-2]"));
        Assert.Equal("regression", (string?)model.Pretrained!.Config["problem_type"]);
        ErrorAssert.Throws(ErrorIds.DataValueInvalid, () => Loss(model, "\"high\""), "row 0");
        ErrorAssert.Throws(ErrorIds.DataValueInvalid, () => Loss(model, "[1, 2]"), "row 0");
    }

    [Fact]
    public void A_problem_that_is_not_known_is_refused_by_its_key()
    {
        JsonObject config = TinyModel.BertConfig("a", "b");
        config["problem_type"] = "ranking";
        ErrorAssert.Throws(ErrorIds.ModelConfigUnsupported, () => ModelLoader.Build(new ModelConfig(config)), "problem_type", "ranking");
    }

    private static double Loss(LoKrModel model, params string[] labels)
    {
        IReadOnlyList<DataRow> rows = [.. labels.Select((label, i) => Row("printer is on fire", JsonElement.Parse(label), $"row {i}"))];
        using ITrainingTask task = TrainingTaskFactory.Create(model, rows, MaxLength / 2, TestContext.Current.CancellationToken);
        return Evaluator.Evaluate(model, task, 2, TestContext.Current.CancellationToken).Loss;
    }

    // As the reader of JSON gives them: values, and elements for lists.
    private static DataRow Row(string text, JsonElement label, string origin) => new(
        new Dictionary<string, object?>
        {
            ["text"] = text,
            ["label"] = label.ValueKind switch { JsonValueKind.Number => label.GetDouble(), JsonValueKind.String => label.GetString(), _ => label },
        },
        origin);

    private static DataRow[] Rows(string name, SafetensorsReader io)
    {
        using DisposeScope scope = NewDisposeScope();
        string[] texts = [.. JsonNode.Parse(File.ReadAllText(Fixtures.Require("text", name, "case.json")))!["texts"]!.AsArray().Select(text => (string)text!)];
        Tensor labels = io.Read("labels").to(ScalarType.Float64);
        return [.. texts.Select((text, row) => Row(
            text, JsonSerializer.SerializeToElement(labels.dim() == 1 ? (object)labels[row].item<double>() : labels[row].data<double>().ToArray()), $"{name}:{row}"))];
    }

    // Without dropout, as the reference ran. The tokenizer is that of the first model.
    private static LoKrModel Load(TempFolder folder, string name, string configuration)
    {
        JsonObject config = JsonNode.Parse(File.ReadAllText(Fixtures.Require("text", name, configuration)))!.AsObject();
        (config["hidden_dropout_prob"], config["attention_probs_dropout_prob"], config["classifier_dropout"]) = (0, 0, 0);
        Directory.CreateDirectory(folder["in"]);
        File.WriteAllText(folder["in", "config.json"], config.ToJsonString());
        File.Copy(Fixtures.Require("text", name, "model.safetensors"), folder["in", "model.safetensors"]);
        foreach (string file in (string[])["tokenizer.json", "tokenizer_config.json"])
        {
            File.Copy(Fixtures.Require("text", "bert-multilabel", file), folder["in", file]);
        }

        return ModelLoader.Load(folder["in"]);
    }
}
