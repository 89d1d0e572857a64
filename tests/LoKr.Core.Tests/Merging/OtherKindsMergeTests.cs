using LoKr.Core.Errors;
using LoKr.Core.Layouts;
using LoKr.Core.Merging;
using LoKr.Core.Merging.Checkpoints;
using LoKr.Core.Model;
using LoKr.Core.Safetensors;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Merging;

/// <summary>Files without any LoKr factor: LoRA, LoHa and whole differences, merged as the programs that wrote them compute it.</summary>
public sealed class OtherKindsMergeTests : IDisposable
{
    private const string Module = "model.layers.0.self_attn.q_proj";
    private const long Rows = 12;
    private const long Columns = 8;
    private const double Alpha = 3;

    private readonly TempFolder _folder = new();
    private readonly DisposeScope _scope = NewDisposeScope();
    private readonly Tensor _weight;
    private readonly string _base;

    public OtherKindsMergeTests()
    {
        manual_seed(23);
        _weight = randn(Rows, Columns);
        _base = MergeFiles.Base(_folder["base"], new Dictionary<string, Tensor> { [Module + ".weight"] = _weight, ["model.norm.weight"] = ones(Columns) });
    }

    public void Dispose()
    {
        _scope.Dispose();
        _folder.Dispose();
    }

    [Theory]
    [InlineData("lora_A.weight", "lora_B.weight", true)]
    [InlineData("lora_down.weight", "lora_up.weight", true)]
    [InlineData("lora_down.weight", "lora_up.weight", false)]
    public void Lora_alone_is_merged_with_its_scale(string down, string up, bool hasAlpha)
    {
        const long rank = 2;
        (Tensor a, Tensor b) = (randn(rank, Columns), randn(Rows, rank));
        Dictionary<string, Tensor> tensors = new() { [$"{Module}.{down}"] = a, [$"{Module}.{up}"] = b };
        if (hasAlpha)
        {
            tensors.Add(Module + ".alpha", tensor((float)Alpha));
        }

        Check(tensors, b.mm(a) * (hasAlpha ? Alpha / rank : 1));
    }

    [Fact]
    public void Loha_alone_is_merged_with_its_scale()
    {
        const long rank = 2;
        (Tensor a1, Tensor b1, Tensor a2, Tensor b2) = (randn(Rows, rank), randn(rank, Columns), randn(Rows, rank), randn(rank, Columns));
        Check(
            new()
            {
                [Module + ".hada_w1_a"] = a1, [Module + ".hada_w1_b"] = b1, [Module + ".hada_w2_a"] = a2, [Module + ".hada_w2_b"] = b2, [Module + ".alpha"] = tensor((float)Alpha),
            },
            a1.mm(b1) * a2.mm(b2) * (Alpha / rank));
    }

    [Fact]
    public void Differences_alone_are_added()
    {
        Tensor difference = randn(Rows, Columns);
        Check(new() { [Module + ".diff"] = difference }, difference);
    }

    [Fact]
    public void Differences_of_the_weight_and_the_bias_of_a_norm_are_added_in_folders_and_single_files()
    {
        const string norm = "model.layers.0.input_layernorm";
        Dictionary<string, Tensor> weights = new() { [norm + ".weight"] = randn(Columns), [norm + ".bias"] = randn(Columns), [Module + ".weight"] = _weight };
        Dictionary<string, Tensor> changes = new() { [norm + ".diff"] = randn(Columns), [norm + ".diff_b"] = randn(Columns) };
        string adapter = Write(changes);
        LoKrMergeResult folder = MergeFiles.Run(MergeFiles.Options(MergeFiles.Base(_folder["norms"], weights), _folder["merged"], adapter));
        SafetensorsWriter.Write(_folder["norms.safetensors"], weights);
        LoKrMergeResult file = MergeFiles.Run(MergeFiles.Options(_folder["norms.safetensors"], _folder["merged.safetensors"], adapter));

        // Two tensors of one norm, and no module that was trained whole.
        Assert.Equal((2, 0), (folder.ModuleCount, folder.SavedModuleCount));
        Assert.Equal((2, 0), (file.ModuleCount, file.SavedModuleCount));
        Dictionary<string, Tensor> merged = MergeFiles.Read(_folder["merged"]);
        using SafetensorsReader single = SafetensorsReader.Open(_folder["merged.safetensors"]);
        Assert.True(TensorAssert.Same(weights[norm + ".weight"] + changes[norm + ".diff"], merged[norm + ".weight"]));
        Assert.True(TensorAssert.Same(weights[norm + ".bias"] + changes[norm + ".diff_b"], merged[norm + ".bias"]));
        Assert.True(TensorAssert.Same(_weight, merged[Module + ".weight"]));
        Assert.All(merged, pair => Assert.True(TensorAssert.Same(pair.Value, single.Read(pair.Key)), pair.Key));
    }

