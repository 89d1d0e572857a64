using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Layouts;
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

namespace LoKr.Models.Tests.Families;

/// <summary>Encoders and decoders that score every token.</summary>
public sealed class TokenClassifierTests
{
    private static readonly string[] s_tags = ["O", "B-HOST", "I-HOST"];

    /// <summary>Families that have a class for tokens in transformers, its name, its head, and what its head has besides.</summary>
    public static TheoryData<string, string, string[]> Families => new()
    {
        { "bert", "BertForTokenClassification", ["classifier.weight", "classifier.bias"] },
        { "roberta", "RobertaForTokenClassification", ["classifier.weight", "classifier.bias"] },
        { "xlm-roberta", "XLMRobertaForTokenClassification", ["classifier.weight", "classifier.bias"] },
        { "distilbert", "DistilBertForTokenClassification", ["classifier.weight", "classifier.bias"] },
        { "modernbert", "ModernBertForTokenClassification", ["head.dense.weight", "head.norm.weight", "classifier.weight", "classifier.bias"] },
        { "deberta-v2", "DebertaV2ForTokenClassification", ["classifier.weight", "classifier.bias"] },
        { "mpnet", "MPNetForTokenClassification", ["classifier.weight", "classifier.bias"] },
        { "electra", "ElectraForTokenClassification", ["classifier.weight", "classifier.bias"] },
        { "albert", "AlbertForTokenClassification", ["classifier.weight", "classifier.bias"] },
        { "llama", "LlamaForTokenClassification", ["score.weight", "score.bias"] },
        { "mistral", "MistralForTokenClassification", ["score.weight", "score.bias"] },
        { "qwen2", "Qwen2ForTokenClassification", ["score.weight", "score.bias"] },
        { "qwen3", "Qwen3ForTokenClassification", ["score.weight", "score.bias"] },
        { "phi3", "Phi3ForTokenClassification", ["score.weight", "score.bias"] },
        { "smollm3", "SmolLM3ForTokenClassification", ["score.weight", "score.bias"] },
        { "gpt2", "GPT2ForTokenClassification", ["classifier.weight", "classifier.bias"] },
    };

    [Theory]
    [MemberData(nameof(Families))]
    public void A_model_gets_the_head_of_its_family_which_an_export_keeps(string modelType, string className, string[] head)
    {
        using TempFolder folder = new();
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGrad = no_grad();
        (Tensor ids, Tensor mask) = TinyModel.Batch();
        TinyModel.Write(folder["model"], Config(modelType), static tensors => Remove(tensors, "classifier.", "pre_classifier.", "head.", "lm_head."));
        ModelLoadResult result = ModelLoader.LoadWithReport(folder["model"], new() { Task = TaskType.TokenClassification, Labels = s_tags, Seed = 1, WithTokenizer = false });
        using LoKrModel model = result.Model;
        TokenClassifier tagger = Assert.IsType<TokenClassifier>(model.Module);
        Assert.Equal(head.Order(StringComparer.Ordinal), result.FreshParameters.Order(StringComparer.Ordinal));
        string body = ArchitectureRegistry.Default.All.Single(item => item.Name == className).Layout.BasePrefix;
        string[] names = [.. model.Module.named_parameters().Select(static item => item.name)];
        Assert.Equal(head.Order(StringComparer.Ordinal), names.Where(name => !name.StartsWith(body, StringComparison.Ordinal)).Order(StringComparer.Ordinal));
        Assert.DoesNotContain(names, static name => name.Contains("pooler", StringComparison.Ordinal));
        Assert.Equal((className, className, modelType), (tagger.Architecture, (string?)tagger.Config["architectures"]![0], tagger.ModelType));
        Tensor logits = tagger.ClassifyTokens(ids, mask);
        Assert.Equal([ids.shape[0], ids.shape[1], s_tags.Length], logits.shape);

        ModelExporter.Export(model, folder["out"]);
        using LoKrModel again = ModelLoader.Load(folder["out"], new() { WithTokenizer = false });
        Assert.Equal(s_tags, Assert.IsType<TokenClassifier>(again.Module).Labels);
        Assert.True(TensorAssert.Same(logits, ((ITokenClassifier)again.Module).ClassifyTokens(ids, mask)));
    }

    [Fact]
    public void A_head_of_Phi3_under_its_earlier_name_is_the_same_head()
    {
        using TempFolder folder = new();
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGrad = no_grad();
        (Tensor ids, Tensor mask) = TinyModel.Batch();
        JsonObject config = TinyDecoder.Config("phi3", """{"architectures": ["Phi3ForTokenClassification"]}""");
        TinyModel.Write(folder["now"], config);
        TinyModel.Write(folder["before"], config, static tensors =>
        {
            foreach (string part in (string[])["weight", "bias"])
            {
                Assert.True(tensors.Remove("score." + part, out Tensor? tensor));
                tensors["classifier." + part] = tensor;
            }
        });
        using LoKrModel now = ModelLoader.Load(folder["now"], new() { WithTokenizer = false });
        ModelLoadResult result = ModelLoader.LoadWithReport(folder["before"], new() { WithTokenizer = false });
        using LoKrModel before = result.Model;
        Assert.Empty(result.FreshParameters);
        Assert.Empty(result.SkippedKeys);
        Assert.True(TensorAssert.Same(((ITokenClassifier)now.Module).ClassifyTokens(ids, mask), ((ITokenClassifier)before.Module).ClassifyTokens(ids, mask)));
        ModelExporter.Export(before, folder["out"]);
        using SafetensorsReader written = SafetensorsReader.Open(folder["out", "model.safetensors"]);
        Assert.Contains("score.weight", written.Entries.Keys);
        Assert.DoesNotContain(written.Entries.Keys, static key => key.StartsWith("classifier", StringComparison.Ordinal));
    }

