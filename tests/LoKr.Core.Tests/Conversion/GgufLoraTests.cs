using System.Text.Json;
using LoKr.Core.Conversion;
using LoKr.Core.Errors;
using LoKr.Core.Gguf;
using LoKr.Core.Safetensors;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Conversion;

/// <summary>LoRA as llama.cpp's own converter writes it: names, order of rows and scale, compared as products.</summary>
public sealed class GgufLoraTests : IDisposable
{
    private readonly TempFolder _folder = new();

    public static TheoryData<string> Models => Fixtures.Cases("gguf", static folder => Directory.Exists(Path.Combine(folder, "hf")) && Directory.Exists(Path.Combine(folder, "adapters")));

    public void Dispose() => _folder.Dispose();

    [Theory]
    [MemberData(nameof(Models))]
    public void Exact_LoRA_has_the_products_of_the_adapter_in_the_order_of_the_file(string model)
    {
        using DisposeScope scope = NewDisposeScope();
        string root = Fixtures.Require("gguf", model);
        foreach (string adapter in Directory.GetDirectories(Path.Combine(root, "adapters"), "lokr-*"))
        {
            string[] bases = [Path.Combine(root, "hf"), Directory.GetFiles(root, "model-Q*.gguf").First(static file => !file.Contains("fused", StringComparison.Ordinal))];
            foreach (string source in bases)
            {
                LoraConversionResult result = Convert(adapter, source);
                using JsonDocument json = JsonDocument.Parse(File.ReadAllText(Path.Combine(adapter, "case.json")));
                JsonProperty[] tensors = [.. json.RootElement.GetProperty("tensors").EnumerateObject()];
                using GgufReader lora = GgufReader.Open(_folder["lora.gguf"]);
                Assert.Equal(tensors.SelectMany(static tensor => (string[])[tensor.Name + ".lora_a", tensor.Name + ".lora_b"]).Order(StringComparer.Ordinal), lora.Tensors.Select(static tensor => tensor.Name).Order(StringComparer.Ordinal));
                Assert.Equal(tensors.Length, result.ModuleCount);
                Assert.Equal(1, result.Energy, 1e-12);
                Assert.All(tensors, tensor => Assert.Equal(tensor.Value.GetProperty("exact_rank").GetInt64(), lora.Find(tensor.Name + ".lora_a")!.Shape[0]));
                Compare(lora, adapter, tensors);
            }
        }
    }

    [Theory]
    [MemberData(nameof(Models))]
    public void LoRA_of_PEFT_has_the_products_of_llama_cpps_converter(string model)
    {
        using DisposeScope scope = NewDisposeScope();
        string root = Fixtures.Require("gguf", model);
        string adapter = Path.Combine(root, "adapters", "lora-r4");
        Assert.SkipUnless(File.Exists(Path.Combine(adapter, "lora-f32.gguf")), $"{model} has no LoRA.");
        LoraConversionResult result = Convert(adapter, Path.Combine(root, "hf"));
        Assert.Equal((4, 4, 0.0), (result.SmallestRank, result.LargestRank, Math.Round(result.LargestError, 6)));
        Dictionary<string, Tensor> expected = Products(Path.Combine(adapter, "lora-f32.gguf"));
        Dictionary<string, Tensor> actual = Products(_folder["lora.gguf"]);
        Assert.Equal(expected.Keys.Order(StringComparer.Ordinal), actual.Keys.Order(StringComparer.Ordinal));
        using JsonDocument config = JsonDocument.Parse(File.ReadAllText(Path.Combine(adapter, "adapter_config.json")));
        double scale = config.RootElement.GetProperty("lora_alpha").GetDouble() / config.RootElement.GetProperty("r").GetInt32();
        Assert.All(expected, pair => TensorAssert.Close(pair.Value * scale, actual[pair.Key], TensorAssert.Layer, pair.Key));
    }

