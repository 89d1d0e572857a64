using LoKr.Core.Configuration;
using LoKr.Core.Conversion;
using LoKr.Core.Errors;
using LoKr.Core.Layouts;
using LoKr.Core.Merging.Checkpoints;
using LoKr.Core.Model;
using LoKr.Core.Safetensors;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Merging;

/// <summary>Folders of PEFT with LoRA or LoHa, merged by the rules of PEFT: scale, names, transposed weights, magnitudes, modules to save.</summary>
public sealed class PeftLowRankMergeTests : IDisposable
{
    private const string Q = "model.layers.0.q_proj";
    private const string K = "model.layers.1.k_proj";
    private const string Llama = """{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 20, "tie_word_embeddings": false}""";
    private const string Both = """["q_proj", "k_proj"]""";

    private readonly TempFolder _folder = new();
    private readonly DisposeScope _scope = NewDisposeScope();
    private readonly Dictionary<string, Tensor> _base;

    public PeftLowRankMergeTests()
    {
        manual_seed(41);
        _base = new()
        {
            ["model.embed_tokens.weight"] = randn(20, 8), [Q + ".weight"] = randn(12, 8), [K + ".weight"] = randn(8, 8), ["model.norm.weight"] = randn(8), ["lm_head.weight"] = randn(20, 8),
        };
    }

    public void Dispose()
    {
        _scope.Dispose();
        _folder.Dispose();
    }

    [Theory]
    [InlineData("", 3.0, 3.0)]
    [InlineData(""", "use_rslora": true""", 4.242640687119285, 4.242640687119285)]
    [InlineData(""", "alpha_pattern": {"k_proj": 1}""", 3.0, 0.5)]
    [InlineData(""", "alpha_pattern": {"layers.1.k_proj": 1, "k_proj": 5}""", 3.0, 0.5)]
    [InlineData(""", "lora_dropout": 0.1, "init_lora_weights": "gaussian", "loftq_config": {}, "eva_config": null, "bias": "none", "layer_replication": null""", 3.0, 3.0)]
    public void The_scale_is_that_of_the_configuration(string config, double q, double k)
    {
        Dictionary<string, Tensor> file = [];
        Tensor deltaQ = Lora(file, Q, 12, 8, 2);
        Tensor deltaK = Lora(file, K, 8, 8, 2);
        LoKrMergeResult result = Merge(Adapter(file, $$"""{"peft_type": "LORA", "r": 2, "lora_alpha": 6, "target_modules": {{Both}}{{config}} }"""));
        Assert.Equal((2, 0), (result.ModuleCount, result.SavedModuleCount));
        Assert.Empty(result.Warnings);
        Changed(new() { [Q + ".weight"] = deltaQ * q, [K + ".weight"] = deltaK * k });
    }

    [Fact]
    public void Ranks_follow_the_pattern_and_their_tensors_must_agree()
    {
        Dictionary<string, Tensor> file = [];
        Tensor deltaQ = Lora(file, Q, 12, 8, 2);
        Tensor deltaK = Lora(file, K, 8, 8, 3);
        Merge(Adapter(file, $$"""{"peft_type": "LORA", "r": 2, "lora_alpha": 6, "rank_pattern": {"k_proj": 3}, "target_modules": {{Both}} }"""));
        Changed(new() { [Q + ".weight"] = deltaQ * 3, [K + ".weight"] = deltaK * 2 });
        string other = Adapter(file, $$"""{"peft_type": "LORA", "r": 2, "lora_alpha": 6, "target_modules": {{Both}} }""");
        ErrorAssert.Throws(ErrorIds.AdapterShapeMismatch, () => Merge(other), K, "rank 2 in the configuration", "have rank 3");
    }

