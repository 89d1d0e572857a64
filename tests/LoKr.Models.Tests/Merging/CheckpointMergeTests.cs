using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Layers;
using LoKr.Core.Layouts;
using LoKr.Core.Merging.Checkpoints;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Core.Safetensors;
using LoKr.Models.Loading;
using LoKr.Models.Tests.Support;
using LoKr.Models.Tests.Training;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Models.Tests.Merging;

/// <summary>Merges on disk of folders of transformers and PEFT: the result is the export of a merge in memory.</summary>
public sealed class CheckpointMergeTests
{
    private static readonly ModelLoadOptions s_noTokenizer = new() { WithTokenizer = false };

    // Keys of config.json that releases of transformers spell in two ways.
    private static readonly string[] s_spellings =
    [
        "rope_parameters", "rope_theta", "rope_scaling", "partial_rotary_factor", "rope_local_base_freq", "global_rope_theta", "local_rope_theta",
        "layer_types", "sliding_window_pattern", "_sliding_window_pattern", "global_attn_every_n_layers",
    ];

    // By model type: what encoder parameters begin with, the family in names of classes, and the parts of a classifier that bases of the family lack.
    private static readonly Dictionary<string, (string Encoder, string Family, string[] Parts)> s_parts = new(StringComparer.Ordinal)
    {
        ["bert"] = ("bert.", "Bert", ["bert.pooler", "classifier"]),
        ["roberta"] = ("roberta.", "Roberta", ["classifier"]),
        ["electra"] = ("electra.", "Electra", ["classifier"]),
        ["mpnet"] = ("mpnet.", "MPNet", ["classifier"]),
        ["albert"] = ("albert.", "Albert", ["albert.pooler", "classifier"]),
        ["deberta-v2"] = ("deberta.", "DebertaV2", ["pooler", "classifier"]),
        ["distilbert"] = ("distilbert.", "DistilBert", ["pre_classifier", "classifier"]),
        ["modernbert"] = ("model.", "ModernBert", ["head", "classifier"]),
    };

    public static TheoryData<string, string> Adapters
    {
        get
        {
            TheoryData<string, string> data = [];
            foreach (string model in Folders(Fixtures.Root is null ? null : Path.Combine(Fixtures.Root, "transformers")))
            {
                foreach (string adapter in Folders(Path.Combine(model, "adapters")))
                {
                    data.Add(Path.GetFileName(model), Path.GetFileName(adapter));
                }
            }

            if (data.Count == 0)
            {
                data.Add("", "");
            }

            return data;

            static string[] Folders(string? parent) => Directory.Exists(parent) ? [.. Directory.EnumerateDirectories(parent).Order(StringComparer.Ordinal)] : [];
        }
    }

    public static TheoryData<string> Models => Fixtures.Cases("transformers");

    [Theory]
    [MemberData(nameof(Adapters))]
    public void A_merge_on_disk_is_bit_for_bit_the_export_of_a_merge_in_memory(string modelName, string adapterName)
    {
        string source = Fixtures.Require("transformers", modelName);
        string adapter = Fixtures.Require("transformers", modelName, "adapters", adapterName);
        using TempFolder folder = new();
        using DisposeScope scope = NewDisposeScope();
        LoKrMergeResult result = Merge(source, folder["disk"], adapter);
        using LoKrModel model = ModelLoader.Load(source, s_noTokenizer);
        PeftStart.Load(model, adapter);
        LoKrMergeResult inMemory = model.Merge();
        ModelExporter.Export(model, folder["memory"]);

        AssertSame(folder["memory"], folder["disk"]);
        Assert.Equal((inMemory.ModuleCount, inMemory.SavedModuleCount), (result.ModuleCount, result.SavedModuleCount));
        AssertConfig(Path.Combine(source, "config.json"), folder["memory", "config.json"], folder["disk", "config.json"]);
        Assert.False(Directory.Exists(folder["disk", "adapters"]));
        Assert.False(File.Exists(folder["disk", "io.safetensors"]));
        if (File.Exists(Path.Combine(source, "tokenizer.json")))
        {
            Assert.Equal(File.ReadAllBytes(Path.Combine(source, "tokenizer.json")), File.ReadAllBytes(folder["disk", "tokenizer.json"]));
        }

        using SafetensorsReader io = SafetensorsReader.Open(Path.Combine(source, "io.safetensors"));
        using SafetensorsReader adapterIo = SafetensorsReader.Open(Path.Combine(adapter, "io.safetensors"));
        using IDisposable noGrad = no_grad();
        using LoKrModel merged = ModelLoader.Load(folder["disk"], s_noTokenizer);
        TensorAssert.Close(adapterIo.Read("adapter_output"), ReferenceInput.Run(merged, io), TensorAssert.Model, modelName);
    }

