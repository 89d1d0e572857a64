using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Layouts;
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
    [InlineData("disk-ignores-targets", "other-module", ErrorIds.AdapterKeysMismatch)]
    [InlineData("disk-ignores-targets", "other-layer", ErrorIds.TargetModuleNotFound)]
    public void Files_from_the_field_have_one_result(string name, string adapter, string? expected)
    {
        string place = Fixtures.RequireBeside("cases", name);
        if (expected is null)
        {
            Assert.Equal(["lm_head.weight", "model.layers.0.self_attn.q_proj.weight"], SameResult(Path.Combine(place, "base"), Path.Combine(place, adapter)));
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
    private string[] SameResult(string from, string adapter, string baseName = "model")
    {
        Dictionary<string, Tensor> before = MergeFiles.Read(from, baseName);
        using LoKrModel model = new(Tree([.. before.Where(static pair => pair.Value.dim() == 2).Select(static pair => (pair.Key[..^".weight".Length].Split('.'), pair.Value))]));
        LoKrException? inMemory = Record.Exception(() =>
        {
            using PeftAdapterFolder folder = PeftAdapterFolder.Read(adapter);
            LoKrAdapter loaded = model.LoadAdapter(folder.Config, folder.Tensors.Entries.Keys.ToDictionary(static name => name, name => folder.Tensors.Read(name), StringComparer.Ordinal));
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
        Assert.Empty(MergeFiles.Differences(model.GetBaseState(), linear.ToDictionary(static key => key, key => merged[key], StringComparer.Ordinal)));
        return MergeFiles.Differences(before, merged);
    }

    private static nn.Module<Tensor, Tensor> Tree((string[] Path, Tensor Weight)[] layers) => nn.Sequential(layers
        .GroupBy(static layer => layer.Path[0], StringComparer.Ordinal)
        .Select(static group => (group.Key, group.First().Path.Length == 1 ? Linear(group.First().Weight) : Tree([.. group.Select(static layer => (layer.Path[1..], layer.Weight))]))));

    private static nn.Module<Tensor, Tensor> Linear(Tensor weight)
    {
        TorchSharp.Modules.Linear linear = nn.Linear(weight.shape[1], weight.shape[0], hasBias: false, dtype: weight.dtype);
        using IDisposable noGrad = no_grad();
        linear.weight.copy_(weight);
        return linear;
    }
}
