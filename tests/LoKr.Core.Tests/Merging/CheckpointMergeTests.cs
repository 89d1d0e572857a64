using LoKr.Core.Configuration;
using LoKr.Core.Factors;
using LoKr.Core.Layers;
using LoKr.Core.Layouts;
using LoKr.Core.Merging.Checkpoints;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Core.Tests.Support;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Merging;

/// <summary>The result of a merge on disk is, bit for bit, that of a merge in memory.</summary>
public sealed class CheckpointMergeTests
{
    private static readonly LoKrConfig s_config = new() { R = 2, Alpha = 3, TargetModules = ModuleSelector.FromNames(["c_layer"]), InitWeights = InitWeights.Random };

    public static TheoryData<string> PeftCases => Fixtures.Cases("peft-layers");

    public static TheoryData<string, string, ScalarType> Layers
    {
        get
        {
            TheoryData<string, string, ScalarType> data = [];
            foreach (string layer in (string[])["linear", "embedding", "own embedding", "conv1d", "conv2d", "conv2d-grouped", "gpt2", "gpt2-square"])
            {
                foreach (string option in (string[])["plain", "full", "both", "tucker", "rows", "columns", "scalar"])
                {
                    data.Add(layer, option, ScalarType.BFloat16);
                }

                data.Add(layer, "rows", ScalarType.Float32);
            }

            foreach (string option in (string[])["plain", "rslora", "unbalanced", "factor1"])
            {
                data.Add("linear", option, ScalarType.Float32);
            }

            // More rows than a block holds.
            data.Add("wide", "factor1", ScalarType.Float32);
            data.Add("wide", "plain", ScalarType.Float16);
            data.Add("wide", "rows", ScalarType.Float64);
            data.Add("wide", "columns", ScalarType.BFloat16);
            return data;
        }
    }

    [Theory]
    [MemberData(nameof(PeftCases))]
    public void Files_of_PEFT_merge_into_the_weights_that_PEFT_merged(string name)
    {
        using DisposeScope scope = NewDisposeScope();
        using TempFolder folder = new();
        PeftCase peft = PeftCase.Open("peft-layers", name);
        string from = MergeFiles.Base(folder["base"], peft.Tensors("base.safetensors"));
        LoKrMergeResult result = MergeFiles.Run(MergeFiles.Options(from, folder["out"], Fixtures.Require("peft-layers", name)));

        using LoKrModel model = peft.BuildModel();
        model.LoadAdapter(peft.Config, peft.AdapterTensors());
        LoKrMergeResult inMemory = model.Merge();
        Dictionary<string, Tensor> merged = MergeFiles.Read(folder["out"]);
        Assert.Empty(MergeFiles.Differences(model.GetBaseState(), merged));
        Assert.Equal((inMemory.ModuleCount, inMemory.SavedModuleCount), (result.ModuleCount, result.SavedModuleCount));
        foreach ((string key, Tensor expected) in peft.Tensors("io.safetensors").Where(static pair => pair.Key.StartsWith("merged.", StringComparison.Ordinal)))
        {
            TensorAssert.Close(expected, merged[key["merged.".Length..]], TensorAssert.Layer, key);
        }
    }

    [Theory]
    [MemberData(nameof(Layers))]
    public void Every_kind_of_layer_and_option_has_the_bits_of_the_merge_in_memory(string layer, string option, ScalarType type)
    {
        using DisposeScope scope = NewDisposeScope();
        using TempFolder folder = new();
        random.manual_seed(3);
        using LoKrModel model = new(Network(layer, type));
        LoKrConfig config = Option(option);
        Dictionary<string, Tensor> before = MergeFiles.State(model);
        LoKrAdapter adapter = model.AddAdapter(config);
        Perturb(adapter);
        string from = MergeFiles.Base(folder["base"], before, config: layer.StartsWith("gpt2", StringComparison.Ordinal) ? """{"model_type": "gpt2"}""" : null);
        string saved = MergeFiles.Adapter(folder["adapter"], model);
        MergeFiles.Run(MergeFiles.Options(from, folder["one"], saved));
        MergeFiles.Run(MergeFiles.Options(from, folder["half"]) with { Adapters = [new AdapterMergeSource(saved, 0.5)] });

        model.Merge();
        Assert.NotEmpty(MergeFiles.Differences(before, model.GetBaseState()));
        Assert.Empty(MergeFiles.Differences(model.GetBaseState(), MergeFiles.Read(folder["one"])));
        model.UndoMerge();
        model.SetAdapterScale(["default"], 0.5);
        model.Merge();
        Assert.Empty(MergeFiles.Differences(model.GetBaseState(), MergeFiles.Read(folder["half"])));
        if (config.WeightDecompose)
        {
            MergeFiles.Run(MergeFiles.Options(from, folder["lycoris"]) with { Adapters = [new AdapterMergeSource(saved, 0.5) { DoraStrength = DoraStrength.Lycoris }] });
            model.UndoMerge();
            model.SetDoraStrength(["default"], DoraStrength.Lycoris);
            model.Merge();
            Assert.NotEmpty(MergeFiles.Differences(model.GetBaseState(), MergeFiles.Read(folder["half"])));
            Assert.Empty(MergeFiles.Differences(model.GetBaseState(), MergeFiles.Read(folder["lycoris"])));
        }
    }

