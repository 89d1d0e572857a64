using System.Runtime.InteropServices;
using LoKr.Core.Gguf;
using LoKr.Core.Safetensors;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Gguf;

/// <summary>Blocks against llama.cpp: any bit pattern to values, and values with extreme rows to bytes.</summary>
public sealed class BlockFormatTests
{
    [Fact]
    public void Blocks_of_any_bits_give_the_values_of_llama_cpp_bit_for_bit()
    {
        using DisposeScope scope = NewDisposeScope();
        using SafetensorsReader reader = SafetensorsReader.Open(Fixtures.Require("gguf", "blocks", "dequantise.safetensors"));
        string[] types = [.. reader.Entries.Keys.Where(static key => key.EndsWith(".raw", StringComparison.Ordinal)).Select(static key => key[..^4])];
        foreach (string name in types)
        {
            BlockFormat format = BlockFormat.Of(Enum.Parse<GgmlType>(name))!;
            byte[] raw = reader.Read(name + ".raw").bytes.ToArray();
            float[] expected = [.. reader.Read(name + ".float").data<float>()];
            float[] actual = new float[raw.Length / format.Size.Bytes * format.Size.Values];
            format.Dequantize(raw, actual);
            Assert.True(MemoryMarshal.AsBytes<float>(expected).SequenceEqual(MemoryMarshal.AsBytes<float>(actual)), $"{name}: {Differences(expected, actual)}");
        }

        Assert.NotEmpty(types);
    }

    [Fact]
    public void Values_give_the_bytes_of_llama_cpp()
    {
        using DisposeScope scope = NewDisposeScope();
        using SafetensorsReader reader = SafetensorsReader.Open(Fixtures.Require("gguf", "blocks", "quantise.safetensors"));
        List<string> problems = [];
        foreach (GgmlType type in BlockFormat.Writable.Except([GgmlType.F32]))
        {
            BlockFormat format = BlockFormat.Of(type)!;
            float[] input = [.. reader.Read(type is GgmlType.F16 or GgmlType.BF16 ? "special.input" : "input").data<float>()];
            byte[] expected = reader.Read(type.ToString()).bytes.ToArray();
            byte[] actual = new byte[expected.Length];
            format.Quantize!(input, actual);
            int[] wrong = [.. Enumerable.Range(0, expected.Length / format.Size.Bytes)
                .Where(block => !expected.AsSpan(block * format.Size.Bytes, format.Size.Bytes).SequenceEqual(actual.AsSpan(block * format.Size.Bytes, format.Size.Bytes)))];
            if (wrong.Length > 0)
            {
                problems.Add($"{type}: blocks {string.Join(", ", wrong)} of {expected.Length / format.Size.Bytes}; {string.Join(' ', expected.Skip(wrong[0] * format.Size.Bytes).Take(24))} / {string.Join(' ', actual.Skip(wrong[0] * format.Size.Bytes).Take(24))}");
            }
        }

        Assert.True(problems.Count == 0, string.Join(Environment.NewLine, problems));
    }

    [Fact]
    public void Every_type_that_is_merged_can_be_written() => Assert.Superset(
        new HashSet<GgmlType>([GgmlType.F32, GgmlType.F16, GgmlType.BF16, GgmlType.Q8_0, GgmlType.Q4_0, GgmlType.Q4_1, GgmlType.Q5_0, GgmlType.Q5_1, GgmlType.Q4_K, GgmlType.Q5_K, GgmlType.Q6_K]),
        new HashSet<GgmlType>(BlockFormat.Writable));

    private static string Differences(float[] expected, float[] actual) => string.Join("; ", Enumerable.Range(0, expected.Length)
        .Where(i => BitConverter.SingleToInt32Bits(expected[i]) != BitConverter.SingleToInt32Bits(actual[i])).Take(5).Select(i => $"[{i}] {expected[i]:R} {actual[i]:R}"));
}