    [Theory]
    [InlineData("gpt2", false)]
    [InlineData("other", true)]
    public void The_weights_of_Conv1D_are_stored_transposed(string type, bool fanInFanOut)
    {
        const string attention = "h.0.attn.c_attn";
        const string projection = "h.0.attn.c_proj";
        string from = MergeFiles.Base(_folder["gpt"], new Dictionary<string, Tensor> { [attention + ".weight"] = randn(8, 24), [projection + ".weight"] = randn(8, 8) }, config: $$"""{"model_type": "{{type}}"}""");
        Dictionary<string, Tensor> file = [];
        Tensor first = Lora(file, "transformer." + attention, 24, 8, 2);
        Tensor second = Lora(file, "transformer." + projection, 8, 8, 2);
        MergeFiles.Run(MergeFiles.Options(from, _folder["out"], Adapter(file, $$"""{"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": {{(fanInFanOut ? "true" : "false")}} }""")));
        Dictionary<string, Tensor> before = MergeFiles.Read(from);
        Dictionary<string, Tensor> after = MergeFiles.Read(_folder["out"]);
        TensorAssert.Close(before[attention + ".weight"] + first.t(), after[attention + ".weight"], 1e-6, attention);
        TensorAssert.Close(before[projection + ".weight"] + second.t(), after[projection + ".weight"], 1e-6, projection);
    }

    [Fact]
    public void Magnitudes_of_DoRA_scale_rows_of_layers_and_of_convolutions_and_columns_of_tables()
    {
        Tensor kernel = randn(6, 4, 3, 3);
        _base["conv.weight"] = kernel;
        Dictionary<string, Tensor> file = [];
        Tensor layer = Lora(file, K, 8, 8, 2) * 3;
        file[K + ".lora_magnitude_vector"] = rand(8) + 1;
        (Tensor a, Tensor b) = (randn(2, 4, 3, 3), randn(6, 2, 1, 1));
        (file["conv.lora_A.weight"], file["conv.lora_B.weight"], file["conv.lora_magnitude_vector"]) = (a, b, rand(1, 6, 1, 1) + 1);
        (Tensor tokens, Tensor columns) = (randn(2, 20), randn(8, 2));
        (file["model.embed_tokens.lora_embedding_A"], file["model.embed_tokens.lora_embedding_B"], file["model.embed_tokens.lora_magnitude_vector"]) = (tokens, columns, rand(8) + 1);
        Merge(Adapter(file, """{"peft_type": "LORA", "r": 2, "lora_alpha": 6, "use_dora": true, "target_modules": ["k_proj", "conv", "embed_tokens"]}"""));

        static Tensor Decomposed(Tensor weight, Tensor magnitude) => weight * (magnitude.reshape(-1) / linalg.vector_norm(weight.reshape(weight.shape[0], -1), 2, [1], false)).reshape([-1, .. weight.shape.Skip(1).Select(static _ => 1L)]);
        Tensor convolution = kernel + (b.reshape(6, 2).mm(a.reshape(2, -1)).reshape(6, 4, 3, 3) * 3);
        Tensor table = _base["model.embed_tokens.weight"] + (tokens.t().mm(columns.t()) * 3);
        Changed(new()
        {
            [K + ".weight"] = Decomposed(_base[K + ".weight"] + layer, file[K + ".lora_magnitude_vector"]) - _base[K + ".weight"],
            ["conv.weight"] = Decomposed(convolution, file["conv.lora_magnitude_vector"]) - kernel,
            ["model.embed_tokens.weight"] = Decomposed(table.t(), file["model.embed_tokens.lora_magnitude_vector"]).t() - _base["model.embed_tokens.weight"],
        });
    }

    [Fact]
    public void Tables_of_embeddings_are_changed_and_their_copies_compared()
    {
        (Tensor a, Tensor b) = (randn(2, 20), randn(8, 2));
        Dictionary<string, Tensor> file = new() { ["model.embed_tokens.lora_embedding_A"] = a, ["model.embed_tokens.lora_embedding_B"] = b, ["model.embed_tokens.base_layer.weight"] = _base["model.embed_tokens.weight"] };
        const string config = """{"peft_type": "LORA", "r": 2, "lora_alpha": 6, "target_modules": ["embed_tokens"]}""";
        Assert.Empty(Merge(Adapter(file, config)).Warnings);
        Changed(new() { ["model.embed_tokens.weight"] = a.t().mm(b.t()) * 3 });
        file["model.embed_tokens.base_layer.weight"] = randn(20, 8);
        Assert.Contains("model.embed_tokens.base_layer.weight", Assert.Single(Merge(Adapter(file, config)).Warnings), StringComparison.Ordinal);
    }

