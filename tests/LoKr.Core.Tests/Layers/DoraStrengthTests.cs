using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Factors;
using LoKr.Core.Layers;
using LoKr.Core.Layouts;
using LoKr.Core.Model;
using LoKr.Core.Safetensors;
using LoKr.Core.Tests.Merging;
using LoKr.Core.Tests.Support;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Layers;

/// <summary>DoRA at strengths other than 1: in the forward pass, in the merge in memory and in the merge on disk.</summary>
public sealed class DoraStrengthTests : IDisposable
{
    private readonly DisposeScope _scope = NewDisposeScope();
    private readonly TempFolder _folder = new();

    public void Dispose()
    {
        _folder.Dispose();
        _scope.Dispose();
    }

    public static TheoryData<string, WeightDecomposeAxis> Layers => new MatrixTheoryData<string, WeightDecomposeAxis>(
        ["linear", "conv2d", "gpt2", "embedding"], [WeightDecomposeAxis.Output, WeightDecomposeAxis.Input]);

    [Theory]
    [MemberData(nameof(Layers))]
    public void Strength_0_is_the_base_1_the_trained_weight_and_others_lie_on_the_line_between(string layer, WeightDecomposeAxis axis)
    {
        using LoKrModel model = Model(layer, axis, out Tensor input);
        Tensor Run() => PeftCase.Run(model, input);
        Tensor weight = MergeFiles.State(model)["test.weight"];
        model.SetAdaptersEnabled(false);
        Tensor without = Run();
        model.SetAdaptersEnabled(true);
        Tensor with = Run();
        Tensor trained = Merged(model, 1);
        Assert.True((with - without).abs().max().ToDouble() > 0.01);
        TensorAssert.Close(with, MergedOutput(model, 1, Run), TensorAssert.Layer, "merged output");
        foreach (double strength in new[] { 0, 0.25, 0.8, 1.5, -1 })
        {
            Tensor expected = weight + ((trained - weight) * strength);
            TensorAssert.Close(expected, Merged(model, strength), TensorAssert.Layer, $"weight at {strength}");
            model.SetAdapterScale(["default"], strength);
            TensorAssert.Close(without + ((with - without) * strength), Run(), TensorAssert.Layer, $"output at {strength}");
        }

        Assert.True(TensorAssert.Same(weight, Merged(model, 0)));
    }

    [Theory]
    [MemberData(nameof(Layers))]
    public void LyCORIS_weakens_the_magnitudes_alone(string layer, WeightDecomposeAxis axis)
    {
        using LoKrModel model = Model(layer, axis, out Tensor input);
        Tensor weight = MergeFiles.State(model)["test.weight"];
        Tensor trained = Merged(model, 1);
        model.SetDoraStrength(["default"], DoraStrength.Lycoris);
        Assert.True(TensorAssert.Same(trained, Merged(model, 1)));
        TensorAssert.Close(weight + model.GetAdapter("default").Layers[0].GetDeltaWeight(), Merged(model, 0), TensorAssert.Layer, "W + Δ");
        model.SetAdapterScale(["default"], 0.4);
        Tensor output = PeftCase.Run(model, input);
        TensorAssert.Close(output, MergedOutput(model, 0.4, () => PeftCase.Run(model, input)), TensorAssert.Layer, "output at 0.4");
        model.SetDoraStrength(["default"], DoraStrength.Linear);
        TensorAssert.Close(weight + ((trained - weight) * 0.4), Merged(model, 0.4), TensorAssert.Layer, "linear again");
    }

    [Theory]
    [InlineData("merged-dora.safetensors", 1)]
    [InlineData("merged-dora@0.5.safetensors", 0.5)]
    public void Both_merges_agree_with_the_reference_at_half_strength(string expected, double strength)
    {
        string folder = Fixtures.Require("checkpoints", "sd15");
        using SafetensorsReader weights = SafetensorsReader.Open(Path.Combine(folder, "checkpoint.safetensors"));
        using SafetensorsReader adapter = SafetensorsReader.Open(Path.Combine(folder, "adapter-dora.safetensors"));
        using SafetensorsReader merged = SafetensorsReader.Open(Path.Combine(folder, expected));

        // Both files list the same modules; in the order of their names, which differ, they correspond.
        string[] keys = [.. merged.Entries.Keys.Order(StringComparer.Ordinal)];
        string[] modules = [.. adapter.Entries.Keys.Select(static key => key[..key.LastIndexOf('.')]).Distinct().Order(StringComparer.Ordinal)];
        Assert.Equal(keys.Length, modules.Length);
        using LoKrModel model = new(TestNetworks.Network([.. keys.Select((key, index) => ($"m{index}", Layer(weights.Read(key, ScalarType.Float32))))]));
        int Rank(string module) => (int)((adapter.Entries.GetValueOrDefault(module + ".lokr_w2_b") ?? adapter.Entries.GetValueOrDefault(module + ".lokr_w1_b"))?.Shape[0] ?? 8);
        LoKrConfig config = new()
        {
            TargetModules = ModuleSelector.FromNames(modules.Select(static (_, index) => $"m{index}")),
            AlphaPattern = [.. modules.Select((module, index) => new KeyValuePair<string, double>($"m{index}", adapter.Read(module + ".alpha").to(ScalarType.Float32).ToDouble()))],
            RankPattern = [.. modules.Select((module, index) => new KeyValuePair<string, int>($"m{index}", Rank(module)))],
            Scaling = ScalingConvention.Lycoris,
            ShapesFromFile = true,
        };
        Dictionary<string, Tensor> tensors = adapter.Entries.Keys.Where(static key => !key.EndsWith(".alpha", StringComparison.Ordinal))
            .ToDictionary(key => $"m{Array.IndexOf(modules, key[..key.LastIndexOf('.')])}{key[key.LastIndexOf('.')..]}", key => adapter.Read(key), StringComparer.Ordinal);
        string from = MergeFiles.Base(_folder["base"], MergeFiles.State(model));
        PeftAdapterFolder.Write(_folder["adapter"], config, tensors);
        MergeFiles.Run(MergeFiles.Options(from, _folder["out"]) with { Adapters = [new AdapterMergeSource(_folder["adapter"], strength)] });

        model.LoadAdapter(config, tensors);
        model.SetAdapterScale(["default"], strength);
        model.Merge();
        Assert.Empty(MergeFiles.Differences(model.GetBaseState(), MergeFiles.Read(_folder["out"])));
        for (int i = 0; i < keys.Length; i++)
        {
            TensorAssert.Close(merged.Read(keys[i]), model.GetBaseState()[$"m{i}.weight"], TensorAssert.Layer, keys[i]);
        }
    }