    [Fact]
    public void Lora_with_the_names_of_PEFT_needs_its_alpha()
    {
        (Tensor a, Tensor b) = (randn(2, Columns), randn(Rows, 2));
        string path = Write(new() { [$"base_model.model.{Module}.lora_A.weight"] = a, [$"base_model.model.{Module}.lora_B.weight"] = b });
        ErrorAssert.Throws(ErrorIds.AdapterScaleUnknown, () => Merge(path, new()), Module);
        Merge(path, new() { Alpha = 6 });
        TensorAssert.Close(_weight + (b.mm(a) * 3), MergeFiles.Read(_folder["out"])[Module + ".weight"], 1e-6, "weight");
    }

    [Fact]
    public void What_cannot_be_merged_is_still_refused()
    {
        string path = Write(new() { [Module + ".oft_blocks"] = randn(2, 2, 2) });
        ErrorAssert.Throws(ErrorIds.AdapterTypeNotSupported, () => Merge(path, new()), "OFT");
        path = Write(new() { [Module + ".hada_w1_a"] = randn(Rows, 2) });
        ErrorAssert.Throws(ErrorIds.AdapterTypeNotSupported, () => Merge(path, new()), "LoHa");
    }

    [Fact]
    public void Lora_alone_is_described_and_gets_the_names_of_another_program()
    {
        string path = Write(new() { ["lora_unet_fc.lora_up.weight"] = randn(Rows, 2), ["lora_unet_fc.lora_down.weight"] = randn(2, Columns), ["lora_unet_fc.alpha"] = tensor(1f) });
        LoKrAdapterInfo info = AdapterInspector.Inspect(path);
        Assert.Equal((0, 1, (2 * Rows) + (2 * Columns)), (info.ModuleCount, info.OtherCount, info.ParameterCount));
        Assert.Equal(["Unet"], info.Components);
        Assert.Equal("float32", info.DType);
        using LoKrModel model = new(nn.Sequential(("fc", nn.Linear(Columns, Rows))));
        AdapterConverter.Convert(path, _folder["comfy.safetensors"], AdapterLayout.Comfy, new() { Model = model }, out _);
        using SafetensorsReader before = SafetensorsReader.Open(path);
        using SafetensorsReader after = SafetensorsReader.Open(_folder["comfy.safetensors"]);
        Assert.Equal(3, after.Entries.Count);
        foreach (string suffix in (string[])["lora_up.weight", "lora_down.weight", "alpha"])
        {
            Assert.True(TensorAssert.Same(before.Read("lora_unet_fc." + suffix), after.Read("diffusion_model.fc." + suffix)), suffix);
        }
    }

    [Theory]
    [InlineData("lora_unet_fc.lora_up.weight", "LoRA")]
    [InlineData("lora_unet_fc.hada_w1_a", "LoHa")]
    public void Where_only_LoKr_is_read_the_error_says_what_the_file_has(string name, string kind)
    {
        string path = Write(new() { [name] = randn(Rows, 2) });
        using LoKrModel model = new(nn.Sequential(("fc", nn.Linear(Columns, Rows))));
        using (AdapterFile file = AdapterFile.Open(path))
        {
            ErrorAssert.Throws(ErrorIds.AdapterTypeNotSupported, () => AdapterImporter.Import(model, file), kind);
        }

        Assert.Equal(ErrorIds.AdapterTypeNotSupported, AdapterValidator.Check(path, new() { Model = model }).Findings[0].ErrorId);
        ErrorAssert.Throws(ErrorIds.AdapterTypeNotSupported, () => AdapterConverter.Convert(path, _folder["peft"], AdapterLayout.Peft, new() { Model = model }, out _), kind);
    }