    [Fact]
    public void Modules_to_save_replace_those_of_the_base()
    {
        Dictionary<string, Tensor> file = [];
        Tensor delta = Lora(file, Q, 12, 8, 2);
        file["lm_head.weight"] = randn(20, 8);
        string path = Adapter(file, """{"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}""");
        Assert.Equal((1, 1), (Merge(path) is var result ? result.ModuleCount : 0, result.SavedModuleCount));
        Changed(new() { [Q + ".weight"] = delta, ["lm_head.weight"] = file["lm_head.weight"] - _base["lm_head.weight"] });

        // PEFT's save_embedding_layers adds the parameters of its wrapper, which it does not read.
        Dictionary<string, Tensor> wrapped = new(file) { ["lm_head.modules_to_save.weight"] = file["lm_head.weight"], ["lm_head.original_module.weight"] = _base["lm_head.weight"] };
        Assert.Empty(Merge(Adapter(wrapped, """{"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}""")).Warnings);
        Changed(new() { [Q + ".weight"] = delta, ["lm_head.weight"] = file["lm_head.weight"] - _base["lm_head.weight"] });
        ErrorAssert.Throws(ErrorIds.AdapterKeysMismatch, () => Merge(Adapter(file, """{"peft_type": "LORA", "r": 2, "target_modules": ["q_proj"], "modules_to_save": ["norm"]}""")), "norm.weight");
    }

    [Fact]
    public void Layers_outside_the_configuration_and_layers_without_tensors_are_errors()
    {
        Dictionary<string, Tensor> file = [];
        Lora(file, Q, 12, 8, 2);
        Lora(file, K, 8, 8, 2);
        ErrorAssert.Throws(ErrorIds.AdapterKeysMismatch, () => Merge(Adapter(file, $$"""{"peft_type": "LORA", "r": 2, "layers_to_transform": [1], "target_modules": {{Both}} }""")), "2 unexpected", Q);
        Merge(Adapter(file, $$"""{"peft_type": "LORA", "r": 2, "target_modules": {{Both}}, "layers_to_transform": [0, 1]}"""));
        file.Remove(K + ".lora_B.weight");
        ErrorAssert.Throws(ErrorIds.AdapterTypeNotSupported, () => Merge(Adapter(file, $$"""{"peft_type": "LORA", "r": 2, "target_modules": {{Both}} }""")), "1 modules of LoRA", K);
        file.Remove(K + ".lora_A.weight");
        _base["model.layers.0.k_proj.weight"] = randn(8, 8);
        ErrorAssert.Throws(ErrorIds.AdapterKeysMismatch, () => Merge(Adapter(file, $$"""{"peft_type": "LORA", "r": 2, "target_modules": {{Both}} }""")), "model.layers.0.k_proj.lora_A.weight");
    }

    [Theory]
    [InlineData("bias", "\"lora_only\"")]
    [InlineData("lora_bias", "true")]
    [InlineData("init_lora_weights", "\"pissa_niter_4\"")]
    [InlineData("init_lora_weights", "\"olora\"")]
    [InlineData("trainable_token_indices", "[1, 2]")]
    [InlineData("target_parameters", "[\"experts.gate\"]")]
    [InlineData("layer_replication", "[[0, 2], [1, 2]]")]
    [InlineData("use_qalora", "true")]
    public void Options_under_which_two_matrices_are_not_all_are_refused(string key, string value)
    {
        Dictionary<string, Tensor> file = [];
        Lora(file, Q, 12, 8, 2);
        string path = Adapter(file, $$"""{"peft_type": "LORA", "r": 2, "target_modules": ["q_proj"], "{{key}}": {{value}} }""");
        ErrorAssert.Throws(ErrorIds.OptionNotSupported, () => Merge(path), $"'{key}'");
        Assert.Equal(ErrorIds.OptionNotSupported, Assert.Single(AdapterValidator.Check(path, new()).Findings).ErrorId);
    }

