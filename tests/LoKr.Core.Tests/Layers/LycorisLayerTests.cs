using System.Text.Json;
using System.Text.RegularExpressions;
using LoKr.Core.Configuration;
using LoKr.Core.Factors;
using LoKr.Core.Layers;
using LoKr.Core.Model;
using LoKr.Core.Safetensors;
using LoKr.Core.Tests.Support;
using LoKr.Testing;
using TorchSharp;
using TorchSharp.Modules;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Layers;

/// <summary>Single layers against what LyCORIS computed, with every option of its.</summary>
public sealed class LycorisLayerTests
{
    private const string Prefix = "lora_unet_test.";

    public static TheoryData<string> Cases => Fixtures.Cases("lycoris", static folder => File.ReadAllText(Path.Combine(folder, "case.json")).Contains("\"layer\"", StringComparison.Ordinal));

    [Theory]
    [MemberData(nameof(Cases))]
    public void Outputs_gradients_and_merged_weights_agree(string name)
    {
        using DisposeScope scope = NewDisposeScope();
        string folder = Fixtures.Require("lycoris", name);
        JsonElement json = JsonDocument.Parse(File.ReadAllText(Path.Combine(folder, "case.json"))).RootElement;
        Dictionary<string, Tensor> io = Tensors(folder, "io.safetensors");
        Dictionary<string, Tensor> file = Tensors(folder, "adapter.safetensors").ToDictionary(static pair => pair.Key[Prefix.Length..], static pair => pair.Value);
        using LoKrModel model = new(TestNetworks.Network(("test", Layer(json.GetProperty("layer").GetString()!, io))));
        LoKrConfig config = Config(json.GetProperty("options")) with { TargetModules = ModuleSelector.FromNames(["test"]) };
        Tensor Run() => PeftCase.Run(model, io["input"]);
        TensorAssert.Close(io["base_output"], Run(), TensorAssert.Layer, "base output");

        file.Remove("alpha");
        if (config.UseScalar)
        {
            // The file has the trained scalar multiplied into w1: ⟨w1, dL/dw1⟩ holds it twice, ⟨scalar, dL/dscalar⟩ once.
            double scalar = Math.Sqrt((file[FactorNames.W1] * io["grad.lokr_w1"]).sum().ToDouble() / io["grad.scalar"].ToDouble());
            file[FactorNames.W1] = file[FactorNames.W1] / scalar;
            file[FactorNames.Scalar] = tensor(scalar, dtype: float32);
        }

        LoKrAdapter adapter = model.LoadAdapter(config, file.ToDictionary(static pair => "test." + pair.Key, static pair => pair.Value));
        LoKrLayer layer = Assert.Single(adapter.Layers);
        TensorAssert.Close(json.GetProperty("scale").GetDouble(), layer.Scaling, 1e-12, "scale");
        TensorAssert.Close(io["delta"], layer.GetDeltaWeight(), TensorAssert.Layer, "delta");
        Tensor output = Run();
        TensorAssert.Close(io["adapter_output"], output, TensorAssert.Layer, "adapter output");
        (output * io["cotangent"]).sum().backward();
        Assert.Equal(io.Keys.Where(static key => key.StartsWith("grad.", StringComparison.Ordinal)).Order(StringComparer.Ordinal), layer.Factors.Tensors.Keys.Select(static key => "grad." + key).Order(StringComparer.Ordinal));
        foreach ((string suffix, Tensor tensor) in layer.Factors.Tensors)
        {
            TensorAssert.Close(io["grad." + suffix], tensor.grad!, TensorAssert.Layer, "gradient of " + suffix);
        }

        model.Merge(safe: true);
        TensorAssert.Close(io["merged.weight"], model.GetBaseState()["test.weight"], TensorAssert.Layer, "merged");
        TensorAssert.Close(io["adapter_output"], Run(), TensorAssert.Layer, "merged output");
        model.UndoMerge();
        Assert.True(TensorAssert.Same(io["base.weight"], model.GetBaseState()["test.weight"]));
        if (adapter.HasDora)
        {
            model.SetDoraStrength(["default"], DoraStrength.Lycoris);
        }

        adapter.Scale = 0.4;
        Tensor scaled = Run();
        model.Merge();
        TensorAssert.Close(io["merged_0.4.weight"], model.GetBaseState()["test.weight"], TensorAssert.Layer, "merged with 0.4");
        TensorAssert.Close(scaled, Run(), TensorAssert.Layer, "output with 0.4");
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void A_fresh_adapter_has_exactly_the_tensors_that_LyCORIS_makes_and_changes_nothing(string name)
    {
        using DisposeScope scope = NewDisposeScope();
        string folder = Fixtures.Require("lycoris", name);
        JsonElement json = JsonDocument.Parse(File.ReadAllText(Path.Combine(folder, "case.json"))).RootElement;
        Dictionary<string, Tensor> io = Tensors(folder, "io.safetensors");
        using LoKrModel model = new(TestNetworks.Network(("test", Layer(json.GetProperty("layer").GetString()!, io))));
        LoKrConfig config = Config(json.GetProperty("options")) with { TargetModules = ModuleSelector.FromNames(["test"]) };
        LoKrLayer layer = model.AddAdapter(config).Layers[0];
        Dictionary<string, long[]> expected = json.GetProperty("keys").EnumerateObject()
            .Where(static entry => !entry.Name.EndsWith(".alpha", StringComparison.Ordinal))
            .ToDictionary(static entry => entry.Name[Prefix.Length..], static entry => entry.Value.EnumerateArray().Select(static size => size.GetInt64()).ToArray());
        if (config.UseScalar)
        {
            expected.Add(FactorNames.Scalar, []);
        }

        Assert.Equal(expected.Keys.Order(StringComparer.Ordinal), layer.Factors.Tensors.Keys.Order(StringComparer.Ordinal));
        Assert.All(expected, pair => Assert.Equal(pair.Value, layer.Factors.Tensors[pair.Key].shape));
        TensorAssert.Close(io["base_output"], PeftCase.Run(model, io["input"]), TensorAssert.Layer, "output of a fresh adapter");

        // Something has to be able to learn.
        PeftCase.Run(model, io["input"]).square().sum().backward();
        Assert.Contains(layer.Factors.Tensors.Values, static tensor => tensor.grad!.abs().max().ToDouble() > 0);
    }

    private static Dictionary<string, Tensor> Tensors(string folder, string file)
    {
        using SafetensorsReader reader = SafetensorsReader.Open(Path.Combine(folder, file));
        return reader.Entries.Keys.ToDictionary(static name => name, name => reader.Read(name), StringComparer.Ordinal);
    }

    /// <summary>The layer that PyTorch's description names, with the reference's parameters.</summary>
    internal static nn.Module<Tensor, Tensor> Layer(string description, Dictionary<string, Tensor> io)
    {
        Tensor weight = io["base.weight"];
        long[] Numbers(string field) => Regex.Match(description, field + @"=\(([^)]*)\)") is { Success: true } match
            ? [.. match.Groups[1].Value.Split(',', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries).Where(static part => part.Length > 0).Select(long.Parse)]
            : [];
        long Size(string field, long otherwise) => Numbers(field) is [long first, ..] ? first : otherwise;
        (long outputs, long inputs) = (weight.shape[0], weight.shape[1]);
        nn.Module<Tensor, Tensor> layer = description.Split('(')[0] switch
        {
            "Linear" => nn.Linear(inputs, outputs),
            "Conv1d" => nn.Conv1d(inputs, outputs, weight.shape[2], Size("stride", 1), Size("padding", 0)),
            "Conv2d" => nn.Conv2d(inputs, outputs, (weight.shape[2], weight.shape[3]), (Size("stride", 1), Size("stride", 1)), (Size("padding", 0), Size("padding", 0))),
            "Conv3d" => nn.Conv3d(inputs, outputs, weight.shape[2], Size("stride", 1), Size("padding", 0)),
            string kind => throw new InvalidOperationException($"Unknown layer {kind}."),
        };
        layer.load_state_dict(new Dictionary<string, Tensor> { ["weight"] = weight, ["bias"] = io["base.bias"] });
        layer.eval();
        return layer;
    }

    private static LoKrConfig Config(JsonElement options)
    {
        LoKrConfig config = new()
        {
            R = 4,
            Alpha = 1,
            Scaling = ScalingConvention.Lycoris,
            Factorization = FactorizationConvention.Lycoris,
            Conv1dLayout = Conv1dLayout.Kronecker,
            InitWeights = InitWeights.Lycoris,
        };
        foreach (JsonProperty option in options.EnumerateObject())
        {
            JsonElement value = option.Value;
            config = option.Name switch
            {
                "lora_dim" => config with { R = value.GetInt32() },
                "alpha" => config with { Alpha = value.GetDouble() },
                "factor" => config with { DecomposeFactor = value.GetInt32() },
                "decompose_both" => config with { DecomposeBoth = value.GetBoolean() },
                "use_tucker" => config with { UseEffectiveConv2d = value.GetBoolean() },
                "use_scalar" => config with { UseScalar = value.GetBoolean() },
                "full_matrix" => config with { FullMatrix = value.GetBoolean() },
                "rs_lora" => config with { RsLora = value.GetBoolean() },
                "unbalanced_factorization" => config with { UnbalancedFactorization = value.GetBoolean() },
                "weight_decompose" => config with { WeightDecompose = value.GetBoolean() },
                "wd_on_out" => config with { WeightDecomposeAxis = value.GetBoolean() ? WeightDecomposeAxis.Output : WeightDecomposeAxis.Input },
                string field => throw new InvalidOperationException($"Unknown option {field}."),
            };
        }

        return config;
    }
}
