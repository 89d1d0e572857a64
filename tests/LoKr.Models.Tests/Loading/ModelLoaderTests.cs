using System.Collections.Concurrent;
using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Models.Families;
using LoKr.Models.Loading;
using LoKr.Models.Tests.Support;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Models.Tests.Loading;

public sealed class ModelLoaderTests
{
    private static readonly ModelLoadOptions s_noTokenizer = new() { WithTokenizer = false };

    [Fact]
    public void Weights_arrive_bit_for_bit_frozen_and_in_evaluation_mode()
    {
        using TempFolder folder = new();
        using DisposeScope scope = NewDisposeScope();
        IReadOnlyDictionary<string, Tensor> written = TinyModel.Write(folder.Path, TinyModel.BertConfig("x", "y"));
        ModelLoadResult result = ModelLoader.LoadWithReport(folder.Path, s_noTokenizer);
        using LoKrModel model = result.Model;
        Assert.Empty(result.Warnings);
        Assert.Equal(Path.GetFullPath(folder.Path), model.SourcePath);
        Assert.Equal(["x", "y"], ((ISequenceClassifier)model.Module).Labels);
        Assert.False(model.Module.training);
        Assert.Equal(written.Keys.Order(StringComparer.Ordinal), model.Module.named_parameters().Select(item => item.name).Order(StringComparer.Ordinal));
        Assert.All(model.Module.named_parameters(), item =>
        {
            Assert.False(item.parameter.requires_grad);
            Assert.Equal(DeviceType.CPU, item.parameter.device_type);
            Assert.True(TensorAssert.Same(item.parameter, written[item.name]), item.name);
        });
    }

    [Theory]
    [InlineData(ScalarType.BFloat16)]
    [InlineData(ScalarType.Float16)]
    public void Half_precision_is_kept_on_the_CPU_only_on_request(ScalarType dtype)
    {
        using TempFolder folder = new();
        using DisposeScope scope = NewDisposeScope();
        JsonObject config = TinyModel.BertConfig("x", "y");
        config["dtype"] = "bfloat16";
        TinyModel.Write(folder.Path, config, tensors =>
        {
            foreach (string name in tensors.Keys.ToList())
            {
                tensors[name] = tensors[name].to_type(dtype);
            }
        });
        using LoKrModel byDefault = ModelLoader.Load(folder.Path, s_noTokenizer);
        Assert.All(byDefault.Module.parameters(), parameter => Assert.Equal(ScalarType.Float32, parameter.dtype));

        ModelLoadResult result = ModelLoader.LoadWithReport(folder.Path, s_noTokenizer with { DType = dtype });
        using LoKrModel half = result.Model;
        Assert.Contains("slower", Assert.Single(result.Warnings), StringComparison.Ordinal);
        Assert.All(half.Module.parameters(), parameter => Assert.Equal(dtype, parameter.dtype));
        (Tensor ids, Tensor mask) = TinyModel.Batch();
        using IDisposable noGrad = no_grad();
        Tensor expected = ((ISequenceClassifier)byDefault.Module).Classify(ids, mask);
        Tensor actual = ((ISequenceClassifier)half.Module).Classify(ids, mask);
        Assert.Equal(dtype, actual.dtype);
        TensorAssert.Close(expected, actual.to_type(ScalarType.Float32), 0.05, "logits");
    }

    [Fact]
    public void Type_that_no_model_runs_in_is_an_error()
    {
        using TempFolder folder = new();
        TinyModel.Write(folder.Path, TinyModel.BertConfig());
        ErrorAssert.Throws(ErrorIds.DTypeNotSupported, () => ModelLoader.Load(folder.Path, s_noTokenizer with { DType = ScalarType.Int64 }), "Int64", "bfloat16");
    }

