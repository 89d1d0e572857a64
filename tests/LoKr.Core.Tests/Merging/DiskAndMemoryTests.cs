using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Layouts;
using LoKr.Core.Layouts.Names;
using LoKr.Core.Model;
using LoKr.Core.Safetensors;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Merging;

/// <summary>An adapter that a model in memory accepts merges on disk with the same bits; one that it refuses is refused on disk with the same id.</summary>
public sealed class DiskAndMemoryTests : IDisposable
{
    private const string Llama = """{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "tie_word_embeddings": false}""";

    private static readonly LoKrConfig s_config = new() { R = 1, Alpha = 2, TargetModules = ModuleSelector.FromNames(["q_proj"]) };

    private readonly TempFolder _folder = new();
    private readonly DisposeScope _scope = NewDisposeScope();
    private readonly List<string> _warnings = [];

    public void Dispose()
    {
        _scope.Dispose();
        _folder.Dispose();
    }

    /// <summary>Files of an adapter that adapts <c>a.q_proj</c>: how they differ from a plain one, and the changed weights or the error of both ways.</summary>
    private static readonly Dictionary<string, FileCase> s_files = new(StringComparer.Ordinal)
    {
        ["plain"] = new(static _ => { }, ["a.q_proj"]),
        ["an input embedding beside the factors"] = new(static file => file["embed_tokens.weight"] = randn(24, 16), ["a.q_proj", "embed_tokens"]) { Warning = "'embed_tokens' is in the adapter's file whole" },
        ["both embeddings beside the factors"] = new(static file => (file["embed_tokens.weight"], file["lm_head.weight"]) = (randn(24, 16), randn(24, 16)), ["a.q_proj", "embed_tokens", "lm_head"]),
        ["an embedding that is a module to save"] = new(static file => file["lm_head.weight"] = randn(24, 16), ["a.q_proj", "lm_head"]) { Config = static config => config with { ModulesToSave = ["lm_head"] } },
        ["an embedding that is a module to save with the parameters of PEFT's wrapper, which PEFT does not read"] =
            new(static file => (file["lm_head.weight"], file["lm_head.modules_to_save.weight"], file["lm_head.original_module.weight"]) = (randn(24, 16), randn(24, 16), randn(24, 16)), ["a.q_proj", "lm_head"])
            {
                Config = static config => config with { ModulesToSave = ["lm_head"] },
            },
        ["the parameters of PEFT's wrapper alone"] = new(static file => file["lm_head.modules_to_save.weight"] = randn(24, 16), ErrorIds.AdapterKeysMismatch)
        {
            Config = static config => config with { ModulesToSave = ["lm_head"] },
            Message = "lm_head.modules_to_save.weight",
        },
        ["both embeddings with grown rows"] = new(static file => (file["embed_tokens.weight"], file["lm_head.weight"]) = (randn(30, 16), randn(30, 16)), ["a.q_proj", "embed_tokens", "lm_head"])
        {
            Warning = "vocabulary grows from 24 to 30 tokens",
        },
        ["both embeddings with grown rows as modules to save"] = new(static file => (file["embed_tokens.weight"], file["lm_head.weight"]) = (randn(30, 16), randn(30, 16)), ["a.q_proj", "embed_tokens", "lm_head"])
        {
            Config = static config => config with { ModulesToSave = ["embed_tokens", "lm_head"] },
            Warning = "vocabulary grows from 24 to 30 tokens",
        },
        ["one embedding with grown rows"] = new(static file => file["embed_tokens.weight"] = randn(30, 16), ErrorIds.AdapterShapeMismatch) { Message = "'lm_head.weight' has 24" },
        ["embeddings that have grown by different numbers"] = new(static file => (file["embed_tokens.weight"], file["lm_head.weight"]) = (randn(30, 16), randn(32, 16)), ErrorIds.AdapterShapeMismatch) { Message = "'lm_head.weight' has 32" },
        ["embeddings with fewer rows"] = new(static file => (file["embed_tokens.weight"], file["lm_head.weight"]) = (randn(20, 16), randn(20, 16)), ErrorIds.AdapterShapeMismatch) { Message = "must be [24, 16]" },
        ["a module to save with grown rows that is not an embedding"] = new(static file => file["lokr_head.weight"] = randn(30, 16), ErrorIds.AdapterShapeMismatch)
        {
            Config = static config => config with { ModulesToSave = ["lokr_head"] },
            Message = "lokr_head.weight is [30, 16]",
        },
        ["a copy with grown rows"] = new(static file => Add(file, Factors(s_config, 30, 16, "lm_head"), ("lm_head.base_layer.weight", randn(30, 16))), ErrorIds.AdapterShapeMismatch)
        {
            Config = static config => config with { TargetModules = ModuleSelector.FromNames(["q_proj", "lm_head"]) },
            Message = "vocabulary had grown",
        },
        ["an embedding of another width"] = new(static file => file["embed_tokens.weight"] = randn(24, 8), ErrorIds.AdapterShapeMismatch),
        ["an embedding with factors and a whole weight"] = new(static file => Add(file, Factors(s_config, 24, 16, "lm_head"), ("lm_head.weight", randn(24, 16))), ErrorIds.AdapterKeysMismatch)
        {
            Config = static config => config with { TargetModules = ModuleSelector.FromNames(["q_proj", "lm_head"]) },
            Message = "lm_head.weight",
        },
        ["a weight that nobody asked for"] = new(static file => file["b.v_proj.weight"] = randn(24, 16), ErrorIds.AdapterKeysMismatch) { Message = "unexpected" },
        ["a module to save in one of two places"] = new(static file => file["a.v_proj.weight"] = randn(24, 16), ErrorIds.AdapterKeysMismatch)
        {
            Config = static config => config with { ModulesToSave = ["v_proj"] },
            Message = "missing (b.v_proj.weight)",
        },
        ["a module to save without its tensors"] = new(static _ => { }, ErrorIds.AdapterKeysMismatch) { Config = static config => config with { ModulesToSave = ["lm_head"] }, Message = "missing (lm_head.weight)" },
        ["lokr_ in the name of a target"] = new(static file => Rename(file, "a.q_proj", "lokr_block.q_proj"), ["lokr_block.q_proj"]),
        ["lokr_ in the name of a module to save"] = new(static file => file["lokr_head.weight"] = randn(24, 16), ["a.q_proj", "lokr_head"]) { Config = static config => config with { ModulesToSave = ["lokr_head"] } },
        ["a factor that there is not"] = new(static file => file["a.q_proj.lokr_w3"] = randn(4, 4), ErrorIds.AdapterKeyInvalid) { Message = "lokr_w3" },
        ["half of a low-rank factor"] = new(static file => file.Remove("a.q_proj.lokr_w2_b"), ErrorIds.AdapterKeysMismatch),
        ["an alpha beside the factors"] = new(static file => file["a.q_proj.alpha"] = tensor(2f), ErrorIds.AdapterKeysMismatch) { Message = "a.q_proj.alpha" },
    };