    [Fact]
    public void Loha_is_merged_with_and_without_a_core()
    {
        Tensor kernel = randn(6, 4, 3, 3);
        _base["conv.weight"] = kernel;
        (Tensor a1, Tensor b1, Tensor a2, Tensor b2) = (randn(12, 2), randn(2, 8), randn(12, 2), randn(2, 8));
        (Tensor c1, Tensor d1, Tensor c2, Tensor d2, Tensor t1, Tensor t2) = (randn(2, 6), randn(2, 4), randn(2, 6), randn(2, 4), randn(2, 2, 3, 3), randn(2, 2, 3, 3));
        Dictionary<string, Tensor> file = new()
        {
            [Q + ".hada_w1_a"] = a1, [Q + ".hada_w1_b"] = b1, [Q + ".hada_w2_a"] = a2, [Q + ".hada_w2_b"] = b2,
            ["conv.hada_w1_a"] = c1, ["conv.hada_w1_b"] = d1, ["conv.hada_w2_a"] = c2, ["conv.hada_w2_b"] = d2, ["conv.hada_t1"] = t1, ["conv.hada_t2"] = t2,
        };
        Merge(Adapter(file, """{"peft_type": "LOHA", "r": 2, "alpha": 6, "rank_dropout": 0.1, "module_dropout": 0.0, "use_effective_conv2d": true, "target_modules": ["q_proj", "conv"], "init_weights": true}"""));
        static Tensor Rebuilt(Tensor core, Tensor left, Tensor right) => einsum("ijkl,jr,ip->prkl", core, right, left);
        Changed(new() { [Q + ".weight"] = a1.mm(b1) * a2.mm(b2) * 3, ["conv.weight"] = Rebuilt(t1, c1, d1) * Rebuilt(t2, c2, d2) * 3 });
    }

    [Theory]
    [InlineData(ScalarType.Float16)]
    [InlineData(ScalarType.BFloat16)]
    [InlineData(ScalarType.Float64)]
    public void Matrices_of_other_types_are_read(ScalarType type)
    {
        Dictionary<string, Tensor> file = [];
        Lora(file, Q, 12, 8, 2);
        foreach (string name in file.Keys.ToArray())
        {
            file[name] = file[name].to(type);
        }

        Merge(Adapter(file, """{"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["q_proj"]}"""));
        Changed(new() { [Q + ".weight"] = file[Q + ".lora_B.weight"].to(float32).mm(file[Q + ".lora_A.weight"].to(float32)) });
    }

    [Fact]
    public void Matrices_that_exclude_each_other_are_errors_before_anything_is_written()
    {
        void Fails(string id, Action<Dictionary<string, Tensor>> change, params string[] says)
        {
            Dictionary<string, Tensor> file = [];
            Lora(file, Q, 12, 8, 2);
            change(file);
            string path = Adapter(file, """{"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["q_proj"]}""");
            ErrorAssert.Throws(id, () => Merge(path), says);
            Assert.False(Directory.Exists(_folder["out"]));
        }

        Fails(ErrorIds.AdapterShapeMismatch, static file => file[Q + ".lora_B.weight"] = randn(12, 3), "lora_B.weight' [12, 3]", "lora_A.weight' [2, 8]");
        Fails(ErrorIds.AdapterShapeMismatch, static file => file[Q + ".lora_B.weight"] = randn(8, 2), "give [8, 8]", "[12, 8]");
        Fails(ErrorIds.AdapterShapeMismatch, static file => file[Q + ".lora_A.weight"] = randn(0, 8), "empty");
        Fails(ErrorIds.AdapterShapeMismatch, static file => file[Q + ".lora_magnitude_vector"] = randn(8), "lora_magnitude_vector");
        Fails(ErrorIds.TensorDTypeMismatch, static file => file[Q + ".lora_A.weight"] = ones(2, 8, dtype: int8), "I8");
        Fails(ErrorIds.AdapterTypeNotSupported, static file => file[Q + ".lora_B.bias"] = randn(12), "LoRA with biases");
        Fails(ErrorIds.AdapterKeyInvalid, static file => file[Q + ".lora_A.default.weight"] = randn(2, 8), "lora_A.default.weight", "the same tensor");
        Fails(ErrorIds.AdapterKeysMismatch, static file => file["other.lora_A.weight"] = file["other.lora_B.weight"] = randn(2, 2), "other");
        Fails(ErrorIds.AdapterKeysMismatch, static file => file["unknown.weight"] = randn(2, 2), "unknown.weight");
    }