    [Fact]
    public void Plain_encoder_gets_the_prefix_and_a_fresh_head_by_seed()
    {
        using TempFolder folder = new();
        using DisposeScope scope = NewDisposeScope();
        JsonObject config = TinyModel.BertConfig();
        config["architectures"] = new JsonArray("BertModel");
        config["initializer_range"] = 0.5;
        IReadOnlyDictionary<string, Tensor> written = TinyModel.Write(folder.Path, config, tensors =>
        {
            ToPlainEncoder(tensors);
            tensors["embeddings.position_ids"] = arange(12, ScalarType.Int64).unsqueeze(0);
        });
        ModelLoadOptions options = s_noTokenizer with { Labels = [.. Enumerable.Range(0, 40).Select(i => $"label {i}")], Seed = 3 };
        ModelLoadResult result = ModelLoader.LoadWithReport(folder.Path, options);
        using LoKrModel model = result.Model;
        Assert.Equal(["classifier.weight", "classifier.bias"], result.FreshParameters);
        Assert.Contains("classifier.weight", Assert.Single(result.Warnings), StringComparison.Ordinal);
        Assert.True(TensorAssert.Same(model.Module.get_parameter("bert.pooler.dense.weight")!, written["pooler.dense.weight"]));
        Tensor head = model.Module.get_parameter("classifier.weight")!;
        Assert.Equal([40, 8], head.shape);
        Assert.InRange(head.std().ToSingle(), 0.4, 0.6);
        Assert.Equal(0, model.Module.get_parameter("classifier.bias")!.abs().max().ToSingle());

        using LoKrModel again = ModelLoader.Load(folder.Path, options);
        Assert.True(TensorAssert.Same(head, again.Module.get_parameter("classifier.weight")!));
        using LoKrModel other = ModelLoader.Load(folder.Path, options with { Seed = 4 });
        Assert.False(TensorAssert.Same(head, other.Module.get_parameter("classifier.weight")!));
    }

    [Fact]
    public void Missing_pooler_is_initialized_with_a_warning()
    {
        using TempFolder folder = new();
        TinyModel.Write(folder.Path, TinyModel.BertConfig(), tensors => Remove(tensors, "bert.pooler."));
        ModelLoadResult result = ModelLoader.LoadWithReport(folder.Path, s_noTokenizer);
        using LoKrModel model = result.Model;
        Assert.Equal(["bert.pooler.dense.weight", "bert.pooler.dense.bias"], result.FreshParameters);
        Assert.Contains("bert.pooler.dense.weight", Assert.Single(result.Warnings), StringComparison.Ordinal);
    }

    [Fact]
    public void Heads_of_pretraining_are_skipped_and_reported_and_old_norm_names_are_read()
    {
        using TempFolder folder = new();
        using DisposeScope scope = NewDisposeScope();
        JsonObject config = TinyModel.BertConfig();
        config["architectures"] = new JsonArray("BertForMaskedLM");
        IReadOnlyDictionary<string, Tensor> written = TinyModel.Write(folder.Path, config, tensors =>
        {
            Remove(tensors, "classifier.");
            Rename(tensors, "bert.embeddings.LayerNorm.weight", "bert.embeddings.LayerNorm.gamma");
            Rename(tensors, "bert.embeddings.LayerNorm.bias", "bert.embeddings.LayerNorm.beta");
            tensors["cls.predictions.bias"] = zeros(40);
        });
        ModelLoadResult result = ModelLoader.LoadWithReport(folder.Path, s_noTokenizer with { Labels = ["a", "b"] });
        using LoKrModel model = result.Model;
        Assert.Equal(["cls.predictions.bias"], result.SkippedKeys);
        Assert.Contains(result.Warnings, warning => warning.Contains("cls.predictions.bias", StringComparison.Ordinal));
        Assert.True(TensorAssert.Same(model.Module.get_parameter("bert.embeddings.LayerNorm.weight")!, written["bert.embeddings.LayerNorm.gamma"]));
    }

    [Fact]
    public void Head_of_another_task_is_not_taken_for_ours()
    {
        using TempFolder folder = new();
        JsonObject config = TinyModel.BertConfig();
        config["architectures"] = new JsonArray("BertForMultipleChoice");
        TinyModel.Write(folder.Path, config);
        ModelLoadResult result = ModelLoader.LoadWithReport(folder.Path, s_noTokenizer with { Labels = ["a", "b", "c"] });
        using LoKrModel model = result.Model;
        Assert.Equal(["classifier.bias", "classifier.weight"], result.SkippedKeys.Order(StringComparer.Ordinal));
        Assert.Equal(["classifier.weight", "classifier.bias"], result.FreshParameters);
    }