    [Fact]
    public void Kinds_beside_LoKr_are_all_merged_in_one_file()
    {
        const string norm = "model.norm";
        string[] modules = [.. Enumerable.Range(0, 5).Select(static i => $"model.layers.{i}.mlp")];
        Dictionary<string, Tensor> weights = modules.SelectMany(static module => ((string, Tensor)[])[(module + ".weight", randn(Rows, Columns)), (module + ".bias", randn(Rows))]).Append((norm + ".weight", randn(Columns))).Append((norm + ".bias", randn(Columns)))
            .ToDictionary(static pair => pair.Item1, static pair => pair.Item2);
        string from = MergeFiles.Base(_folder["mixed"], weights);
        Tensor Random(params long[] shape) => randn(shape);
        Dictionary<string, Tensor> lokr = new() { [modules[0] + ".lokr_w1"] = Random(3, 2), [modules[0] + ".lokr_w2_a"] = Random(4, 2), [modules[0] + ".lokr_w2_b"] = Random(2, 4), [modules[0] + ".alpha"] = tensor(1f) };
        Dictionary<string, Tensor> norms = new() { [norm + ".w_norm"] = Random(Columns), [norm + ".b_norm"] = Random(Columns) };
        Dictionary<string, Tensor> others = new()
        {
            // LoKr, a difference and a bias on one module; the alpha is that of LoKr.
            [modules[0] + ".diff"] = Random(Rows, Columns), [modules[0] + ".diff_b"] = Random(Rows),
            [modules[1] + ".lora_up.weight"] = Random(Rows, 2), [modules[1] + ".lora_down.weight"] = Random(2, Columns), [modules[1] + ".alpha"] = tensor(6f),
            [modules[2] + ".hada_w1_a"] = Random(Rows, 2), [modules[2] + ".hada_w1_b"] = Random(2, Columns), [modules[2] + ".hada_w2_a"] = Random(Rows, 2), [modules[2] + ".hada_w2_b"] = Random(2, Columns), [modules[2] + ".alpha"] = tensor(1f),
            [modules[3] + ".lora_up.weight"] = Random(Rows, 2), [modules[3] + ".lora_down.weight"] = Random(2, Columns), [modules[3] + ".dora_scale"] = rand(Rows, 1) + 1,
            [modules[4] + ".hada_w1_a"] = Random(Rows, 2), [modules[4] + ".hada_w1_b"] = Random(2, Columns), [modules[4] + ".hada_w2_a"] = Random(Rows, 2), [modules[4] + ".hada_w2_b"] = Random(2, Columns), [modules[4] + ".dora_scale"] = rand(1, Columns) + 1,
        };
        Dictionary<string, Tensor> all = new(lokr.Concat(norms).Concat(others));
        SafetensorsWriter.Write(_folder["all.safetensors"], all);
        LoKrMergeResult result = MergeFiles.Run(MergeFiles.Options(from, _folder["all"], _folder["all.safetensors"]));

        // Weights of five modules, the bias of one, both of the norm.
        Assert.Equal(8, result.ModuleCount);
        Tensor Lora(string module) => all[module + ".lora_up.weight"].mm(all[module + ".lora_down.weight"]);
        Tensor Loha(string module) => all[module + ".hada_w1_a"].mm(all[module + ".hada_w1_b"]) * all[module + ".hada_w2_a"].mm(all[module + ".hada_w2_b"]);
        Tensor rows = weights[modules[3] + ".weight"] + Lora(modules[3]);
        Tensor columns = weights[modules[4] + ".weight"] + Loha(modules[4]);
        Dictionary<string, Tensor> expected = new(weights)
        {
            [modules[0] + ".weight"] = weights[modules[0] + ".weight"] + (kron(lokr[modules[0] + ".lokr_w1"], lokr[modules[0] + ".lokr_w2_a"].mm(lokr[modules[0] + ".lokr_w2_b"])) * 0.5) + others[modules[0] + ".diff"],
            [modules[0] + ".bias"] = weights[modules[0] + ".bias"] + others[modules[0] + ".diff_b"],
            [modules[1] + ".weight"] = weights[modules[1] + ".weight"] + (Lora(modules[1]) * 3),
            [modules[2] + ".weight"] = weights[modules[2] + ".weight"] + (Loha(modules[2]) * 0.5),
            [modules[3] + ".weight"] = rows * (all[modules[3] + ".dora_scale"] / linalg.vector_norm(rows, 2, [1], true)),
            [modules[4] + ".weight"] = columns * (all[modules[4] + ".dora_scale"] / linalg.vector_norm(columns, 2, [0], true)),
            [norm + ".weight"] = weights[norm + ".weight"] + norms[norm + ".w_norm"],
            [norm + ".bias"] = weights[norm + ".bias"] + norms[norm + ".b_norm"],
        };
        Dictionary<string, Tensor> merged = MergeFiles.Read(_folder["all"]);
        Assert.All(expected, pair => TensorAssert.Close(pair.Value, merged[pair.Key], 1e-6, pair.Key));

        // A single file has the same bits.
        SafetensorsWriter.Write(_folder["single.safetensors"], weights);
        MergeFiles.Run(MergeFiles.Options(_folder["single.safetensors"], _folder["single-out.safetensors"], _folder["all.safetensors"]));
        using (SafetensorsReader single = SafetensorsReader.Open(_folder["single-out.safetensors"]))
        {
            Assert.All(merged, pair => Assert.True(TensorAssert.Same(pair.Value, single.Read(pair.Key)), pair.Key));
        }

        InMemory(from, weights, modules, new(lokr.Concat(norms)), all);
    }