    public static TheoryData<string> FileCases => [.. s_files.Keys];

    [Theory]
    [MemberData(nameof(FileCases))]
    public void Both_ways_have_one_result(string name)
    {
        FileCase expected = s_files[name];
        LoKrConfig config = expected.Config(s_config);
        string from = Base(["a.q_proj", "a.v_proj", "b.v_proj", "lokr_block.q_proj", "embed_tokens", "lm_head", "lokr_head"], 24, 16);
        Dictionary<string, Tensor> file = Factors(s_config, 24, 16, "a.q_proj");
        expected.Change(file);
        string adapter = Adapter(config with { ExcludeModules = ModuleSelector.FromNames([file.ContainsKey("lokr_block.q_proj.lokr_w1") ? "a.q_proj" : "lokr_block.q_proj"]) }, file);
        if (expected.Error is null)
        {
            Assert.Equal(expected.Changed.Select(static module => module + ".weight"), SameResult(from, adapter));
            Assert.Equal(expected.Warning is null ? 0 : 2, _warnings.Count(warning => expected.Warning is not null && warning.Contains(expected.Warning, StringComparison.Ordinal)));
        }
        else
        {
            ErrorAssert.Throws(expected.Error, () => SameResult(from, adapter), expected.Message);
        }
    }

    [Theory]
    [InlineData("language_model.model.layers.0.q_proj", "vision_tower.blocks.0.q_proj", "model.language_model.layers.0.q_proj", "model.vision_tower.blocks.0.q_proj")]
    [InlineData("text.layers.0.q_proj", "image.encoder.blocks.0.q_proj", "layers.0.q_proj", "blocks.0.q_proj")]
    [InlineData("model.layers.0.q_proj", "visual.blocks.0.q_proj", "model.language_model.layers.0.q_proj", "model.visual.blocks.0.q_proj")]
    public void A_checkpoint_renames_its_language_and_its_vision_each_in_its_own_way(string language, string vision, string languageInAdapter, string visionInAdapter)
    {
        string from = Base([language, vision, "other.v_proj"], 24, 16);
        string adapter = Adapter(s_config, Factors(s_config, 24, 16, languageInAdapter, visionInAdapter));
        Dictionary<string, string> names = new() { [language] = languageInAdapter, [vision] = visionInAdapter };
        Assert.Equal(new[] { language + ".weight", vision + ".weight" }.Order(StringComparer.Ordinal), SameResult(from, adapter, inModel: name => names.GetValueOrDefault(name, name)));
    }

