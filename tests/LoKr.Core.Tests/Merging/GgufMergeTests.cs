using System.Security.Cryptography;
using System.Text.Json;
using LoKr.Core.Errors;
using LoKr.Core.Gguf;
using LoKr.Core.Layouts;
using LoKr.Core.Merging.Checkpoints;
using LoKr.Core.Model;
using LoKr.Core.Safetensors;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Merging;

/// <summary>Merges into files of llama.cpp's converter, against the bytes that its own quantizers give.</summary>
public sealed class GgufMergeTests : IDisposable
{
    // A sum at a rounding tie may fall to either side.
    private const double MostDifferentBytes = 0.001;

    private readonly TempFolder _folder = new();

    public static TheoryData<string> Models => Fixtures.Cases("gguf", static folder => Directory.Exists(Path.Combine(folder, "hf")) && Directory.Exists(Path.Combine(folder, "adapters")));

    public void Dispose() => _folder.Dispose();

    [Theory]
    [MemberData(nameof(Models))]
    public void The_merged_file_is_the_base_with_the_bytes_of_adapted_tensors_replaced(string model)
    {
        string root = Fixtures.Require("gguf", model);
        int compared = 0;
        foreach (string adapter in Adapters(root))
        {
            using JsonDocument json = JsonDocument.Parse(File.ReadAllText(Path.Combine(adapter, "case.json")));
            foreach (JsonProperty type in json.RootElement.GetProperty("merged").EnumerateObject())
            {
                string source = Path.Combine(root, $"model-{type.Name}.gguf");
                if (File.Exists(source))
                {
                    LoKrMergeResult result = Merge(source, adapter, _folder["merged.gguf"]);
                    CheckFile(source, adapter, type);
                    CheckLoss(result, type.Value);
                    compared++;
                }
            }
        }

        Assert.True(compared > 0);
    }

    [Fact]
    public void Types_that_are_not_stored_are_made_from_exact_weights_and_merged_to_the_same_bytes()
    {
        using DisposeScope scope = NewDisposeScope();
        string root = Fixtures.Require("gguf", "llama");
        string exact = Path.Combine(root, "model-BF16.gguf");
        foreach (string adapter in Adapters(root).Where(static adapter => File.Exists(Path.Combine(adapter, "merged-bytes.safetensors"))))
        {
            using SafetensorsReader bytes = SafetensorsReader.Open(Path.Combine(adapter, "merged-bytes.safetensors"));
            foreach (GgmlType type in BlockFormat.Writable.Where(type => bytes.Entries.Keys.Any(key => key.StartsWith($"{type}.", StringComparison.Ordinal))))
            {
                // Strength 0 changes no value, so this is the quantized base model.
                Merge(exact, adapter, _folder["base.gguf"], weight: 0, type: type);
                Merge(_folder["base.gguf"], adapter, _folder["merged.gguf"]);
                using GgufReader merged = GgufReader.Open(_folder["merged.gguf"]);
                foreach (string key in bytes.Entries.Keys.Where(key => key.StartsWith($"{type}.", StringComparison.Ordinal)))
                {
                    Compare(bytes.Read(key).bytes, Bytes(merged, key[(type.ToString().Length + 1)..]), type, key);
                }
            }
        }
    }

    [Fact]
    public void Rows_that_fill_no_blocks_are_stored_as_they_were()
    {
        using DisposeScope scope = NewDisposeScope();
        string root = Fixtures.Require("gguf", "transformers-llama");
        using JsonDocument json = JsonDocument.Parse(File.ReadAllText(Path.Combine(root, "case.json")));
        foreach (JsonProperty adapter in json.RootElement.GetProperty("adapters").EnumerateObject())
        {
            Merge(Path.Combine(root, "model-Q8_0.gguf"), Fixtures.Require("transformers", "llama", "adapters", adapter.Name), _folder["merged.gguf"]);
            using GgufReader merged = GgufReader.Open(_folder["merged.gguf"]);
            JsonProperty[] tensors = [.. adapter.Value.GetProperty("tensors").EnumerateObject()];
            int equal = tensors.Count(tensor => tensor.Value.GetProperty("sha256").GetString() == Convert.ToHexStringLower(SHA256.HashData(Bytes(merged, tensor.Name))));
            Assert.True(equal >= tensors.Length - 1, $"{adapter.Name}: {equal} of {tensors.Length} tensors have the bytes of llama.cpp.");
            if (adapter.Name == "layers")
            {
                using SafetensorsReader bytes = SafetensorsReader.Open(Path.Combine(root, "merged-layers-bytes.safetensors"));
                Assert.All(bytes.Entries.Keys, key => Compare(bytes.Read(key).bytes, Bytes(merged, key), merged.Find(key)!.Type, key));
            }
        }
    }

