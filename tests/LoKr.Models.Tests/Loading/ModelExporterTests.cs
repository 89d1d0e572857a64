using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Core.Safetensors;
using LoKr.Models.Families;
using LoKr.Models.Loading;
using LoKr.Models.Tests.Support;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Models.Tests.Loading;

public sealed class ModelExporterTests
{
    private static readonly ModelLoadOptions s_noTokenizer = new() { WithTokenizer = false };
    private static readonly string[] s_files = ["config.json", "model.safetensors"];

    public static TheoryData<string> Models() => Fixtures.Cases("transformers");

    [Theory]
    [MemberData(nameof(Models))]
    public void Exported_folder_has_the_names_of_the_source_and_has_the_same_logits(string name)
    {
        string source = Fixtures.Require("transformers", name);
        string modelType = ModelConfig.Load(source).ModelType;
        Assert.SkipUnless(ArchitectureRegistry.Default.ModelTypes.Contains(modelType), $"The family {modelType} is not supported.");
        using TempFolder folder = new();
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGrad = no_grad();
        using SafetensorsReader io = SafetensorsReader.Open(Path.Combine(source, "io.safetensors"));
        using LoKrModel model = ModelLoader.Load(source, s_noTokenizer);
        ModelExporter.Export(model, folder["out"]);

        using SafetensorsReader before = SafetensorsReader.Open(Path.Combine(source, "model.safetensors"));
        using SafetensorsReader after = SafetensorsReader.Open(folder["out", "model.safetensors"]);
        Assert.Equal(before.Entries.Keys.Order(StringComparer.Ordinal), after.Entries.Keys.Order(StringComparer.Ordinal));
        Assert.Equal(before.Metadata, after.Metadata);
        Assert.All(before.Entries.Keys, key => Assert.True(TensorAssert.Same(before.Read(key), after.Read(key)), key));
        JsonObject written = JsonNode.Parse(File.ReadAllText(folder["out", "config.json"]))!.AsObject();
        Assert.All(JsonNode.Parse(File.ReadAllText(Path.Combine(source, "config.json")))!.AsObject(), pair => Assert.True(JsonNode.DeepEquals(pair.Value, written[pair.Key]), pair.Key));
        Assert.Equal((string?)written["dtype"], (string?)written["torch_dtype"]);

        using LoKrModel again = ModelLoader.Load(folder["out"], s_noTokenizer);
        Assert.True(TensorAssert.Same(ReferenceInput.Run(model, io), ReferenceInput.Run(again, io)));
    }

    [Fact]
    public void Configuration_keeps_its_other_keys_and_says_labels_architecture_and_type()
    {
        using TempFolder folder = new();
        JsonObject config = TinyModel.BertConfig();
        config["architectures"] = new JsonArray("BertModel");
        config.Remove("dtype");
        config["torch_dtype"] = "float32";
        config["my_own"] = new JsonObject { ["kept"] = "ä" };
        TinyModel.Write(folder["in"], config, tensors =>
        {
            tensors.Remove("classifier.weight");
            tensors.Remove("classifier.bias");
        });
        using (LoKrModel model = ModelLoader.Load(folder["in"], s_noTokenizer with { Labels = ["net", "web"], DType = ScalarType.BFloat16 }))
        {
            ModelExporter.Export(model, folder["out"]);
        }

        JsonObject written = JsonNode.Parse(File.ReadAllText(folder["out", "config.json"]))!.AsObject();
        Assert.Equal("BertForSequenceClassification", (string?)written["architectures"]![0]);
        Assert.Equal("bfloat16", (string?)written["torch_dtype"]);
        Assert.Equal("bfloat16", (string?)written["dtype"]);
        Assert.Equal("""{"0":"net","1":"web"}""", written["id2label"]!.ToJsonString());
        Assert.Equal("""{"net":0,"web":1}""", written["label2id"]!.ToJsonString());
        Assert.Equal("ä", (string?)written["my_own"]!["kept"]);
        using SafetensorsReader weights = SafetensorsReader.Open(folder["out", "model.safetensors"]);
        Assert.All(weights.Entries.Values, entry => Assert.Equal(SafetensorsDType.BF16, entry.DType));
        using LoKrModel again = ModelLoader.Load(folder["out"], s_noTokenizer);
        Assert.Equal(["net", "web"], ((ISequenceClassifier)again.Module).Labels);
    }

    [Fact]
    public void Shards_of_a_given_size_hold_the_same_model()
    {
        using TempFolder folder = new();
        using DisposeScope scope = NewDisposeScope();
        TinyModel.Write(folder["in"], TinyModel.BertConfig());
        using LoKrModel model = ModelLoader.Load(folder["in"], s_noTokenizer);
        ModelExporter.Export(model, folder["out"], maxShardBytes: 2000);
        Assert.True(Directory.GetFiles(folder["out"], "model-*-of-*.safetensors").Length > 1);
        Assert.True(File.Exists(folder["out", "model.safetensors.index.json"]));
        using LoKrModel again = ModelLoader.Load(folder["out"], s_noTokenizer);
        Dictionary<string, TorchSharp.Modules.Parameter> expected = model.Module.named_parameters().ToDictionary(item => item.name, item => item.parameter);
        Assert.All(again.Module.named_parameters(), item => Assert.True(TensorAssert.Same(expected[item.name], item.parameter), item.name));
    }