    [Fact]
    public void A_part_that_fits_two_places_or_none_is_refused_whatever_the_other_part_fits()
    {
        string[] adapted = ["model.text.layers.0.q_proj", "model.image.blocks.0.q_proj"];
        string from = Base(["text.layers.0.q_proj", "image.a.blocks.0.q_proj", "image.b.blocks.0.q_proj"], 24, 16);
        ErrorAssert.Throws(ErrorIds.AdapterKeysMismatch, () => MergeFiles.Run(MergeFiles.Options(from, _folder["out"], Adapter(s_config, Factors(s_config, 24, 16, adapted)))), "image.a.blocks.0.q_proj.weight or image.b");
        LoKrConfig two = s_config with { TargetModules = ModuleSelector.FromNames(["q_proj", "v_proj"]) };
        string other = Adapter(two, Factors(two, 24, 16, "model.text.layers.0.q_proj", "model.image.blocks.0.v_proj"));
        ErrorAssert.Throws(ErrorIds.AdapterKeysMismatch, () => MergeFiles.Run(MergeFiles.Options(from, _folder["out"], other)), "3 tensors", "model.image.blocks.0.v_proj.lokr_w1");
    }

    [Theory]
    [InlineData("lm_head")]
    [InlineData("embed_tokens")]
    public void A_weight_that_two_modules_share_is_refused_in_both_ways(string target)
    {
        TorchSharp.Modules.Linear first = Linear(randn(24, 16));
        TorchSharp.Modules.Linear second = Linear(randn(24, 16));
        second.weight = first.weight;
        using LoKrModel model = new(nn.Sequential(("embed_tokens", first), ("lm_head", second)));
        LoKrConfig config = s_config with { TargetModules = ModuleSelector.FromNames([target]) };
        model.AddAdapter(config with { InitWeights = InitWeights.Random });
        Tensor before = first.weight!.clone();
        ErrorAssert.Throws(ErrorIds.TiedWeight, () => model.Merge());
        Assert.True(TensorAssert.Same(before, first.weight!));

        string from = MergeFiles.Base(_folder["base"], new Dictionary<string, Tensor> { ["embed_tokens.weight"] = before }, config: Llama.Replace("false", "true", StringComparison.Ordinal));
        ErrorAssert.Throws(ErrorIds.TiedWeight, () => MergeFiles.Run(MergeFiles.Options(from, _folder["out"], MergeFiles.Adapter(_folder["adapter"], model))));
    }

    /// <summary>Tensors of a file beside the factors, for a model whose input and output embeddings are one weight, stored twice or once.</summary>
    [Theory]
    [InlineData("embed_tokens", true, 30)]
    [InlineData("lm_head", true, 30)]
    [InlineData("embed_tokens,lm_head", true, 30)]
    [InlineData("embed_tokens,lm_head", false, 30)]
    [InlineData("lm_head", false, 30)]
    [InlineData("embed_tokens", false, 24)]
    public void A_table_that_PEFT_saves_replaces_the_weight_that_both_embeddings_share(string saved, bool twice, long rows)
    {
        (string from, LoKrModel model) = Tied(twice);
        Tensor table = randn(rows, 16);
        Dictionary<string, Tensor> file = Factors(s_config, 24, 16, "q_proj");
        foreach (string module in saved.Split(','))
        {
            file[module + ".weight"] = table;
        }

        string adapter = Adapter(s_config, file);
        using (model)
        {
            using AdapterFile opened = AdapterFile.Open(adapter);
            LoKrAdapter loaded = AdapterImporter.Import(model, opened);
            Assert.Equal(["embed_tokens"], loaded.SavedModules);
            model.Merge();
            IReadOnlyDictionary<string, Tensor> state = model.GetBaseState();
            Assert.True(TensorAssert.Same(table, state["embed_tokens.weight"]));
            Assert.Same(Weight("embed_tokens"), Weight("lm_head"));
            Assert.Equal(rows, Weight("lm_head").shape[0]);

            MergeFiles.Run(MergeFiles.Options(from, _folder["out"], adapter));
            Dictionary<string, Tensor> merged = MergeFiles.Read(_folder["out"]);
            Assert.Equal(twice ? ["embed_tokens.weight", "lm_head.weight", "q_proj.weight"] : (string[])["embed_tokens.weight", "q_proj.weight"], merged.Keys.Order(StringComparer.Ordinal));
            Assert.All(merged.Where(static pair => pair.Key != "q_proj.weight"), pair => Assert.True(TensorAssert.Same(table, pair.Value), pair.Key));
            Assert.True(TensorAssert.Same(state["q_proj.weight"], merged["q_proj.weight"]));

            model.UndoMerge();
            model.RemoveAdapter("default");
            Assert.Equal(24, Weight("lm_head").shape[0]);
        }

        Tensor Weight(string name) => model.Module.named_modules().Single(entry => entry.name == name).module.named_parameters().Single().parameter;
    }