    [Fact]
    public void A_file_with_another_alignment_a_fused_one_and_parts_get_the_same_rows()
    {
        string root = Fixtures.Require("gguf", "llama");
        string adapter = Path.Combine(root, "adapters", "lokr-r4-f4");
        using GgufReader expected = GgufReader.Open(Path.Combine(adapter, "merged-Q8_0.gguf"));

        Merge(Path.Combine(root, "model-Q8_0-align64.gguf"), adapter, _folder["align.gguf"]);
        using GgufReader aligned = GgufReader.Open(_folder["align.gguf"]);
        Assert.All(expected.Tensors, tensor => Assert.Equal(Bytes(expected, tensor.Name), Bytes(aligned, tensor.Name)));

        Merge(Path.Combine(root, "model-Q8_0-fused.gguf"), adapter, _folder["fused.gguf"]);
        using GgufReader fused = GgufReader.Open(_folder["fused.gguf"]);
        for (int layer = 0; layer < 2; layer++)
        {
            Assert.Equal(((string[])["q", "k", "v"]).SelectMany(part => Bytes(expected, $"blk.{layer}.attn_{part}.weight")), Bytes(fused, $"blk.{layer}.attn_qkv.weight"));
            Assert.Equal(Bytes(expected, $"blk.{layer}.ffn_down.weight"), Bytes(fused, $"blk.{layer}.ffn_down.weight"));
        }

        string[] parts = [.. Directory.GetFiles(Path.Combine(root, "split")).Order(StringComparer.Ordinal)];
        LoKrMergeResult result = Merge(parts[0], adapter, _folder["parts"]);
        Assert.Equal(parts.Select(static part => Path.GetFileName(part)), result.Files);
        Assert.Equal(parts.Length, Directory.GetFileSystemEntries(_folder["parts"]).Length);
        using GgufModel joined = GgufModel.Open(Path.Combine(_folder["parts"], result.Files[0]));
        Assert.All(joined.Parts.SelectMany(static part => part.Tensors.Select(tensor => (part, tensor))), pair => Assert.Equal(Bytes(expected, pair.tensor.Name), Bytes(pair.part, pair.tensor.Name)));
    }

    [Fact]
    public void An_interrupted_merge_of_parts_keeps_the_finished_ones()
    {
        string root = Fixtures.Require("gguf", "llama");
        string adapter = Path.Combine(root, "adapters", "lokr-r4-f4");
        string first = Directory.GetFiles(Path.Combine(root, "split")).Order(StringComparer.Ordinal).First();
        using (GgufMerge merge = Open(first, adapter, _folder["parts"]))
        {
            using CancellationTokenSource stop = new();
            int started = 0;
            Assert.Throws<OperationCanceledException>(() => merge.Run(
                step =>
                {
                    // The third file has begun, so the first ones are complete or being completed.
                    if (step.File.Contains("-00003-", StringComparison.Ordinal) && Interlocked.Increment(ref started) == 1)
                    {
                        stop.Cancel();
                    }
                },
                stop.Token));
        }

        Assert.False(Directory.Exists(_folder["parts"]));
        LoKrMergeResult result = Merge(first, adapter, _folder["parts"]);
        Assert.InRange(result.ResumedFileCount, 0, 3);
        Assert.Equal(result.ResumedFileCount > 0, result.Warnings.Any(static warning => warning.Contains("interrupted run", StringComparison.Ordinal)));
        Merge(first, adapter, _folder["again"]);
        Assert.All(result.Files, file => Assert.Equal(File.ReadAllBytes(Path.Combine(_folder["again"], file)), File.ReadAllBytes(Path.Combine(_folder["parts"], file))));
    }

