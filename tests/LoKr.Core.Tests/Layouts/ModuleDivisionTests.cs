using System.Text.Json;
using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Factors;
using LoKr.Core.Layouts;
using LoKr.Core.Merging.Checkpoints;
using LoKr.Core.Model;
using LoKr.Core.Safetensors;
using LoKr.Core.Tests.Merging;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Layouts;

/// <summary>Adapters of fused weights for programs and models that divide them, and the other way round.</summary>
public sealed class ModuleDivisionTests : IDisposable
{
    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void Rows_of_a_product_are_one_product_exactly_where_the_factors_allow_it()
    {
        string root = Fixtures.Require("checkpoints", "fused-split");
        using DisposeScope scope = NewDisposeScope();
        using SafetensorsReader values = SafetensorsReader.Open(Path.Combine(root, "io.safetensors"));
        using JsonDocument json = JsonDocument.Parse(File.ReadAllText(Path.Combine(root, "case.json")));
        foreach (JsonElement row in json.RootElement.GetProperty("rows").EnumerateArray())
        {
            string name = row.GetProperty("case").GetString()!;
            (long start, long length) = (row.GetProperty("start").GetInt64(), row.GetProperty("length").GetInt64());
            string part = $"{name}.{row.GetProperty("part").GetString()}";
            AdapterModule module = Module(values.Read($"{name}.lokr_w1"), values.Read($"{name}.lokr_w2"));
            Tensor expected = values.Read(part, float64);
            AdapterModule? slice = ModuleRows.Slice(module, start, length);
            Assert.Equal(row.GetProperty("exact").GetBoolean(), slice is not null);
            if (slice is not null)
            {
                AssertClose(part, expected, ModuleRows.Dense(slice));
            }

            AssertClose(part, expected, ModuleRows.Dense(ModuleRows.Whole(module, ModuleRows.Dense(module).narrow(0, start, length))));
            AdapterOther lora = ModuleRows.Lora(module, ModuleRows.Product(module, start, length));
            Assert.Equal(row.GetProperty("rank").GetInt64(), lora.Tensors["lora_down.weight"].shape[0]);
            AssertClose(part, expected, lora.Tensors["lora_up.weight"].to(float64).mm(lora.Tensors["lora_down.weight"].to(float64)));
        }
    }

    [Fact]
    public void An_adapter_of_fused_weights_has_the_bits_of_the_merge_on_disk_on_a_model_in_memory_that_divides_them()
    {
        using DisposeScope scope = NewDisposeScope();
        using LoKrModel model = new(Tree(s_flux.Select(static name => (name, (nn.Module<Tensor, Tensor>)nn.Linear(12, name.EndsWith("norm_out.linear", StringComparison.Ordinal) ? 24 : 12)))));
        MergeFiles.Base(_folder["base"], MergeFiles.State(model), baseName: "diffusion_pytorch_model", config: null);
        Write("exact.safetensors", rows: 6);
        MergeFiles.Run(MergeFiles.Options(_folder["base"], _folder["merged"], _folder["exact.safetensors"]));
        Dictionary<string, Tensor> before = MergeFiles.State(model);
        using (AdapterFile file = AdapterFile.Open(_folder["exact.safetensors"]))
        {
            AdapterImporter.Import(model, file);
        }

        model.Merge();
        Dictionary<string, Tensor> after = MergeFiles.State(model);
        Assert.Empty(MergeFiles.Differences(MergeFiles.Read(_folder["merged"], "diffusion_pytorch_model"), after));
        Assert.Equal(
            ["norm_out.linear.weight", .. new[] { "k", "q", "v" }.Select(static part => $"transformer_blocks.0.attn.to_{part}.weight")],
            MergeFiles.Differences(before, after));
    }

    [Fact]
    public void Rows_that_are_not_one_product_are_refused_on_a_model_in_memory()
    {
        using DisposeScope scope = NewDisposeScope();
        using LoKrModel model = new(Tree(s_flux.Select(static name => (name, (nn.Module<Tensor, Tensor>)nn.Linear(12, name.EndsWith("norm_out.linear", StringComparison.Ordinal) ? 24 : 12)))));
        Write("inexact.safetensors", rows: 4);
        using AdapterFile file = AdapterFile.Open(_folder["inexact.safetensors"]);
        ErrorAssert.Throws(ErrorIds.DivisionInexact, () => AdapterImporter.Import(model, file), "to_k");
        Assert.Empty(model.Adapters);
    }

