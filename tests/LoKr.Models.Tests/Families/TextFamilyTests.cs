using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
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

namespace LoKr.Models.Tests.Families;

/// <summary>The text families of fixtures/text, against the outputs, losses and adapters of transformers and PEFT.</summary>
public sealed class TextFamilyTests
{
    private const string Set = "text";

    private static readonly string[] s_decoders = ["gemma3_text", "gemma3_text-linear", "phi3", "phi3-longrope", "smollm3", "granite", "olmo2", "olmo3"];

    private static readonly string[] s_encoders =
        ["xlm-roberta", "mpnet", "electra", "albert", "modernbert-cls", "modernbert-mean", "deberta-v2", "deberta-v2-plain", "deberta-v2-conv"];

    private static readonly string[] s_classifiers = ["llama-cls", "qwen2-cls", "qwen3-cls", "gpt2-cls"];

    private static readonly string[] s_taggers = ["bert-tokens", "distilbert-tokens", "roberta-tokens", "modernbert-tokens"];

    private static readonly string[] s_all = [.. s_decoders, .. s_encoders, .. s_classifiers, .. s_taggers];

    // Keys of config.json that only one of the two generations of transformers has.
    private static readonly string[] s_newKeys = ["rope_parameters", "layer_types", "dtype", "_sliding_window_pattern"];

    private static readonly string[] s_oldKeys =
        ["rope_theta", "rope_scaling", "rope_local_base_freq", "global_rope_theta", "local_rope_theta", "sliding_window_pattern", "global_attn_every_n_layers", "torch_dtype"];

    private static readonly ModelLoadOptions s_noTokenizer = new() { WithTokenizer = false };

    public static TheoryData<string> Models() => [.. s_all];

    public static TheoryData<string> Decoders() => [.. s_decoders];

    public static TheoryData<string> Classifiers() => [.. s_classifiers];

    public static TheoryData<string, string> Adapters() => AdapterCases.Of(Set, s_all.Except(["gpt2-cls"]));

    public static TheoryData<string, string> ClassifierAdapters() => AdapterCases.Of(Set, s_classifiers.Except(["gpt2-cls"]));

    [Theory]
    [MemberData(nameof(Models))]
    public void Output_and_loss_are_those_of_transformers(string name) => CheckOutput(Fixtures.Require(Set, name), name);

    [Theory]
    [MemberData(nameof(Models))]
    public void Configuration_of_an_older_release_gives_the_same_model(string name)
    {
        string old = Fixtures.Require(Set, name, "config-old.json");
        using TempFolder folder = new();
        CheckOutput(Copy(name, folder.Path, JsonNode.Parse(File.ReadAllText(old))!.AsObject()), name);
    }

    [Theory]
    [MemberData(nameof(Adapters))]
    public void Adapter_has_the_output_layers_and_counts_of_PEFT(string name, string adapter) => AdapterCases.Check(name, adapter, Set, callsOnce: !s_encoders.Contains(name));

    [Theory]
    [MemberData(nameof(Adapters))]
    public void Ten_steps_have_the_losses_and_the_output_of_PEFT(string name, string adapter) => AdapterCases.CheckTraining(name, adapter, Set);

    [Theory]
    [MemberData(nameof(Decoders))]
    public void Greedy_ids_with_a_cache_are_those_of_transformers(string name)
    {
        JsonObject expected = JsonNode.Parse(File.ReadAllText(Fixtures.Require(Set, name, "generate.json")))!.AsObject();
        using LoKrModel model = ModelLoader.Load(Fixtures.Require(Set, name), s_noTokenizer);
        var language = (ICausalLanguageModel)model.Module;
        foreach (JsonNode? row in expected["more"]?.AsArray().Prepend(expected) ?? [expected])
        {
            int[] prompt = [.. row!["prompt_ids"]!.AsArray().Select(id => (int)id!)];
            int[] all = [.. row["greedy_ids"]!.AsArray().Select(id => (int)id!)];
            IReadOnlyList<int> generated = language.Generate(
                prompt, new GenerationOptions { MaxNewTokens = (int)row["new_tokens"]! }, TestContext.Current.CancellationToken);

            // transformers also returns the id that ended the text.
            int length = language.EosIds.Contains(all[^1]) ? all.Length - 1 : all.Length;
            Assert.Equal(all[prompt.Length..length], generated);
        }
    }

