using System.Text.Json;
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

/// <summary>Adapters as programs write them, merged into single-file checkpoints in published names, against values computed in float64.</summary>
public sealed class SingleFileMergeTests : IDisposable
{
    // Of the largest value of the tensor.
    private const double Tolerance = 1e-5;

    private readonly TempFolder _folder = new();

    public static TheoryData<string> Checkpoints => Fixtures.Cases("checkpoints", static folder => File.Exists(Path.Combine(folder, "checkpoint.safetensors")) && Adapters(folder).Any());

    public void Dispose() => _folder.Dispose();

    [Theory]
    [MemberData(nameof(Checkpoints))]
    public void Every_adapter_changes_the_tensors_and_rows_that_its_names_mean(string name)
    {
        string root = Fixtures.Require("checkpoints", name);
        List<string> failures = [];
        int compared = 0;
        foreach ((string adapter, double strength, string merged, int changed) in Adapters(root))
        {
            try
            {
                LoKrMergeResult result = Merge(Path.Combine(root, "checkpoint.safetensors"), Path.Combine(root, $"adapter-{adapter}.safetensors"), strength);
                Assert.Equal(changed, result.ModuleCount);
                Compare(Path.Combine(root, "checkpoint.safetensors"), Path.Combine(root, merged));
                compared++;
            }
            catch (Exception exception) when (exception is LoKrException or Xunit.Sdk.XunitException)
            {
                failures.Add($"{adapter} × {strength}: {exception.Message}");
            }
        }

        Assert.True(failures.Count == 0, string.Join(Environment.NewLine, failures));
        Assert.True(compared > 0);
    }

    [Fact]
    public void Several_adapters_add_up_by_their_weights()
    {
        using DisposeScope scope = NewDisposeScope();
        string root = Fixtures.Require("checkpoints", "flux1");
        string source = Path.Combine(root, "checkpoint.safetensors");
        CheckpointMergeOptions options = Options(source, _folder["both.safetensors"],
            new AdapterMergeSource(Path.Combine(root, "adapter-bfl.safetensors"), 0.5), new AdapterMergeSource(Path.Combine(root, "adapter-diffusers.safetensors"), -0.25));
        MergeFiles.Run(options);
        using SafetensorsReader before = SafetensorsReader.Open(source);
        using SafetensorsReader fused = SafetensorsReader.Open(Path.Combine(root, "merged-bfl.safetensors"));
        using SafetensorsReader divided = SafetensorsReader.Open(Path.Combine(root, "merged-diffusers.safetensors"));
        using SafetensorsReader after = SafetensorsReader.Open(_folder["both.safetensors"]);
        string[] shared = [.. fused.Entries.Keys.Intersect(divided.Entries.Keys)];
        Assert.Contains(shared, static key => key.Contains("qkv", StringComparison.Ordinal) || key.Contains("linear1", StringComparison.Ordinal));
        foreach (string key in fused.Entries.Keys.Union(divided.Entries.Keys))
        {
            Tensor weight = before.Read(key, float64);
            Tensor expected = weight.clone();
            expected += fused.Entries.ContainsKey(key) ? 0.5 * (fused.Read(key, float64) - weight) : zeros(1, dtype: float64);
            expected += divided.Entries.ContainsKey(key) ? -0.25 * (divided.Read(key, float64) - weight) : zeros(1, dtype: float64);
            AssertNearest(key, expected, after.Read(key));
        }
    }

