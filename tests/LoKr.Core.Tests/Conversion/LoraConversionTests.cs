using System.Text.Json;
using LoKr.Core.Configuration;
using LoKr.Core.Conversion;
using LoKr.Core.Errors;
using LoKr.Core.Factors;
using LoKr.Core.Layers;
using LoKr.Core.Layouts;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Core.Safetensors;
using LoKr.Core.Targeting;
using LoKr.Core.Tests.Support;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Conversion;

/// <summary>LoKr as LoRA: exact at full rank, the best approximation below it, and laid out as PEFT reads it.</summary>
public sealed class LoraConversionTests
{
    private const double Exact = 1e-10;

    public static TheoryData<string, string> Layers
    {
        get
        {
            TheoryData<string, string> cases = [];
            foreach (string kind in new[] { "linear", "Conv1D", "embedding", "TorchSharp embedding", "conv1d", "conv2d", "conv2d 1x1", "conv3d" })
            {
                foreach (string options in new[] { "full", "low", "both", "tucker", "scalar", "negative" })
                {
                    cases.Add(kind, options);
                }
            }

            return cases;
        }
    }

    [Theory]
    [MemberData(nameof(Layers))]
    public void Full_rank_is_the_same_delta_and_lower_ranks_are_the_best_there_are(string kind, string options)
    {
        using DisposeScope scope = NewDisposeScope();
        using LoKrModel model = Build(kind, options, out LoKrAdapter adapter);
        LoKrLayer layer = adapter.Layers[0];
        Tensor delta = layer.BaseLayer.AsMatrix(layer.GetDeltaWeight()).reshape(layer.BaseLayer.OutFeatures, -1);
        int full = (int)Math.Min(delta.shape[0], delta.shape[1]);
        using (LoraAdapter lora = Convert(adapter, LoraRank.OfSize(full)))
        {
            TensorAssert.Close(delta, Product(lora, full), Exact, "full rank");
            TensorAssert.Close(1, lora.Energy, Exact, "energy");
        }

        Tensor values = linalg.svdvals(delta);
        double norm = values.square().sum().ToDouble();
        foreach (int rank in new[] { 1, 2, 5 })
        {
            using LoraAdapter lora = Convert(adapter, LoraRank.OfSize(rank));
            double tail = values[TensorIndex.Slice(rank)].square().sum().ToDouble();
            TensorAssert.Close(tail + norm, (delta - Product(lora, rank)).square().sum().ToDouble() + norm, Exact, $"error of rank {rank}");
            TensorAssert.Close(1 - (tail / norm), lora.Energy, 1e-9, $"energy of rank {rank}");
        }

        // As PEFT reads a float: the smallest number of singular values that reach the share.
        Tensor shares = values.square().cumsum(0) / norm;
        foreach (double share in new[] { 0.3, 0.5, 0.9, 0.999 })
        {
            using LoraAdapter lora = Convert(adapter, LoraRank.OfEnergy(share));
            int expected = (int)shares.lt(share).sum().ToInt64() + 1;
            Assert.Equal(expected, lora.Ranks["layer"]);
            Assert.True(lora.Energy >= share);
        }
    }

    [Fact]
    public void A_layer_whose_delta_would_fill_a_disk_is_converted()
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor R(params long[] shape) => randn(shape, dtype: float64);
        KroneckerFactors factors = new(new Dictionary<string, Tensor>
        {
            [FactorNames.W1A] = R(1000, 2), [FactorNames.W1B] = R(2, 1000), [FactorNames.W2A] = R(1000, 3), [FactorNames.W2B] = R(3, 1000),
        });
        using LoraAdapter lora = LoraConverter.Convert(
            new() { TargetModules = ModuleSelector.FromNames(["big"]) }, [new("big", factors, 0.5)], new Dictionary<string, Tensor>(), LoraRank.OfSize(6), cancellation: TestContext.Current.CancellationToken);
        (Tensor a, Tensor b) = (lora.Tensors["big.lora_A.weight"], lora.Tensors["big.lora_B.weight"]);
        Assert.Equal([6L, 1_000_000], a.shape);

