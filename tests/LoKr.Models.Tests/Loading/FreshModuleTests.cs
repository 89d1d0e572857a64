using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Conversion;
using LoKr.Core.Data;
using LoKr.Core.Layouts;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Core.Training;
using LoKr.Models.Loading;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Models.Tests.Loading;

/// <summary>Modules that the checkpoint lacked are trained and saved by a new adapter.</summary>
public sealed class FreshModuleTests
{
    private static readonly ModelLoadOptions s_options = new() { WithTokenizer = false, Seed = 1 };
    private static readonly LoKrConfig s_declined = new() { ModulesToSave = [] };

    [Fact]
    public void A_fresh_head_is_saved_under_its_task_as_PEFT_does()
    {
        using TempFolder folder = new();
        using LoKrModel model = WithoutHead(folder, TinyModel.BertConfig("x", "y"));
        Assert.Equal(["classifier"], model.FreshModules);
        LoKrAdapter adapter = model.AddAdapter(new LoKrConfig());
        Assert.Equal(TaskType.SequenceClassification, adapter.Config.TaskType);
        Assert.Equal(["classifier", "score"], adapter.Config.ModulesToSave!);
        Assert.Equal(["classifier"], adapter.SavedModules);
        Assert.Empty(adapter.UnsavedModules);
        Assert.Empty(adapter.Warnings);

        LoKrAdapter everything = model.AddAdapter(new LoKrConfig { TargetModules = ModuleSelector.FromPattern("all-linear") }, "everything");
        Assert.DoesNotContain(everything.Layers, static layer => layer.ModuleName == "classifier");
    }

    [Fact]
    public void A_head_of_the_checkpoint_is_saved_only_under_a_task_as_in_PEFT()
    {
        using TempFolder folder = new();
        TinyModel.Write(folder.Path, TinyModel.BertConfig("x", "y"));
        using LoKrModel model = ModelLoader.Load(folder.Path, s_options);
        Assert.Empty(model.FreshModules);
        LoKrAdapter plain = model.AddAdapter(new LoKrConfig());
        Assert.Null(plain.Config.TaskType);
        Assert.Empty(plain.SavedModules);
        Assert.Empty(plain.Warnings);
        Assert.Equal(["classifier"], model.AddAdapter(new LoKrConfig { TaskType = TaskType.SequenceClassification }, "task").SavedModules);
    }

    [Fact]
    public void Other_fresh_modules_are_saved_by_name_beside_those_of_the_configuration()
    {
        using TempFolder folder = new();
        TinyModel.Write(folder.Path, TinyModel.BertConfig("x", "y"), static tensors => Remove(tensors, "bert.pooler."));
        using LoKrModel model = ModelLoader.Load(folder.Path, s_options);
        LoKrAdapter adapter = model.AddAdapter(new LoKrConfig { ModulesToSave = ["classifier"] });
        Assert.Equal(["classifier", "bert.pooler.dense"], adapter.Config.ModulesToSave!);
        Assert.Equal(["bert.pooler.dense", "classifier"], adapter.SavedModules);
        Assert.Null(adapter.Config.TaskType);
    }

    /// <summary>Published checkpoints of DeBERTa v3 have no pooler, those of ModernBERT may have no head.</summary>
    [Theory]
    [InlineData("deberta-v2", "deberta", "pooler", new[] { "pooler.dense" })]
    [InlineData("modernbert", "model", "head", new[] { "head.dense", "head.norm" })]
    [InlineData("albert", "albert", "albert.pooler", new[] { "albert.pooler" })]
    public void A_part_of_the_model_that_a_published_checkpoint_lacks_is_trained_and_comes_back_with_the_adapter(string modelType, string encoder, string part, string[] modules)
    {
        using TempFolder folder = new();
        JsonObject config = TinyModel.BertConfig("x", "y");
        (config["model_type"], config["architectures"], config["embedding_size"]) = (modelType, null, 8);
        TinyModel.Write(folder["model"], config, tensors => Remove(tensors, [.. tensors.Keys.Where(name => !name.StartsWith(encoder + ".", StringComparison.Ordinal) || name.StartsWith(part + ".", StringComparison.Ordinal))]));
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGrad = no_grad();
        (Tensor ids, Tensor mask) = TinyModel.Batch();
        Tensor expected;
        using (LoKrModel model = ModelLoader.Load(folder["model"], s_options))
        {
            Assert.Equal([.. modules, "classifier"], model.FreshModules);
            LoKrAdapter adapter = model.AddAdapter(new LoKrConfig { TargetModules = ModuleSelector.FromPattern("all-linear"), InitWeights = InitWeights.Random }, seed: 2);
            Assert.Equal([.. modules, "classifier"], adapter.SavedModules);
            Assert.DoesNotContain(adapter.Layers, layer => modules.Contains(layer.ModuleName) || layer.ModuleName == "classifier");
            Assert.Empty(adapter.UnsavedModules);
            expected = ((ISequenceClassifier)model.Module).Classify(ids, mask);
            AdapterExporter.Export(model, "default", folder["adapter"], AdapterLayout.Peft);
        }

        using LoKrModel again = ModelLoader.Load(folder["model"], s_options with { Seed = 99 });
        Assert.False(TensorAssert.Same(expected, ((ISequenceClassifier)again.Module).Classify(ids, mask)));
        AdapterImporter.Import(again, folder["adapter"]);
        TensorAssert.Close(expected, ((ISequenceClassifier)again.Module).Classify(ids, mask), TensorAssert.Layer, modelType);
    }