    [Fact]
    public void Two_tables_for_one_weight_are_refused_in_both_ways()
    {
        (string from, LoKrModel model) = Tied(twice: true);
        string adapter = Adapter(s_config, new(Factors(s_config, 24, 16, "q_proj"), StringComparer.Ordinal) { ["embed_tokens.weight"] = randn(30, 16), ["lm_head.weight"] = randn(30, 16) });
        using (model)
        {
            using AdapterFile opened = AdapterFile.Open(adapter);
            ErrorAssert.Throws(ErrorIds.TiedWeight, () => AdapterImporter.Import(model, opened), "other values for each");
            ErrorAssert.Throws(ErrorIds.TiedWeight, () => MergeFiles.Run(MergeFiles.Options(from, _folder["out"], adapter)), "other values for each");
        }
    }

    [Fact]
    public void A_grown_vocabulary_is_in_the_configuration_and_brings_the_tokenizer_of_the_adapter()
    {
        const string Config = """{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 24, "text_config": {"vocab_size": 24}, "tie_word_embeddings": false}""";
        string from = Base(["q_proj", "embed_tokens", "lm_head"], 24, 16, Config);
        File.WriteAllText(Path.Combine(from, "tokenizer.json"), "base");
        File.WriteAllText(Path.Combine(from, "merges.txt"), "base");
        File.WriteAllText(Path.Combine(from, "generation_config.json"), "{}");
        string adapter = Adapter(s_config, new(Factors(s_config, 24, 16, "q_proj"), StringComparer.Ordinal) { ["embed_tokens.weight"] = randn(30, 16), ["lm_head.weight"] = randn(30, 16) });
        MergeFiles.Run(MergeFiles.Options(from, _folder["first"], adapter));
        JsonNode written = JsonNode.Parse(File.ReadAllText(Path.Combine(_folder["first"], "config.json")))!;
        Assert.Equal((30, 30), ((int)written["vocab_size"]!, (int)written["text_config"]!["vocab_size"]!));
        Assert.Equal("base", File.ReadAllText(Path.Combine(_folder["first"], "tokenizer.json")));

        File.WriteAllText(Path.Combine(adapter, "tokenizer.json"), "grown");
        File.WriteAllText(Path.Combine(adapter, "added_tokens.json"), "{}");
        MergeFiles.Run(MergeFiles.Options(from, _folder["second"], adapter));
        Assert.Equal("grown", File.ReadAllText(Path.Combine(_folder["second"], "tokenizer.json")));
        Assert.True(File.Exists(Path.Combine(_folder["second"], "added_tokens.json")));
        Assert.True(File.Exists(Path.Combine(_folder["second"], "generation_config.json")));
        Assert.False(File.Exists(Path.Combine(_folder["second"], "merges.txt")));

        // A table without new rows needs no other tokenizer.
        Adapter(s_config, new(Factors(s_config, 24, 16, "q_proj"), StringComparer.Ordinal) { ["embed_tokens.weight"] = randn(24, 16) });
        MergeFiles.Run(MergeFiles.Options(from, _folder["third"], adapter));
        Assert.Equal("base", File.ReadAllText(Path.Combine(_folder["third"], "tokenizer.json")));
        Assert.Equal(Config, File.ReadAllText(Path.Combine(_folder["third"], "config.json")));
    }

    private (string From, LoKrModel Model) Tied(bool twice)
    {
        TorchSharp.Modules.Linear input = Linear(randn(24, 16));
        TorchSharp.Modules.Linear output = Linear(randn(24, 16));
        TorchSharp.Modules.Linear query = Linear(randn(24, 16));
        Dictionary<string, Tensor> weights = new(StringComparer.Ordinal) { ["embed_tokens.weight"] = input.weight!.clone(), ["q_proj.weight"] = query.weight!.clone() };
        if (twice)
        {
            weights.Add("lm_head.weight", input.weight!.clone());
        }

        output.weight = input.weight;
        string from = MergeFiles.Base(_folder["base"], weights, config: Llama.Replace("false", "true", StringComparison.Ordinal));
        return (from, new(nn.Sequential(("q_proj", query), ("embed_tokens", input), ("lm_head", output))));
    }