    [Theory]
    [InlineData("vit", "qv", true, true)]
    [InlineData("vit", "qv", true, false)]
    [InlineData("vit", "qv", false, true)]
    [InlineData("clip-text", "seed-example", true, true)]
    [InlineData("clip-text", "seed-example", true, false)]
    [InlineData("clip-text", "seed-example", false, true)]
    public void Published_and_current_names_match_each_other(string modelName, string adapterName, bool publishedModel, bool publishedAdapter)
    {
        string source = Fixtures.Require("transformers", modelName);
        string adapter = Fixtures.Require("transformers", modelName, "adapters", adapterName);
        using TempFolder folder = new();
        using DisposeScope scope = NewDisposeScope();
        string modelType = modelName == "vit" ? "vit" : "clip_text_model";
        NameGenerations.Copy(source, folder["base"], modelType, publishedModel);
        NameGenerations.Copy(adapter, folder["adapter"], modelType, publishedAdapter, PeftAdapterFolder.Prefix);
        Merge(folder["base"], folder["disk"], folder["adapter"]);
        using LoKrModel model = ModelLoader.Load(folder["base"], s_noTokenizer);
        PeftStart.Load(model, folder["adapter"]);
        model.Merge();
        ModelExporter.Export(model, folder["memory"]);
        AssertSame(folder["memory"], folder["disk"]);
    }

    [Fact]
    public void An_adapter_adds_its_head_to_a_bare_encoder()
    {
        string source = Fixtures.RequireBeside("models", "minilm");
        string adapter = Fixtures.Require("minilm", "start");
        using TempFolder folder = new();
        using DisposeScope scope = NewDisposeScope();
        LoKrMergeResult result = Merge(source, folder["disk"], adapter);
        string[] labels;
        using (PeftAdapterFolder peft = PeftAdapterFolder.Read(adapter))
        {
            labels = [.. Enumerable.Range(0, (int)peft.Tensors.Entries["classifier.weight"].Shape[0]).Select(static i => $"LABEL_{i}")];
        }

        using LoKrModel model = ModelLoader.Load(source, s_noTokenizer with { Labels = labels, Seed = 1 });
        PeftStart.Load(model, adapter);
        Assert.Equal(model.Merge().ModuleCount, result.ModuleCount);

        JsonObject config = JsonNode.Parse(File.ReadAllText(folder["disk", "config.json"]))!.AsObject();
        Assert.Equal("BertForSequenceClassification", (string?)config["architectures"]![0]);
        Assert.Equal(labels.Length, config["id2label"]!.AsObject().Count);
        Assert.Contains(result.Warnings, static warning => warning.Contains("LABEL_0", StringComparison.Ordinal));
        ModelLoadResult loaded = ModelLoader.LoadWithReport(folder["disk"], s_noTokenizer);
        using LoKrModel merged = loaded.Model;
        Assert.DoesNotContain(loaded.FreshParameters, static name => name.StartsWith("classifier", StringComparison.Ordinal));
        Assert.Equal(labels, ((ISequenceClassifier)merged.Module).Labels);

        // The pooler is not in the folder of MiniLM's adapter; both have that of the base model.
        IReadOnlyDictionary<string, Tensor> expected = model.GetBaseState();
        Assert.All(merged.GetBaseState(), pair => Assert.True(TensorAssert.Same(expected[pair.Key], pair.Value), pair.Key));
    }

    public static TheoryData<string> Texts => Fixtures.Cases("text");