    [Fact]
    public void Every_part_of_a_head_is_saved_and_left_out_by_all_linear()
    {
        using TempFolder folder = new();
        using LoKrModel model = WithoutHead(folder, new JsonObject
        {
            ["model_type"] = "distilbert",
            ["architectures"] = new JsonArray("DistilBertForSequenceClassification"),
            ["vocab_size"] = 40,
            ["dim"] = 8,
            ["n_layers"] = 1,
            ["n_heads"] = 2,
            ["hidden_dim"] = 16,
            ["max_position_embeddings"] = 12,
        });
        LoKrAdapter adapter = model.AddAdapter(new LoKrConfig { TargetModules = ModuleSelector.FromPattern("all-linear") });
        Assert.Equal(["pre_classifier", "classifier"], adapter.SavedModules);
        Assert.DoesNotContain(adapter.Layers, static layer => layer.ModuleName.EndsWith("classifier", StringComparison.Ordinal));
    }

    [Fact]
    public void The_head_of_an_image_classifier_has_no_task_in_PEFT()
    {
        using TempFolder folder = new();
        using LoKrModel model = WithoutHead(folder, TinyModel.VitConfig());
        LoKrAdapter adapter = model.AddAdapter(new LoKrConfig { TargetModules = ModuleSelector.FromNames(["q_proj"]) });
        Assert.Null(adapter.Config.TaskType);
        Assert.Equal(["classifier"], adapter.Config.ModulesToSave!);
    }

    [Fact]
    public void A_fresh_head_among_the_targets_is_saved_whole_with_a_warning()
    {
        using TempFolder folder = new();
        using LoKrModel model = WithoutHead(folder, TinyModel.BertConfig("x", "y"));
        LoKrConfig config = new() { TargetModules = ModuleSelector.FromNames(["query", "classifier"]) };
        LoKrAdapter adapter = model.AddAdapter(config);
        Assert.Equal(["classifier"], adapter.SavedModules);
        Assert.Contains("classifier", Assert.Single(adapter.Warnings), StringComparison.Ordinal);

        model.RemoveAdapter("default");
        LoKrAdapter declined = model.AddAdapter(config with { ModulesToSave = [] });
        Assert.Contains(declined.Layers, static layer => layer.ModuleName == "classifier");
        Assert.Equal(["classifier"], declined.UnsavedModules);
    }

    [Fact]
    public void An_adapter_that_declines_is_warned_about_when_added_trained_exported_and_loaded()
    {
        using TempFolder folder = new();
        using LoKrModel model = WithoutHead(folder, TinyModel.BertConfig("x", "y"));
        LoKrAdapter adapter = model.AddAdapter(s_declined);
        Assert.Empty(adapter.SavedModules);
        string warning = Assert.Single(adapter.Warnings);
        Assert.Contains("classifier", warning, StringComparison.Ordinal);

        using CustomLossTask task = new([1], static (_, _) => zeros(1));
        Assert.Equal([warning], Trainer.Plan(model, task, new TrainingOptions()).Warnings);
        string path = Path.Combine(folder.Path, "adapter");
        Assert.Equal([warning], AdapterExporter.Export(model, "default", path, AdapterLayout.Peft));
        using LoraAdapter lora = LoraConverter.Convert(adapter, LoraRank.OfSize(1), TestContext.Current.CancellationToken);
        Assert.Equal([warning], lora.Warnings);

        using LoKrModel again = ModelLoader.Load(Path.Combine(folder.Path, "model"), s_options);
        Assert.Contains(warning, AdapterImporter.Import(again, path)[""].Warnings);
    }

