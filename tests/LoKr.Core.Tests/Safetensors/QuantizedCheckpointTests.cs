using LoKr.Core.Errors;
using LoKr.Core.Safetensors;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Safetensors;

/// <summary>Quantized weights as numbers, under every name that programs give their scales and settings.</summary>
public sealed class QuantizedCheckpointTests : IDisposable
{
    private readonly TempFolder _folder = new();

    public static TheoryData<string> Styles => Fixtures.Cases("checkpoints", static folder => Path.GetFileName(folder).StartsWith("fp8-", StringComparison.Ordinal));

    public void Dispose() => _folder.Dispose();

    [Theory]
    [MemberData(nameof(Styles))]
    public void Every_style_of_scales_is_read_to_the_values_that_merges_start_from(string style)
    {
        using DisposeScope scope = NewDisposeScope();
        using SafetensorsReader file = SafetensorsReader.Open(Path.Combine(Fixtures.Require("checkpoints", style), "checkpoint.safetensors"));
        QuantizedCheckpoint checkpoint = new(file, [file]);
        string[] stored = [.. file.Entries.Values.Where(static entry => entry.DType is SafetensorsDType.F8E4M3 or SafetensorsDType.F8E5M2 && entry.ByteCount > 0).Select(static entry => entry.Name)];
        Assert.NotEmpty(stored);
        Assert.Equal(stored.Order(StringComparer.Ordinal), checkpoint.Weights.Keys.Order(StringComparer.Ordinal));
        Assert.DoesNotContain(checkpoint.Entries.Keys, static name => name.Contains("scale", StringComparison.Ordinal) || name.Contains("quant", StringComparison.Ordinal) || name.Contains("fp8", StringComparison.Ordinal));
        foreach (string name in stored)
        {
            string module = name[..^".weight".Length];
            Tensor expected = file.Read(name);
            foreach (string suffix in (string[])[".scale_weight", ".weight_scale"])
            {
                expected = file.Entries.ContainsKey(module + suffix) ? expected * file.Read(module + suffix) : expected;
            }

            Assert.Equal(SafetensorsDType.F32, checkpoint.Entries[name].DType);
            AssertSame(expected, checkpoint.Read(name));

            // A part of it, and into another type.
            Tensor part = empty(7, ScalarType.Float64);
            checkpoint.ReadRange(name, 30, part);
            AssertSame(expected.view(-1).narrow(0, 30, 7).to(ScalarType.Float64), part);
        }
    }

    [Fact]
    public void Scales_of_blocks_apply_to_their_blocks()
    {
        using DisposeScope scope = NewDisposeScope();
        byte[] codes = [.. Enumerable.Range(0, 160 * 260).Select(static i => (byte)(i % 0x78))];
        float[] grid = [1, 2, 3, 4, 5, 6];
        float[] columns = [.. Enumerable.Range(1, 160 * 4).Select(static i => i / 16f)];
        Write("blocks.safetensors", ("a.weight", "F8_E4M3", [160, 260], codes), ("a.weight_scale_inv", "F32", [2, 3], SafetensorsBytes.Of(grid)),
            ("b.weight", "F8_E4M3", [160, 260], codes), ("b.scale_weight", "F32", [160, 4, 1], SafetensorsBytes.Of(columns)));
        using SafetensorsReader file = SafetensorsReader.Open(_folder["blocks.safetensors"]);
        QuantizedCheckpoint checkpoint = new(file, [file]);
        Tensor plain = file.Read("a.weight");
        Tensor wide = tensor(grid).view(2, 3).repeat_interleave(128, 0).repeat_interleave(128, 1).narrow(0, 0, 160).narrow(1, 0, 260);
        AssertSame(plain * wide, checkpoint.Read("a.weight"));
        AssertSame(plain * tensor(columns).view(160, 4).repeat_interleave(65, 1), checkpoint.Read("b.weight"));
    }

    [Theory]
    [InlineData("nf4", false)]
    [InlineData("nf4", true)]
    [InlineData("fp4", false)]
    public void Four_bits_of_bitsandbytes_are_indexes_of_a_table_times_the_largest_of_their_block(string type, bool isNested)
    {
        using DisposeScope scope = NewDisposeScope();
        (float[] expected, (string, string, long[], byte[])[] tensors) = SafetensorsBytes.FourBits("m.weight", type, [7, 19], isNested);
        Write("four.safetensors", tensors);
        using SafetensorsReader file = SafetensorsReader.Open(_folder["four.safetensors"]);
        QuantizedCheckpoint checkpoint = new(file, [file]);
        Assert.Equal(["m.weight"], checkpoint.Entries.Keys);
        Assert.Equal(type.ToUpperInvariant(), checkpoint.Weights["m.weight"].Format);
        AssertSame(tensor(expected).view(7, 19), checkpoint.Read("m.weight"));

        // Odd places are the lower halves of bytes.
        Tensor part = empty(90);
        checkpoint.ReadRange("m.weight", 21, part);
        AssertSame(tensor(expected[21..111]), part);
    }

