using System.Text.Json.Nodes;
using LoKr.Core.Errors;
using LoKr.Core.Inference;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Core.Safetensors;
using LoKr.Models.Families;
using LoKr.Models.Loading;
using LoKr.Models.Tests.Training;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Models.Tests.Families;

/// <summary>The folders of fixtures/embeddings, against sentence-transformers, and the same of every family.</summary>
public sealed class SentenceEncoderTests : IDisposable
{
    private static readonly (string Name, SentencePooling Kind)[] s_kinds =
    [
        ("cls", SentencePooling.Cls), ("max", SentencePooling.Max), ("mean", SentencePooling.Mean), ("mean_sqrt_len_tokens", SentencePooling.MeanSqrtLen),
        ("weightedmean", SentencePooling.WeightedMean), ("lasttoken", SentencePooling.LastToken),
    ];

    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    public static TheoryData<string> Folders() => Fixtures.Cases("embeddings");

    public static TheoryData<string> Families() =>
    [
        "transformers/bert", "transformers/roberta", "transformers/distilbert", "text/modernbert-mean", "text/deberta-v2", "text/deberta-v2-conv", "text/mpnet",
        "text/electra", "text/albert", "text/xlm-roberta", "transformers/llama", "transformers/qwen3", "transformers/gpt2", "text/gemma3_text", "text/phi3", "text/smollm3",
        "text/granite", "text/olmo2", "text/olmo3",
    ];

    [Fact]
    public void Pooling_is_that_of_sentence_transformers_on_either_side_of_the_padding()
    {
        using SafetensorsReader table = SafetensorsReader.Open(Fixtures.Require("embeddings", "pooling.safetensors"));
        using DisposeScope scope = NewDisposeScope();
        (Tensor hidden, Tensor mask) = (table.Read("token_embeddings"), table.Read("attention_mask"));
        foreach ((string name, SentencePooling kind) in s_kinds)
        {
            TensorAssert.Close(table.Read(name), TokenPooling.Pool(hidden, mask, [kind]), 1e-6, name);
            Tensor afterPrompt = TokenPooling.Pool(hidden.slice(0, 0, 3, 1), mask.slice(0, 0, 3, 1), [kind], promptLength: 2);
            TensorAssert.Close(table.Read($"prompt2.{name}"), afterPrompt, 1e-6, $"{name} after a prompt");
            Tensor empty = TokenPooling.Pool(hidden.slice(0, 0, 1, 1), zeros_like(mask.slice(0, 0, 1, 1)), [kind]);
            Assert.Equal(table.Read($"empty.{name}").data<float>().ToArray(), empty.data<float>().ToArray());
        }

        Tensor several = TokenPooling.Pool(hidden, mask, [SentencePooling.Max, SentencePooling.Cls]);
        TensorAssert.Close(cat([table.Read("max"), table.Read("cls")], 1), several, 1e-6, "max, cls");
    }

    [Theory]
    [MemberData(nameof(Folders))]
    public void A_folder_gives_the_vectors_and_the_similarity_of_sentence_transformers(string name) => Check(Fixtures.Require("embeddings", name), name);

    [Theory]
    [MemberData(nameof(Folders))]
    public void A_folder_in_the_spelling_of_published_ones_gives_the_same(string name)
    {
        string source = Fixtures.Require("embeddings", name);
        _folder.Copy(source, "config.json", "model.safetensors", "tokenizer.json", "case.json", "io.safetensors");
        Directory.CreateDirectory(_folder["1_Pooling"]);
        string old = Fixtures.Require("embeddings", name, "old");
        foreach (string file in Directory.EnumerateFiles(old, "*", SearchOption.AllDirectories))
        {
            File.Copy(file, _folder[Path.GetRelativePath(old, file)]);
        }

        Check(_folder.Path, name);
    }

    [Theory]
    [MemberData(nameof(Folders))]
    public void An_adapter_of_PEFT_gives_its_vectors(string name)
    {
        string folder = Fixtures.Require("embeddings", name);
        using LoKrModel model = ModelLoader.Load(folder);
        LoKrAdapter adapter = PeftStart.Load(model, Path.Combine(folder, "adapters", "default"));
        JsonNode expected = JsonNode.Parse(File.ReadAllText(Path.Combine(folder, "adapters", "default", "case.json")))!;
        Assert.Equal(expected["layers"]!.AsArray().Select(static layer => (string)layer!), adapter.Layers.Select(static layer => layer.ModuleName));
        Assert.Equal((long)expected["trainable"]!, adapter.ParameterCount);
        using SafetensorsReader io = SafetensorsReader.Open(Path.Combine(folder, "adapters", "default", "io.safetensors"));
        TensorAssert.Close(io.Read("adapter_embeddings"), Embed(model, folder), TensorAssert.Model, name);
    }