    [Fact]
    public void A_trained_adapter_is_worth_the_same_on_a_model_that_is_loaded_again()
    {
        using TempFolder folder = new();
        string bert = TinyModel.WriteBert(Path.Combine(folder.Path, "bert"));
        IReadOnlyList<DataRow> rows = DataReader.ReadFile(TinyData.WriteTickets(Path.Combine(folder.Path, "rows.jsonl"), 48, 1));
        CheckWorth(bert, TinyData.Labels, rows, rows, Path.Combine(folder.Path, "adapter"), maxSteps: 20);
    }

    [Fact]
    public void A_trained_adapter_of_a_published_encoder_is_worth_the_same_on_a_model_that_is_loaded_again()
    {
        string data = Fixtures.RequireBeside("data", "debian-sections");
        IReadOnlyList<DataRow> rows = DataReader.ReadFile(Path.Combine(data, "train.jsonl"));
        string[] labels = [.. rows.Select(static row => (string)row.Fields["label"]!).Distinct(StringComparer.Ordinal).Order(StringComparer.Ordinal)];
        using TempFolder folder = new();
        CheckWorth(Fixtures.RequireBeside("models", "minilm"), labels, [.. rows.Take(320)], [.. DataReader.ReadFile(Path.Combine(data, "eval.jsonl")).Take(96)],
            Path.Combine(folder.Path, "adapter"), maxSteps: 20);
    }

    // Trains with the default configuration, and measures in place and after an import into a model with another random head.
    private static void CheckWorth(string source, string[] labels, IReadOnlyList<DataRow> training, IReadOnlyList<DataRow> evaluation, string adapter, int maxSteps)
    {
        LoKrEvaluation before;
        LoKrEvaluation trained;
        using (LoKrModel model = ModelLoader.Load(source, new ModelLoadOptions { Labels = labels, Seed = 1 }))
        {
            model.AddAdapter(new LoKrConfig { R = 8 }, seed: 1);
            using ITrainingTask task = TrainingTaskFactory.Create(model, training, 32);
            using ITrainingTask rows = TrainingTaskFactory.Create(model, evaluation, 32);
            before = Evaluator.Evaluate(model, rows, 16, TestContext.Current.CancellationToken);
            Trainer.Run(model, task, null, new TrainingOptions { MaxSteps = maxSteps, LearningRate = 1e-2, Seed = 1 }, null, TestContext.Current.CancellationToken);
            trained = Evaluator.Evaluate(model, rows, 16, TestContext.Current.CancellationToken);
            AdapterExporter.Export(model, "default", adapter, AdapterLayout.Peft);
        }

        using LoKrModel again = ModelLoader.Load(source, new ModelLoadOptions { Labels = labels, Seed = 2 });
        AdapterImporter.Import(again, adapter);
        using ITrainingTask same = TrainingTaskFactory.Create(again, evaluation, 32);
        LoKrEvaluation loaded = Evaluator.Evaluate(again, same, 16, TestContext.Current.CancellationToken);
        Assert.True(trained.Accuracy > before.Accuracy, $"{before.Accuracy} before, {trained.Accuracy} after training");
        Assert.Equal(trained.Accuracy, loaded.Accuracy);
        TensorAssert.Close(trained.Loss, loaded.Loss, TensorAssert.Model, "loss");
    }

    private static LoKrModel WithoutHead(TempFolder folder, JsonObject config)
    {
        string path = Path.Combine(folder.Path, "model");
        TinyModel.Write(path, config, static tensors => Remove(tensors, "classifier.", "pre_classifier."));
        return ModelLoader.Load(path, s_options);
    }

    private static void Remove(Dictionary<string, Tensor> tensors, params string[] prefixes)
    {
        foreach (string name in tensors.Keys.Where(name => prefixes.Any(prefix => name.StartsWith(prefix, StringComparison.Ordinal))).ToArray())
        {
            tensors.Remove(name);
        }
    }
}