    /// <summary>Releases of transformers ignore each other's keys without a word, and compute something else.</summary>
    [Theory]
    [MemberData(nameof(Texts))]
    public void The_configuration_has_the_keys_of_both_generations_of_transformers_as_an_export_does(string modelName)
    {
        string source = Fixtures.Require("text", modelName);
        foreach (string name in new[] { "config.json", "config-old.json" }.Where(name => File.Exists(Path.Combine(source, name))))
        {
            using TempFolder folder = new();
            Directory.CreateDirectory(folder["base"]);
            File.Copy(Path.Combine(source, "model.safetensors"), folder["base", "model.safetensors"]);
            File.Copy(Path.Combine(source, name), folder["base", "config.json"]);
            using LoKrModel model = ModelLoader.Load(folder["base"], s_noTokenizer);
            model.AddAdapter(new LoKrConfig { R = 2, InitWeights = InitWeights.Random, ModulesToSave = [] }, seed: 2);
            AdapterExporter.Export(model, "default", folder["adapter"], AdapterLayout.Peft);
            model.Merge();
            ModelExporter.Export(model, folder["memory"]);
            Merge(folder["base"], folder["disk"], folder["adapter"]);
            AssertConfig(folder["base", "config.json"], folder["memory", "config.json"], folder["disk", "config.json"]);
        }
    }

    [Fact]
    public void A_configuration_that_cannot_be_built_stays_as_it_is()
    {
        string source = Fixtures.Require("transformers", "llama");
        using TempFolder folder = new();
        Directory.CreateDirectory(folder["base"]);
        File.Copy(Path.Combine(source, "model.safetensors"), folder["base", "model.safetensors"]);
        JsonObject config = JsonNode.Parse(File.ReadAllText(Path.Combine(source, "config.json")))!.AsObject();
        config["hidden_act"] = "unheard-of";
        File.WriteAllText(folder["base", "config.json"], config.ToJsonString());
        Merge(folder["base"], folder["disk"], Fixtures.Require("transformers", "llama", "adapters", "all-linear"));
        Assert.Equal(File.ReadAllBytes(folder["base", "config.json"]), File.ReadAllBytes(folder["disk", "config.json"]));
    }

    public static TheoryData<string, bool, bool, long?> BasesWithoutParts()
    {
        TheoryData<string, bool, bool, long?> data = [];
        foreach (string modelType in s_parts.Keys)
        {
            data.Add(modelType, false, false, null);
            data.Add(modelType, true, false, null);
            data.Add(modelType, true, true, null);
            data.Add(modelType, false, true, 2000);
        }

        return data;
    }