    [Fact]
    public void Factors_of_another_split_in_each_module_merge_on_disk_as_in_memory()
    {
        Dictionary<string, Tensor> factors = [];
        foreach ((string module, long l, long m) in ((string, long, long)[])[("blocks.0.to_q", 4, 4), ("blocks.0.proj", 8, 8), ("blocks.1.to_q", 2, 16), ("blocks.1.proj", 16, 1)])
        {
            factors[module + ".lokr_w1"] = randn(l, m);
            factors[module + ".lokr_w2_a"] = randn(64 / l, 3);
            factors[module + ".lokr_w2_b"] = randn(3, 32 / m);
        }

        // Magnitudes and a scalar of one layer only, and a rank that the configuration does not have.
        factors["blocks.0.proj.dora_scale"] = rand(64, 1) + 0.5;
        factors["blocks.1.proj.scalar"] = full([], 0.5f);
        factors["blocks.1.to_q.lokr_w2"] = randn(32, 2);
        factors.Remove("blocks.1.to_q.lokr_w2_a");
        factors.Remove("blocks.1.to_q.lokr_w2_b");
        LoKrConfig config = s_config with { R = 3, TargetModules = ModuleSelector.FromNames(["to_q", "proj"]), ShapesFromFile = true };
        string from = Base(["blocks.0.to_q", "blocks.0.proj", "blocks.1.to_q", "blocks.1.proj"], 64, 32);
        string adapter = Adapter(config, factors);
        Assert.Equal(4, SameResult(from, adapter).Length);
        ErrorAssert.Throws(ErrorIds.AdapterKeysMismatch, () => SameResult(from, Adapter(config with { ShapesFromFile = false }, factors)));
    }

    [Fact]
    public void A_base_weight_that_was_saved_beside_the_factors_is_the_models_own()
    {
        string from = Base(["model.layers.0.self_attn.q_proj", "lm_head"], 24, 16);
        Dictionary<string, Tensor> factors = Factors(s_config, 24, 16, "model.layers.0.self_attn.q_proj", "lm_head");
        factors["lm_head.base_layer.weight"] = MergeFiles.Read(from)["lm_head.weight"];
        LoKrConfig config = s_config with { TargetModules = ModuleSelector.FromNames(["q_proj", "lm_head"]) };
        string adapter = Adapter(config, factors);
        Assert.Equal(["lm_head.weight", "model.layers.0.self_attn.q_proj.weight"], SameResult(from, adapter));
        Assert.True(AdapterValidator.Check(adapter, new() { BasePath = from }).IsValid);
        Assert.DoesNotContain(_warnings, static warning => warning.Contains("base_layer", StringComparison.Ordinal));

        factors["lm_head.base_layer.weight"] = factors["lm_head.base_layer.weight"] + 0.5;
        Assert.Equal(["lm_head.weight", "model.layers.0.self_attn.q_proj.weight"], SameResult(from, Adapter(config, factors)));
        Assert.Equal(2, _warnings.Count(static warning => warning.Contains("'lm_head.base_layer.weight'", StringComparison.Ordinal)));
    }

    [Fact]
    public void Parameters_of_the_wrapper_of_a_module_to_save_are_valid_and_are_not_converted()
    {
        string from = Base(["model.layers.0.self_attn.q_proj", "lm_head"], 24, 16);
        Dictionary<string, Tensor> file = Factors(s_config, 24, 16, "model.layers.0.self_attn.q_proj");
        (file["lm_head.weight"], file["lm_head.modules_to_save.weight"], file["lm_head.original_module.weight"]) = (randn(24, 16), randn(24, 16), randn(24, 16));
        string adapter = Adapter(s_config with { ModulesToSave = ["lm_head"] }, file);
        Assert.True(AdapterValidator.Check(adapter, new() { BasePath = from }).IsValid);
        AdapterConverter.Convert(adapter, _folder["memory.safetensors"], AdapterLayout.PeftInMemory, new(), out _);
        using (SafetensorsReader converted = SafetensorsReader.Open(_folder["memory.safetensors"]))
        {
            string name = Assert.Single(converted.Entries.Keys, static name => name.Contains("lm_head", StringComparison.Ordinal));
            Assert.Equal("base_model.model.lm_head.modules_to_save.default.weight", name);
            Assert.True(TensorAssert.Same(file["lm_head.weight"], converted.Read(name)));
        }

        using PeftAdapterFolder read = PeftAdapterFolder.Read(adapter);
        Assert.Equal(["lm_head.weight"], read.Tensors.Entries.Keys.Where(static name => name.Contains("lm_head", StringComparison.Ordinal)));
    }

    [Theory]
    [InlineData("x.lm_head.modules_to_save.weight", "x.lm_head.weight", true)]
    [InlineData("x.lm_head.original_module.weight", "x.lm_head.weight", true)]
    [InlineData("x.lm_head.original_module.decoder.bias", "x.lm_head.decoder.bias", true)]
    [InlineData("x.lm_head.modules_to_save.default.decoder.bias", "x.lm_head.decoder.bias", true)]
    [InlineData("x.lm_head.modules_to_save.default.weight", "x.lm_head.bias", false)]
    [InlineData("x.lm_head.original_module.weight", "x.lm_head.bias", false)]
    [InlineData("x.lm_head.weight", "x.lm_head.weight", false)]
    public void A_tensor_of_a_wrapper_is_a_copy_where_the_file_has_the_one_that_PEFT_loads(string name, string other, bool isCopy) =>
        Assert.Equal(isCopy, WrapperCopies.IsCopy(name, candidate => candidate == other));