    [Theory]
    [MemberData(nameof(Folders))]
    public void An_export_is_a_folder_with_the_same_vectors(string name)
    {
        string folder = Fixtures.Require("embeddings", name);
        using (LoKrModel model = ModelLoader.Load(folder))
        {
            ModelExporter.Export(model, _folder["out"]);
        }

        _folder.Copy(folder, "case.json", "io.safetensors");
        File.Move(_folder["case.json"], _folder["out", "case.json"]);
        File.Move(_folder["io.safetensors"], _folder["out", "io.safetensors"]);
        Check(_folder["out"], name);
        Assert.Equal(File.ReadAllBytes(Path.Combine(folder, "tokenizer.json")), File.ReadAllBytes(_folder["out", "tokenizer.json"]));

        // Every release reads the spelling of published folders; a model of several kinds in another order than theirs has a list.
        JsonArray modules = JsonNode.Parse(File.ReadAllText(_folder["out", "modules.json"]))!.AsArray();
        Assert.All(modules, module => Assert.StartsWith("sentence_transformers.models.", (string)module!["type"]!, StringComparison.Ordinal));
    }

    [Fact]
    public void Vectors_of_a_published_encoder_without_such_files_are_the_means_that_sentence_transformers_takes()
    {
        string folder = Fixtures.RequireBeside("models", "minilm");
        ModelLoadResult result = ModelLoader.LoadWithReport(folder, new ModelLoadOptions { Normalize = true });
        using LoKrModel model = result.Model;
        Assert.Empty(result.FreshParameters);
        Assert.Empty(result.SkippedKeys);
        SentenceEncoder encoder = Assert.IsType<SentenceEncoder>(model.Module);
        Assert.Equal(["pooler.dense"], encoder.IdleModules);
        using SafetensorsReader io = SafetensorsReader.Open(Fixtures.Require("minilm", "embeddings.safetensors"));
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGrad = no_grad();
        TensorAssert.Close(io.Read("sentence_embedding"), encoder.Embed(io.Read("input_ids"), io.Read("attention_mask")), TensorAssert.Model, "minilm");
    }

    [Theory]
    [MemberData(nameof(Families))]
    public void Every_family_is_an_encoder_with_the_names_of_the_model_without_its_head(string name)
    {
        string folder = Fixtures.Require(name.Split('/'));
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGrad = no_grad();
        using LoKrModel model = ModelLoader.Load(folder, new ModelLoadOptions { WithTokenizer = false, Pooling = [SentencePooling.LastToken, SentencePooling.Mean] });
        SentenceEncoder encoder = Assert.IsType<SentenceEncoder>(model.Module);
        Assert.EndsWith("Model", encoder.Architecture, StringComparison.Ordinal);
        using SafetensorsReader source = SafetensorsReader.Open(Path.Combine(folder, "model.safetensors"));
        Assert.All(model.GetBaseState().Keys, key => Assert.Contains(source.Entries.Keys, stored => stored == key || stored.EndsWith("." + key, StringComparison.Ordinal)));

        Tensor ids = tensor([2L, 5, 6, 7, 3, 2, 9, 3, 0, 0]).view(2, 5);
        Tensor mask = tensor([1L, 1, 1, 1, 1, 1, 1, 1, 0, 0]).view(2, 5);
        Tensor vectors = encoder.Embed(ids, mask);
        Assert.Equal([2, encoder.Dimension], vectors.shape);

        // Padding changes nothing.
        TensorAssert.Close(encoder.Embed(ids.slice(0, 1, 2, 1).slice(1, 0, 3, 1), mask.slice(0, 1, 2, 1).slice(1, 0, 3, 1)), vectors.slice(0, 1, 2, 1), TensorAssert.Model, name);

        // What is exported, without the head, is loaded as the same again without being asked for.
        ModelExporter.Export(model, _folder["out"]);
        using LoKrModel again = ModelLoader.Load(_folder["out"], new ModelLoadOptions { WithTokenizer = false });
        Assert.True(TensorAssert.Same(vectors, Assert.IsType<SentenceEncoder>(again.Module).Embed(ids, mask)));
        Assert.Equal(encoder.Architecture, (string?)JsonNode.Parse(File.ReadAllText(_folder["out", "config.json"]))!["architectures"]![0]);
    }

