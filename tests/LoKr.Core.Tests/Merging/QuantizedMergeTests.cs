using System.Collections.Concurrent;
using System.Text.Json;
using LoKr.Core.Configuration;
using LoKr.Core.Conversion;
using LoKr.Core.Errors;
using LoKr.Core.Layouts;
using LoKr.Core.Merging.Checkpoints;
using LoKr.Core.Model;
using LoKr.Core.Safetensors;
using LoKr.Core.Tests.Safetensors;
using LoKr.Core.Tests.Support;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Merging;

/// <summary>Merges into quantized weights: the float32 merge of their values, stored as the weight was, with another scale, or as another type.</summary>
public sealed class QuantizedMergeTests : IDisposable
{
    private const string Changed = "model.layers.0.self_attn.q_proj";
    private const string Same = "model.layers.1.self_attn.v_proj";

    private readonly TempFolder _folder = new();
    private readonly DisposeScope _scope = NewDisposeScope();
    private readonly Dictionary<string, Tensor> _state;
    private readonly string _adapter;

    public QuantizedMergeTests()
    {
        random.manual_seed(11);
        using LoKrModel model = new(TestNetworks.Decoder());
        _state = MergeFiles.State(model);
        LoKrAdapter adapter = model.AddAdapter(new LoKrConfig { R = 2, Alpha = 3, TargetModules = ModuleSelector.FromNames(["q_proj", "up_proj"]), InitWeights = InitWeights.Random });
        using (no_grad())
        {
            foreach (Tensor factor in adapter.GetTensors().Values)
            {
                factor.copy_(randn_like(factor) * 0.5);
            }
        }

        _adapter = MergeFiles.Adapter(_folder["adapter"], model);
    }

    public static TheoryData<string> Styles => Fixtures.Cases("checkpoints", static folder => Path.GetFileName(folder).StartsWith("fp8-", StringComparison.Ordinal));

    public void Dispose()
    {
        _scope.Dispose();
        _folder.Dispose();
    }

    [Theory]
    [MemberData(nameof(Styles))]
    public void Single_files_of_every_style_have_the_nearest_values_and_nothing_else_changes(string style)
    {
        string root = Fixtures.Require("checkpoints", style);
        string from = Path.Combine(root, "checkpoint.safetensors");
        using JsonDocument json = JsonDocument.Parse(File.ReadAllText(Path.Combine(root, "case.json")));
        using SafetensorsReader before = SafetensorsReader.Open(from);
        QuantizedCheckpoint weights = new(before, [before]);
        foreach (string adapter in Directory.GetFiles(root, "adapter-*.safetensors"))
        {
            LoKrMergeResult result = MergeFile(from, adapter, _folder["out.safetensors"]);
            using SafetensorsReader expected = SafetensorsReader.Open(adapter.Replace("adapter-", "merged-", StringComparison.Ordinal));
            using SafetensorsReader after = SafetensorsReader.Open(_folder["out.safetensors"]);
            Assert.Equal(before.Metadata, after.Metadata);
            Assert.Equal(before.Entries.Values.Select(static entry => (entry.Name, entry.DType)), after.Entries.Values.Select(static entry => (entry.Name, entry.DType)));
            Assert.All(before.Entries.Values.Where(entry => !expected.Entries.ContainsKey(entry.Name)), entry => Assert.Equal(Bytes(before, entry.Name), Bytes(after, entry.Name)));
            string[] changed = [.. expected.Entries.Keys.Where(static name => !name.StartsWith("dense.", StringComparison.Ordinal))];
            Assert.Equal(changed.Order(StringComparer.Ordinal), result.Weights.Select(static weight => weight.Name).Order(StringComparer.Ordinal));
            foreach (string name in changed)
            {
                float[] dense = expected.Read("dense." + name).data<float>().ToArray();
                CheckNearest(weights.Weights[name].Codec!, dense, Bytes(expected, name), Bytes(after, name), name);
                CheckLoss(json.RootElement.GetProperty("layers").GetProperty(name), result.Weights.Single(weight => weight.Name == name), weights.Weights[name].Codec!, dense);
            }

            // As bfloat16, without anything that a reader would apply a second time.
            MergeFile(from, adapter, _folder["wide.safetensors"], ScalarType.BFloat16);
            using SafetensorsReader wide = SafetensorsReader.Open(_folder["wide.safetensors"]);
            Assert.Equal(weights.Entries.Keys.Order(StringComparer.Ordinal), wide.Entries.Keys.Order(StringComparer.Ordinal));
            Assert.DoesNotContain(QuantizedWeights.MetadataKey, wide.Metadata.Keys);
            foreach (SafetensorsEntry entry in wide.Entries.Values)
            {
                Assert.Equal(before.Entries[entry.Name].DType is SafetensorsDType.F8E4M3 or SafetensorsDType.F8E5M2 ? SafetensorsDType.BF16 : before.Entries[entry.Name].DType, entry.DType);
                Tensor dense = changed.Contains(entry.Name) ? expected.Read("dense." + entry.Name) : weights.Read(entry.Name, ScalarType.Float32);
                TensorAssert.Close(dense, wide.Read(entry.Name, ScalarType.Float32), 1.0 / 256, entry.Name);
            }
        }
    }