    [Fact]
    public void A_copy_of_another_shape_or_of_a_module_without_factors_is_refused()
    {
        string from = Base(["model.layers.0.self_attn.q_proj", "lm_head"], 24, 16);
        Dictionary<string, Tensor> factors = Factors(s_config, 24, 16, "model.layers.0.self_attn.q_proj");
        factors["model.layers.0.self_attn.q_proj.base_layer.weight"] = zeros(30, 16);
        ErrorAssert.Throws(ErrorIds.AdapterShapeMismatch, () => SameResult(from, Adapter(s_config, factors)), "base_layer.weight is [30, 16]");
        factors.Remove("model.layers.0.self_attn.q_proj.base_layer.weight");
        factors["lm_head.base_layer.weight"] = zeros(24, 16);
        ErrorAssert.Throws(ErrorIds.AdapterKeysMismatch, () => SameResult(from, Adapter(s_config, factors)), "lm_head.base_layer.weight");
    }

    [Theory]
    [InlineData("v_proj", null, null, ErrorIds.AdapterKeysMismatch)]
    [InlineData("k_proj", null, null, ErrorIds.TargetModuleNotFound)]
    [InlineData("q_proj", 7, null, ErrorIds.TargetModuleNotFound)]
    [InlineData("q_proj", 0, null, ErrorIds.AdapterKeysMismatch)]
    [InlineData("q_proj,v_proj", null, null, ErrorIds.AdapterKeysMismatch)]
    [InlineData("q_proj", null, "layers.1.self_attn.q_proj", ErrorIds.AdapterKeysMismatch)]
    [InlineData("self_attn.q_proj", null, null, null)]
    [InlineData("q_proj", null, null, null)]
    public void Targets_that_contradict_the_tensors_are_refused_on_disk_as_in_memory(string targets, int? layer, string? excluded, string? expected)
    {
        string from = Base([.. Two("q_proj"), .. Two("v_proj")], 16, 16);
        LoKrConfig config = s_config with
        {
            TargetModules = ModuleSelector.FromNames(targets.Split(',')),
            LayersToTransform = layer is int only ? [only] : null,
            ExcludeModules = excluded is null ? null : ModuleSelector.FromNames([excluded]),
        };
        string adapter = Adapter(config, Factors(config, 16, 16, Two("q_proj")));
        if (expected is null)
        {
            Assert.Equal(2, SameResult(from, adapter).Length);
        }
        else
        {
            ErrorAssert.Throws(expected, () => SameResult(from, adapter));
        }
    }

    [Theory]
    [InlineData("lm.decoder.layers.0.self_attn.q_proj", """{"model_type": "t"}""")]
    [InlineData("model.layers.2.self_attn.q_proj", """{"model_type": "t", "num_hidden_layers": 2}""")]
    public void Targets_of_a_checkpoint_that_the_adapted_model_does_not_have_are_not_missing(string other, string json)
    {
        string from = Base([.. Two("q_proj"), other], 16, 16, json);
        Assert.Equal(2, MergeFiles.Run(MergeFiles.Options(from, _folder["out"], Adapter(s_config, Factors(s_config, 16, 16, Two("q_proj"))))).ModuleCount);
    }

    [Fact]
    public void Two_names_of_one_weight_in_an_adapter_are_refused()
    {
        string from = Base(["model.layers.0.self_attn.q_proj"], 16, 16);
        string adapter = Adapter(s_config, Factors(s_config, 16, 16, "model.layers.0.self_attn.q_proj", "base.model.layers.0.self_attn.q_proj"));
        ErrorAssert.Throws(ErrorIds.AdapterKeysMismatch, () => MergeFiles.Run(MergeFiles.Options(from, _folder["out"], adapter)));
    }