        // Any row of the delta will do.
        Tensor row = kron(factors.W1()[123].contiguous(), factors.W2()[456].contiguous()) * 0.5;
        TensorAssert.Close(row, b[123_456].unsqueeze(0).mm(a)[0], Exact, "row");
    }

    [Fact]
    public void Outputs_of_a_network_are_those_of_its_LoRA()
    {
        using DisposeScope scope = NewDisposeScope();
        PeftCase reference = PeftCase.Open("peft-layers", "wide-r4");
        using LoKrModel model = reference.BuildModel();
        Dictionary<string, Tensor> io = reference.Tensors("io.safetensors");
        LoKrAdapter adapter = model.LoadAdapter(reference.Config, reference.AdapterTensors());
        using LoraAdapter lora = Convert(adapter, LoraRank.OfEnergy(1));
        foreach (LoKrLayer layer in adapter.Layers)
        {
            Tensor product = lora.Tensors[layer.ModuleName + ".lora_B.weight"].mm(lora.Tensors[layer.ModuleName + ".lora_A.weight"]);
            TensorAssert.Close(io["delta." + layer.ModuleName], product, TensorAssert.Layer, layer.ModuleName);
        }
    }

    [Fact]
    public void The_folder_is_what_PEFT_writes()
    {
        using DisposeScope scope = NewDisposeScope();
        using TempFolder folder = new();
        using LoKrModel model = new(TestNetworks.Decoder());
        LoKrAdapter adapter = model.AddAdapter(Decoder with { ModulesToSave = ["lm_head"] }, seed: 1);
        using (no_grad())
        {
            adapter.GetTensors()["lm_head.weight"].mul_(-10);
        }

        using LoraAdapter lora = Convert(adapter, LoraRank.OfSize(3));
        Assert.Equal(adapter.Layers.Select(static layer => layer.ModuleName), lora.Ranks.Keys);
        PeftLoraFolder.Write(folder["lora"], lora);
        using SafetensorsReader reader = SafetensorsReader.Open(Path.Combine(folder["lora"], PeftAdapterFolder.WeightsFile));
        Assert.Equal(
            adapter.Layers.SelectMany(static layer => new[] { $"base_model.model.{layer.ModuleName}.lora_A.weight", $"base_model.model.{layer.ModuleName}.lora_B.weight" })
                .Append("base_model.model.lm_head.weight").Order(StringComparer.Ordinal),
            reader.Entries.Keys.Order(StringComparer.Ordinal));
        Assert.True(TensorAssert.Same(adapter.GetTensors()["lm_head.weight"], reader.Read("base_model.model.lm_head.weight")));

        using JsonDocument json = JsonDocument.Parse(File.ReadAllText(Path.Combine(folder["lora"], PeftAdapterFolder.ConfigFile)));
        JsonElement config = json.RootElement;
        string[] keys = [.. config.EnumerateObject().Select(static field => field.Name)];
        Assert.Equal(keys.Order(StringComparer.Ordinal), keys);
        Assert.Equal("LORA", config.GetProperty("peft_type").GetString());
        Assert.Equal((3, 3), (config.GetProperty("r").GetInt32(), config.GetProperty("lora_alpha").GetInt32()));
        Assert.Empty(config.GetProperty("rank_pattern").EnumerateObject());
        Assert.Equal(["lm_head"], config.GetProperty("modules_to_save").EnumerateArray().Select(static name => name.GetString()));
        Assert.Equal(
            adapter.Layers.Select(static layer => layer.ModuleName).Concat(["q_proj", "v_proj"]).Order(StringComparer.Ordinal),
            config.GetProperty("target_modules").EnumerateArray().Select(static name => name.GetString()).Order(StringComparer.Ordinal));
        Assert.Equal(ErrorIds.DestinationExists, Assert.Throws<LoKrException>(() => PeftLoraFolder.Write(folder["lora"], lora)).ErrorId);
        PeftLoraFolder.Write(folder["lora"], lora, force: true);
    }

    [Theory]
    [InlineData(null, 4)]
    [InlineData(0.8, null)]
    public void Patterns_give_every_layer_its_own_rank(double? energy, int? rank)
    {
        using LoKrModel model = new(TestNetworks.Decoder());
        LoKrConfig config = Decoder with { TargetModules = rank is null ? Decoder.TargetModules : ModuleSelector.FromPattern(@".*\.(q|v)_proj") };
        LoKrAdapter adapter = model.AddAdapter(config, seed: 1);
        using LoraAdapter lora = Convert(adapter, (rank is int size ? LoraRank.OfSize(size) : LoraRank.OfEnergy(energy!.Value)) with { Patterned = true });
        Assert.Equal(lora.Ranks, lora.Config.RankPattern);
        Assert.Equal(config.TargetModules, lora.Config.TargetModules);
        Assert.Equal(rank ?? 1, lora.Config.R);
    }

    [Fact]
    public void Names_that_end_alike_keep_their_own_ranks()
    {
        using DisposeScope scope = NewDisposeScope();
        manual_seed(4);
        using LoKrModel model = new(TestNetworks.Network(("lin", nn.Linear(12, 12)), ("block", nn.Sequential(("lin", nn.Linear(12, 12))))));
        LoKrAdapter adapter = model.AddAdapter(new() { R = 1, TargetModules = ModuleSelector.FromNames(["lin"]), RankPattern = [new("block.lin", 8)], InitWeights = InitWeights.Random }, seed: 2);
        using LoraAdapter lora = Convert(adapter, LoraRank.OfEnergy(0.999) with { Patterned = true });
        Assert.NotEqual(lora.Ranks["lin"], lora.Ranks["block.lin"]);
        Assert.Equal(["^lin", @"^block\.lin"], lora.Config.RankPattern.Select(static pair => pair.Key));
        Assert.All(lora.Ranks, layer => Assert.Equal(layer.Value, new ModulePatterns<int>(lora.Config.RankPattern).Find(layer.Key, 0)));
    }

    [Fact]
    public void What_LoRA_cannot_hold_is_refused()
    {
        Assert.Equal(ErrorIds.RankInvalid, Id(static () => LoraRank.OfSize(0)));
        Assert.Equal(ErrorIds.EnergyInvalid, Id(static () => LoraRank.OfEnergy(-0.5)));
        Assert.Equal(ErrorIds.EnergyInvalid, Id(static () => LoraRank.OfEnergy(123.0)));
        Assert.Equal(ErrorIds.EnergyInvalid, Id(static () => LoraRank.OfEnergy(double.NaN)));

        using LoKrModel model = new(TestNetworks.Decoder());
        Assert.Equal(ErrorIds.RankInvalid, Id(() => Convert(model.AddAdapter(Decoder, "a"), LoraRank.OfSize(123))));
        Assert.Equal(ErrorIds.LoraConversionNotSupported, Id(() => Convert(model.AddAdapter(Decoder with { WeightDecompose = true }, "b"), LoraRank.OfSize(1))));
        Assert.Equal(ErrorIds.LoraConversionNotSupported, Id(() => Convert(
            model.AddAdapter(new() { TargetModules = ModuleSelector.FromNames([]), ModulesToSave = ["lm_head"] }, "c"), LoraRank.OfSize(1))));
        using LoKrModel grouped = new(TestNetworks.Network(("conv", nn.Conv2d(8, 8, 3, groups: 2))));
        Assert.Equal(ErrorIds.LoraConversionNotSupported, Id(() => Convert(grouped.AddAdapter(new() { TargetModules = ModuleSelector.FromNames(["conv"]) }), LoraRank.OfSize(1))));
        using LoKrModel meta = new(TestNetworks.Network(("q_proj", nn.Linear(8, 8, device: META))));
        Assert.Equal(ErrorIds.ModelHasNoWeights, Id(() => Convert(meta.AddAdapter(new() { TargetModules = ModuleSelector.FromNames(["q_proj"]) }), LoraRank.OfSize(1))));
    }

    private static LoKrConfig Decoder => new() { R = 2, Alpha = 3, TargetModules = ModuleSelector.FromNames(["q_proj", "v_proj"]), InitWeights = InitWeights.Random };

    private static LoraAdapter Convert(LoKrAdapter adapter, LoraRank rank) => LoraConverter.Convert(adapter, rank, TestContext.Current.CancellationToken);

    private static string Id(Action action) => Assert.Throws<LoKrException>(action).ErrorId;

    /// <summary>The delta that PEFT computes from the two matrices of the only layer, out×(in·kernel).</summary>
    private static Tensor Product(LoraAdapter lora, int rank)
    {
        if (lora.Tensors.TryGetValue("layer.lora_embedding_A", out Tensor? table))
        {
            Assert.Equal(rank, table.shape[0]);
            return lora.Tensors["layer.lora_embedding_B"].mm(table).t();
        }

        (Tensor a, Tensor b) = (lora.Tensors["layer.lora_A.weight"], lora.Tensors["layer.lora_B.weight"]);
        Assert.Equal(rank, a.shape[0]);
        Assert.Equal(a.dim(), b.dim());
        Assert.All(b.shape[2..], static size => Assert.Equal(1, size));
        return b.reshape(b.shape[0], rank).mm(a.reshape(rank, -1));
    }

    private static LoKrModel Build(string kind, string options, out LoKrAdapter adapter)
    {
        random.manual_seed(11);
        nn.Module<Tensor, Tensor> layer = kind switch
        {
            "linear" => nn.Linear(12, 30),
            "Conv1D" => new Conv1D(12, 30),
            "embedding" => new Core.Nn.Embedding(30, 12),
            "TorchSharp embedding" => nn.Embedding(30, 12),
            "conv1d" => nn.Conv1d(12, 30, 3),
            "conv2d" => nn.Conv2d(12, 30, (3, 2)),
            "conv2d 1x1" => nn.Conv2d(12, 30, 1),
            _ => nn.Conv3d(12, 30, 2),
        };
        using (no_grad())
        {
            foreach (TorchSharp.Modules.Parameter parameter in layer.parameters())
            {
                parameter.normal_();
            }
        }

        LoKrModel model = new(TestNetworks.Network(("layer", layer)));
        model.Module.to(float64);
        adapter = model.AddAdapter(
            new()
            {
                R = options == "full" ? 50 : 2,
                Alpha = options == "negative" ? -3 : 3,
                DecomposeBoth = options is "both" or "tucker",
                UseEffectiveConv2d = options == "tucker",
                UseScalar = options == "scalar",
                TargetModules = ModuleSelector.FromNames(["layer"]),
                InitWeights = InitWeights.Random,
            },
            seed: 3);
        return model;
    }
}