    [Fact]
    public void A_file_in_other_shards_and_a_component_with_another_prefix_get_the_same_values()
    {
        using DisposeScope scope = NewDisposeScope();
        string root = Fixtures.Require("checkpoints", "flux1");
        string adapter = Path.Combine(root, "adapter-diffusers.safetensors");
        using SafetensorsReader source = SafetensorsReader.Open(Path.Combine(root, "checkpoint.safetensors"));
        Dictionary<string, Tensor> tensors = source.Entries.Keys.ToDictionary(static key => key, key => source.Read(key), StringComparer.Ordinal);
        Merge(Path.Combine(root, "checkpoint.safetensors"), adapter, 1);
        Dictionary<string, byte[]> expected = Bytes(_folder["merged.safetensors"]);

        MergeFiles.Base(_folder["shards"], tensors, maxShardBytes: 100_000, baseName: "flux1-dev", config: null);
        CheckpointMergeOptions options = Options(Path.Combine(_folder["shards"], "flux1-dev.safetensors.index.json"), _folder["merged-shards"], new AdapterMergeSource(adapter));
        Assert.True(MergeFiles.Run(options).Files.Count > 1);
        Assert.Equal(expected, MergeFiles.Read(_folder["merged-shards"], "flux1-dev").ToDictionary(static pair => pair.Key, static pair => pair.Value.bytes.ToArray()));

        SafetensorsWriter.Write(_folder["prefixed.safetensors"], tensors.ToDictionary(static pair => "model.diffusion_model." + pair.Key, static pair => pair.Value));
        Merge(_folder["prefixed.safetensors"], adapter, 1);
        Assert.Equal(expected, Bytes(_folder["merged.safetensors"]).ToDictionary(static pair => pair.Key["model.diffusion_model.".Length..], static pair => pair.Value));
    }

    [Fact]
    public void An_adapter_of_fused_weights_goes_to_the_rows_of_a_model_that_divides_them()
    {
        using DisposeScope scope = NewDisposeScope();
        string root = Fixtures.Require("checkpoints", "flux1");
        using SafetensorsReader source = SafetensorsReader.Open(Path.Combine(root, "checkpoint.safetensors"));
        foreach (string name in (string[])["bfl", "dora"])
        {
            using SafetensorsReader merged = SafetensorsReader.Open(Path.Combine(root, $"merged-{name}.safetensors"));
            MergeFiles.Base(_folder[$"divided-{name}"], Divided(key => source.Read(key), source.Entries.Keys), baseName: "diffusion_pytorch_model");
            MergeFiles.Run(Options(_folder[$"divided-{name}"], _folder[$"result-{name}"], new AdapterMergeSource(Path.Combine(root, $"adapter-{name}.safetensors"))));
            Dictionary<string, Tensor> actual = MergeFiles.Read(_folder[$"result-{name}"], "diffusion_pytorch_model");
            foreach ((string key, Tensor expected) in Divided(key => merged.Entries.ContainsKey(key) ? merged.Read(key, float64) : source.Read(key, float64), source.Entries.Keys))
            {
                AssertNearest(key, expected, actual[key]);
            }
        }
    }

    [Fact]
    public void Names_wrapped_in_any_order_change_the_same_weights()
    {
        string root = Fixtures.RequireBeside("cases", "nested-prefixes");
        Dictionary<string, byte[]>? first = null;
        foreach (string name in (string[])["peft-diffusion", "peft-transformer", "model-diffusion", "transformer-peft"])
        {
            MergeFiles.Run(Options(Path.Combine(root, "base", "transformer"), _folder[name], new AdapterMergeSource(Path.Combine(root, $"{name}.safetensors"))));
            Dictionary<string, byte[]> bytes = MergeFiles.Bytes(_folder[name]);
            Assert.Equal(first ??= bytes, bytes);
        }

        Assert.NotEqual(MergeFiles.Bytes(Path.Combine(root, "base", "transformer"))["diffusion_pytorch_model.safetensors"], first!["diffusion_pytorch_model.safetensors"]);
    }

    [Fact]
    public void A_file_of_a_trainer_gives_the_bits_of_its_PEFT_folder()
    {
        string root = Fixtures.RequireBeside("cases", "mixed-factors-disk-merge");
        string source = Path.Combine(root, "mixed.safetensors");
        AdapterConverter.Convert(source, _folder["peft"], AdapterLayout.Peft, new() { BasePath = Path.Combine(root, "base") }, out _);
        foreach (string adapter in (string[])[source, _folder["peft"]])
        {
            MergeFiles.Run(Options(Path.Combine(root, "base"), _folder["merged-" + Path.GetFileNameWithoutExtension(adapter)], new AdapterMergeSource(adapter)));
        }

        Assert.Equal(MergeFiles.Bytes(_folder["merged-peft"]), MergeFiles.Bytes(_folder["merged-mixed"]));
        string flux = Fixtures.RequireBeside("cases", "flux-comfy-names");
        Assert.True(MergeFiles.Run(Options(Path.Combine(flux, "base", "transformer"), _folder["flux"], new AdapterMergeSource(Path.Combine(flux, "pytorch_lora_weights.safetensors")))).ModuleCount > 0);
    }

