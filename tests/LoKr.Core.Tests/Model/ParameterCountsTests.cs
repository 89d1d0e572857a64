using LoKr.Core.Configuration;
using LoKr.Core.Factors;
using LoKr.Core.Model;
using LoKr.Core.Tests.Support;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Model;

/// <summary>The tensors of PEFT's own test cases, and published parameter counts, on layers without memory.</summary>
public sealed class ParameterCountsTests
{
    /// <summary>Model; options; the tensors by module.</summary>
    public static TheoryData<string, string, string> Configurations => new()
    {
        { "mlp", "regex lin0", "lin0: w1 4×2, w2 5×5" },
        { "mlp", "lin0", "lin0: w1 4×2, w2 5×5" },
        { "mlp", "lin1", "lin1: w1 1×4, w2 2×5" },
        { "mlp", "lin0 lin1", "lin0: w1 4×2, w2 5×5; lin1: w1 1×4, w2 2×5" },
        { "mlp", "lin0 save=lin1", "lin0: w1 4×2, w2 5×5" },
        { "mlp", "lin0 alpha=4 module_dropout=0.1", "lin0: w1 4×2, w2 5×5" },
        { "mlp", "regex lin0 rank_dropout=0.5", "lin0: w1 4×2, w2 5×5" },
        { "mlp", "regex lin0 both r=1 alpha=1", "lin0: w1_a 4×1, w1_b 1×2, w2_a 5×1, w2_b 1×5" },
        { "conv1d", "conv1d", "conv1d: w1 1×1, w2 1×1×2" },
        { "conv1d", "conv1d r=2", "conv1d: w1 1×1, w2 1×1×2" },
        { "conv1d groups", "conv1d r=4", "conv1d: w1 2×2, w2 4×2×3" },
        { "conv1d bigger", "conv1d r=2 effective", "conv1d: w1 4×8, w2_a 2×4, w2_b 2×8, t2 2×2×2×1" },
        { "conv1d bigger", "conv1d r=2", "conv1d: w1 4×8, w2_a 4×2, w2_b 2×16" },
        { "conv2d", "conv2d", "conv2d: w1 2×1, w2 5×5×3×3" },
        { "conv2d", "conv2d lin0", "conv2d: w1 2×1, w2 5×5×3×3; lin0: w1 1×2, w2 2×5" },
        { "conv2d", "conv2d effective", "conv2d: w1 2×1, w2 5×5×3×3" },
        { "conv2d", "conv2d lin0 effective", "conv2d: w1 2×1, w2 5×5×3×3; lin0: w1 1×2, w2 2×5" },
        { "conv2d 1x1", "conv2d", "conv2d: w1 2×1, w2 5×1×1×1" },
        { "conv2d", "conv2d lin0 effective both", "conv2d: w1 2×1, w2 5×5×3×3; lin0: w1 1×2, w2 2×5" },
        { "conv2d", "conv2d lin0 effective factor=4", "conv2d: w1 2×1, w2 5×5×3×3; lin0: w1 1×2, w2 2×5" },
        { "conv2d", "conv2d lin0 effective both factor=4", "conv2d: w1 2×1, w2 5×5×3×3; lin0: w1 1×2, w2 2×5" },
        { "conv2d groups", "conv2d", "conv2d: w1 4×1, w2 4×2×3×3" },
        { "conv2d groups2", "conv2d", "conv2d: w1 4×2, w2 8×4×3×3" },
    };

    [Theory]
    [MemberData(nameof(Configurations))]
    public void Every_test_configuration_of_PEFT_creates_its_tensors(string network, string options, string expected)
    {
        using DisposeScope scope = NewDisposeScope();
        using LoKrModel model = new(Network(network));
        LoKrAdapter adapter = model.AddAdapter(Parse(options));
        Assert.Equal(expected, string.Join("; ", adapter.Layers.Select(static layer => $"{layer.ModuleName}: {layer.Shapes}")));
        Assert.Equal(expected, string.Join("; ", adapter.Layers.Select(static layer => $"{layer.ModuleName}: " + string.Join(", ", layer.Plan.Tensors
            .Select(tensor => $"{tensor.Suffix["lokr_".Length..]} {string.Join('×', layer.Factors.Tensors[tensor.Suffix].shape)}")))));
        Assert.Equal(options.Contains("save=lin1", StringComparison.Ordinal) ? ["lin1"] : [], adapter.SavedModules);
        Assert.All(adapter.GetTensors().Values, static tensor => Assert.Equal(DeviceType.META, tensor.device_type));
    }

    [Fact]
    public void Llama_3_2_3B_with_rank_32_and_factor_4_has_the_published_count()
    {
        LoKrConfig config = new() { R = 32, DecomposeFactor = 4 };
        (long Out, long In)[] layers = [.. Enumerable.Repeat(new[] { (3072L, 3072L), (1024L, 3072L) }, 28).SelectMany(static pair => pair)];
        Assert.Equal(2_294_656, Count(layers, config));
        Assert.Equal(279_552, Count(layers, config with { DecomposeFactor = -1 }));
    }

    [Fact]
    public void ViT_base_with_a_classifier_of_101_classes_has_the_published_count() =>
        Assert.Equal(116_069, Count(Enumerable.Repeat((768L, 768L), 24), new() { R = 16 }) + (768 * 101) + 101);