    [Fact]
    public void Another_type_is_given_to_the_adapted_tensors_alone()
    {
        using DisposeScope scope = NewDisposeScope();
        string root = Fixtures.Require("gguf", "kquant");
        string source = Path.Combine(root, "model-Q4_K_M.gguf");
        string adapter = Adapters(root).First();
        LoKrMergeResult kept = Merge(source, adapter, _folder["same.gguf"]);
        Assert.Contains(kept.Warnings, static warning => warning.Contains("Q8_0", StringComparison.Ordinal) && warning.Contains("GGUF LoRA", StringComparison.Ordinal));
        LoKrMergeResult result = Merge(source, adapter, _folder["wide.gguf"], type: GgmlType.Q8_0);
        Assert.DoesNotContain(result.Warnings, static warning => warning.Contains("GGUF LoRA", StringComparison.Ordinal));
        Assert.All(result.Weights, static weight => Assert.True(weight.Type == "Q8_0" && weight.Kept > 0.99));
        using GgufReader before = GgufReader.Open(source);
        using GgufReader after = GgufReader.Open(_folder["wide.gguf"]);
        Assert.Equal(before.Metadata.Keys, after.Metadata.Keys);
        HashSet<string> changed = [.. result.Weights.Select(static weight => weight.Name)];
        foreach (GgufTensor tensor in before.Tensors)
        {
            Assert.Equal(changed.Contains(tensor.Name) ? GgmlType.Q8_0 : tensor.Type, after.Find(tensor.Name)!.Type);
            if (!changed.Contains(tensor.Name))
            {
                Assert.Equal(Bytes(before, tensor.Name), Bytes(after, tensor.Name));
            }
        }
    }

    [Fact]
    public void A_merge_of_no_strength_keeps_every_byte()
    {
        string root = Fixtures.Require("gguf", "kquant");
        foreach (string source in Directory.GetFiles(root, "*.gguf"))
        {
            Merge(source, Adapters(root).First(), _folder["merged.gguf"], weight: 0);
            Assert.Equal(File.ReadAllBytes(source), File.ReadAllBytes(_folder["merged.gguf"]));
        }
    }

    [Fact]
    public void What_does_not_fit_is_refused()
    {
        string root = Fixtures.Require("gguf", "llama");
        string adapter = Path.Combine(root, "adapters", "lokr-r4-f4");
        string source = Path.Combine(root, "model-Q8_0.gguf");
        ErrorAssert.Throws(ErrorIds.InvalidArgument, () => Merge(source, adapter, _folder["folder"]), ".gguf");
        ErrorAssert.Throws(ErrorIds.ExportIntoSource, () => Merge(source, adapter, source));
        Merge(source, adapter, _folder["merged.gguf"]);
        ErrorAssert.Throws(ErrorIds.DestinationExists, () => Merge(source, adapter, _folder["merged.gguf"], force: false));
        ErrorAssert.Throws(ErrorIds.AdapterKeysMismatch, () => Merge(Fixtures.Require("gguf", "phi3", "model-Q8_0.gguf"), adapter, _folder["other.gguf"]));
        string part = Directory.GetFiles(Path.Combine(root, "split")).Order(StringComparer.Ordinal).First();
        File.Copy(part, _folder[Path.GetFileName(part)]);
        ErrorAssert.Throws(ErrorIds.CheckpointShardMissing, () => Merge(_folder[Path.GetFileName(part)], adapter, _folder["parts"]));
        Assert.Empty(Directory.GetFiles(_folder.Path, ".*"));
    }

    private static IEnumerable<string> Adapters(string root) =>
        Directory.GetDirectories(Path.Combine(root, "adapters"), "lokr-*").Where(static adapter => File.Exists(Path.Combine(adapter, "case.json"))).Order(StringComparer.Ordinal);

    private static GgufMerge Open(string source, string adapter, string destination, double weight = 1, GgmlType? type = null, bool force = true) => GgufMerge.Open(new()
    {
        Path = source,
        Adapters = [new AdapterMergeSource(adapter, weight)],
        Destination = destination,
        TensorType = type,
        Force = force,
    });

    private static LoKrMergeResult Merge(string source, string adapter, string destination, double weight = 1, GgmlType? type = null, bool force = true)
    {
        using GgufMerge merge = Open(source, adapter, destination, weight, type, force);
        return merge.Run(cancel: TestContext.Current.CancellationToken);
    }