    [Theory]
    [InlineData(ScalarType.Float64, 1e-12)]
    [InlineData(ScalarType.Float32, 2e-6)]
    public void An_exact_export_as_LoRA_has_the_delta_of_the_LoKr_that_it_came_from(ScalarType type, double tolerance)
    {
        string from = MergeFiles.Base(_folder["base"], _base.ToDictionary(static pair => pair.Key, static pair => pair.Value.to(float64)), config: Llama);
        Dictionary<string, Tensor> file = new()
        {
            [Q + ".lokr_w1"] = randn(3, 2, dtype: type), [Q + ".lokr_w2"] = randn(4, 4, dtype: type), [K + ".lokr_w1"] = randn(2, 2, dtype: type), [K + ".lokr_w2"] = randn(4, 4, dtype: type),
        };
        PeftAdapterFolder.Write(_folder["lokr"], new LoKrConfig { R = 8, Alpha = 12, DecomposeFactor = 4, ShapesFromFile = true, TargetModules = ModuleSelector.FromNames(["q_proj", "k_proj"]) }, file);
        MergeFiles.Run(MergeFiles.Options(from, _folder["first"], _folder["lokr"]));
        AdapterLoraConverter.Convert(_folder["lokr"], _folder["lora"], LoraRank.OfEnergy(1), new() { BasePath = from }, new());
        Assert.Equal("LORA", System.Text.Json.JsonDocument.Parse(File.ReadAllText(_folder["lora", "adapter_config.json"])).RootElement.GetProperty("peft_type").GetString());
        MergeFiles.Run(MergeFiles.Options(from, _folder["second"], _folder["lora"]));
        (Dictionary<string, Tensor> first, Dictionary<string, Tensor> second) = (MergeFiles.Read(_folder["first"]), MergeFiles.Read(_folder["second"]));
        Assert.All(first, pair => TensorAssert.Close(pair.Value - _base[pair.Key].to(float64), second[pair.Key] - _base[pair.Key].to(float64), tolerance, pair.Key));
    }

    [Fact]
    public void A_folder_is_described_and_checked()
    {
        Dictionary<string, Tensor> file = [];
        Lora(file, Q, 12, 8, 2);
        Lora(file, K, 8, 8, 2);
        string path = Adapter(file, $$"""{"peft_type": "LORA", "r": 2, "lora_alpha": 6, "base_model_name_or_path": "some/model", "target_modules": {{Both}} }""");
        LoKrAdapterInfo info = AdapterInspector.Inspect(path);
        Assert.Equal((AdapterLayout.Peft, 0, 2, 2L, 6.0, 3.0, true), (info.Layout, info.ModuleCount, info.OtherCount, info.Rank!.Value, info.Alpha!.Value, info.Scale!.Value, info.HasConfig));
        Assert.Equal(["lora_A", "lora_B"], info.TensorKinds);
        Assert.Equal("some/model", info.BaseModel);

        string from = MergeFiles.Base(_folder["base"], _base, config: Llama);
        LoKrAdapterCheck check = AdapterValidator.Check(path, new() { Values = true, BasePath = from });
        Assert.True(check.IsValid);
        Assert.Equal((2, LoKrFindingSeverity.Information), (check.ModuleCount, Assert.Single(check.Findings).Severity));
        Assert.True(AdapterValidator.Check(path, new() { Program = AdapterProgram.Vllm }).IsValid);
        Assert.Equal(ErrorIds.ProgramModelUnknown, AdapterValidator.Check(path, new() { Program = AdapterProgram.ComfyUI }).Findings[0].ErrorId);

        file[Q + ".lora_B.weight"][0, 0] = float.NaN;
        Assert.Equal(ErrorIds.AdapterValueInvalid, AdapterValidator.Check(Adapter(file, File.ReadAllText(Path.Combine(path, "adapter_config.json"))), new() { Values = true }).Findings[0].ErrorId);
        file[Q + ".lora_B.weight"] = randn(8, 2);
        Assert.Equal(ErrorIds.AdapterShapeMismatch, AdapterValidator.Check(Adapter(file, File.ReadAllText(Path.Combine(path, "adapter_config.json"))), new() { BasePath = from }).Findings[0].ErrorId);
    }