    [Fact]
    public void A_meaning_for_DoRA_is_refused_without_DoRA_and_after_a_merge()
    {
        using LoKrModel model = new(TestNetworks.Network(("test", nn.Linear(8, 12))));
        model.AddAdapter(Config(), "plain");
        string from = MergeFiles.Base(_folder["base"], MergeFiles.State(model));
        string plain = MergeFiles.Adapter(_folder["plain"], model, "plain");
        ErrorAssert.Throws(ErrorIds.InvalidArgument, () => model.SetDoraStrength(["plain"], DoraStrength.Lycoris), "plain");
        ErrorAssert.Throws(ErrorIds.AdapterNotFound, () => model.SetDoraStrength(["none"], DoraStrength.Lycoris));
        ErrorAssert.Throws(ErrorIds.InvalidArgument, () => MergeFiles.Run(MergeFiles.Options(from, _folder["out"]) with { Adapters = [new AdapterMergeSource(plain, 0.5) { DoraStrength = DoraStrength.Lycoris }] }), "plain");
        model.AddAdapter(Config() with { WeightDecompose = true }, "dora");
        Assert.Null(model.GetAdapterStatus()[0].DoraStrength);
        model.SetDoraStrength(["plain", "dora"], DoraStrength.Lycoris);
        Assert.Equal(DoraStrength.Lycoris, model.GetAdapterStatus()[1].DoraStrength);
        model.Merge(["dora"]);
        ErrorAssert.Throws(ErrorIds.AdapterMerged, () => model.SetDoraStrength(["dora"], DoraStrength.Linear));
    }

    private static LoKrConfig Config() => new() { R = 2, Alpha = 4, TargetModules = ModuleSelector.FromNames(["test"]), InitWeights = InitWeights.Random };

    private static LoKrModel Model(string layer, WeightDecomposeAxis axis, out Tensor input)
    {
        random.manual_seed(11);
        nn.Module<Tensor, Tensor> module = layer switch
        {
            "linear" => nn.Linear(12, 20),
            "conv2d" => nn.Conv2d(6, 8, 3L, padding: 1L),
            "gpt2" => new Core.Nn.Conv1D(12, 20),
            "embedding" => nn.Embedding(20, 12),
            _ => throw new ArgumentException(layer, nameof(layer)),
        };
        using (no_grad())
        {
            foreach (TorchSharp.Modules.Parameter parameter in module.parameters())
            {
                nn.init.normal_(parameter, 0, 0.5);
            }
        }

        input = layer switch { "conv2d" => randn(2, 6, 5, 5), "embedding" => randint(20, [3, 4], dtype: ScalarType.Int64), _ => randn(3, 12) };
        LoKrModel model = new(TestNetworks.Network(("test", module)));
        LoKrLayer added = model.AddAdapter(Config() with { WeightDecompose = true, WeightDecomposeAxis = axis }).Layers[0];
        using IDisposable noGrad = no_grad();
        foreach (Tensor tensor in added.Factors.Tensors.Values)
        {
            tensor.add_(randn_like(tensor) * 0.2);
        }

        return model;
    }

    private static nn.Module<Tensor, Tensor> Layer(Tensor weight)
    {
        nn.Module<Tensor, Tensor> layer = weight.dim() == 2
            ? nn.Linear(weight.shape[1], weight.shape[0], hasBias: false)
            : nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2], bias: false);
        layer.load_state_dict(new Dictionary<string, Tensor> { ["weight"] = weight });
        return layer;
    }

    private static Tensor Merged(LoKrModel model, double strength)
    {
        model.SetAdapterScale(["default"], strength);
        model.Merge();
        Tensor merged = MergeFiles.State(model)["test.weight"];
        model.UndoMerge();
        model.SetAdapterScale(["default"], 1);
        return merged;
    }

    private static Tensor MergedOutput(LoKrModel model, double strength, Func<Tensor> run)
    {
        model.SetAdapterScale(["default"], strength);
        model.Merge();
        Tensor output = run();
        model.UndoMerge();
        model.SetAdapterScale(["default"], 1);
        return output;
    }
}