    [Theory]
    [InlineData("F8_E4M3", ".scale_weight", false)]
    [InlineData("F8_E4M3", ".weight_scale", true)]
    [InlineData("F8_E5M2", ".weight_scale", false)]
    [InlineData("F8_E4M3", null, false)]
    public void The_merged_values_are_rounded_with_the_scale_that_the_weight_has(string type, string? scale, bool byRows)
    {
        string from = Write(type, scale, byRows);
        LoKrMergeResult result = Merge(from, _folder["out"]);
        Dictionary<string, Tensor> merged = MergedInFloat32(from);
        using CheckpointReader before = CheckpointReader.Open(from);
        using CheckpointReader after = CheckpointReader.Open(_folder["out"]);
        Assert.Equal(before.Entries.Values.Select(static entry => (entry.Name, entry.DType)), after.Entries.Values.Select(static entry => (entry.Name, entry.DType)));
        QuantizedCheckpoint weights = new(before, before.Shards);
        foreach (SafetensorsEntry entry in before.Entries.Values)
        {
            byte[] expected = Bytes(before, entry.Name);
            if (IsChanged(entry.Name) && weights.Weights.ContainsKey(entry.Name))
            {
                weights.Weights[entry.Name].Codec!.Encode(merged[entry.Name].data<float>().ToArray(), 0, expected);
                Assert.NotEqual(Bytes(before, entry.Name), expected);
            }

            Assert.Equal(expected, Bytes(after, entry.Name));
        }

        Assert.Equal(4, result.Weights.Count);
        Assert.All(result.Weights, weight => Assert.Equal(type, weight.Type));
        Assert.Equal(before.Metadata, after.Metadata);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_scale_that_is_fitted_again_is_the_largest_value_over_that_of_the_type(bool byRows)
    {
        string from = Write("F8_E4M3", ".weight_scale", byRows);
        Merge(from, _folder["out"], static options => options with { ScaleMode = ScaleMode.Refit });
        Dictionary<string, Tensor> merged = MergedInFloat32(from);
        using CheckpointReader before = CheckpointReader.Open(from);
        using CheckpointReader after = CheckpointReader.Open(_folder["out"]);
        Tensor values = merged[Changed + ".weight"];
        Tensor scale = (byRows ? values.abs().amax([1], keepdim: true) : values.abs().max()) / 448;
        TensorAssert.Close(scale, after.Read(Changed + ".weight_scale"), 1e-6, "scale");
        TensorAssert.Close(values, new QuantizedCheckpoint(after, after.Shards).Read(Changed + ".weight"), 1.0 / 16, "values");
        Assert.Contains(Bytes(after, Changed + ".weight"), static code => (code & 0x7f) == 0x7e);
        Assert.All(before.Entries.Keys.Where(static name => !IsChanged(name)), name => Assert.Equal(Bytes(before, name), Bytes(after, name)));
    }

    [Fact]
    public void Another_type_leaves_no_scales_or_marks_behind()
    {
        string from = Write("F8_E4M3", ".scale_weight", byRows: false);
        LoKrMergeResult result = Merge(from, _folder["out"], static options => options with { DType = ScalarType.BFloat16 });
        Dictionary<string, Tensor> merged = MergedInFloat32(from);
        Dictionary<string, Tensor> after = MergeFiles.Read(_folder["out"]);
        Assert.Equal(_state.Keys.Order(StringComparer.Ordinal), after.Keys.Order(StringComparer.Ordinal));
        foreach ((string name, Tensor tensor) in after)
        {
            Assert.True(TensorAssert.Same(_state[name].dim() == 2 ? merged[name].to(ScalarType.BFloat16) : merged[name], tensor), name);
        }

        using CheckpointReader reader = CheckpointReader.Open(_folder["out"]);
        Assert.Equal(["format"], reader.Metadata.Keys);
        using JsonDocument config = JsonDocument.Parse(File.ReadAllText(_folder["out", "config.json"]));
        Assert.False(config.RootElement.TryGetProperty("quantization_config", out _));
        Assert.True(config.RootElement.TryGetProperty("model_type", out _));
        Assert.All(result.Weights, static weight => Assert.Equal("BF16", weight.Type));
    }

    [Theory]
    [InlineData("nf4")]
    [InlineData("fp4")]
    [InlineData("int8")]
    public void Weights_of_bitsandbytes_are_merged_into_bfloat16_and_not_written_back(string type)
    {
        string from = _folder["base"];
        Directory.CreateDirectory(from);
        List<(string, string, long[], byte[])> tensors = [];
        Dictionary<string, Tensor> values = [];
        foreach ((string name, Tensor tensor) in _state)
        {
            if (tensor.dim() == 2 && type == "int8")
            {
                byte[] codes = [.. Enumerable.Range(0, (int)tensor.numel()).Select(static i => (byte)(i * 31))];
                float[] largest = [.. Enumerable.Range(1, (int)tensor.shape[0]).Select(static i => i / 10f)];
                tensors.Add((name, "I8", tensor.shape, codes));
                tensors.Add((name[..^".weight".Length] + ".SCB", "F32", [largest.Length], SafetensorsBytes.Of(largest)));
                values[name] = torch.tensor(codes.Select(static code => (float)(sbyte)code).ToArray()).view(tensor.shape) * torch.tensor(largest).view(-1, 1) * (1f / 127);
            }
            else if (tensor.dim() == 2)
            {
                (float[] numbers, (string, string, long[], byte[])[] parts) = SafetensorsBytes.FourBits(name, type, tensor.shape, isNested: type == "nf4");
                tensors.AddRange(parts);
                values[name] = torch.tensor(numbers).view(tensor.shape);
            }
            else
            {
                tensors.Add((name, "F32", tensor.shape, tensor.bytes.ToArray()));
                values[name] = tensor;
            }
        }

        SafetensorsBytes.Write(Path.Combine(from, "model.safetensors"), [.. tensors], """{"format":"pt"}""");
        File.WriteAllText(Path.Combine(from, "config.json"), """{"model_type": "test", "quantization_config": {"quant_method": "bitsandbytes"}}""");
        ErrorAssert.Throws(ErrorIds.QuantizationNotWritable, () => Merge(from, _folder["out"]), type.ToUpperInvariant());
        Assert.False(Directory.Exists(_folder["out"]));

        Merge(from, _folder["out"], static options => options with { DType = ScalarType.BFloat16 });
        Merge(MergeFiles.Base(_folder["float"], values), _folder["expected"]);
        Dictionary<string, Tensor> expected = MergeFiles.Read(_folder["expected"]);
        Dictionary<string, Tensor> after = MergeFiles.Read(_folder["out"]);
        Assert.Equal(expected.Keys.Order(StringComparer.Ordinal), after.Keys.Order(StringComparer.Ordinal));
        Assert.All(after, pair => Assert.True(TensorAssert.Same(expected[pair.Key].to(pair.Value.dtype), pair.Value), pair.Key));
        Assert.DoesNotContain("quantization", File.ReadAllText(_folder["out", "config.json"]), StringComparison.Ordinal);
    }

    [Fact]
    public void A_format_that_is_not_read_is_copied_where_no_adapter_changes_it()
    {
        string from = Write("F8_E4M3", ".weight_scale", byRows: false, format: name => name == Same ? "nvfp4" : "float8_e4m3fn");
        Merge(from, _folder["out"]);
        using CheckpointReader before = CheckpointReader.Open(from);
        using CheckpointReader after = CheckpointReader.Open(_folder["out"]);
        Assert.Equal(Bytes(before, Same + ".weight"), Bytes(after, Same + ".weight"));
        ErrorAssert.Throws(ErrorIds.QuantizationUnsupported, () => Merge(from, _folder["wide"], static options => options with { DType = ScalarType.BFloat16 }), "nvfp4", Same);
        string other = Write("F8_E4M3", ".weight_scale", byRows: false, format: static name => name == Changed ? "nvfp4" : "float8_e4m3fn");
        ErrorAssert.Throws(ErrorIds.QuantizationUnsupported, () => Merge(other, _folder["none"]), "nvfp4", Changed);
    }

    [Fact]
    public void A_change_that_rounding_swallows_is_reported()
    {
        string from = Write("F8_E4M3", ".weight_scale", byRows: false);
        LoKrMergeResult weak = Merge(from, _folder["weak"], options => options with { Adapters = [new AdapterMergeSource(_adapter, 1e-4)] });
        Assert.Contains(weak.Warnings, static warning => warning.Contains("keep less than", StringComparison.Ordinal));
        Assert.All(weak.Weights, static weight => Assert.True(weight.Unchanged > 0.9 && weight.DeltaNorm > 0 && weight.Kept < 0.9));
        LoKrMergeResult wide = Merge(from, _folder["wide"], options => options with { Adapters = [new AdapterMergeSource(_adapter, 1e-4)], DType = ScalarType.Float32 });
        Assert.DoesNotContain(wide.Warnings, static warning => warning.Contains("keep less than", StringComparison.Ordinal));
        Assert.All(wide.Weights, static weight => Assert.True(weight is { Type: "F32", Kept: > 0.99 }));

        // The largest value of the base model is at the limit already, so a strong adapter leaves the range.
        LoKrMergeResult strong = Merge(from, _folder["strong"], options => options with { Adapters = [new AdapterMergeSource(_adapter, 20)] });
        Assert.Contains(strong.Weights, static weight => weight.AtLimit > 0);
        LoKrMergeResult refit = Merge(from, _folder["refit"], options => options with { Adapters = [new AdapterMergeSource(_adapter, 20)], ScaleMode = ScaleMode.Refit });
        Assert.All(refit.Weights, weight => Assert.True(weight.ErrorOverDelta < strong.Weights.Single(other => other.Name == weight.Name).ErrorOverDelta + 1e-6));
    }

    [Fact]
    public void A_run_that_goes_on_says_that_it_did_not_measure_all_rows()
    {
        const int blocks = 6;
        byte[] codes = [.. Enumerable.Range(0, 1536 * 512).Select(static i => (byte)(i * 7 % 0x70))];
        SafetensorsBytes.Write(_folder["large.safetensors"], [.. Enumerable.Range(0, blocks).Select(i => ($"double_blocks.{i}.img_attn.qkv.weight", "F8_E4M3", (long[])[1536, 512], codes))]);
        SafetensorsWriter.Write(_folder["style.safetensors"], Enumerable.Range(0, blocks).SelectMany(static i => new[]
        {
            KeyValuePair.Create($"transformer.transformer_blocks.{i}.attn.to_k.lokr_w1", randn(4, 4)), KeyValuePair.Create($"transformer.transformer_blocks.{i}.attn.to_k.lokr_w2", randn(128, 128)),
        }).ToDictionary());
        LoKrMergeResult whole = MergeFile(_folder["large.safetensors"], _folder["style.safetensors"], _folder["whole.safetensors"]);
        Assert.Equal(blocks, whole.Weights.Count);
        Assert.DoesNotContain(whole.Warnings, static warning => warning.Contains("interrupted run", StringComparison.Ordinal));

        CheckpointMergeOptions options = FileOptions(_folder["large.safetensors"], _folder["style.safetensors"], _folder["resumed.safetensors"]);
        using (CancellationTokenSource stop = new())
        using (CheckpointMerge merge = CheckpointMerge.Open(options))
        {
            Assert.ThrowsAny<OperationCanceledException>(() => merge.Run(
                progress =>
                {
                    if (progress.Bytes > whole.ByteCount / 2)
                    {
                        stop.Cancel();
                    }
                },
                stop.Token));
        }

        LoKrMergeResult resumed = MergeFiles.Run(options);
        Assert.InRange(resumed.ResumedByteCount, 1, whole.ByteCount - 1);
        Assert.Contains(resumed.Warnings, static warning => warning.Contains("interrupted run", StringComparison.Ordinal));
        Assert.Equal(File.ReadAllBytes(_folder["whole.safetensors"]), File.ReadAllBytes(_folder["resumed.safetensors"]));
    }

    [Fact]
    public void A_piece_of_a_weight_leaves_hardly_any_garbage()
    {
        // Until the first collection garbage is memory, so that what a piece leaves decides how memory grows with the model.
        const int hidden = 2048;
        byte[] codes = new byte[3 * hidden * hidden];
        codes.AsSpan().Fill(0x30);
        SafetensorsBytes.Write(_folder["large.safetensors"], [("double_blocks.0.img_attn.qkv.weight", "F8_E4M3", (long[])[3 * hidden, hidden], codes)]);
        SafetensorsWriter.Write(_folder["style.safetensors"], new Dictionary<string, Tensor>
        {
            ["transformer.transformer_blocks.0.attn.to_k.lokr_w1"] = randn(4, 4), ["transformer.transformer_blocks.0.attn.to_k.lokr_w2"] = randn(hidden / 4, hidden / 4),
        });
        ConcurrentDictionary<int, List<long>> allocated = [];
        MergeFiles.Run(FileOptions(_folder["large.safetensors"], _folder["style.safetensors"], _folder["out.safetensors"]),
            _ => allocated.GetOrAdd(Environment.CurrentManagedThreadId, static _ => new(1024)).Add(GC.GetAllocatedBytesForCurrentThread()));
        long[] pieces = [.. allocated.Values.SelectMany(static thread => thread.Zip(thread.Skip(1), static (before, after) => after - before)).Order()];
        Assert.True(pieces.Length > 30);
        Assert.InRange(pieces[pieces.Length / 2], 0, 1200);
    }

    [Fact]
    public void What_is_extracted_from_a_quantized_model_is_the_change_of_its_values()
    {
        string root = Fixtures.Require("checkpoints", "fp8-scale_weight");
        string from = Path.Combine(root, "checkpoint.safetensors");
        MergeFile(from, Directory.GetFiles(root, "adapter-*.safetensors").Order(StringComparer.Ordinal).First(), _folder["tuned.safetensors"], ScalarType.Float32);
        LoKrFitResult result = AdapterExtraction.Extract(new()
        {
            BasePath = from,
            FineTunedPath = _folder["tuned.safetensors"],
            Destination = _folder["extracted"],
            TargetModules = ModuleSelector.FromNames(["feed_forward.w2"]),
            Fit = new() { FullMatrix = true, DecomposeFactors = [4] },
        }, out _, cancellation: TestContext.Current.CancellationToken);
        Assert.Equal(1, result.ModuleCount);
        Assert.InRange(result.Error, 0, 1e-4);
    }

    [Fact]
    public void Options_without_effect_are_named()
    {
        string plain = MergeFiles.Base(_folder["plain"], _state);
        Assert.Contains(Merge(plain, _folder["one"], static options => options with { DType = ScalarType.BFloat16 }).Warnings, static warning => warning.Contains("No weight of the base model is quantized", StringComparison.Ordinal));
        Assert.Contains(Merge(plain, _folder["two"], static options => options with { ScaleMode = ScaleMode.Refit }).Warnings, static warning => warning.Contains("No weight that changes has a scale", StringComparison.Ordinal));
        Assert.Empty(Merge(plain, _folder["three"]).Warnings);
    }

    // A quotient within 1e-5 of the middle of two neighbors may be either.
    private static void CheckNearest(IWeightCodec codec, float[] values, byte[] expected, byte[] actual, string name)
    {
        const float tie = 1e-5f;
        byte[] below = new byte[expected.Length];
        byte[] above = new byte[expected.Length];
        codec.Encode([.. values.Select(static value => value * (1 - tie))], 0, below);
        codec.Encode([.. values.Select(static value => value * (1 + tie))], 0, above);
        int[] wrong = [.. Enumerable.Range(0, expected.Length).Where(i => actual[i] != expected[i] && (below[i] == above[i] || (actual[i] != below[i] && actual[i] != above[i])))];
        Assert.True(wrong.Length == 0, $"{wrong.Length} of {expected.Length} values of '{name}' are not the nearest, the first at {wrong.FirstOrDefault()}.");
    }

    private static void CheckLoss(JsonElement layer, LoKrMergedWeight weight, IWeightCodec codec, float[] values)
    {
        // Values that are the largest one but for rounding may count or not.
        long least = Beyond(1 - 1e-6f);
        long most = Beyond(1 + 1e-6f);

        TensorAssert.Close(layer.GetProperty("norm_of_change").GetDouble(), weight.DeltaNorm, 1e-3, weight.Name + ", change");
        TensorAssert.Close(layer.GetProperty("norm_of_rounding").GetDouble(), weight.ErrorOverDelta * weight.DeltaNorm, 1e-3, weight.Name + ", rounding");
        Assert.Equal(layer.GetProperty("values_unchanged").GetDouble(), weight.Unchanged, 1e-3);
        Assert.InRange(layer.GetProperty("values_at_the_limit").GetInt64(), least, most);
        Assert.InRange(weight.AtLimit, least, most);

        long Beyond(float factor)
        {
            float[] scaled = [.. values.Select(value => value * factor)];
            byte[] codes = new byte[scaled.Length];
            codec.Encode(scaled, 0, codes);
            return codec.CountBeyond(scaled, 0, codes);
        }
    }

    private static byte[] Bytes(SafetensorsReader reader, string name)
    {
        byte[] bytes = new byte[reader.Entries[name].ByteCount];
        reader.ReadBytes(reader.Entries[name], 0, bytes);
        return bytes;
    }

    private static LoKrMergeResult MergeFile(string from, string adapter, string to, ScalarType? type = null) => MergeFiles.Run(FileOptions(from, adapter, to) with { DType = type });

    private static CheckpointMergeOptions FileOptions(string from, string adapter, string to) => new()
    {
        Base = CheckpointBase.Read(from),
        Destination = to,
        Adapters = [new AdapterMergeSource(adapter)],
        Force = true,
    };

    private static bool IsChanged(string name) => name.Contains("q_proj", StringComparison.Ordinal) || name.Contains("up_proj", StringComparison.Ordinal);

    private static byte[] Bytes(CheckpointReader reader, string name) => Bytes(reader.Shards[0], name);

    private LoKrMergeResult Merge(string from, string to, Func<CheckpointMergeOptions, CheckpointMergeOptions>? change = null)
    {
        CheckpointMergeOptions options = MergeFiles.Options(from, to, _adapter) with { Force = true };
        return MergeFiles.Run(change?.Invoke(options) ?? options);
    }

    /// <summary>The result of a merge into the dequantized model.</summary>
    private Dictionary<string, Tensor> MergedInFloat32(string from)
    {
        using CheckpointReader reader = CheckpointReader.Open(from);
        QuantizedCheckpoint weights = new(reader, reader.Shards);
        Merge(MergeFiles.Base(_folder["float"], weights.Entries.Keys.ToDictionary(static name => name, name => weights.Read(name), StringComparer.Ordinal)), _folder["float-out"]);
        return MergeFiles.Read(_folder["float-out"]);
    }

    /// <summary>Writes the model with its matrices as floats of 8 bits.</summary>
    private string Write(string type, string? scale, bool byRows, Func<string, string>? format = null)
    {
        string from = _folder["base-" + Guid.NewGuid().ToString("N")];
        Directory.CreateDirectory(from);
        Float8 floats = type == "F8_E4M3" ? Float8.E4M3 : Float8.E5M2;
        List<(string, string, long[], byte[])> tensors = [("scaled_fp8", type, [0], [])];
        foreach ((string name, Tensor tensor) in _state)
        {
            if (tensor.dim() != 2)
            {
                tensors.Add((name, "F32", tensor.shape, tensor.bytes.ToArray()));
                continue;
            }

            string module = name[..^".weight".Length];
            int columns = (int)tensor.shape[1];
            float[] values = tensor.data<float>().ToArray();
            byte[] codes = new byte[values.Length];
            float[] scales = scale is null ? [1] : [.. values.Chunk(byRows ? columns : values.Length).Select(chunk => chunk.Max(MathF.Abs) / floats.Largest)];
            for (int row = 0; row < tensor.shape[0]; row++)
            {
                floats.Encode(values.AsSpan(row * columns, columns), scales[byRows ? row : 0], codes.AsSpan(row * columns, columns));
            }

            tensors.Add((name, type, tensor.shape, codes));
            if (scale is not null)
            {
                tensors.Add((module + scale, "F32", byRows ? [scales.Length, 1] : [], SafetensorsBytes.Of(scales)));
                tensors.Add((module + (scale == ".scale_weight" ? ".scale_input" : ".input_scale"), "F32", [], SafetensorsBytes.Of(1)));
            }

            if (format is not null)
            {
                byte[] json = System.Text.Encoding.UTF8.GetBytes($$"""{"format": "{{format(module)}}"}""");
                tensors.Add((module + ".comfy_quant", "U8", [json.Length], json));
            }
        }

        SafetensorsBytes.Write(Path.Combine(from, "model.safetensors"), [.. tensors], """{"format":"pt","_quantization_metadata":"{\"format_version\": \"1.0\", \"layers\": {}}"}""");
        File.WriteAllText(Path.Combine(from, "config.json"), """{"model_type": "test", "quantization_config": {"quant_method": "fp8"}}""");
        return from;
    }
}
