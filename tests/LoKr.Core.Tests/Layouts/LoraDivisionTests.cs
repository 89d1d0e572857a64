using LoKr.Core.Errors;
using LoKr.Core.Layouts;
using LoKr.Core.Safetensors;
using LoKr.Core.Tests.Merging;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Layouts;

/// <summary>LoRA of q, k and v for programs that have them as one weight, and the other way round: another division, and the same effect on the model.</summary>
public sealed class LoraDivisionTests : IDisposable
{
    private const long Size = 12;
    private const string Fused = "lora_unet_double_blocks_0_img_attn_qkv";
    private const string Half = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q";

    private readonly TempFolder _folder = new();
    private readonly DisposeScope _scope = NewDisposeScope();
    private readonly string _base;

    public LoraDivisionTests()
    {
        manual_seed(31);
        _base = _folder["base.safetensors"];
        SafetensorsWriter.Write(_base, new Dictionary<string, Tensor>
        {
            ["double_blocks.0.img_attn.qkv.weight"] = randn(3 * Size, Size),
            ["double_blocks.0.img_mlp.0.weight"] = randn(4 * Size, Size),
            ["final_layer.adaLN_modulation.1.weight"] = randn(2 * Size, Size),
            ["img_in.weight"] = randn(Size, Size),
            ["single_blocks.0.modulation.lin.weight"] = randn(3 * Size, Size),
            ["double_blocks.0.img_mod.lin.weight"] = randn(6 * Size, Size),
        });
    }

    public void Dispose()
    {
        _scope.Dispose();
        _folder.Dispose();
    }

    [Theory]
    [InlineData("transformer.transformer_blocks.0.attn.to_", "lora_A.weight", "lora_B.weight", "qkv")]
    [InlineData("lora_transformer_transformer_blocks_0_attn_to_", "lora_down.weight", "lora_up.weight", "qkv")]
    [InlineData("lora_transformer_transformer_blocks_0_attn_to_", "lora_down.weight", "lora_up.weight", "kv")]
    public void Parts_become_one_module_block_by_block(string prefix, string down, string up, string parts)
    {
        Dictionary<string, Tensor> tensors = [];
        foreach ((char part, int i) in parts.Select(static (part, i) => (part, i)))
        {
            tensors.Add($"{prefix}{part}.{down}", randn(i + 2, Size));
            tensors.Add($"{prefix}{part}.{up}", randn(Size, i + 2));
            tensors.Add($"{prefix}{part}.alpha", tensor(3f));
        }

        string source = Write("parts.safetensors", tensors);
        LoKrAdapterInfo info = AdapterConverter.Convert(source, _folder["kohya.safetensors"], default, new() { Program = AdapterProgram.Kohya }, out IReadOnlyList<string> warnings);
        Assert.Empty(warnings);
        Assert.Equal(4, info.OtherCount);
        using (SafetensorsReader file = SafetensorsReader.Open(_folder["kohya.safetensors"]))
        {
            long rank = parts.Length == 3 ? 9 : 5;
            Assert.Equal([$"{Fused}.alpha", $"{Fused}.lora_down.weight", $"{Fused}.lora_up.weight"], file.Entries.Keys.Where(static name => name.Contains("attn", StringComparison.Ordinal)).Order(StringComparer.Ordinal));
            Assert.Equal([rank, Size], file.Entries[$"{Fused}.lora_down.weight"].Shape);
            Assert.Equal([3 * Size, rank], file.Entries[$"{Fused}.lora_up.weight"].Shape);
            if (parts == "kv")
            {
                Assert.Equal(0, file.Read($"{Fused}.lora_up.weight").narrow(0, 0, Size).abs().max().item<float>());
            }
        }

        Assert.DoesNotContain(AdapterValidator.Check(_folder["kohya.safetensors"], new() { Program = AdapterProgram.Kohya }).Findings, static finding => finding.Severity == LoKrFindingSeverity.Error);
        SameEffect(source, _folder["kohya.safetensors"]);
    }

    [Fact]
    public void Parts_that_share_the_matrix_of_the_columns_keep_their_rank_and_their_numbers()
    {
        Tensor down = randn(2, Size);
        Dictionary<string, Tensor> tensors = [];
        foreach (char part in "qkv")
        {
            tensors.Add($"transformer.transformer_blocks.0.attn.to_{part}.lora_A.weight", down);
            tensors.Add($"transformer.transformer_blocks.0.attn.to_{part}.lora_B.weight", randn(Size, 2));
            tensors.Add($"transformer.transformer_blocks.0.attn.to_{part}.alpha", tensor(1f));
        }

        string source = Write("shared.safetensors", tensors);
        AdapterConverter.Convert(source, _folder["kohya.safetensors"], default, new() { Program = AdapterProgram.Kohya }, out _);
        using SafetensorsReader file = SafetensorsReader.Open(_folder["kohya.safetensors"]);
        Assert.True(TensorAssert.Same(down, file.Read($"{Fused}.lora_down.weight")));
        Assert.True(TensorAssert.Same(cat([.. "qkv".Select(part => tensors[$"transformer.transformer_blocks.0.attn.to_{part}.lora_B.weight"])], 0), file.Read($"{Fused}.lora_up.weight")));
        Assert.Equal(1, file.ReadNumber($"{Fused}.alpha"));
        SameEffect(source, _folder["kohya.safetensors"]);
    }