    // A block of each kind in the names of diffusers.
    private static readonly string[] s_flux =
    [
        "x_embedder", "context_embedder", "time_text_embed.timestep_embedder.linear_1", "norm_out.linear", "proj_out",
        .. new[] { "norm1.linear", "norm1_context.linear", "attn.to_q", "attn.to_k", "attn.to_v", "attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_out.0", "attn.to_add_out", "ff.net.2", "ff_context.net.2" }.Select(static name => "transformer_blocks.0." + name),
        .. new[] { "norm.linear", "attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp", "proj_out" }.Select(static name => "single_transformer_blocks.0." + name),
    ];

    /// <summary>An adapter in the names of Flux.1's authors.</summary>
    private void Write(string file, long rows) => SafetensorsWriter.Write(_folder[file], new Dictionary<string, Tensor>
    {
        ["diffusion_model.double_blocks.0.img_attn.qkv.lokr_w1"] = randn(rows, 3), ["diffusion_model.double_blocks.0.img_attn.qkv.lokr_w2"] = randn(36 / rows, 4),
        ["diffusion_model.final_layer.adaLN_modulation.1.lokr_w1"] = randn(4, 3), ["diffusion_model.final_layer.adaLN_modulation.1.lokr_w2"] = randn(6, 4),
    });

    private static nn.Module<Tensor, Tensor> Tree(IEnumerable<(string Name, nn.Module<Tensor, Tensor> Module)> modules) => nn.Sequential(
    [
        .. modules.GroupBy(static module => module.Name.Split('.')[0]).Select(static group =>
            (group.Key, group.First().Name == group.Key ? group.First().Module : Tree(group.Select(module => (module.Name[(group.Key.Length + 1)..], module.Module))))),
    ]);