    [Fact]
    public void A_prompt_goes_before_a_text_and_its_tokens_do_not_count_where_the_folder_says_so()
    {
        string bert = TinyModel.WriteBert(_folder["bert"]);
        WriteModules(bert, """{"prompts": {"query": "vpn wifi ", "document": ""}, "default_prompt_name": null}""", includePrompt: false);
        using LoKrModel model = ModelLoader.Load(bert);
        float[] query = Assert.Single(TextEmbedder.Embed(model, ["cable"], "query")).Vector;
        Assert.NotEqual(query, Assert.Single(TextEmbedder.Embed(model, ["cable"])).Vector);
        Assert.NotEqual(query, Assert.Single(TextEmbedder.Embed(model, ["vpn wifi cable"])).Vector);
        Assert.Equal(Assert.Single(TextEmbedder.Embed(model, ["cable"], "document")).Vector, Assert.Single(TextEmbedder.Embed(model, ["cable"])).Vector);
        ErrorAssert.Throws(ErrorIds.InvalidArgument, () => TextEmbedder.Embed(model, ["cable"], "passage"), "passage", "query, document");

        WriteModules(bert, """{"prompts": {"query": "vpn wifi ", "document": ""}, "default_prompt_name": "query"}""", includePrompt: true);
        using LoKrModel whole = ModelLoader.Load(bert);
        Assert.Equal(Assert.Single(TextEmbedder.Embed(whole, ["vpn wifi cable"], "document")).Vector, Assert.Single(TextEmbedder.Embed(whole, ["cable"])).Vector);
    }

    [Fact]
    public void A_folder_limits_and_lower_cases_its_texts()
    {
        string bert = TinyModel.WriteBert(_folder["bert"]);
        File.WriteAllText(Path.Combine(bert, "tokenizer_config.json"), """{"do_lower_case": false, "tokenizer_class": "BertTokenizer"}""");
        WriteModules(bert, "{}", includePrompt: true, """{"max_seq_length": 4, "do_lower_case": true}""");
        using LoKrModel model = ModelLoader.Load(bert);
        List<int> cut = [];
        IReadOnlyList<LoKrEmbedding> vectors = TextEmbedder.Embed(model, ["VPN Cable", "vpn cable login"], onCut: text => cut.Add(text.TokenCount));
        Assert.Equal(vectors[0].Vector, vectors[1].Vector);
        Assert.Equal([5], cut);
        Assert.Equal(5, TextEmbedder.Embed(model, ["vpn cable login"], maxLength: 8)[0].TokenCount);
        ErrorAssert.Throws(ErrorIds.MaxLengthTooLarge, () => TextEmbedder.Embed(model, ["vpn"], maxLength: 33), "32");
    }

    [Theory]
    [InlineData("modules.json", """[{"type": "a.Transformer"}, {"type": "a.Pooling", "path": "1_Pooling"}, {"type": "a.Dense", "path": "2_Dense"}]""", ErrorIds.ModelConfigUnsupported, "Dense")]
    [InlineData("modules.json", """[{"type": "a.Transformer", "path": "0_Transformer"}, {"type": "a.Pooling", "path": "1_Pooling"}]""", ErrorIds.ModelConfigUnsupported, "0_Transformer")]
    [InlineData("modules.json", """[{"type": "a.Transformer"}, {"type": "a.Pooling", "path": "../outside"}]""", ErrorIds.ModelConfigNotFound, "outside")]
    [InlineData("modules.json", "{}", ErrorIds.ModelConfigInvalid, "modules.json")]
    [InlineData("1_Pooling/config.json", """{"pooling_mode": "middle"}""", ErrorIds.ModelConfigUnsupported, "middle")]
    [InlineData("1_Pooling/config.json", """{"pooling_mode_mean_tokens": false}""", ErrorIds.ModelConfigInvalid, "no kind")]
    [InlineData("1_Pooling/config.json", """{"pooling_mode_first_tokens": true}""", ErrorIds.ModelConfigUnsupported, "pooling_mode_first_tokens")]
    [InlineData("sentence_bert_config.json", """{"transformer_task": "text-generation"}""", ErrorIds.ModelConfigUnsupported, "text-generation")]
    [InlineData("sentence_bert_config.json", """{"model_args": {"attn_implementation": "x"}}""", ErrorIds.ModelConfigUnsupported, "attn_implementation")]
    [InlineData("config_sentence_transformers.json", """{"model_type": "SparseEncoder"}""", ErrorIds.ModelConfigUnsupported, "SparseEncoder")]
    [InlineData("config_sentence_transformers.json", """{"similarity_fn_name": "hamming"}""", ErrorIds.ModelConfigUnsupported, "hamming")]
    [InlineData("config_sentence_transformers.json", """{"default_prompt_name": "query"}""", ErrorIds.ModelConfigInvalid, "query")]
    public void What_is_not_built_is_refused_by_name(string file, string content, string errorId, string says)
    {
        string bert = TinyModel.WriteBert(_folder["bert"]);
        WriteModules(bert, "{}", includePrompt: true);
        File.WriteAllText(Path.Combine(bert, file), content);
        ErrorAssert.Throws(errorId, () => ModelLoader.Load(bert), says);

        // Another use of the same weights does not read these files.
        using LoKrModel classifier = ModelLoader.Load(bert, new ModelLoadOptions { Labels = ["a", "b"] });
        Assert.IsType<EncoderClassifier>(classifier.Module);
    }