    [Fact]
    public void A_family_without_a_class_for_tokens_is_refused_with_those_it_has() =>
        ErrorAssert.Throws(
            ErrorIds.TaskUnknown,
            () => ModelLoader.Build(new ModelConfig(TinyDecoder.Config("granite")), new() { Task = TaskType.TokenClassification }),
            "granite", "TokenClassification", "GraniteForCausalLM");

    [Fact]
    public void Labels_for_a_task_without_labels_are_refused() =>
        ErrorAssert.Throws(
            ErrorIds.LabelsInvalid,
            () => ModelLoader.Build(new ModelConfig(TinyDecoder.Config("llama")), new() { Task = TaskType.CausalLanguageModeling, Labels = s_tags }),
            "LlamaForCausalLM");

    [Fact]
    public void A_head_for_texts_is_none_for_tokens()
    {
        using TempFolder folder = new();
        TinyModel.Write(folder["model"], TinyModel.BertConfig("a", "b"));
        ModelLoadResult result = ModelLoader.LoadWithReport(folder["model"], new() { Task = TaskType.TokenClassification, Labels = s_tags, Seed = 1, WithTokenizer = false });
        using LoKrModel model = result.Model;
        Assert.Equal(["classifier.weight", "classifier.bias"], result.FreshParameters);
        Assert.Equal(["bert.pooler.dense.bias", "bert.pooler.dense.weight", "classifier.bias", "classifier.weight"], result.SkippedKeys.Order(StringComparer.Ordinal));

        // With its own head the folder is what it says.
        using LoKrModel texts = ModelLoader.Load(folder["model"], new() { WithTokenizer = false });
        Assert.IsType<EncoderClassifier>(texts.Module);
    }

    [Fact]
    public void A_fresh_head_is_trained_and_comes_back_with_the_adapter_under_its_task()
    {
        using TempFolder folder = new();
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGrad = no_grad();
        (Tensor ids, Tensor mask) = TinyModel.Batch();
        string bert = TinyModel.WriteBert(folder["bert"]);
        ModelLoadOptions options = new() { Task = TaskType.TokenClassification, Labels = s_tags, Seed = 1, WithTokenizer = false };
        Tensor expected;
        using (LoKrModel model = ModelLoader.Load(bert, options))
        {
            LoKrAdapter adapter = model.AddAdapter(new LoKrConfig { R = 2, InitWeights = InitWeights.Random }, seed: 2);
            Assert.Equal(TaskType.TokenClassification, adapter.Config.TaskType);
            Assert.Equal(["classifier"], adapter.SavedModules);
            Assert.Empty(adapter.UnsavedModules);
            expected = ((ITokenClassifier)model.Module).ClassifyTokens(ids, mask);
            AdapterExporter.Export(model, "default", folder["adapter"], AdapterLayout.Peft);
        }

        Assert.True(AdapterLabels.AreOfTokens(folder["adapter"]));
        Assert.Equal(s_tags, AdapterLabels.Read(folder["adapter"]));
        using LoKrModel again = ModelLoader.Load(bert, options with { Seed = 99 });
        Assert.False(TensorAssert.Same(expected, ((ITokenClassifier)again.Module).ClassifyTokens(ids, mask)));
        AdapterImporter.Import(again, folder["adapter"]);
        TensorAssert.Close(expected, ((ITokenClassifier)again.Module).ClassifyTokens(ids, mask), TensorAssert.Layer, "logits");
    }

    [Fact]
    public void A_decoder_without_a_bias_for_tokens_has_none()
    {
        using nn.Module module = ModelLoader.Build(
            new ModelConfig(TinyDecoder.Config("llama", """{"token_classification_bias": false}""")), new() { Task = TaskType.TokenClassification, Labels = s_tags, Device = CPU });
        Assert.Equal(["score.weight"], module.named_parameters().Select(static item => item.name).Where(static name => name.StartsWith("score", StringComparison.Ordinal)));
    }

    private static JsonObject Config(string modelType)
    {
        if (modelType is "llama" or "mistral" or "qwen2" or "qwen3" or "phi3" or "smollm3")
        {
            return TinyDecoder.Config(modelType);
        }

        if (modelType == "gpt2")
        {
            return TinyModel.Gpt2Config();
        }

        JsonObject config = modelType != "distilbert" ? TinyModel.BertConfig("a", "b") : new()
        {
            ["vocab_size"] = 40,
            ["dim"] = 8,
            ["n_layers"] = 1,
            ["n_heads"] = 2,
            ["hidden_dim"] = 16,
            ["max_position_embeddings"] = 12,
        };
        (config["model_type"], config["architectures"]) = (modelType, null);
        if (modelType is "electra" or "albert")
        {
            config["embedding_size"] = 6;
        }

        return config;
    }

    private static void Remove(Dictionary<string, Tensor> tensors, params string[] prefixes)
    {
        foreach (string name in tensors.Keys.Where(name => Array.Exists(prefixes, prefix => name.StartsWith(prefix, StringComparison.Ordinal))).ToArray())
        {
            tensors.Remove(name);
        }
    }
}