    private void CheckFile(string source, string adapter, JsonProperty type)
    {
        using DisposeScope scope = NewDisposeScope();
        byte[] actual = File.ReadAllBytes(_folder["merged.gguf"]);
        Assert.Equal(new FileInfo(source).Length, actual.Length);
        bool isEqual = type.Value.TryGetProperty("file_sha256", out JsonElement hash) && hash.GetString() == Convert.ToHexStringLower(SHA256.HashData(actual));
        string whole = Path.Combine(adapter, $"merged-{type.Name}.gguf");
        if (File.Exists(whole))
        {
            byte[] expected = File.ReadAllBytes(whole);
            Assert.Equal(expected.Length, actual.Length);
            int different = expected.Zip(actual).Count(static pair => pair.First != pair.Second);
            Assert.True(different <= expected.Length * MostDifferentBytes, $"{whole}: {different} bytes differ.");
        }

        string list = Path.Combine(adapter, "merged-bytes.safetensors");
        if (!isEqual && File.Exists(list))
        {
            using SafetensorsReader bytes = SafetensorsReader.Open(list);
            using GgufReader merged = GgufReader.Open(_folder["merged.gguf"]);
            foreach (string key in bytes.Entries.Keys.Where(key => key.StartsWith(type.Name + ".", StringComparison.Ordinal)))
            {
                string name = key[(type.Name.Length + 1)..];
                Compare(bytes.Read(key).bytes, Bytes(merged, name), merged.Find(name)!.Type, key);
            }
        }

        // Everything else is the base model's.
        using GgufReader before = GgufReader.Open(source);
        using GgufReader after = GgufReader.Open(_folder["merged.gguf"]);
        using JsonDocument json = JsonDocument.Parse(File.ReadAllText(Path.Combine(adapter, "case.json")));
        HashSet<string> adapted = [.. json.RootElement.GetProperty("tensors").EnumerateObject().Select(static tensor => tensor.Name)];
        Assert.Equal(before.Tensors, after.Tensors, static (first, second) => first with { Shape = second.Shape } == second);
        Assert.All(before.Tensors.Where(tensor => !adapted.Contains(tensor.Name)), tensor => Assert.Equal(Bytes(before, tensor.Name), Bytes(after, tensor.Name)));
        Assert.All(before.Tensors.Where(tensor => adapted.Contains(tensor.Name)), tensor => Assert.NotEqual(Bytes(before, tensor.Name), Bytes(after, tensor.Name)));
    }

    private static void CheckLoss(LoKrMergeResult result, JsonElement expected)
    {
        if (!expected.TryGetProperty("tensors", out JsonElement tensors))
        {
            return;
        }

        Assert.Equal(tensors.EnumerateObject().Select(static tensor => tensor.Name).Order(StringComparer.Ordinal), result.Weights.Select(static weight => weight.Name).Order(StringComparer.Ordinal));
        foreach (JsonProperty tensor in tensors.EnumerateObject())
        {
            LoKrMergedWeight weight = result.Weights.Single(weight => weight.Name == tensor.Name);
            Assert.Equal(tensor.Value.GetProperty("type").GetString(), weight.Type);
            Assert.Equal(tensor.Value.GetProperty("kept").GetDouble(), weight.Kept, 0.01);
            Assert.Equal(tensor.Value.GetProperty("error_over_delta").GetDouble(), weight.ErrorOverDelta, 0.01);
        }

        int lost = tensors.EnumerateObject().Count(static tensor => tensor.Value.GetProperty("kept").GetDouble() < QuantizationLoss.LeastKept);
        Assert.Equal(lost > 0, result.Warnings.Any(static warning => warning.Contains("keep less than", StringComparison.Ordinal)));
    }

    private static void Compare(ReadOnlySpan<byte> expected, byte[] actual, GgmlType type, string what)
    {
        Assert.Equal(expected.Length, actual.Length);
        int different = 0;
        for (int i = 0; i < actual.Length; i++)
        {
            different += expected[i] != actual[i] ? 1 : 0;
        }

        // The search of K types may turn a whole block at a tie.
        int block = GgmlTypes.Size(type).Bytes;
        Assert.True(different <= Math.Max(actual.Length * MostDifferentBytes, BlockFormat.Of(type)!.Size.Values == 256 ? block : 5), $"{what}: {different} of {actual.Length} bytes differ.");
    }

    private static byte[] Bytes(GgufReader reader, string name)
    {
        GgufTensor tensor = reader.Find(name)!;
        byte[] bytes = new byte[tensor.ByteCount];
        reader.ReadBytes(tensor.Offset, bytes);
        return bytes;
    }
}