    [Theory]
    [InlineData(ScalarType.Float16, 300.0, "bfloat16 or float32")]
    [InlineData(ScalarType.BFloat16, double.NaN, "is probably broken")]
    [InlineData(ScalarType.Float32, double.PositiveInfinity, "is probably broken")]
    public void Numbers_that_the_merge_makes_infinite_are_counted_and_reported(ScalarType type, double value, string advice)
    {
        Dictionary<string, Tensor> weights = new(StringComparer.Ordinal) { ["q_proj.weight"] = zeros(16, 16).to(type), ["v_proj.weight"] = zeros(16, 16).to(type) };
        weights["q_proj.weight"][15, 15] = double.PositiveInfinity;
        string from = MergeFiles.Base(_folder["base"], weights, config: Llama);
        LoKrConfig config = s_config with { R = 4, Alpha = 4 };
        Tensor w1 = zeros(4, 4);
        w1[0, 0] = value;
        string adapter = Adapter(config, new() { ["q_proj.lokr_w1"] = w1, ["q_proj.lokr_w2"] = full(4, 4, 300f) });
        Assert.Equal(["q_proj.weight"], SameResult(from, adapter));

        // Row 0 to 3 by column 0 to 3, or for NaN and infinity times zero every number of the kind; what was infinite before does not count.
        long added = MergeFiles.Read(_folder["out"])["q_proj.weight"].isfinite().logical_not().sum().ToInt64() - 1;
        Assert.True(added >= 16);
        string[] reported = [.. _warnings.Where(static warning => warning.Contains("became NaN or infinity", StringComparison.Ordinal))];
        Assert.True(reported.Length == 2, string.Join("|", _warnings));
        Assert.All(reported, warning => Assert.Contains($"{added} numbers of 'q_proj", warning, StringComparison.Ordinal));
        Assert.All(reported, warning => Assert.Contains(advice, warning, StringComparison.Ordinal));
        LoKrException error = ErrorAssert.Throws(ErrorIds.MergeNotFinite, () => MergeFiles.Run(MergeFiles.Options(from, _folder["safe"], adapter) with { Safe = true }));
        Assert.Contains(advice, error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Conversion_reports_numbers_that_are_not_finite()
    {
        Tensor w1 = ones(4, 4);
        w1[1, 2] = double.NaN;
        string adapter = Adapter(s_config with { R = 4 }, new() { ["m.q_proj.lokr_w1"] = w1, ["m.q_proj.lokr_w2"] = ones(4, 4) });
        AdapterConverter.Convert(adapter, _folder["out.safetensors"], AdapterLayout.Lycoris, new(), out IReadOnlyList<string> warnings);
        Assert.Single(warnings, static warning => warning.Contains("1 numbers of 'lycoris_m_q_proj.lokr_w1' are NaN or infinity", StringComparison.Ordinal));
    }

    [Theory]
    [InlineData("lmhead-base-layer", "adapter", null)]
    [InlineData("fp16-overflow", "adapter", null)]
    [InlineData("disk-ignores-targets", "other-module", ErrorIds.AdapterKeysMismatch)]
    [InlineData("disk-ignores-targets", "other-layer", ErrorIds.TargetModuleNotFound)]
    public void Files_from_the_field_have_one_result(string name, string adapter, string? expected)
    {
        string place = Fixtures.RequireBeside("cases", name);
        if (expected is null)
        {
            using PeftAdapterFolder folder = PeftAdapterFolder.Read(Path.Combine(place, adapter));
            string[] adapted = [.. folder.Tensors.Entries.Keys.Where(static key => key.EndsWith(".lokr_w1", StringComparison.Ordinal)).Select(static key => key[..^"lokr_w1".Length] + "weight").Order(StringComparer.Ordinal)];
            Assert.NotEmpty(adapted);
            Assert.Equal(adapted, SameResult(Path.Combine(place, "base"), Path.Combine(place, adapter)));
        }
        else
        {
            ErrorAssert.Throws(expected, () => SameResult(Path.Combine(place, "base"), Path.Combine(place, adapter)));
        }
    }

    [Fact]
    public void A_file_from_the_field_with_a_factor_for_each_kind_of_module_merges_as_in_memory()
    {
        string place = Fixtures.RequireBeside("cases", "mixed-factors-disk-merge");
        AdapterConverter.Convert(Path.Combine(place, "mixed.safetensors"), _folder["peft"], AdapterLayout.Peft, new() { BasePath = Path.Combine(place, "base") }, out _);
        Assert.Equal(4, SameResult(Path.Combine(place, "base"), _folder["peft"], "diffusion_pytorch_model").Length);
        Dictionary<string, Tensor> merged = MergeFiles.Read(_folder["out"], "diffusion_pytorch_model");
        Dictionary<string, Tensor> before = MergeFiles.Read(Path.Combine(place, "base"), "diffusion_pytorch_model");
        using SafetensorsReader given = SafetensorsReader.Open(Path.Combine(place, "mixed.safetensors"));
        foreach ((string key, Tensor weight) in before)
        {
            string module = "lycoris_" + key[..^".weight".Length].Replace('.', '_');
            Tensor expected = weight.to(ScalarType.Float64) + kron(given.Read(module + ".lokr_w1", ScalarType.Float64), given.Read(module + ".lokr_w2", ScalarType.Float64));
            Assert.True((merged[key] - expected).abs().max().ToDouble() / expected.abs().max().ToDouble() < 1e-6, key);
        }
    }

    private static void Add(Dictionary<string, Tensor> file, Dictionary<string, Tensor> factors, (string Name, Tensor Tensor) whole)
    {
        foreach ((string name, Tensor tensor) in factors.Append(KeyValuePair.Create(whole.Name, whole.Tensor)))
        {
            file.Add(name, tensor);
        }
    }

    private static void Rename(Dictionary<string, Tensor> file, string from, string to)
    {
        foreach (string key in file.Keys.Where(key => key.StartsWith(from + ".", StringComparison.Ordinal)).ToArray())
        {
            file.Add(to + key[from.Length..], file[key]);
            file.Remove(key);
        }
    }

    private static string[] Two(string module) => [$"model.layers.0.self_attn.{module}", $"model.layers.1.self_attn.{module}"];

    private static Dictionary<string, Tensor> Factors(LoKrConfig config, long rows, long columns, params string[] modules) => modules
        .SelectMany(module => Core.Factors.FactorShapes.Create(rows, columns, [], config.R, config).Tensors().Select(entry => (Name: $"{module}.{entry.Suffix}", entry.Shape)))
        .ToDictionary(static entry => entry.Name, static entry => randn(entry.Shape), StringComparer.Ordinal);

    private string Base(string[] modules, long rows, long columns, string json = Llama)
    {
        string folder = _folder["base"];
        return MergeFiles.Base(folder, modules.ToDictionary(static module => module + ".weight", _ => randn(rows, columns), StringComparer.Ordinal), config: json);
    }

    private string Adapter(LoKrConfig config, Dictionary<string, Tensor> tensors)
    {
        PeftAdapterFolder.Write(_folder["adapter"], config, tensors, force: true);
        return _folder["adapter"];
    }

    /// <summary>Merges in both ways and returns the names of the weights that changed; errors must be the same.</summary>
    private string[] SameResult(string from, string adapter, string baseName = "model", Func<string, string>? inModel = null)
    {
        string InModel(string key) => (inModel ?? (static name => name))(key[..^".weight".Length]);
        Dictionary<string, Tensor> before = MergeFiles.Read(from, baseName);
        using LoKrModel model = new(Tree([.. before.Where(static pair => pair.Value.dim() == 2).Select(pair => (InModel(pair.Key).Split('.'), pair.Value))]));
        LoKrException? inMemory = Record.Exception(() =>
        {
            using AdapterFile file = AdapterFile.Open(adapter);
            LoKrAdapter loaded = AdapterImporter.Import(model, file);
            _warnings.AddRange(loaded.Warnings);
            _warnings.AddRange(model.Merge().Warnings);
        }) as LoKrException;
        LoKrException? onDisk = Record.Exception(() =>
            _warnings.AddRange(MergeFiles.Run(MergeFiles.Options(from, _folder["out"], adapter) with { Force = true }).Warnings)) as LoKrException;
        Assert.Equal(inMemory?.ErrorId, onDisk?.ErrorId);
        if (onDisk is not null)
        {
            throw onDisk;
        }

        Dictionary<string, Tensor> merged = MergeFiles.Read(_folder["out"], baseName);
        string[] linear = [.. before.Keys.Where(key => before[key].dim() == 2)];
        Assert.Empty(MergeFiles.Differences(model.GetBaseState(), linear.ToDictionary(key => InModel(key) + ".weight", key => merged[key], StringComparer.Ordinal)));
        return MergeFiles.Differences(before, merged);
    }

    private static nn.Module<Tensor, Tensor> Tree((string[] Path, Tensor Weight)[] layers) => nn.Sequential(layers
        .GroupBy(static layer => layer.Path[0], StringComparer.Ordinal)
        .Select(static group => (group.Key, group.First().Path.Length == 1 ? Linear(group.First().Weight) : Tree([.. group.Select(static layer => (layer.Path[1..], layer.Weight))]))));

    private static TorchSharp.Modules.Linear Linear(Tensor weight)
    {
        TorchSharp.Modules.Linear linear = nn.Linear(weight.shape[1], weight.shape[0], hasBias: false, dtype: weight.dtype);
        using IDisposable noGrad = no_grad();
        linear.weight.copy_(weight);
        return linear;
    }

    /// <param name="Change">Changes the tensors of a plain file.</param>
    /// <param name="Changed">Modules whose weight the merge changes.</param>
    private sealed record FileCase(Action<Dictionary<string, Tensor>> Change, string[] Changed)
    {
        public FileCase(Action<Dictionary<string, Tensor>> change, string error)
            : this(change, []) => Error = error;

        public string? Error { get; }

        public string Message { get; init; } = "";

        public string? Warning { get; init; }

        public Func<LoKrConfig, LoKrConfig> Config { get; init; } = static config => config;
    }
}