    [Fact]
    public void Parts_with_one_w2_are_one_product_again()
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor w2 = randn(6, 5);
        (AdapterModule Module, long Start)[] parts = [(Module(randn(2, 3), w2), 0), (Module(randn(2, 3), w2 * 2), 24)];
        Tensor expected = zeros(36, 15, dtype: float64);
        expected.narrow(0, 0, 12).copy_(ModuleRows.Dense(parts[0].Module));
        expected.narrow(0, 24, 12).copy_(ModuleRows.Dense(parts[1].Module));
        AssertClose("stacked", expected, ModuleRows.Dense(ModuleRows.Stack(parts, 36)!));
        Assert.Null(ModuleRows.Stack([parts[0], (Module(randn(2, 3), randn(6, 5)), 12)], 36));
        AdapterOther lora = ModuleRows.Lora(parts[0].Module, ModuleRows.Product(parts, 36));
        AssertClose("lora", expected, lora.Tensors["lora_up.weight"].to(float64).mm(lora.Tensors["lora_down.weight"].to(float64)));
    }

    [Theory]
    [InlineData("bfl", ModuleDivision.Split)]
    [InlineData("diffusers", ModuleDivision.Fused)]
    public void A_divided_adapter_has_the_same_effect_on_the_checkpoint(string name, ModuleDivision division)
    {
        string root = Fixtures.Require("checkpoints", "flux1");
        string adapter = Path.Combine(root, $"adapter-{name}.safetensors");
        string destination = _folder["divided.safetensors"];
        AdapterConvertOptions options = new() { Division = division };
        LoKrException exception = ErrorAssert.Throws(ErrorIds.DivisionInexact, () => AdapterConverter.Convert(adapter, destination, AdapterLayout.Comfy, options, out _));
        Assert.NotNull(exception.Advice);
        Assert.False(File.Exists(destination));
        foreach (InexactRows inexact in (InexactRows[])[InexactRows.Lora, InexactRows.Full])
        {
            AdapterConverter.Convert(adapter, destination, AdapterLayout.Comfy, options with { Inexact = inexact, Force = true }, out _);
            using (AdapterFile written = AdapterFile.Open(destination))
            {
                Assert.Equal(inexact == InexactRows.Lora, written.Foreign.Count > 0);
                string[] others = division == ModuleDivision.Split ? ["qkv", "linear1"] : ["to_q", "add_v_proj", "proj_mlp"];
                Assert.DoesNotContain(written.Entries.Keys, key => Array.Exists(others, other => key.Contains(other, StringComparison.Ordinal)));
            }

            Compare(Path.Combine(root, "checkpoint.safetensors"), destination, Path.Combine(root, $"merged-{name}.safetensors"));
        }

        ErrorAssert.Throws(ErrorIds.ConversionUnsupported, () => AdapterConverter.Convert(adapter, _folder["peft"], AdapterLayout.Peft, options with { Inexact = InexactRows.Lora }, out _));
    }

    [Fact]
    public void A_file_of_parts_alone_is_read_as_it_was_written()
    {
        using DisposeScope scope = NewDisposeScope();
        SafetensorsWriter.Write(_folder["fused.safetensors"], new Dictionary<string, Tensor> { ["diffusion_model.double_blocks.0.img_attn.qkv.lokr_w1"] = ones(3, 2), ["diffusion_model.double_blocks.0.img_attn.qkv.lokr_w2"] = ones(4, 2) });
        LoKrAdapterInfo written = AdapterConverter.Convert(_folder["fused.safetensors"], _folder["split.safetensors"], AdapterLayout.Comfy, new() { Division = ModuleDivision.Split }, out _);
        Assert.Equal(AdapterLayout.Comfy, written.Layout);
        Assert.Equal(3, written.ModuleCount);
    }

    [Fact]
    public void A_program_that_has_only_fused_names_gets_fused_modules()
    {
        string root = Fixtures.Require("checkpoints", "flux1");
        string adapter = Path.Combine(root, "adapter-diffusers.safetensors");
        AdapterConvertOptions options = new() { Program = AdapterProgram.Kohya };
        ErrorAssert.Throws(ErrorIds.ConversionUnsupported, () => AdapterConverter.Convert(adapter, _folder["kohya.safetensors"], default, options, out _));
        AdapterConverter.Convert(adapter, _folder["kohya.safetensors"], default, options with { Inexact = InexactRows.Full }, out _);
        using (AdapterFile written = AdapterFile.Open(_folder["kohya.safetensors"]))
        {
            Assert.Contains(written.Modules, static module => module.Name == "double_blocks_0_img_attn_qkv");
            Assert.DoesNotContain(written.Modules, static module => module.Name.Contains("to_q", StringComparison.Ordinal));
        }

        Compare(Path.Combine(root, "checkpoint.safetensors"), _folder["kohya.safetensors"], Path.Combine(root, "merged-diffusers.safetensors"));
    }

    private void Compare(string checkpoint, string adapter, string expected)
    {
        using DisposeScope scope = NewDisposeScope();
        using (CheckpointMerge merge = CheckpointMerge.Open(new() { Base = CheckpointBase.Read(checkpoint), Adapters = [new AdapterMergeSource(adapter)], Destination = _folder["merged.safetensors"], Force = true }))
        {
            merge.Run(cancel: TestContext.Current.CancellationToken);
        }

        using SafetensorsReader values = SafetensorsReader.Open(expected);
        using SafetensorsReader merged = SafetensorsReader.Open(_folder["merged.safetensors"]);
        foreach (string key in values.Entries.Keys)
        {
            // bfloat16 has eight bits.
            Tensor wanted = values.Read(key, float64);
            double error = ((merged.Read(key, float64) - wanted).abs() - (wanted.abs() / 256)).max().item<double>();
            Assert.True(error <= 1e-5 * wanted.abs().max().item<double>(), $"{key}: {error}");
        }
    }

    private static AdapterModule Module(Tensor w1, Tensor w2) => new(
        AdapterComponent.Model, "qkv", true, new(w1.shape[0], w1.shape[1], w2.shape[0], w2.shape[1], [], null, null, false), new(null, null, ScalingConvention.Lycoris, 1),
        new Dictionary<string, Tensor> { [FactorNames.W1] = w1, [FactorNames.W2] = w2 });

    private static void AssertClose(string name, Tensor expected, Tensor actual)
    {
        Assert.Equal(expected.shape, actual.shape);
        double error = (expected - actual.to(float64)).abs().max().item<double>() / expected.abs().max().item<double>();
        Assert.True(error <= 1e-5, $"{name}: {error}");
    }
}