    [Fact]
    public void Eight_bits_of_bitsandbytes_are_integers_times_the_largest_of_their_row()
    {
        using DisposeScope scope = NewDisposeScope();
        byte[] codes = [.. Enumerable.Range(0, 15).Select(static i => (byte)(sbyte)((i * 17) - 127))];
        Write("eight.safetensors", ("m.weight", "I8", [3, 5], codes), ("m.SCB", "F32", [3], SafetensorsBytes.Of([0.5f, 2, 127])), ("m.weight_format", "U8", [], [0]));
        using SafetensorsReader file = SafetensorsReader.Open(_folder["eight.safetensors"]);
        QuantizedCheckpoint checkpoint = new(file, [file]);
        Assert.Equal(["m.weight"], checkpoint.Entries.Keys);
        float[] expected = [.. codes.Select(static (code, i) => (float)((sbyte)code * (double)((float[])[0.5f, 2, 127])[i / 5] / 127))];
        TensorAssert.Close(tensor(expected).view(3, 5), checkpoint.Read("m.weight"), 1e-6, "INT8");
    }

    [Fact]
    public void What_does_not_fit_a_weight_is_named()
    {
        byte[] codes = new byte[12];
        ErrorAssert.Throws(ErrorIds.QuantizationInvalid, () => Open(("a.weight", "F8_E4M3", [3, 4], codes), ("a.weight_scale", "F32", [4], SafetensorsBytes.Of([1, 1, 1, 1]))), "a.weight_scale", "[4]");
        ErrorAssert.Throws(ErrorIds.QuantizationInvalid, () => Open(("a.weight", "F8_E4M3", [3, 4], codes), ("a.weight_scale", "F32", [], SafetensorsBytes.Of([float.NaN]))), "a.weight_scale");
        ErrorAssert.Throws(ErrorIds.QuantizationInvalid, () => Open(("a.weight", "F8_E4M3", [3, 4], codes), ("a.weight_scale", "I32", [], new byte[4])), "I32");
        ErrorAssert.Throws(ErrorIds.QuantizationInvalid, () => Open(("a.weight", "F8_E4M3", [3, 4], codes), ("a.weight_scale", "F32", [], SafetensorsBytes.Of([1])), ("a.scale_weight", "F32", [], SafetensorsBytes.Of([1]))), "2 scales");
        ErrorAssert.Throws(ErrorIds.QuantizationInvalid, () => Open(("a.weight", "F8_E4M3", [3, 4], codes), ("a.comfy_quant", "U8", [3], "{]}"u8.ToArray())), "a.comfy_quant");
        ErrorAssert.Throws(ErrorIds.QuantizationInvalid, () => Open(("a.weight", "I8", [3, 4], codes), ("a.SCB", "F32", [4], SafetensorsBytes.Of([1, 1, 1, 1]))), "a.SCB");
        (_, (string Name, string, long[], byte[])[] four) = SafetensorsBytes.FourBits("m.weight", "nf4", [4, 64], isNested: true);
        foreach (string missing in four.Select(static tensor => tensor.Name).Where(static name => name is not "m.weight" && !name.Contains("quant_state", StringComparison.Ordinal) && !name.EndsWith("nested_absmax", StringComparison.Ordinal)))
        {
            ErrorAssert.Throws(ErrorIds.QuantizationInvalid, () => Open([.. four.Where(tensor => tensor.Name != missing)]), missing);
        }
    }

    [Fact]
    public void Formats_that_are_not_read_can_be_copied_and_are_named_when_they_are_read()
    {
        Write("other.safetensors", ("a.weight", "U8", [3, 2], new byte[6]), ("a.weight_scale", "U8", [3], new byte[3]), ("a.comfy_quant", "U8", [19], """{"format": "nvfp4"}"""u8.ToArray()));
        using SafetensorsReader file = SafetensorsReader.Open(_folder["other.safetensors"]);
        QuantizedCheckpoint checkpoint = new(file, [file]);
        Assert.Equal(["a.weight"], checkpoint.Entries.Keys);
        Assert.Equal(SafetensorsDType.U8, checkpoint.Entries["a.weight"].DType);
        ErrorAssert.Throws(ErrorIds.QuantizationUnsupported, () => checkpoint.Weights["a.weight"].Read(0, new float[1]), "nvfp4");
    }

    private static void AssertSame(Tensor expected, Tensor actual) => Assert.True(TensorAssert.Same(expected, actual));

    private void Open(params (string Name, string DType, long[] Shape, byte[] Data)[] tensors)
    {
        Write("open.safetensors", tensors);
        using SafetensorsReader file = SafetensorsReader.Open(_folder["open.safetensors"]);
        _ = new QuantizedCheckpoint(file, [file]);
    }

    private void Write(string name, params (string Name, string DType, long[] Shape, byte[] Data)[] tensors) => SafetensorsBytes.Write(_folder[name], tensors);
}