    [Fact]
    public void A_base_model_that_no_table_knows_is_refused_with_its_names()
    {
        using DisposeScope scope = NewDisposeScope();
        SafetensorsWriter.Write(_folder["odd.safetensors"], new Dictionary<string, Tensor> { ["trunk.0.mix.weight"] = ones(8, 8) });
        string adapter = Fixtures.Require("checkpoints", "sd15", "adapter-kohya.safetensors");
        LoKrException exception = ErrorAssert.Throws(ErrorIds.AdapterModulesUnknown, () => Merge(_folder["odd.safetensors"], adapter, 1));
        Assert.Contains("trunk.0.mix", exception.Message + exception.Advice, StringComparison.Ordinal);
        Assert.False(File.Exists(_folder["merged.safetensors"]));
    }

    [Fact]
    public void The_result_of_a_file_is_a_file_and_that_of_a_folder_a_folder()
    {
        string root = Fixtures.Require("checkpoints", "qwen-image");
        AdapterMergeSource adapter = new(Path.Combine(root, "adapter-bare.safetensors"));
        string source = Path.Combine(root, "checkpoint.safetensors");
        ErrorAssert.Throws(ErrorIds.InvalidArgument, () => MergeFiles.Run(Options(source, _folder["folder"], adapter)));
        ErrorAssert.Throws(ErrorIds.InvalidArgument, () => MergeFiles.Run(Options(source, _folder["a.safetensors"], adapter) with { MaxShardBytes = 1000 }));
        ErrorAssert.Throws(ErrorIds.ExportIntoSource, () => MergeFiles.Run(Options(source, source, adapter)));
        MergeFiles.Run(Options(source, _folder["a.safetensors"], adapter));
        ErrorAssert.Throws(ErrorIds.DestinationExists, () => MergeFiles.Run(Options(source, _folder["a.safetensors"], adapter)));
        byte[] first = File.ReadAllBytes(_folder["a.safetensors"]);
        MergeFiles.Run(Options(source, _folder["a.safetensors"], adapter) with { Force = true });
        Assert.Equal(first, File.ReadAllBytes(_folder["a.safetensors"]));
        Assert.Equal(["a.safetensors"], Directory.EnumerateFileSystemEntries(Path.GetDirectoryName(_folder["a.safetensors"])!).Select(static path => Path.GetFileName(path)).Where(static name => !name.EndsWith("lokr-lock", StringComparison.Ordinal)));
    }