    [Fact]
    public void A_rank_gives_the_best_approximation()
    {
        using DisposeScope scope = NewDisposeScope();
        string root = Fixtures.Require("gguf", "llama");
        string adapter = Path.Combine(root, "adapters", "lokr-r4-f4");
        Convert(adapter, Path.Combine(root, "hf"));
        Dictionary<string, Tensor> exact = Products(_folder["lora.gguf"]);
        using JsonDocument json = JsonDocument.Parse(File.ReadAllText(Path.Combine(adapter, "case.json")));
        foreach (int rank in (int[])[1, 4, 8])
        {
            Convert(adapter, Path.Combine(root, "hf"), LoraRank.OfSize(rank));
            foreach ((string name, Tensor product) in Products(_folder["lora.gguf"]))
            {
                double expected = json.RootElement.GetProperty("tensors").GetProperty(name).GetProperty("truncation_error").GetProperty($"{rank}").GetDouble();
                Assert.Equal(expected, ((product - exact[name]).norm() / exact[name].norm()).ToDouble(), 1e-4);
            }
        }
    }

    [Fact]
    public void A_base_with_fused_attention_gets_one_LoRA_of_the_three()
    {
        using DisposeScope scope = NewDisposeScope();
        string root = Fixtures.Require("gguf", "llama");
        string adapter = Path.Combine(root, "adapters", "lokr-r4-f4");
        Convert(adapter, Path.Combine(root, "model-Q8_0.gguf"));
        Dictionary<string, Tensor> apart = Products(_folder["lora.gguf"]);
        Convert(adapter, Path.Combine(root, "model-Q8_0-fused.gguf"));
        Dictionary<string, Tensor> fused = Products(_folder["lora.gguf"]);
        TensorAssert.Close(cat([apart["blk.1.attn_q.weight"], apart["blk.1.attn_k.weight"], apart["blk.1.attn_v.weight"]], 0), fused["blk.1.attn_qkv.weight"], 1e-6, "qkv");
        TensorAssert.Close(apart["blk.1.ffn_down.weight"], fused["blk.1.ffn_down.weight"], 1e-6, "down");
        Assert.DoesNotContain(fused.Keys, static name => name.Contains("attn_q.", StringComparison.Ordinal));
    }

    [Fact]
    public void What_llama_cpp_cannot_apply_is_refused_and_nothing_is_written()
    {
        string root = Fixtures.Require("gguf", "llama");
        string adapter = Path.Combine(root, "adapters", "lokr-r4-f4");
        ErrorAssert.Throws(ErrorIds.ConversionUnsupported, () => GgufLoraConverter.Convert(adapter, _folder["x.gguf"], null, new(), out _), "base model");
        ErrorAssert.Throws(ErrorIds.AdapterModulesUnknown, () => Convert(adapter, Fixtures.Require("gguf", "phi3", "hf")), "q_proj");
        ErrorAssert.Throws(ErrorIds.ConversionUnsupported, () => Convert(Embedding("model.vision.proj", 8, 8), Configuration("llama")), "model.vision.proj");
        ErrorAssert.Throws(ErrorIds.ModelTypeUnknown, () => Convert(adapter, Configuration("bert")), "bert");
        ErrorAssert.Throws(ErrorIds.InvalidArgument, () => GgufLoraConverter.Convert(adapter, _folder["x"], null, new() { BasePath = Path.Combine(root, "hf") }, out _), ".gguf");
        ErrorAssert.Throws(ErrorIds.ConversionUnsupported, () => Convert(Embedding("model.embed_tokens", 288, 64), Fixtures.Require("gguf", "gemma3", "hf")), "shares");
        ErrorAssert.Throws(ErrorIds.LoraConversionNotSupported, () => Convert(Embedding("model.layers.0.self_attn.q_proj", 64, 64, dora: true), Path.Combine(root, "hf")), "DoRA");
        Assert.Empty(Directory.GetFiles(_folder.Path, "*.gguf"));
        Convert(adapter, Path.Combine(root, "hf"));
        ErrorAssert.Throws(ErrorIds.DestinationExists, () => GgufLoraConverter.Convert(adapter, _folder["lora.gguf"], null, new() { BasePath = Path.Combine(root, "hf") }, out _));
    }