    [Theory]
    [MemberData(nameof(Classifiers))]
    public void A_decoder_classifies_texts_that_are_padded_on_the_left(string name)
    {
        string folder = Fixtures.Require(Set, name);
        using DisposeScope scope = NewDisposeScope();
        using LoKrModel model = ModelLoader.Load(folder, s_noTokenizer);
        using SafetensorsReader io = SafetensorsReader.Open(Path.Combine(folder, "io.safetensors"));
        TensorAssert.Close(io.Read("base_output_left"), Left(model, io), TensorAssert.Model, name);
    }

    [Theory]
    [MemberData(nameof(ClassifierAdapters))]
    public void An_adapter_classifies_texts_that_are_padded_on_the_left(string name, string adapter)
    {
        string folder = Fixtures.Require(Set, name);
        string adapterFolder = Fixtures.Require(Set, name, "adapters", adapter);
        using DisposeScope scope = NewDisposeScope();
        using LoKrModel model = ModelLoader.Load(folder, s_noTokenizer);
        PeftStart.Load(model, adapterFolder);
        using SafetensorsReader io = SafetensorsReader.Open(Path.Combine(folder, "io.safetensors"));
        using SafetensorsReader expected = SafetensorsReader.Open(Path.Combine(adapterFolder, "io.safetensors"));
        TensorAssert.Close(expected.Read("adapter_output_left"), Left(model, io), TensorAssert.Model, $"{name} {adapter}");
    }

    [Fact]
    public void Longrope_has_its_short_factors_for_short_batches()
    {
        string folder = Fixtures.Require(Set, "phi3-longrope");
        using DisposeScope scope = NewDisposeScope();
        using LoKrModel model = ModelLoader.Load(folder, s_noTokenizer);
        using SafetensorsReader io = SafetensorsReader.Open(Path.Combine(folder, "io.safetensors"));
        using IDisposable noGrad = no_grad();
        Tensor logits = ((ICausalLanguageModel)model.Module).Logits(io.Read("in_short.input_ids"), io.Read("in_short.attention_mask"));
        TensorAssert.Close(io.Read("base_output_short"), logits, TensorAssert.Model, "short");
    }

    [Theory]
    [MemberData(nameof(Models))]
    public void An_export_of_either_spelling_has_both_and_each_alone_gives_the_model(string name)
    {
        string source = Fixtures.Require(Set, name);
        string old = Path.Combine(source, "config-old.json");
        foreach (string config in File.Exists(old) ? (string[])[Path.Combine(source, "config.json"), old] : [Path.Combine(source, "config.json")])
        {
            using TempFolder folder = new();
            JsonObject given = JsonNode.Parse(File.ReadAllText(config))!.AsObject();
            using (LoKrModel model = ModelLoader.Load(Copy(name, folder["in"], given), s_noTokenizer))
            {
                ModelExporter.Export(model, folder["out"]);
            }

            JsonObject written = JsonNode.Parse(File.ReadAllText(folder["out", "config.json"]))!.AsObject();
            Assert.All(given, pair => Assert.True(JsonNode.DeepEquals(pair.Value, written[pair.Key]), pair.Key));
            if (File.Exists(old))
            {
                JsonObject published = JsonNode.Parse(File.ReadAllText(old))!.AsObject();
                Assert.All(s_oldKeys.Where(published.ContainsKey), key => Assert.True(Same(published[key], written[key]), $"{key}: {written[key]}"));
            }

            CheckOutput(Copy(name, folder["new"], Without(written, s_oldKeys)), $"{name}, as transformers 5 reads it");
            CheckOutput(Copy(name, folder["old"], Without(written, s_newKeys)), $"{name}, as older releases read it");
        }
    }