    [Fact]
    public void An_interrupted_merge_of_a_single_file_goes_on_with_the_pieces_that_it_has_verified()
    {
        using DisposeScope scope = NewDisposeScope();
        const int blocks = 6;
        SafetensorsWriter.Write(_folder["base.safetensors"], Enumerable.Range(0, blocks).ToDictionary(static i => $"double_blocks.{i}.img_attn.qkv.weight", static _ => randn(1536, 512)));
        SafetensorsWriter.Write(_folder["adapter.safetensors"], Enumerable.Range(0, blocks).SelectMany(static i => new[]
        {
            KeyValuePair.Create($"transformer.transformer_blocks.{i}.attn.to_k.lokr_w1", randn(4, 4)), KeyValuePair.Create($"transformer.transformer_blocks.{i}.attn.to_k.lokr_w2", randn(128, 128)),
        }).ToDictionary());
        CheckpointMergeOptions options = Options(_folder["base.safetensors"], _folder["merged.safetensors"], new AdapterMergeSource(_folder["adapter.safetensors"]));
        LoKrMergeResult whole = MergeFiles.Run(options);
        Assert.Equal(0, whole.ResumedByteCount);
        byte[] expected = File.ReadAllBytes(_folder["merged.safetensors"]);
        File.Delete(_folder["merged.safetensors"]);

        Interrupt(options, whole.ByteCount / 2);
        Assert.False(File.Exists(_folder["merged.safetensors"]));
        LoKrMergeResult result = MergeFiles.Run(options);
        Assert.InRange(result.ResumedByteCount, 1, whole.ByteCount - 1);
        Assert.Equal(expected, File.ReadAllBytes(_folder["merged.safetensors"]));

        // Other strengths start from the beginning, and damaged pieces are written again.
        File.Delete(_folder["merged.safetensors"]);
        Interrupt(options, whole.ByteCount / 2);
        Assert.Equal(0, MergeFiles.Run(options with { Adapters = [new AdapterMergeSource(_folder["adapter.safetensors"], 0.5)] }).ResumedByteCount);
        File.Delete(_folder["merged.safetensors"]);
        Interrupt(options, whole.ByteCount / 2);
        string unfinished = Assert.Single(Directory.GetFiles(Assert.Single(Directory.GetDirectories(_folder.Path, ".*lokr-merge")), "*.partial"));
        using (FileStream stream = File.OpenWrite(unfinished))
        {
            stream.Write(new byte[stream.Length]);
        }

        Assert.Equal(0, MergeFiles.Run(options).ResumedByteCount);
        Assert.Equal(expected, File.ReadAllBytes(_folder["merged.safetensors"]));
    }

    private static void Interrupt(CheckpointMergeOptions options, long after)
    {
        using CancellationTokenSource source = new();
        using CheckpointMerge merge = CheckpointMerge.Open(options);
        Assert.ThrowsAny<OperationCanceledException>(() => merge.Run(progress =>
        {
            if (progress.Bytes > after)
            {
                source.Cancel();
            }
        }, source.Token));
    }

    /// <summary>The adapters of a case with their strengths, expected tensors and numbers of changed tensors.</summary>
    private static IEnumerable<(string Adapter, double Strength, string Merged, int Changed)> Adapters(string folder)
    {
        using JsonDocument json = JsonDocument.Parse(File.ReadAllText(Path.Combine(folder, "case.json")));
        if (!json.RootElement.TryGetProperty("adapters", out JsonElement adapters))
        {
            return [];
        }

        return [.. adapters.EnumerateArray().SelectMany(static adapter => adapter.GetProperty("merges").EnumerateArray()
            .Select(merge => (adapter.GetProperty("adapter").GetString()!, merge.GetProperty("strength").GetDouble(), merge.GetProperty("merged").GetString()!, merge.GetProperty("changed").GetInt32())))];
    }

    private static CheckpointMergeOptions Options(string source, string destination, params CheckpointMergeSource[] adapters) =>
        new() { Base = CheckpointBase.Read(source), Adapters = adapters, Destination = destination };

    private LoKrMergeResult Merge(string source, string adapter, double strength) =>
        MergeFiles.Run(Options(source, _folder["merged.safetensors"], new AdapterMergeSource(adapter, strength)) with { Force = true });

    private static Dictionary<string, byte[]> Bytes(string path)
    {
        using DisposeScope scope = NewDisposeScope();
        using SafetensorsReader reader = SafetensorsReader.Open(path);
        return reader.Entries.Keys.ToDictionary(static key => key, key => reader.Read(key).bytes.ToArray(), StringComparer.Ordinal);
    }

    private void Compare(string source, string expected)
    {
        using DisposeScope scope = NewDisposeScope();
        using SafetensorsReader before = SafetensorsReader.Open(source);
        using SafetensorsReader values = SafetensorsReader.Open(expected);
        using SafetensorsReader after = SafetensorsReader.Open(_folder["merged.safetensors"]);
        Assert.Equal(before.Metadata, after.Metadata);
        Assert.Equal(before.Entries.Values.Select(static entry => (entry.Name, entry.DType, entry.ByteCount)), after.Entries.Values.Select(static entry => (entry.Name, entry.DType, entry.ByteCount)));
        foreach (string key in before.Entries.Keys)
        {
            Tensor actual = after.Read(key);
            if (values.Entries.ContainsKey(key))
            {
                AssertNearest(key, values.Read(key, float64), actual);
            }
            else
            {
                Assert.True(before.Read(key).bytes.SequenceEqual(actual.bytes), $"{key} changed.");
            }
        }
    }