    /// <summary>Published bases lack the head of a classifier and often what stands before it: a pooler, a dense layer.</summary>
    [Theory]
    [MemberData(nameof(BasesWithoutParts))]
    public void An_adapter_adds_every_part_that_the_base_lacks(string modelType, bool isBare, bool tags, long? shardBytes)
    {
        (string encoder, string family, string[] parts) = s_parts[modelType];
        using TempFolder folder = new();
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGrad = no_grad();
        JsonObject config = TinyModel.BertConfig();
        (config["model_type"], config["embedding_size"]) = (modelType, 8);
        (config["dim"], config["n_layers"], config["n_heads"], config["hidden_dim"]) = (8, 1, 2, 16);
        config["architectures"] = new JsonArray(family + "ForSequenceClassification");
        Dictionary<string, Tensor> tensors = TinyModel.Write(folder["whole"], config).Where(pair => !parts.Any(part => pair.Key.StartsWith(part + ".", StringComparison.Ordinal)))
            .ToDictionary(pair => isBare && pair.Key.StartsWith(encoder, StringComparison.Ordinal) ? pair.Key[encoder.Length..] : pair.Key, static pair => pair.Value, StringComparer.Ordinal);
        Directory.CreateDirectory(folder["base"]);
        CheckpointWriter.Write(folder["base"], tensors, shardBytes ?? long.MaxValue, "model");
        config["architectures"] = new JsonArray(family + (isBare ? "Model" : "ForMaskedLM"));
        File.WriteAllText(folder["base", "config.json"], config.ToJsonString());

        ModelLoadOptions options = s_noTokenizer with { Labels = ["a", "b", "c"], Seed = 1, Task = tags ? TaskType.TokenClassification : TaskType.SequenceClassification };
        using LoKrModel model = ModelLoader.Load(folder["base"], options);
        LoKrAdapter adapter = model.AddAdapter(new LoKrConfig { R = 2, TargetModules = ModuleSelector.FromPattern("all-linear"), InitWeights = InitWeights.Random }, seed: 2);
        Assert.NotEmpty(model.FreshModules);
        Assert.Empty(adapter.UnsavedModules);
        AdapterExporter.Export(model, "default", folder["adapter"], AdapterLayout.Peft);
        LoKrMergeResult result = Merge(folder["base"], folder["disk"], folder["adapter"], shardBytes);
        Assert.Equal(shardBytes is not null, result.Files.Count(static file => file.EndsWith(".safetensors", StringComparison.Ordinal)) > 1);
        LoKrMergeResult inMemory = model.Merge();
        Assert.Equal((inMemory.ModuleCount, inMemory.SavedModuleCount), (result.ModuleCount, result.SavedModuleCount));
        Assert.Empty(result.Warnings);

        ModelLoadResult loaded = ModelLoader.LoadWithReport(folder["disk"], s_noTokenizer);
        using LoKrModel merged = loaded.Model;
        Assert.Empty(loaded.FreshParameters);
        Assert.Equal(["a", "b", "c"], ((IClassifier)merged.Module).Labels);
        TensorAssert.Close(Logits(model), Logits(merged), TensorAssert.Layer, modelType);

        static Tensor Logits(LoKrModel model)
        {
            (Tensor ids, Tensor mask) = TinyModel.Batch();
            return model.Module is ITokenClassifier tagger ? tagger.ClassifyTokens(ids, mask).masked_fill(mask.unsqueeze(2) == 0, 0) : ((ISequenceClassifier)model.Module).Classify(ids, mask);
        }
    }

    [Theory]
    [InlineData(ScalarType.BFloat16)]
    [InlineData(ScalarType.Float16)]
    public void Half_precision_is_rounded_as_in_memory(ScalarType type)
    {
        string adapter = Fixtures.Require("transformers", "llama", "adapters", "all-linear");
        using TempFolder folder = new();
        using DisposeScope scope = NewDisposeScope();
        using (LoKrModel half = ModelLoader.Load(Fixtures.Require("transformers", "llama"), s_noTokenizer with { DType = type }))
        {
            ModelExporter.Export(half, folder["base"], maxShardBytes: 100_000);
        }

        LoKrMergeResult result = Merge(folder["base"], folder["disk"], adapter);
        Assert.True(result.Files.Count > 1);
        using LoKrModel model = ModelLoader.Load(folder["base"], s_noTokenizer with { DType = type });
        PeftStart.Load(model, adapter);
        model.Merge();
        ModelExporter.Export(model, folder["memory"], maxShardBytes: 100_000);
        AssertSame(folder["memory"], folder["disk"]);
        Assert.Equal(File.ReadAllText(folder["base", "model.safetensors.index.json"]), File.ReadAllText(folder["disk", "model.safetensors.index.json"]));
    }

    [Theory]
    [MemberData(nameof(Models))]
    public void Embeddings_are_merged_as_in_memory_or_refused_as_tied(string modelName)
    {
        string source = Fixtures.Require("transformers", modelName);
        using DisposeScope scope = NewDisposeScope();
        using LoKrModel model = ModelLoader.Load(source, s_noTokenizer);
        string[] names = [.. model.Module.named_modules().Where(static entry => entry.module is Embedding).Select(static entry => entry.name)];
        Assert.Equal(modelName == "vit", names.Length == 0);
        Assert.All(names, name => CheckAdapter(model, source, new LoKrConfig { R = 2, TargetModules = ModuleSelector.FromNames([name]) }));
    }

