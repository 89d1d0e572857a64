using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Data;
using LoKr.Core.Errors;
using LoKr.Core.Inference;
using LoKr.Core.Layouts;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Core.Training;
using LoKr.Models.Families;
using LoKr.Models.Loading;
using LoKr.Models.Tests.Support;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Models.Tests.Families;

/// <summary>Language models that classify by their last token.</summary>
public sealed class DecoderClassifierTests
{
    private static readonly string[] s_labels = ["net", "web"];

    [Fact]
    public void Labels_make_a_classifier_of_a_language_model_which_an_export_describes()
    {
        using TempFolder folder = new();
        ModelLoadResult result = ModelLoader.LoadWithReport(TinyModel.WriteLlama(folder["llama"]), new ModelLoadOptions { Labels = s_labels, Seed = 1 });
        using LoKrModel model = result.Model;
        DecoderClassifier classifier = Assert.IsType<DecoderClassifier>(model.Module);
        Assert.Equal(["score.weight"], result.FreshParameters);
        Assert.Contains("net, web", Assert.Single(result.Warnings), StringComparison.Ordinal);
        Assert.Equal(s_labels, classifier.Labels);
        Assert.Equal(model.Tokenizer!.PadId, classifier.PadId);

        ModelExporter.Export(model, folder["out"]);
        JsonObject config = JsonNode.Parse(File.ReadAllText(folder["out", "config.json"]))!.AsObject();
        Assert.Equal("LlamaForSequenceClassification", (string?)config["architectures"]![0]);
        Assert.Equal(model.Tokenizer.PadId, (int?)config["pad_token_id"]);
        using LoKrModel again = ModelLoader.Load(folder["out"]);
        string[] texts = ["the disk is full", "a"];
        Assert.Equal(
            TextClassifier.Classify(model, texts).Select(answer => answer.Score),
            TextClassifier.Classify(again, texts).Select(answer => answer.Score));
    }

    [Fact]
    public void Training_saves_the_head_with_the_adapter_under_its_task()
    {
        using TempFolder folder = new();
        string llama = TinyModel.WriteLlama(folder["llama"]);
        IReadOnlyList<DataRow> rows = DataReader.ReadFile(TinyData.WriteTickets(folder["rows.jsonl"], 48, 1));
        double trained;
        using (LoKrModel model = ModelLoader.Load(llama, new ModelLoadOptions { Labels = TinyData.Labels, Seed = 1 }))
        {
            LoKrAdapter adapter = model.AddAdapter(new LoKrConfig { R = 4 }, seed: 1);
            Assert.Equal(TaskType.SequenceClassification, adapter.Config.TaskType);
            Assert.Equal(["score"], adapter.SavedModules);
            using ITrainingTask task = TrainingTaskFactory.Create(model, rows, 48);
            double before = Evaluator.Evaluate(model, task, 16, TestContext.Current.CancellationToken).Loss;
            Trainer.Run(model, task, null, new TrainingOptions { MaxSteps = 10, LearningRate = 1e-2, Seed = 1 }, null, TestContext.Current.CancellationToken);
            trained = Evaluator.Evaluate(model, task, 16, TestContext.Current.CancellationToken).Loss;
            Assert.True(trained < before, $"{before} before, {trained} after training");
            AdapterExporter.Export(model, "default", folder["adapter"], AdapterLayout.Peft);
        }

        using LoKrModel again = ModelLoader.Load(llama, new ModelLoadOptions { Labels = TinyData.Labels, Seed = 2 });
        AdapterImporter.Import(again, folder["adapter"]);
        using ITrainingTask same = TrainingTaskFactory.Create(again, rows, 48);
        TensorAssert.Close(trained, Evaluator.Evaluate(again, same, 16, TestContext.Current.CancellationToken).Loss, TensorAssert.Model, "loss");
    }

    [Fact]
    public void Padding_is_known_by_its_id_on_either_side()
    {
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGrad = no_grad();
        using nn.Module module = Build("""{"pad_token_id": 0}""");
        ISequenceClassifier model = (ISequenceClassifier)module;
        Tensor alone = model.Classify(tensor([5L, 6, 7]).unsqueeze(0), ones(1, 3, ScalarType.Int64));
        Tensor right = model.Classify(tensor([5L, 6, 7, 0, 0]).unsqueeze(0), tensor([1L, 1, 1, 0, 0]).unsqueeze(0));
        Tensor left = model.Classify(tensor([0L, 0, 5, 6, 7]).unsqueeze(0), tensor([0L, 0, 1, 1, 1]).unsqueeze(0));
        Tensor ending = model.Classify(tensor([5L, 6, 7, 0]).unsqueeze(0), ones(1, 4, ScalarType.Int64));
        TensorAssert.Close(alone, right, TensorAssert.Layer, "right");
        TensorAssert.Close(alone, left, TensorAssert.Model, "left");
        TensorAssert.Close(alone, ending, TensorAssert.Layer, "a text that ends in the id of padding");
        Tensor nothing = model.Classify(zeros(1, 3, ScalarType.Int64), ones(1, 3, ScalarType.Int64));
        TensorAssert.Close(model.Classify(zeros(1, 1, ScalarType.Int64), ones(1, 1, ScalarType.Int64)), nothing, TensorAssert.Layer, "only padding");
    }

    [Fact]
    public void Without_an_id_of_padding_texts_come_one_at_a_time()
    {
        using DisposeScope scope = NewDisposeScope();
        using nn.Module module = Build("{}");
        ISequenceClassifier model = (ISequenceClassifier)module;
        Assert.Equal([1, 2], model.Classify(tensor([5L, 6]).unsqueeze(0), ones(1, 2, ScalarType.Int64)).shape);
        ErrorAssert.Throws(ErrorIds.ModelInputInvalid, () => model.Classify(ones(2, 3, ScalarType.Int64), ones(2, 3, ScalarType.Int64)), "pad_token_id");
    }

    [Fact]
    public void A_family_without_a_classifier_refuses_labels()
    {
        using TempFolder folder = new();
        TinyModel.Write(folder.Path, TinyDecoder.Config("granite"));
        ErrorAssert.Throws(ErrorIds.LabelsInvalid, () => ModelLoader.Load(folder.Path, new ModelLoadOptions { Labels = s_labels, WithTokenizer = false }), "GraniteForCausalLM");
    }

    private static nn.Module Build(string overlay)
    {
        JsonObject config = TinyDecoder.Config("llama", overlay);
        config["architectures"] = new JsonArray("LlamaForSequenceClassification");
        nn.Module module = ModelLoader.Build(new ModelConfig(config), new ModelBuildOptions { Device = CPU });
        using IDisposable noGrad = no_grad();
        using Generator generator = new(11, CPU);
        foreach (TorchSharp.Modules.Parameter parameter in module.parameters())
        {
            parameter.normal_(0, 0.3, generator);
        }

        return module;
    }
}