    /// <summary>LyCORIS's published table for Stable Diffusion 1.5 (file sizes), recomputed from its shape rules: blocks of the UNet and the text encoder.</summary>
    [Theory]
    [InlineData(1, -1, true, 211_240)]
    [InlineData(int.MaxValue, -1, true, 539_776)]
    [InlineData(8, 4, true, 1_183_872)]
    [InlineData(int.MaxValue, 8, true, 5_515_520)]
    [InlineData(int.MaxValue, 4, false, 7_616_768)]
    [InlineData(int.MaxValue, 4, true, 21_998_720)]
    public void Stable_Diffusion_1_5_has_the_counts_of_the_published_files(int rank, int factor, bool withMlp, long expected)
    {
        List<(long Out, long In)> layers = [];
        foreach ((long width, int blocks) in new[] { (320L, 5), (640L, 5), (1280L, 6) })
        {
            for (int block = 0; block < blocks; block++)
            {
                layers.AddRange(Enumerable.Repeat((width, width), 6));
                layers.AddRange([(width, 768), (width, 768)]);
                layers.AddRange(withMlp ? [(8 * width, width), (width, 4 * width), (width, width), (width, width)] : []);
            }
        }

        for (int layer = 0; layer < 12; layer++)
        {
            layers.AddRange(Enumerable.Repeat((768L, 768L), 4));
            layers.AddRange(withMlp ? [(3072, 768), (768, 3072)] : []);
        }

        Assert.Equal(withMlp ? 264 : 176, layers.Count);
        Assert.Equal(expected, Count(layers, new() { R = rank, DecomposeFactor = factor, Factorization = FactorizationConvention.Lycoris }));
    }

    [Fact]
    public void Flux2_klein_4B_with_eleven_kinds_of_modules_has_the_published_count()
    {
        // Five double blocks: eight projections of the joint attention, two gated feed-forwards; twenty single blocks: the fused projection.
        List<(long Out, long In)> layers = [.. Enumerable.Repeat((3072L, 3072L), 5 * 8), .. Enumerable.Repeat((27648L, 3072L), 20)];
        layers.AddRange(Enumerable.Repeat(new[] { (18432L, 3072L), (3072L, 9216L) }, 5 * 2).SelectMany(static pair => pair));
        Assert.Equal(783_360, Count(layers, new() { R = 32 }));
    }

    private static long Count(IEnumerable<(long Out, long In)> layers, LoKrConfig config)
    {
        using DisposeScope scope = NewDisposeScope();
        using LoKrModel model = new(TestNetworks.Network([.. layers.Select(static (layer, index) => ($"l{index}", (nn.Module<Tensor, Tensor>)nn.Linear(layer.In, layer.Out, device: META)))]));
        return model.AddAdapter(config with { TargetModules = ModuleSelector.FromPattern("l\\d+") }).ParameterCount;
    }

    internal static LoKrConfig Parse(string options)
    {
        string[] words = options.Split(' ');
        LoKrConfig config = new();
        List<string> names = [];
        foreach (string word in words)
        {
            string[] pair = word.Split('=');
            double Value() => double.Parse(pair[1], System.Globalization.CultureInfo.InvariantCulture);
            switch (pair[0])
            {
                case "regex": break;
                case "both": config = config with { DecomposeBoth = true }; break;
                case "effective": config = config with { UseEffectiveConv2d = true }; break;
                case "save": config = config with { ModulesToSave = [pair[1]] }; break;
                case "r": config = config with { R = (int)Value() }; break;
                case "alpha": config = config with { Alpha = Value() }; break;
                case "factor": config = config with { DecomposeFactor = (int)Value() }; break;
                case "module_dropout": config = config with { ModuleDropout = Value() }; break;
                case "rank_dropout": config = config with { RankDropout = Value() }; break;
                default: names.Add(word); break;
            }
        }

        return config with { TargetModules = words[0] == "regex" ? ModuleSelector.FromPattern(names.Single()) : ModuleSelector.FromNames(names) };
    }

    private static nn.Module<Tensor, Tensor> Network(string name)
    {
        nn.Module<Tensor, Tensor> Conv1d(long inputs, long outputs, long kernel, long groups = 1) => nn.Conv1d(inputs, outputs, kernel, groups: groups, device: META);
        nn.Module<Tensor, Tensor> Conv2d(long inputs, long outputs, long kernel, long groups = 1) => nn.Conv2d(inputs, outputs, kernel, groups: groups, device: META);
        nn.Module<Tensor, Tensor> Linear(long inputs, long outputs) => nn.Linear(inputs, outputs, device: META);
        return name switch
        {
            "mlp" => TestNetworks.Network(("lin0", Linear(10, 20)), ("relu", nn.ReLU()), ("lin1", Linear(20, 2))),
            "conv1d" => TestNetworks.Network(("conv1d", Conv1d(1, 1, 2)), ("lin0", Linear(9, 2))),
            "conv1d bigger" => TestNetworks.Network(("conv1d", Conv1d(64, 16, 2)), ("lin0", Linear(144, 2))),
            "conv1d groups" => TestNetworks.Network(("conv1d", Conv1d(8, 8, 3, 2)), ("lin0", Linear(64, 2))),
            "conv2d" => TestNetworks.Network(("conv2d", Conv2d(5, 10, 3)), ("lin0", Linear(10, 2))),
            "conv2d 1x1" => TestNetworks.Network(("conv2d", Conv2d(1, 10, 1)), ("lin0", Linear(90, 2))),
            "conv2d groups" => TestNetworks.Network(("lin0", Linear(90, 288)), ("conv2d", Conv2d(16, 16, 3, 8)), ("lin1", Linear(16, 2))),
            "conv2d groups2" => TestNetworks.Network(("conv2d", Conv2d(16, 32, 3, 2)), ("lin0", Linear(12800, 2))),
            _ => throw new ArgumentOutOfRangeException(nameof(name), name, null),
        };
    }
}