    [Fact]
    public void Another_rank_and_one_rank_for_all_layers_are_written_from_it()
    {
        Dictionary<string, Tensor> file = [];
        Lora(file, Q, 12, 8, 2);
        Lora(file, K, 8, 8, 3);
        string path = Adapter(file, $$"""{"peft_type": "LORA", "r": 2, "lora_alpha": 6, "use_rslora": true, "rank_pattern": {"k_proj": 3}, "target_modules": {{Both}} }""");
        Assert.Equal([ErrorIds.ProgramScaleDiffers], AdapterValidator.Check(path, new() { Program = AdapterProgram.Vllm }).Findings.Select(static finding => finding.ErrorId));
        LoraWriteResult result = AdapterLoraConverter.Convert(path, _folder["vllm"], LoraRank.OfEnergy(1), new(), new() { Program = AdapterProgram.Vllm });
        Assert.Equal((2, 3, 8), (result.Result.SmallestRank, result.Result.LargestRank, result.Result.Rank));
        Assert.Empty(AdapterValidator.Check(_folder["vllm"], new() { Program = AdapterProgram.Vllm }).Findings);
        Merge(path);
        Dictionary<string, Tensor> expected = MergeFiles.Read(_folder["out"]);
        Merge(_folder["vllm"]);
        Dictionary<string, Tensor> actual = MergeFiles.Read(_folder["out"]);
        Assert.All(expected, pair => TensorAssert.Close(pair.Value, actual[pair.Key], 2e-6, pair.Key));
    }

    [Fact]
    public void A_model_in_memory_takes_no_LoRA_and_the_error_says_so()
    {
        Dictionary<string, Tensor> file = [];
        Lora(file, Q, 12, 8, 2);
        string path = Adapter(file, """{"peft_type": "LORA", "r": 2, "target_modules": ["q_proj"]}""");
        using LoKrModel model = new(nn.Sequential(("fc", nn.Linear(8, 12))));
        using (AdapterFile opened = AdapterFile.Open(path))
        {
            ErrorAssert.Throws(ErrorIds.AdapterTypeNotSupported, () => AdapterImporter.Import(model, opened), "1 modules of LoRA");
        }

        string empty = Adapter(new() { ["head.weight"] = randn(2, 2) }, """{"peft_type": "LORA", "r": 2, "modules_to_save": ["head"]}""");
        using AdapterFile other = AdapterFile.Open(empty);
        ErrorAssert.Throws(ErrorIds.AdapterTypeNotSupported, () => AdapterImporter.Import(model, other), "LoRA");
    }

    /// <summary>Adds a layer; returns B·A.</summary>
    private static Tensor Lora(Dictionary<string, Tensor> file, string module, long rows, long columns, long rank)
    {
        (Tensor a, Tensor b) = (file[module + ".lora_A.weight"], file[module + ".lora_B.weight"]) = (randn(rank, columns), randn(rows, rank));
        return b.mm(a);
    }

    private string Adapter(Dictionary<string, Tensor> file, string config)
    {
        Directory.CreateDirectory(_folder["adapter"]);
        SafetensorsWriter.Write(_folder["adapter", PeftAdapterFolder.WeightsFile], file.ToDictionary(static pair => PeftAdapterFolder.Prefix + pair.Key, static pair => pair.Value));
        File.WriteAllText(_folder["adapter", PeftAdapterFolder.ConfigFile], config);
        return _folder["adapter"];
    }

    private LoKrMergeResult Merge(string adapter)
    {
        string from = MergeFiles.Base(_folder["base"], _base, config: Llama);
        return MergeFiles.Run(MergeFiles.Options(from, _folder["out"], adapter) with { Force = true });
    }

    private void Changed(Dictionary<string, Tensor> deltas)
    {
        Dictionary<string, Tensor> after = MergeFiles.Read(_folder["out"]);
        Assert.Equal(_base.Keys.Order(StringComparer.Ordinal), after.Keys.Order(StringComparer.Ordinal));
        foreach ((string name, Tensor weight) in _base)
        {
            if (deltas.TryGetValue(name, out Tensor? delta))
            {
                TensorAssert.Close(weight + delta, after[name], 2e-6, name);
            }
            else
            {
                Assert.True(TensorAssert.Same(weight, after[name]), name);
            }
        }
    }
}