    [Theory]
    [InlineData(ScalarType.Float32)]
    [InlineData(ScalarType.BFloat16)]
    public void Several_adapters_add_up_as_in_memory(ScalarType type)
    {
        using DisposeScope scope = NewDisposeScope();
        using TempFolder folder = new();
        random.manual_seed(4);
        using LoKrModel model = new(Network("linear", type));
        Dictionary<string, Tensor> before = MergeFiles.State(model);
        Perturb(model.AddAdapter(s_config, "a"));
        Perturb(model.AddAdapter(s_config with { DecomposeFactor = 4, DecomposeBoth = true }, "b"));
        Perturb(model.AddAdapter(s_config with { WeightDecompose = true, DecomposeFactor = 2 }, "c"));
        string[] saved = [.. "abc".Select(name => MergeFiles.Adapter(folder[name.ToString()], model, name.ToString()))];
        MergeFiles.Run(MergeFiles.Options(MergeFiles.Base(folder["base"], before), folder["out"], saved));

        model.Merge(["a", "b", "c"]);
        Assert.Empty(MergeFiles.Differences(model.GetBaseState(), MergeFiles.Read(folder["out"])));
    }

    [Theory]
    [InlineData(ScalarType.Float32)]
    [InlineData(ScalarType.BFloat16)]
    public void Trained_norms_are_merged_too(ScalarType type)
    {
        using DisposeScope scope = NewDisposeScope();
        using TempFolder folder = new();
        random.manual_seed(5);
        RmsNorm rootMeanSquare = new(60, 1e-6);
        nn.init.normal_(rootMeanSquare.Weight, 1, 0.1);
        nn.Module<Tensor, Tensor> network = nn.Sequential(("c_layer", nn.Linear(36, 60)), ("norm", nn.LayerNorm(60)), ("root_mean_square", rootMeanSquare));
        network.to(type);
        using LoKrModel model = new(network);
        Dictionary<string, Tensor> before = MergeFiles.State(model);
        Perturb(model.AddAdapter(s_config with { TrainNorm = true }, "a"));
        Perturb(model.AddAdapter(s_config with { TrainNorm = true }, "b"));
        string[] saved = [MergeFiles.Adapter(folder["a"], model, "a"), MergeFiles.Adapter(folder["b"], model, "b")];
        string from = MergeFiles.Base(folder["base"], before);
        MergeFiles.Run(MergeFiles.Options(from, folder["one"], saved[0]));
        LoKrMergeResult both = MergeFiles.Run(MergeFiles.Options(from, folder["both"], saved));
        Assert.Equal(model.Merge(["a"]).ModuleCount, both.ModuleCount);
        Assert.Empty(MergeFiles.Differences(model.GetBaseState(), MergeFiles.Read(folder["one"])));
        model.UndoMerge();
        model.Merge(["a", "b"]);
        Assert.Equal(["c_layer.bias"], before.Keys.Except(MergeFiles.Differences(before, model.GetBaseState())));
        Assert.Empty(MergeFiles.Differences(model.GetBaseState(), MergeFiles.Read(folder["both"])));
    }

    private static nn.Module<Tensor, Tensor> Network(string layer, ScalarType type)
    {
        nn.Module<Tensor, Tensor> module = layer switch
        {
            "linear" => nn.Linear(36, 60),
            "wide" => nn.Linear(2048, 1030),
            "embedding" => nn.Embedding(120, 24),
            "own embedding" => new Embedding(120, 24),
            "conv1d" => nn.Conv1d(12, 18, 3L),
            "conv2d" => nn.Conv2d(12, 18, 3L),
            "conv2d-grouped" => nn.Conv2d(12, 18, 3L, groups: 3),
            "gpt2" => new Conv1D(36, 60),
            "gpt2-square" => new Conv1D(36, 36),
            _ => throw new ArgumentException(layer, nameof(layer)),
        };
        using (no_grad())
        {
            foreach (TorchSharp.Modules.Parameter parameter in module.parameters())
            {
                nn.init.normal_(parameter, 0, 0.1);
            }
        }

        nn.Module<Tensor, Tensor> network = nn.Sequential(("other", nn.Linear(8, 8)), ("c_layer", module));
        network.to(type);
        return network;
    }

    private static LoKrConfig Option(string option)
    {
        LoKrConfig config = s_config;
        return option switch
        {
            "plain" => config,
            "full" => config with { R = 64 },
            "both" => config with { R = 1, DecomposeBoth = true },
            "tucker" => config with { UseEffectiveConv2d = true, R = 1 },
            "rows" => config with { WeightDecompose = true },
            "columns" => config with { WeightDecompose = true, WeightDecomposeAxis = WeightDecomposeAxis.Input },
            "scalar" => config with { UseScalar = true },
            "rslora" => config with { RsLora = true, Scaling = ScalingConvention.Lycoris },
            "unbalanced" => config with { UnbalancedFactorization = true, DecomposeFactor = 2 },
            "factor1" => config with { DecomposeFactor = 1 },
            _ => throw new ArgumentException(option, nameof(option)),
        };
    }

    private static void Perturb(LoKrAdapter adapter)
    {
        using IDisposable noGrad = no_grad();
        foreach (FlatParameter flat in adapter.FlatParameters)
        {
            foreach (Tensor view in flat.Views)
            {
                view.add_(randn_like(view) * 0.2);
            }
        }
    }
}