    /// <summary>Every value is the nearest one of its type to the expected one, which is known up to the tolerance.</summary>
    private static void AssertNearest(string key, Tensor expected, Tensor actual)
    {
        Tensor wide = expected.to(float64);
        double slack = Tolerance * wide.abs().max().item<double>();
        Tensor lowest = (wide - slack).to(actual.dtype).to(float64);
        Tensor highest = (wide + slack).to(actual.dtype).to(float64);
        Tensor given = actual.to(float64);
        long wrong = given.lt(lowest).logical_or(given.gt(highest)).sum().item<long>();
        Assert.True(wrong == 0, $"{key}: {wrong} of {wide.numel()} values; largest error {(given - wide).abs().max().item<double>() / wide.abs().max().item<double>():G3} of the largest value.");
    }

    /// <summary>Weights of Flux.1 in the names of diffusers: q, k and v of their own, and the halves of the last modulation in the other order.</summary>
    private static Dictionary<string, Tensor> Divided(Func<string, Tensor> read, IEnumerable<string> keys)
    {
        Dictionary<string, Tensor> tensors = new(StringComparer.Ordinal);
        foreach (string key in keys)
        {
            Tensor value = read(key);
            string[] parts = key.Split('.');
            string end = parts[^1];
            if (parts[0] == "double_blocks" && parts[3] == "qkv")
            {
                string[] names = parts[2] == "img_attn" ? ["to_q", "to_k", "to_v"] : ["add_q_proj", "add_k_proj", "add_v_proj"];
                for (int i = 0; i < 3; i++)
                {
                    tensors.Add($"transformer_blocks.{parts[1]}.attn.{names[i]}.{end}", value.narrow(0, i * value.shape[0] / 3, value.shape[0] / 3).contiguous());
                }
            }
            else if (parts[0] == "single_blocks" && parts[2] == "linear1")
            {
                long rows = value.shape[0] / 7;
                string block = $"single_transformer_blocks.{parts[1]}";
                tensors.Add($"{block}.attn.to_q.{end}", value.narrow(0, 0, rows).contiguous());
                tensors.Add($"{block}.attn.to_k.{end}", value.narrow(0, rows, rows).contiguous());
                tensors.Add($"{block}.attn.to_v.{end}", value.narrow(0, 2 * rows, rows).contiguous());
                tensors.Add($"{block}.proj_mlp.{end}", value.narrow(0, 3 * rows, 4 * rows).contiguous());
            }
            else if (key.StartsWith("final_layer.adaLN_modulation.1.", StringComparison.Ordinal))
            {
                tensors.Add($"norm_out.linear.{end}", roll(value, value.shape[0] / 2, 0).contiguous());
            }
            else
            {
                tensors.Add(Renamed(parts) + "." + end, value);
            }
        }

        return tensors;
    }

    private static string Renamed(string[] parts) => string.Join('.', parts[..^1]) switch
    {
        "img_in" => "x_embedder",
        "txt_in" => "context_embedder",
        "final_layer.linear" => "proj_out",
        _ when parts[0] == "double_blocks" => $"transformer_blocks.{parts[1]}." + string.Join('.', parts[2..^1]) switch
        {
            "img_mod.lin" => "norm1.linear",
            "txt_mod.lin" => "norm1_context.linear",
            "img_attn.proj" => "attn.to_out.0",
            "txt_attn.proj" => "attn.to_add_out",
            "img_mlp.0" => "ff.net.0.proj",
            "img_mlp.2" => "ff.net.2",
            "txt_mlp.0" => "ff_context.net.0.proj",
            "txt_mlp.2" => "ff_context.net.2",
            string other => other,
        },
        _ when parts[0] == "single_blocks" => $"single_transformer_blocks.{parts[1]}." + (parts[2] == "linear2" ? "proj_out" : parts[2] == "modulation" ? "norm.linear" : string.Join('.', parts[2..^1])),
        string other => other,
    };
}