    [Fact]
    public void Scales_that_differ_are_multiplied_into_the_rows_without_rounding_them()
    {
        Dictionary<string, Tensor> tensors = [];
        foreach ((char part, float alpha) in "qkv".Zip([2f, 2f, 3f]))
        {
            tensors.Add($"transformer.transformer_blocks.0.attn.to_{part}.lora_A.weight", randn(2, Size).to(bfloat16));
            tensors.Add($"transformer.transformer_blocks.0.attn.to_{part}.lora_B.weight", randn(Size, 2).to(bfloat16));
            tensors.Add($"transformer.transformer_blocks.0.attn.to_{part}.alpha", tensor(alpha));
        }

        string source = Write("scales.safetensors", tensors);
        AdapterConverter.Convert(source, _folder["kohya.safetensors"], default, new() { Program = AdapterProgram.Kohya }, out _);
        using SafetensorsReader file = SafetensorsReader.Open(_folder["kohya.safetensors"]);
        Assert.Equal(SafetensorsDType.BF16, file.Entries[$"{Fused}.lora_down.weight"].DType);
        Tensor rows = file.Read($"{Fused}.lora_up.weight", float64).narrow(0, 2 * Size, Size).narrow(1, 4, 2);
        Assert.True(TensorAssert.Same(tensors["transformer.transformer_blocks.0.attn.to_v.lora_B.weight"].to(float64) * 1.5, rows.contiguous()));
        SameEffect(source, _folder["kohya.safetensors"]);
    }

    [Fact]
    public void A_fused_module_is_cut_and_its_halves_change_places_for_a_program_with_published_names()
    {
        const string final = "lora_unet_final_layer_adaLN_modulation_1";
        Dictionary<string, Tensor> tensors = new()
        {
            [$"{Fused}.lora_down.weight"] = randn(2, Size), [$"{Fused}.lora_up.weight"] = randn(3 * Size, 2), [$"{Fused}.alpha"] = tensor(1f),
            [$"{final}.lora_down.weight"] = randn(2, Size), [$"{final}.lora_up.weight"] = randn(2 * Size, 2), [$"{final}.alpha"] = tensor(1f),
        };
        string source = Write("kohya.safetensors", tensors);
        AdapterConverter.Convert(source, _folder["ai-toolkit.safetensors"], default, new() { Program = AdapterProgram.AiToolkit }, out _);
        using SafetensorsReader file = SafetensorsReader.Open(_folder["ai-toolkit.safetensors"]);
        Tensor up = tensors[$"{Fused}.lora_up.weight"];
        foreach ((char part, int i) in "qkv".Select(static (part, i) => (part, i)))
        {
            Assert.True(TensorAssert.Same(up.narrow(0, i * Size, Size).contiguous(), file.Read($"transformer.transformer_blocks.0.attn.to_{part}.lora_B.weight")));
            Assert.True(TensorAssert.Same(tensors[$"{Fused}.lora_down.weight"], file.Read($"transformer.transformer_blocks.0.attn.to_{part}.lora_A.weight")));
        }

        Assert.True(TensorAssert.Same(roll(tensors[$"{final}.lora_up.weight"], Size, 0).contiguous(), file.Read("transformer.norm_out.linear.lora_B.weight")));
        SameEffect(source, _folder["ai-toolkit.safetensors"]);
        AdapterConverter.Convert(source, _folder["split.safetensors"], AdapterLayout.Comfy, new() { Division = ModuleDivision.Split }, out _);
        SameEffect(source, _folder["split.safetensors"]);
    }

    [Fact]
    public void Magnitudes_of_rows_go_with_their_rows()
    {
        string source = Write("dora.safetensors", new()
        {
            [$"{Fused}.lora_down.weight"] = randn(2, Size), [$"{Fused}.lora_up.weight"] = randn(3 * Size, 2), [$"{Fused}.alpha"] = tensor(1f), [$"{Fused}.dora_scale"] = rand(3 * Size, 1) + 1,
        });
        AdapterConverter.Convert(source, _folder["parts.safetensors"], default, new() { Program = AdapterProgram.SimpleTuner }, out _);
        using (SafetensorsReader file = SafetensorsReader.Open(_folder["parts.safetensors"]))
        {
            Assert.Equal([Size, 1], file.Entries["lycoris_transformer_blocks_0_attn_to_k.dora_scale"].Shape);
        }

        SameEffect(source, _folder["parts.safetensors"]);
    }

