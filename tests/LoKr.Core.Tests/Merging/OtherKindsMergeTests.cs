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
        ErrorAssert.Throws(ErrorIds.AdapterTypeNotSupported, () => AdapterImporter.Import(model, AdapterFile.Open(path)), kind);
        Assert.Equal(ErrorIds.AdapterTypeNotSupported, AdapterValidator.Check(path, new() { Model = model }).Findings[0].ErrorId);
        ErrorAssert.Throws(ErrorIds.AdapterTypeNotSupported, () => AdapterConverter.Convert(path, _folder["peft"], AdapterLayout.Peft, new() { Model = model }, out _), kind);
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