    [Theory]
    [InlineData("gemma3_text", """{"use_bidirectional_attention": true}""", "use_bidirectional_attention")]
    [InlineData("gemma3_text", """{"layer_types": ["full_attention", "chunked_attention", "full_attention", "full_attention"]}""", "chunked_attention")]
    [InlineData("gemma3_text", """{"rope_parameters": {"rope_theta": 1e4, "rope_type": "default"}}""", "rope_parameters")]
    [InlineData("olmo3", """{"rope_parameters": {"rope_theta": 1e4, "rope_type": "default"}}""", "rope_parameters")]
    [InlineData("phi3", """{"embd_pdrop": 0.1}""", "embd_pdrop")]
    [InlineData("phi3", """{"attention_bias": true}""", "attention_bias")]
    [InlineData("smollm3", """{"no_rope_layers": [0, 0]}""", "no_rope_layers")]
    public void A_setting_that_is_not_built_is_refused_by_its_key(string modelType, string overlay, string says)
    {
        JsonObject config = TinyDecoder.Config(modelType, overlay);
        if (config["layer_types"] is JsonArray types)
        {
            config["num_hidden_layers"] = types.Count;
        }

        ErrorAssert.Throws(Core.Errors.ErrorIds.ModelConfigUnsupported, () => ModelLoader.Build(new ModelConfig(config)), says);
    }

    [Theory]
    [InlineData("granite", """{"logits_scaling": 0}""", "logits_scaling")]
    [InlineData("smollm3", """{"no_rope_layers": [1]}""", "no_rope_layers")]
    public void An_impossible_value_is_refused_by_its_key(string modelType, string overlay, string says) =>
        ErrorAssert.Throws(Core.Errors.ErrorIds.ModelConfigInvalid, () => ModelLoader.Build(new ModelConfig(TinyDecoder.Config(modelType, overlay))), says);

    private static Tensor Left(LoKrModel model, SafetensorsReader io)
    {
        using IDisposable noGrad = no_grad();
        return ((ISequenceClassifier)model.Module).Classify(io.Read("in_left.input_ids"), io.Read("in_left.attention_mask"));
    }

    private static void CheckOutput(string folder, string what)
    {
        using DisposeScope scope = NewDisposeScope();
        using LoKrModel model = ModelLoader.Load(folder, s_noTokenizer);
        using SafetensorsReader io = SafetensorsReader.Open(Path.Combine(folder, "io.safetensors"));
        using IDisposable noGrad = no_grad();
        TensorAssert.Close(ReferenceInput.Expected(model, io.Read("base_output"), io), ReferenceInput.Run(model, io), TensorAssert.Model, what);
        TensorAssert.Close(io.Read("base_loss").item<float>(), ReferenceInput.Loss(model, io).item<float>(), TensorAssert.Model, what);
    }

    // A folder of the model with another configuration, with the reference's inputs and outputs.
    private static string Copy(string name, string destination, JsonObject config)
    {
        Directory.CreateDirectory(destination);
        foreach (string file in (string[])["model.safetensors", "io.safetensors"])
        {
            File.Copy(Fixtures.Require(Set, name, file), Path.Combine(destination, file));
        }

        File.WriteAllText(Path.Combine(destination, "config.json"), config.ToJsonString());
        return destination;
    }

    private static JsonObject Without(JsonObject config, string[] keys)
    {
        JsonObject copy = config.DeepClone().AsObject();
        foreach (string key in keys)
        {
            copy.Remove(key);
        }

        return copy;
    }

    // A kind is "type" or "rope_type", which both generations read.
    private static bool Same(JsonNode? one, JsonNode? other) => one is JsonObject scaling && other is JsonObject written
        ? scaling.All(pair => JsonNode.DeepEquals(pair.Value, written[pair.Key] ?? written["rope_" + pair.Key]))
        : one is JsonValue value && other is JsonValue same && value.TryGetValue(out double first) && same.TryGetValue(out double second) ? first == second
        : JsonNode.DeepEquals(one, other);
}