    [Fact]
    public void What_no_matrices_of_the_whole_weight_mean_is_refused()
    {
        const string q = "transformer.transformer_blocks.0.attn.to_q.";
        AdapterConvertOptions fused = new() { Division = ModuleDivision.Fused };
        void Refused(Dictionary<string, Tensor> tensors, string says)
        {
            string source = Write("refused.safetensors", tensors);
            ErrorAssert.Throws(ErrorIds.ConversionUnsupported, () => AdapterConverter.Convert(source, _folder["fused.safetensors"], AdapterLayout.Comfy, fused, out _), says);
            Assert.False(File.Exists(_folder["fused.safetensors"]));
        }

        Refused(new() { [q + "diff"] = randn(Size, Size) }, "a full difference");
        Dictionary<string, Tensor> lora = new() { [q + "lora_A.weight"] = randn(2, Size), [q + "lora_B.weight"] = randn(Size, 2) };
        Refused(new(lora) { [q + "dora_scale"] = rand(Size, 1) + 1 }, "DoRA");
        Refused(new(lora) { [q.Replace("to_q", "to_k", StringComparison.Ordinal) + "lokr_w1"] = ones(3, 3), [q.Replace("to_q", "to_k", StringComparison.Ordinal) + "lokr_w2"] = ones(4, 4) }, "LoKr and LoRA");
        string one = Write("one.safetensors", new() { [$"{Fused}.lora_down.weight"] = randn(2, Size), [$"{Fused}.lora_up.weight"] = randn(3 * Size, 2), [$"{Fused}.dora_scale"] = ones(1, 1) });
        ErrorAssert.Throws(ErrorIds.ConversionUnsupported, () => AdapterConverter.Convert(one, _folder["split.safetensors"], AdapterLayout.Comfy, new() { Division = ModuleDivision.Split }, out _), "DoRA");
        string odd = Write("odd.safetensors", new() { [q + "lora_A.weight"] = randn(2, Size), [q + "lora_B.weight"] = randn(Size + 1, 2) });
        ErrorAssert.Throws(ErrorIds.AdapterShapeMismatch, () => AdapterConverter.Convert(odd, _folder["fused.safetensors"], AdapterLayout.Comfy, fused, out _), "to_q");
        ErrorAssert.Throws(ErrorIds.ConversionUnsupported, () => AdapterConverter.Convert(odd, _folder["fused.safetensors"], default, new() { Program = AdapterProgram.Kohya }, out _), "to_q");
    }

    [Theory]
    [InlineData(AdapterProgram.Diffusers)]
    [InlineData(AdapterProgram.Kohya)]
    public void One_matrix_of_LoRA_alone_is_not_written_as_LoRA(AdapterProgram program)
    {
        string source = _folder["half.safetensors"];
        SafetensorsWriter.Write(source, new Dictionary<string, Tensor> { [$"{Half}.lora_up.weight"] = randn(8, 2), [$"{Half}.alpha"] = tensor(1f) });
        ErrorAssert.Throws(ErrorIds.ConversionUnsupported, () => AdapterConverter.Convert(source, _folder["out.safetensors"], default, new() { Program = program }, out _), "without one of its matrices");
    }

    /// <summary>Writes an adapter with modules beside the given ones that only Flux.1 has, in the names that these have.</summary>
    private string Write(string file, Dictionary<string, Tensor> tensors)
    {
        string first = tensors.Keys.First();
        bool isKohya = first.StartsWith("lora_", StringComparison.Ordinal);
        string[] names = first.Contains("double_blocks", StringComparison.Ordinal)
            ? ["img_in", "single_blocks.0.modulation.lin", "double_blocks.0.img_mod.lin"]
            : ["x_embedder", "single_transformer_blocks.0.norm.linear", "transformer_blocks.0.norm1.linear"];
        string prefix = first.Contains("double_blocks", StringComparison.Ordinal) ? "lora_unet_" : isKohya ? "lora_transformer_" : "transformer.";
        Dictionary<string, Tensor> all = new(tensors);
        foreach ((string name, long rows) in names.Zip([Size, 3 * Size, 6 * Size]))
        {
            string module = prefix + (isKohya ? name.Replace('.', '_') : name);
            all.Add($"{module}.{(isKohya ? "lora_down" : "lora_A")}.weight", randn(1, Size));
            all.Add($"{module}.{(isKohya ? "lora_up" : "lora_B")}.weight", randn(rows, 1));
        }

        SafetensorsWriter.Write(_folder[file], all);
        return _folder[file];
    }

    private void SameEffect(string first, string second)
    {
        foreach ((string adapter, string to) in ((string, string)[])[(first, "first.safetensors"), (second, "second.safetensors")])
        {
            MergeFiles.Run(MergeFiles.Options(_base, _folder[to], adapter) with { Force = true });
        }

        using SafetensorsReader before = SafetensorsReader.Open(_base);
        using SafetensorsReader expected = SafetensorsReader.Open(_folder["first.safetensors"]);
        using SafetensorsReader actual = SafetensorsReader.Open(_folder["second.safetensors"]);
        Assert.All(expected.Entries.Keys, name => TensorAssert.Close(expected.Read(name), actual.Read(name), 1e-6, name));
        Assert.Contains(expected.Entries.Keys, name => !TensorAssert.Same(before.Read(name), expected.Read(name)));
    }
}