    [Theory]
    [MemberData(nameof(Models))]
    public void Norms_are_merged_as_in_memory(string modelName)
    {
        string source = Fixtures.Require("transformers", modelName);
        using DisposeScope scope = NewDisposeScope();
        using LoKrModel model = ModelLoader.Load(source, s_noTokenizer);
        CheckAdapter(model, source, new LoKrConfig { TargetModules = ModuleSelector.FromNames([]), TrainNorm = true });
    }

    /// <summary>Merges a random adapter on disk and in memory: the results, or the errors, must be the same.</summary>
    private static void CheckAdapter(LoKrModel model, string source, LoKrConfig config)
    {
        using TempFolder folder = new();
        using IDisposable noGrad = no_grad();
        LoKrAdapter adapter = model.AddAdapter(config, seed: 3);
        using Generator generator = new(5, CPU);
        foreach (FlatParameter flat in adapter.FlatParameters)
        {
            flat.Value.copy_(empty(flat.Value.shape).normal_(0, 0.2, generator));
        }

        PeftAdapterFolder.Write(folder["adapter"], adapter.Config, adapter.GetTensors());
        if (adapter.Layers.Any(layer => model.Pretrained!.TiedParameters.Any(pair => pair.Key == layer.ModuleName + ".weight" || pair.Value == layer.ModuleName + ".weight")))
        {
            ErrorAssert.Throws(ErrorIds.TiedWeight, () => model.Merge(), adapter.Layers[0].ModuleName);
            ErrorAssert.Throws(ErrorIds.TiedWeight, () => Merge(source, folder["disk"], folder["adapter"]), adapter.Layers[0].ModuleName);
        }
        else
        {
            LoKrMergeResult result = Merge(source, folder["disk"], folder["adapter"]);
            Assert.Equal(model.Merge().ModuleCount, result.ModuleCount);
            ModelExporter.Export(model, folder["memory"]);
            AssertSame(folder["memory"], folder["disk"]);
            model.UndoMerge();
        }

        model.RemoveAdapter("default");
    }

    private static LoKrMergeResult Merge(string source, string destination, string adapter, long? maxShardBytes = null)
    {
        using CheckpointMerge merge = CheckpointMerge.Open(new CheckpointMergeOptions
        {
            Base = BaseModel.Read(source),
            Destination = destination,
            MaxShardBytes = maxShardBytes,
            Adapters = [new AdapterMergeSource(adapter)],
        });
        return merge.Run(cancel: TestContext.Current.CancellationToken);
    }

    // Keys of the base stay, and added ones are those of an export; a file to which nothing is added is copied.
    private static void AssertConfig(string basePath, string exportPath, string path)
    {
        (JsonObject before, JsonObject export, JsonObject actual) = (Read(basePath), Read(exportPath), Read(path));
        Assert.All(s_spellings, key => Assert.True(JsonNode.DeepEquals(export[key], actual[key]), key));
        Assert.All(before.Where(pair => pair.Value is not null || !s_spellings.Contains(pair.Key)), pair => Assert.True(JsonNode.DeepEquals(pair.Value, actual[pair.Key]), pair.Key));
        Assert.Empty(actual.Select(static pair => pair.Key).Except(before.Select(static pair => pair.Key)).Except(s_spellings));
        if (JsonNode.DeepEquals(before, actual))
        {
            Assert.Equal(File.ReadAllBytes(basePath), File.ReadAllBytes(path));
        }

        static JsonObject Read(string file) => JsonNode.Parse(File.ReadAllText(file))!.AsObject();
    }

    private static void AssertSame(string expectedFolder, string actualFolder)
    {
        using CheckpointReader expected = CheckpointReader.Open(expectedFolder);
        using CheckpointReader actual = CheckpointReader.Open(actualFolder);
        Assert.Equal(expected.Entries.Keys.Order(StringComparer.Ordinal), actual.Entries.Keys.Order(StringComparer.Ordinal));
        Assert.Equal(
            [.. expected.Files.Select(static file => Path.GetFileName(file))],
            [.. actual.Files.Select(static file => Path.GetFileName(file))]);
        Assert.All(expected.Entries.Keys, key => Assert.True(expected.Read(key).bytes.SequenceEqual(actual.Read(key).bytes), key));
    }
}