    [Fact]
    public void Missing_unexpected_and_misshaped_weights_are_one_error_that_lists_them()
    {
        using TempFolder folder = new();
        TinyModel.Write(folder.Path, TinyModel.BertConfig(), tensors =>
        {
            Remove(tensors, "bert.encoder.layer.0.output.dense.bias");
            tensors["bert.encoder.layer.7.extra"] = zeros(2);
            tensors["bert.embeddings.word_embeddings.weight"] = zeros(39, 8);
        });
        ErrorAssert.Throws(ErrorIds.CheckpointKeysMismatch, () => ModelLoader.Load(folder.Path, s_noTokenizer),
            "bert.encoder.layer.0.output.dense.bias", "bert.encoder.layer.7.extra", "bert.embeddings.word_embeddings.weight: is [39, 8], the model's [40, 8]");
    }

    [Fact]
    public void Half_a_head_is_a_damaged_checkpoint()
    {
        using TempFolder folder = new();
        TinyModel.Write(folder.Path, TinyModel.BertConfig(), tensors => Remove(tensors, "classifier.bias"));
        ErrorAssert.Throws(ErrorIds.CheckpointKeysMismatch, () => ModelLoader.Load(folder.Path, s_noTokenizer), "classifier.bias");
    }

    [Fact]
    public void Weights_stored_as_integers_are_an_error_and_nothing_is_left_behind()
    {
        using TempFolder folder = new();
        TinyModel.Write(folder.Path, TinyModel.BertConfig(), tensors =>
            tensors["bert.pooler.dense.weight"] = ones(8, 8, ScalarType.Int64));
        long before = DisposeScopeManager.Statistics.ThreadTotalLiveCount;
        ErrorAssert.Throws(ErrorIds.TensorDTypeMismatch, () => ModelLoader.Load(folder.Path, s_noTokenizer), "bert.pooler.dense.weight", "I64");
        Assert.Equal(before, DisposeScopeManager.Statistics.ThreadTotalLiveCount);
    }

    [Fact]
    public void Folder_with_pickled_weights_only_is_refused()
    {
        using TempFolder folder = new();
        File.WriteAllText(folder["config.json"], TinyModel.BertConfig().ToJsonString());
        File.WriteAllBytes(folder["pytorch_model.bin"], [0x50, 0x4b, 3, 4]);
        ErrorAssert.Throws(ErrorIds.PickleRefused, () => ModelLoader.Load(folder.Path, s_noTokenizer), "pytorch_model.bin");
    }

