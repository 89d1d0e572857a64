using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Layouts;
using LoKr.Core.Merging.Checkpoints;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Models.Families;
using LoKr.Models.Loading;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Models.Tests.Merging;

/// <summary>An adapter that was trained after <c>resize_token_embeddings</c>: its file has the embeddings whole, with the new rows.</summary>
public sealed class GrownVocabularyTests : IDisposable
{
    private const int Tokens = 40;
    private const int More = 43;

    private readonly TempFolder _folder = new();
    private readonly DisposeScope _scope = NewDisposeScope();

    public static TheoryData<string> Models => ["llama", "llama tied", "gpt2", "bert"];

    public void Dispose()
    {
        _scope.Dispose();
        _folder.Dispose();
    }

    [Theory]
    [MemberData(nameof(Models))]
    public void The_model_answers_with_the_new_tokens_in_memory_and_merged_in_both_ways(string name)
    {
        (string source, string adapter) = Prepare(name);
        using LoKrModel model = ModelLoader.Load(source);
        Tensor former = Logits(model, 3);
        LoKrAdapter loaded = Import(model, adapter);
        Assert.Contains(loaded.Warnings, static warning => warning.Contains("grows from 40 to 43 tokens", StringComparison.Ordinal));
        Tensor logits = Logits(model, More - 1);
        Assert.Equal(model.Pretrained is ICausalLanguageModel ? More : 2, logits.shape[^1]);

        model.SetAdaptersEnabled(false);
        Assert.True(TensorAssert.Same(former, Logits(model, 3)));
        ErrorAssert.Throws(ErrorIds.ModelInputInvalid, () => Logits(model, More - 1));
        model.SetAdaptersEnabled(true);

        // Moving allocates all adapters again.
        model.MoveTo(dtype: ScalarType.Float64);
        model.MoveTo(dtype: ScalarType.Float32);
        Assert.True(logits.allclose(Logits(model, More - 1), 1e-4, 1e-5));

        model.Merge();
        Assert.Equal(More, model.CountTokens());
        ModelExporter.Export(model, _folder["memory"]);
        Merge(source, _folder["disk"], adapter);
        foreach (string merged in (string[])[_folder["memory"], _folder["disk"]])
        {
            Assert.Equal(More, (int)JsonNode.Parse(File.ReadAllText(Path.Combine(merged, "config.json")))!["vocab_size"]!);
            using LoKrModel again = ModelLoader.Load(merged);
            Assert.True(logits.allclose(Logits(again, More - 1), 1e-4, 1e-5), merged);
        }

        model.UndoMerge();
        model.RemoveAdapter("default");
        Assert.Equal(Tokens, model.CountTokens());
        Assert.True(TensorAssert.Same(former, Logits(model, 3)));
    }

    [Theory]
    [MemberData(nameof(Models))]
    public void The_adapter_comes_back_from_its_own_file_and_can_be_compared(string name)
    {
        (string source, string adapter) = Prepare(name);
        using LoKrModel model = ModelLoader.Load(source);
        Import(model, adapter);
        AdapterExporter.Export(model, "default", _folder["again"], AdapterLayout.Peft);
        using LoKrModel other = ModelLoader.Load(source);
        Import(other, _folder["again"]);
        Assert.True(TensorAssert.Same(Logits(model, More - 1), Logits(other, More - 1)));
        Assert.True(AdapterValidator.Check(_folder["again"], new() { Model = other, Values = true }).IsValid);
        Assert.Equal(1, AdapterComparer.Compare(AdapterReference.OfFile(adapter), AdapterReference.OfFile(_folder["again"]), default).Total.Cosine!.Value, 4);

        // An adapter of the same model whose vocabulary has not grown.
        other.RemoveAdapter("default");
        other.AddAdapter(Config(name) with { InitWeights = InitWeights.Random }, seed: 5);
        AdapterExporter.Export(other, "default", _folder["plain"], AdapterLayout.Peft);
        Assert.InRange(AdapterComparer.Compare(AdapterReference.OfFile(adapter), AdapterReference.OfFile(_folder["plain"]), default).Total.Cosine!.Value, -1, 0.99);
    }

    private static LoKrConfig Config(string name) => new() { R = 2, Alpha = 4, TargetModules = ModuleSelector.FromNames([name == "bert" ? "query" : name == "gpt2" ? "c_attn" : "q_proj"]), ModulesToSave = [] };

    private static Tensor Logits(LoKrModel model, int token)
    {
        using IDisposable noGrad = no_grad();
        model.Module.eval();
        Tensor ids = tensor([2L, 5, token, 3]).view(1, 4);
        return model.Pretrained is ICausalLanguageModel language ? language.Logits(ids) : ((ISequenceClassifier)model.Module).Classify(ids, ones_like(ids));
    }

    private static LoKrAdapter Import(LoKrModel model, string path)
    {
        using AdapterFile file = AdapterFile.Open(path);
        return AdapterImporter.Import(model, file);
    }

    private static void Merge(string source, string destination, string adapter)
    {
        using CheckpointMerge merge = CheckpointMerge.Open(new() { Base = BaseModel.Read(source), Adapters = [new AdapterMergeSource(adapter)], Destination = destination });
        merge.Run();
    }

    // The file as PEFT writes it: the embeddings of the model, both where they are two modules, and a configuration that does not name them.
    private (string Source, string Adapter) Prepare(string name)
    {
        JsonObject config = name switch
        {
            "gpt2" => TinyModel.Gpt2Config(),
            "bert" => TinyModel.BertConfig("a", "b"),
            _ => new()
            {
                ["model_type"] = "llama", ["architectures"] = new JsonArray("LlamaForCausalLM"), ["vocab_size"] = Tokens, ["hidden_size"] = 8, ["intermediate_size"] = 16,
                ["num_hidden_layers"] = 2, ["num_attention_heads"] = 2, ["num_key_value_heads"] = 1, ["max_position_embeddings"] = 16,
                ["tie_word_embeddings"] = name == "llama tied", ["dtype"] = "float32",
            },
        };
        TinyModel.Write(_folder["base"], config, tensors =>
        {
            if (name is "gpt2" or "llama tied")
            {
                tensors.Remove("lm_head.weight");
            }
        });
        using LoKrModel model = ModelLoader.Load(_folder["base"]);
        LoKrAdapter adapter = model.AddAdapter(Config(name) with { InitWeights = InitWeights.Random }, seed: 3);
        Dictionary<string, Tensor> tensors = adapter.GetTensors().ToDictionary(static pair => pair.Key, static pair => pair.Value.clone(), StringComparer.Ordinal);
        IReadOnlyDictionary<string, Tensor> state = model.GetBaseState();
        foreach (string table in state.Keys.Where(static key => key.EndsWith("embed_tokens.weight", StringComparison.Ordinal) || key.EndsWith("wte.weight", StringComparison.Ordinal)
            || key.EndsWith("word_embeddings.weight", StringComparison.Ordinal) || key == "lm_head.weight"))
        {
            tensors.Add(table, cat([state[table], randn(More - Tokens, 8)]));
        }

        if (model.Pretrained!.TiedParameters.Count > 0)
        {
            tensors.Add("lm_head.weight", tensors.Single(static pair => !pair.Key.Contains("lokr_", StringComparison.Ordinal)).Value);
        }

        PeftAdapterFolder.Write(_folder["adapter"], adapter.Config, tensors);
        return (_folder["base"], _folder["adapter"]);
    }
}