    [Fact]
    public void Embeddings_have_the_rows_of_the_tokens_in_A()
    {
        using DisposeScope scope = NewDisposeScope();
        string root = Fixtures.Require("gguf", "llama");
        Convert(Embedding("model.embed_tokens", 288, 64), Path.Combine(root, "model-Q8_0.gguf"));
        using GgufReader lora = GgufReader.Open(_folder["lora.gguf"]);
        using GgufReader reference = GgufReader.Open(Path.Combine(root, "adapters", "lora-embed", "lora-f32.gguf"));
        Assert.Equal(reference.Tensors.Select(static tensor => tensor.Name).Order(StringComparer.Ordinal), lora.Tensors.Select(static tensor => tensor.Name).Order(StringComparer.Ordinal));
        Assert.Equal(288, lora.Find("token_embd.weight.lora_a")!.Shape[0]);
        Assert.Equal(64, lora.Find("token_embd.weight.lora_b")!.Shape[0]);
    }

    private LoraConversionResult Convert(string adapter, string source, LoraRank? rank = null) =>
        GgufLoraConverter.Convert(adapter, _folder["lora.gguf"], rank, new() { BasePath = source, Force = true }, out _);

    // A base model of which only the configuration is there.
    private string Configuration(string modelType)
    {
        Directory.CreateDirectory(_folder[modelType]);
        File.WriteAllText(Path.Combine(_folder[modelType], "config.json"), $$"""{"model_type": "{{modelType}}", "hidden_size": 64, "num_attention_heads": 4}""");
        return _folder[modelType];
    }

    // An adapter of one module, with w1 of ones and a random w2.
    private string Embedding(string module, long rows, long columns, bool dora = false)
    {
        using DisposeScope scope = NewDisposeScope();
        string folder = _folder[$"adapter-{module}"];
        Directory.CreateDirectory(folder);
        Dictionary<string, Tensor> tensors = new()
        {
            [$"base_model.model.{module}.lokr_w1"] = ones(2, 2),
            [$"base_model.model.{module}.lokr_w2_a"] = randn(rows / 2, 3),
            [$"base_model.model.{module}.lokr_w2_b"] = randn(3, columns / 2),
        };
        if (dora)
        {
            tensors[$"base_model.model.{module}.dora_scale"] = ones(rows, 1);
        }

        SafetensorsWriter.Write(Path.Combine(folder, "adapter_model.safetensors"), tensors, new Dictionary<string, string> { ["format"] = "pt" });
        File.WriteAllText(Path.Combine(folder, "adapter_config.json"), $$"""{"peft_type": "LOKR", "r": 3, "alpha": 3, "decompose_factor": 2, "target_modules": ["{{module[(module.LastIndexOf('.') + 1)..]}}"]}""");
        return folder;
    }

    // Some adapters have neither LoRA of the other converter nor dense deltas beside them; of these the names and ranks were compared.
    private static void Compare(GgufReader lora, string adapter, JsonProperty[] tensors)
    {
        string reference = Path.Combine(adapter, "lora-exact-f32.gguf");
        Dictionary<string, Tensor> expected = File.Exists(reference) ? Products(reference) : [];
        using SafetensorsReader io = SafetensorsReader.Open(Path.Combine(adapter, "io.safetensors"));
        foreach (JsonProperty tensor in tensors)
        {
            Tensor product = lora.Read(tensor.Name + ".lora_b").mm(lora.Read(tensor.Name + ".lora_a"));
            if (expected.TryGetValue(tensor.Name, out Tensor? other))
            {
                TensorAssert.Close(other, product, 1e-5, tensor.Name);
            }

            if (io.Entries.ContainsKey("delta." + tensor.Name))
            {
                TensorAssert.Close(io.Read("delta." + tensor.Name), product, 1e-5, tensor.Name);
            }
        }
    }

    private static Dictionary<string, Tensor> Products(string path)
    {
        using GgufReader reader = GgufReader.Open(path);
        return reader.Tensors.Where(static tensor => tensor.Name.EndsWith(".lora_a", StringComparison.Ordinal)).Select(static tensor => tensor.Name[..^".lora_a".Length])
            .ToDictionary(static name => name, name => reader.Read(name + ".lora_b").mm(reader.Read(name + ".lora_a")), StringComparer.Ordinal);
    }
}