    /// <summary>Adapters of a model in memory are LoKr and norms alone: these with the bits of the disk, and an error that counts the others, which are merged into it as a file.</summary>
    private void InMemory(string from, Dictionary<string, Tensor> weights, string[] modules, Dictionary<string, Tensor> own, Dictionary<string, Tensor> all)
    {
        using LoKrModel model = Model(weights, modules);
        LoKrMergeResult result = FileMerge.Merge(model, [new AdapterMergeSource(_folder["all.safetensors"])], cancellation: TestContext.Current.CancellationToken);
        Assert.Equal(8, result.ModuleCount);
        Assert.Empty(MergeFiles.Differences(MergeFiles.Read(_folder["all"]), MergeFiles.State(model)));
        model.UndoMerge();
        Assert.Empty(MergeFiles.Differences(weights, MergeFiles.State(model)));
        SafetensorsWriter.Write(_folder["own.safetensors"], own);
        MergeFiles.Run(MergeFiles.Options(from, _folder["own"], _folder["own.safetensors"]));
        using AdapterFile file = AdapterFile.Open(_folder["all.safetensors"]);
        ErrorAssert.Throws(ErrorIds.AdapterTypeNotSupported, () => AdapterImporter.Import(model, file), "LoRA", "LoHa", "difference");
        AdapterImporter.Import(model, file, new() { Foreign = ForeignTensors.Skip });
        model.Merge();
        Dictionary<string, Tensor> expected = MergeFiles.Read(_folder["own"]);
        Dictionary<string, Tensor> actual = MergeFiles.State(model);
        Assert.Empty(MergeFiles.Differences(expected, actual));
        Assert.False(TensorAssert.Same(weights["model.norm.bias"], actual["model.norm.bias"]));
        Assert.True(all.Count > own.Count);
    }

    private static LoKrModel Model(Dictionary<string, Tensor> weights, string[] modules)
    {
        TorchSharp.Modules.LayerNorm norm = nn.LayerNorm(Columns);
        (string, nn.Module<Tensor, Tensor>)[] layers = [.. modules.Select((_, i) => ($"{i}", (nn.Module<Tensor, Tensor>)nn.Sequential(("mlp", nn.Linear(Columns, Rows)))))];
        nn.Module<Tensor, Tensor> root = nn.Sequential(("model", nn.Sequential(("layers", nn.Sequential(layers)), ("norm", norm))));
        foreach ((string name, TorchSharp.Modules.Parameter parameter) in root.named_parameters())
        {
            using IDisposable noGrad = no_grad();
            parameter.copy_(weights[name]);
        }

        return new(root);
    }

    private void Check(Dictionary<string, Tensor> tensors, Tensor delta)
    {
        LoKrMergeResult result = Merge(Write(tensors), new());
        Assert.Equal(1, result.ModuleCount);
        TensorAssert.Close(_weight + delta, MergeFiles.Read(_folder["out"])[Module + ".weight"], 1e-6, "weight");
    }

    private LoKrMergeResult Merge(string adapter, AdapterReadOptions read) =>
        MergeFiles.Run(new() { Base = CheckpointBase.Read(_base), Destination = _folder["out"], Adapters = [new AdapterMergeSource(adapter) { Read = read }], Force = true });

    private string Write(Dictionary<string, Tensor> tensors)
    {
        SafetensorsWriter.Write(_folder["style.safetensors"], tensors);
        return _folder["style.safetensors"];
    }
}