    [Fact]
    public void Vectors_of_tokens_that_are_normalized_are_refused_by_key()
    {
        string bert = TinyModel.WriteBert(_folder["bert"]);
        WriteModules(bert, "{}", includePrompt: true);
        File.WriteAllText(
            Path.Combine(bert, "modules.json"), """[{"type": "a.Transformer"}, {"type": "a.Pooling", "path": "1_Pooling"}, {"type": "a.Normalize", "path": "2_Normalize"}]""");
        using (LoKrModel model = ModelLoader.Load(bert))
        {
            Assert.True(Assert.IsType<SentenceEncoder>(model.Module).Sentences.Normalize);
        }

        _folder.Write("bert/2_Normalize/config.json", """{"module_input_name": "token_embeddings"}""");
        ErrorAssert.Throws(ErrorIds.ModelConfigUnsupported, () => ModelLoader.Load(bert), "module_input_name", "token_embeddings");
    }

    [Fact]
    public void Labels_make_a_classifier_and_a_decoder_is_an_encoder_only_when_asked()
    {
        string bert = TinyModel.WriteBert(_folder["bert"]);
        ModelLoadResult plain = ModelLoader.LoadWithReport(bert);
        using (plain.Model)
        {
            Assert.IsType<SentenceEncoder>(plain.Model.Module);
            Assert.Contains("mean", Assert.Single(plain.Warnings), StringComparison.Ordinal);
        }

        ErrorAssert.Throws(ErrorIds.InvalidArgument, () => ModelLoader.Load(bert, new ModelLoadOptions { Labels = ["a", "b"], Pooling = [SentencePooling.Cls] }), "pooling");
        string llama = TinyModel.WriteLlama(_folder["llama"]);
        using LoKrModel language = ModelLoader.Load(llama);
        Assert.IsType<CausalLanguageModel>(language.Module);
        using LoKrModel encoder = ModelLoader.Load(llama, new ModelLoadOptions { Pooling = [SentencePooling.LastToken], Normalize = true });
        Assert.Equal("LlamaModel", Assert.IsType<SentenceEncoder>(encoder.Module).Architecture);
        using TextSearch search = new(encoder, [new("printer is broken", "p"), new("vpn is slow", "v"), new("vpn is slow")]);
        IReadOnlyList<LoKrSearchResult> found = search.Find("vpn is slow", 2);
        Assert.Equal(["v", null], found.Select(static result => result.Id));
        Assert.Equal(1, found[0].Score, 5);
        Assert.Equal([1, 2], found.Select(static result => result.Rank));
    }

    private static Tensor Embed(LoKrModel model, string folder)
    {
        string[] texts = [.. JsonNode.Parse(File.ReadAllText(Path.Combine(folder, "case.json")))!["texts"]!.AsArray().Select(static text => (string)text!)];
        float[] values = [.. TextEmbedder.Embed(model, texts).SelectMany(static embedding => embedding.Vector)];
        return tensor(values, [texts.Length, values.Length / texts.Length]);
    }

    private static void Check(string folder, string what)
    {
        using DisposeScope scope = NewDisposeScope();
        using LoKrModel model = ModelLoader.Load(folder);
        using SafetensorsReader io = SafetensorsReader.Open(Path.Combine(folder, "io.safetensors"));
        using IDisposable noGrad = no_grad();
        SentenceEncoder encoder = Assert.IsType<SentenceEncoder>(model.Module);
        TensorAssert.Close(io.Read("embeddings"), encoder.Embed(io.Read("in.input_ids"), io.Read("in.attention_mask")), TensorAssert.Model, $"{what}, tokens");
        Tensor vectors = Embed(model, folder);
        TensorAssert.Close(io.Read("embeddings"), vectors, TensorAssert.Model, $"{what}, texts");
        TensorAssert.Close(io.Read("similarity"), encoder.Sentences.Similarity.All(vectors, vectors), TensorAssert.Model, $"{what}, similarity");
    }

    private static void WriteModules(string folder, string main, bool includePrompt, string transformer = """{"max_seq_length": 32}""")
    {
        Directory.CreateDirectory(Path.Combine(folder, "1_Pooling"));
        File.WriteAllText(Path.Combine(folder, "modules.json"), """
            [{"type": "sentence_transformers.models.Transformer", "path": ""}, {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"}]
            """);
        File.WriteAllText(Path.Combine(folder, "1_Pooling", "config.json"), $$"""{"pooling_mode_mean_tokens": true, "include_prompt": {{(includePrompt ? "true" : "false")}}}""");
        File.WriteAllText(Path.Combine(folder, "config_sentence_transformers.json"), main);
        File.WriteAllText(Path.Combine(folder, "sentence_bert_config.json"), transformer);
    }
}