    [Fact]
    public void Companion_files_are_copied_and_others_are_not()
    {
        using TempFolder folder = new();
        TinyModel.Write(folder["in"], TinyModel.BertConfig());
        File.WriteAllText(folder["in", "tokenizer_config.json"], "{\"a\": 1}");
        File.WriteAllText(folder["in", "generation_config.json"], "{\"b\": 2}");
        File.WriteAllText(folder["in", "training_args.bin"], "no");
        folder.Write("in/spm.model", "c").Write("in/additional_chat_templates/tools.jinja", "d");
        using LoKrModel model = ModelLoader.Load(folder["in"], s_noTokenizer);
        ModelExporter.Export(model, folder["out"]);
        Assert.Equal(
            ["additional_chat_templates/tools.jinja", "config.json", "generation_config.json", "model.safetensors", "spm.model", "tokenizer_config.json"],
            Directory.GetFiles(folder["out"], "*", SearchOption.AllDirectories).Select(file => Path.GetRelativePath(folder["out"], file).Replace('\\', '/')).Order(StringComparer.Ordinal));
        Assert.Equal("{\"a\": 1}", File.ReadAllText(folder["out", "tokenizer_config.json"]));
    }

    [Fact]
    public void Adapters_that_are_not_merged_are_refused_and_merged_ones_are_written()
    {
        using TempFolder folder = new();
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGrad = no_grad();
        TinyModel.Write(folder["in"], TinyModel.BertConfig("a", "b"));
        using LoKrModel model = ModelLoader.Load(folder["in"], s_noTokenizer);
        LoKrAdapter adapter = model.AddAdapter(new LoKrConfig { R = 2, Alpha = 4, TargetModules = ModuleSelector.FromNames(["query", "value"]), InitWeights = InitWeights.Random, ModulesToSave = ["classifier"] }, seed: 5);
        foreach ((string name, Tensor tensor) in adapter.GetTensors())
        {
            if (name.StartsWith("classifier.", StringComparison.Ordinal))
            {
                tensor.fill_(0.25f);
            }
        }

        ErrorAssert.Throws(ErrorIds.ExportUnmerged, () => ModelExporter.Export(model, folder["out"]), "default");
        Assert.False(Directory.Exists(folder["out"]));
        (Tensor ids, Tensor mask) = TinyModel.Batch();
        Tensor adapted = ((ISequenceClassifier)model.Module).Classify(ids, mask);
        model.Merge();
        ModelExporter.Export(model, folder["out"]);
        using LoKrModel merged = ModelLoader.Load(folder["out"], s_noTokenizer);
        Assert.Equal(model.Module.named_parameters().Select(item => item.name), merged.Module.named_parameters().Select(item => item.name));
        Assert.Equal(0.25f, merged.Module.get_parameter("classifier.bias")![0].ToSingle());
        TensorAssert.Close(adapted, ((ISequenceClassifier)merged.Module).Classify(ids, mask), TensorAssert.Layer, "merged logits");
    }

    [Theory]
    [InlineData("in")]
    [InlineData("in/deeper")]
    [InlineData(".")]
    public void Destination_that_touches_the_source_is_refused_and_the_source_is_kept(string destination)
    {
        using TempFolder folder = new();
        TinyModel.Write(folder["in"], TinyModel.BertConfig());
        using LoKrModel model = ModelLoader.Load(folder["in"], s_noTokenizer);
        ErrorAssert.Throws(ErrorIds.ExportIntoSource, () => ModelExporter.Export(model, folder[destination], force: true), "in");
        Assert.Equal(s_files, Directory.GetFiles(folder["in"]).Select(Path.GetFileName).Order(StringComparer.Ordinal));
    }

    [Fact]
    public void Existing_destination_needs_force()
    {
        using TempFolder folder = new();
        TinyModel.Write(folder["in"], TinyModel.BertConfig());
        using LoKrModel model = ModelLoader.Load(folder["in"], s_noTokenizer);
        Directory.CreateDirectory(folder["out"]);
        File.WriteAllText(folder["out", "mine.txt"], "mine");
        ErrorAssert.Throws(ErrorIds.DestinationExists, () => ModelExporter.Export(model, folder["out"]));
        Assert.Equal("mine.txt", Path.GetFileName(Assert.Single(Directory.GetFiles(folder["out"]))));
        Assert.Equal(2, Directory.GetFileSystemEntries(folder.Path).Length);
        ErrorAssert.Throws(ErrorIds.DestinationForeign, () => ModelExporter.Export(model, folder["out"], force: true));
        File.WriteAllText(folder["out", "config.json"], "{}");
        ModelExporter.Export(model, folder["out"], force: true);
        Assert.Equal(s_files, Directory.GetFiles(folder["out"]).Select(Path.GetFileName).Order(StringComparer.Ordinal));
    }

    [Fact]
    public void Module_of_a_script_is_exported_as_weights_only()
    {
        using TempFolder folder = new();
        using LoKrModel model = new(nn.Sequential(("first", nn.Linear(3, 4)), ("second", nn.Linear(4, 2))));
        ModelExporter.Export(model, folder["out"]);
        Assert.Equal("model.safetensors", Path.GetFileName(Assert.Single(Directory.GetFiles(folder["out"]))));
        using SafetensorsReader weights = SafetensorsReader.Open(folder["out", "model.safetensors"]);
        Assert.Equal(["first.bias", "first.weight", "second.bias", "second.weight"], weights.Entries.Keys.Order(StringComparer.Ordinal));
    }

    [Fact]
    public void An_export_that_is_canceled_leaves_nothing_behind()
    {
        using TempFolder folder = new();
        using LoKrModel model = ModelLoader.Load(TinyModel.WriteBert(folder["source"]));
        using CancellationTokenSource stop = new();
        stop.Cancel();
        Directory.CreateDirectory(folder["out"]);
        Assert.Throws<OperationCanceledException>(() => ModelFolder.Export(model, folder["out/model"], cancellationToken: stop.Token));
        Assert.Empty(Directory.EnumerateFileSystemEntries(folder["out"], "*", SearchOption.AllDirectories));
    }
}