    [Fact]
    public void Tokenizer_of_the_folder_comes_with_the_model_and_goes_with_its_export()
    {
        using TempFolder folder = new();
        TinyModel.Write(folder["in"], TinyModel.BertConfig());
        string[] words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "open", "source", "##s"];
        File.WriteAllText(folder["in", "vocab.txt"], string.Join('\n', words) + "\n");
        ModelLoadResult result = ModelLoader.LoadWithReport(folder["in"]);
        using LoKrModel model = result.Model;
        Assert.Empty(result.Warnings);
        Assert.Equal([2, 5, 6, 7, 3], model.Tokenizer!.Encode("Open sources"));
        ModelExporter.Export(model, folder["out"]);
        using LoKrModel again = ModelLoader.Load(folder["out"]);
        Assert.Equal([2, 5, 6, 7, 3], again.Tokenizer!.Encode("Open sources"));
    }

    [Fact]
    public void Tokenizer_with_more_ids_than_embeddings_is_warned_of()
    {
        using TempFolder folder = new();
        TinyModel.Write(folder.Path, TinyModel.BertConfig());
        File.WriteAllText(folder["vocab.txt"], string.Join('\n', (string[])["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", .. Enumerable.Range(0, 60).Select(i => $"w{i}")]) + "\n");
        ModelLoadResult result = ModelLoader.LoadWithReport(folder.Path);
        using LoKrModel model = result.Model;
        Assert.Contains("65 ids", Assert.Single(result.Warnings), StringComparison.Ordinal);
    }

    [Fact]
    public void Folder_without_tokenizer_loads_with_a_warning()
    {
        using TempFolder folder = new();
        TinyModel.Write(folder.Path, TinyModel.BertConfig());
        ModelLoadResult result = ModelLoader.LoadWithReport(folder.Path);
        using LoKrModel model = result.Model;
        Assert.Null(model.Tokenizer);
        Assert.Contains("tokenizer", Assert.Single(result.Warnings), StringComparison.Ordinal);
    }

    [Fact]
    public void Weights_of_bitsandbytes_are_loaded_as_their_values_and_exported_without_their_configuration()
    {
        using TempFolder folder = new();
        using DisposeScope scope = NewDisposeScope();
        JsonObject config = TinyModel.BertConfig("x", "y");
        config["quantization_config"] = new JsonObject { ["quant_method"] = "bitsandbytes", ["load_in_8bit"] = true };
        Dictionary<string, Tensor> expected = [];
        TinyModel.Write(folder["model"], config, tensors =>
        {
            foreach (string name in tensors.Keys.Where(static name => name.EndsWith(".query.weight", StringComparison.Ordinal)).ToList())
            {
                Tensor largest = tensors[name].abs().amax([1]);
                tensors[name] = (tensors[name] / largest.unsqueeze(1) * 127).round().to(ScalarType.Int8);
                tensors[name[..^"weight".Length] + "SCB"] = largest;
                expected.Add(name, (tensors[name].to(ScalarType.Float32) * largest.unsqueeze(1) * (1f / 127)).MoveToOuterDisposeScope());
            }
        });
        ModelLoadResult result = ModelLoader.LoadWithReport(folder["model"], s_noTokenizer);
        using LoKrModel model = result.Model;
        Assert.Contains($"{expected.Count} weights", Assert.Single(result.Warnings), StringComparison.Ordinal);
        Assert.NotEmpty(expected);
        Assert.All(expected, pair => TensorAssert.Close(pair.Value, model.Module.get_parameter(pair.Key)!, 1e-7, pair.Key));
        ModelExporter.Export(model, folder["exported"]);
        Assert.False(ModelConfig.Load(folder["exported"]).Has(ModelConfig.QuantizationKey));
        using LoKrModel again = ModelLoader.Load(folder["exported"], s_noTokenizer);
        Assert.All(expected, pair => Assert.True(TensorAssert.Same(model.Module.get_parameter(pair.Key)!, again.Module.get_parameter(pair.Key)!), pair.Key));
    }

    [Theory]
    [InlineData("quantization_config", "{\"quant_method\": \"gptq\"}")]
    [InlineData("quantization_config", "{\"bits\": 4}")]
    [InlineData("quantization_config", "true")]
    [InlineData("is_decoder", "true")]
    [InlineData("hidden_act", "\"snake\"")]
    [InlineData("position_embedding_type", "\"relative_key\"")]
    public void Unsupported_configuration_is_an_error_that_names_the_key(string key, string value)
    {
        JsonObject config = TinyModel.BertConfig();
        config[key] = JsonNode.Parse(value);
        ErrorAssert.Throws(ErrorIds.ModelConfigUnsupported, () => ModelLoader.Build(new ModelConfig(config)), key);
    }

    private static void ToPlainEncoder(Dictionary<string, Tensor> tensors)
    {
        Remove(tensors, "classifier.");
        foreach (string name in tensors.Keys.ToList())
        {
            Rename(tensors, name, name["bert.".Length..]);
        }
    }

    private static void Remove(Dictionary<string, Tensor> tensors, string prefix)
    {
        foreach (string name in tensors.Keys.Where(name => name.StartsWith(prefix, StringComparison.Ordinal)).ToList())
        {
            tensors.Remove(name);
        }
    }

    private static void Rename(Dictionary<string, Tensor> tensors, string from, string to)
    {
        tensors[to] = tensors[from];
        tensors.Remove(from);
    }

    [Fact]
    public void Loading_reports_how_far_it_is_and_stops_between_tensors()
    {
        using TempFolder folder = new();
        using DisposeScope scope = NewDisposeScope();
        int tensors = TinyModel.Write(folder.Path, TinyModel.BertConfig("x", "y")).Count;
        ConcurrentBag<double> shares = [];
        using (LoKrModel model = ModelLoader.Load(folder.Path, s_noTokenizer with { OnProgress = shares.Add }))
        {
            Assert.Equal(tensors, shares.Count);
            Assert.Equal(1, shares.Max());
            Assert.InRange(shares.Min(), 0, 0.99);
        }

        using CancellationTokenSource stop = new();
        ConcurrentBag<double> before = [];
        Assert.Throws<OperationCanceledException>(() => ModelLoader.LoadWithReport(
            folder.Path,
            s_noTokenizer with
            {
                OnProgress = share =>
                {
                    before.Add(share);
                    stop.Cancel();
                },
            },
            stop.Token));
        Assert.InRange(before.Count, 1, tensors - 1);
    }
}
