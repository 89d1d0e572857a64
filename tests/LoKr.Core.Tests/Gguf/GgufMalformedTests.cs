using LoKr.Core.Errors;
using LoKr.Core.Gguf;
using LoKr.Testing;
using Xunit;

namespace LoKr.Core.Tests.Gguf;

public sealed class GgufMalformedTests
{
    [Fact]
    public void A_file_written_by_hand_is_read()
    {
        byte[] file = new GgufBytes(2, 4).Key("general.architecture", GgufValueType.String).Text("llama")
            .Key("general.alignment", GgufValueType.UInt32).Number(64u)
            .Key("llama.attention.head_count", GgufValueType.Array).Number((uint)GgufValueType.Int32).Number(2UL).Number(4).Number(8)
            .Key("tokens", GgufValueType.Array).Number((uint)GgufValueType.String).Number(2UL).Text("a").Text("🚀")
            .Tensor("a", GgmlType.F32, 0, 3, 2).Tensor("b", GgmlType.Q8_0, 64, 32).File(64 + 34, 64);
        using TempFolder folder = new();
        using GgufReader reader = Open(folder, file);
        Assert.Equal("llama", reader.FindText("general.architecture"));
        Assert.Equal([4L, 8L], reader.Metadata["llama.attention.head_count"].Integers!);
        Assert.Equal(2, reader.Metadata["tokens"].Count);
        Assert.Equal([2L, 3L], reader.Find("a")!.Shape);
        Assert.Equal(0, reader.Header.DataOffset % 64);
    }

    public static TheoryData<string, string> Broken => new()
    {
        { "magic", ErrorIds.GgufHeaderInvalid }, { "version 1", ErrorIds.GgufHeaderInvalid }, { "big endian", ErrorIds.GgufHeaderInvalid }, { "short", ErrorIds.GgufTruncated },
        { "many tensors", ErrorIds.GgufHeaderInvalid }, { "many keys", ErrorIds.GgufHeaderInvalid }, { "missing key", ErrorIds.GgufTruncated }, { "double key", ErrorIds.GgufHeaderInvalid },
        { "value type", ErrorIds.GgufHeaderInvalid }, { "long text", ErrorIds.GgufTruncated }, { "not utf-8", ErrorIds.GgufHeaderInvalid }, { "long list", ErrorIds.GgufTruncated },
        { "deep list", ErrorIds.GgufHeaderInvalid }, { "alignment", ErrorIds.GgufHeaderInvalid }, { "dimensions", ErrorIds.GgufHeaderInvalid }, { "zero", ErrorIds.GgufHeaderInvalid },
        { "large shape", ErrorIds.GgufHeaderInvalid }, { "type", ErrorIds.GgufTypeUnsupported }, { "row of half a block", ErrorIds.GgufHeaderInvalid }, { "gap", ErrorIds.GgufHeaderInvalid },
        { "overlap", ErrorIds.GgufHeaderInvalid }, { "double tensor", ErrorIds.GgufHeaderInvalid }, { "no data", ErrorIds.GgufTruncated }, { "boolean", ErrorIds.GgufHeaderInvalid },
    };

    [Theory]
    [MemberData(nameof(Broken))]
    public void A_damaged_header_is_refused_with_an_id(string what, string errorId)
    {
        using TempFolder folder = new();
        ErrorAssert.Throws(errorId, () => Open(folder, Build(what)).Dispose(), "x.gguf");
    }

    [Fact]
    public void Half_a_file_is_truncated_wherever_it_is_cut()
    {
        byte[] file = new GgufBytes(1, 2).Key("general.architecture", GgufValueType.String).Text("llama").Key("x", GgufValueType.Float64).Number(1.5)
            .Tensor("a", GgmlType.F32, 0, 8).File(32);
        using TempFolder folder = new();
        for (int length = 0; length < file.Length; length++)
        {
            ErrorAssert.Throws(ErrorIds.GgufTruncated, () => Open(folder, file[..length]).Dispose());
        }
    }

    private static byte[] Build(string what) => what switch
    {
        "magic" => new GgufBytes(0, 0, magic: "GGML").Raw(),
        "version 1" => new GgufBytes(0, 0, 1).Raw(),
        "big endian" => new GgufBytes(0, 0, 0x03000000).Raw(),
        "short" => "GGUF"u8.ToArray(),
        "many tensors" => new GgufBytes(ulong.MaxValue, 0).Raw(),
        "many keys" => new GgufBytes(0, 1UL << 40).Raw(),
        "missing key" => new GgufBytes(0, 2).Key("a", GgufValueType.Bool).Number((byte)1).Raw(),
        "double key" => new GgufBytes(0, 2).Key("a", GgufValueType.Bool).Number((byte)1).Key("a", GgufValueType.Bool).Number((byte)1).Raw(),
        "value type" => new GgufBytes(0, 1).Key("a", (GgufValueType)13).Number(1UL).Raw(),
        "long text" => new GgufBytes(0, 1).Key("a", GgufValueType.String).Number(ulong.MaxValue).Raw(),
        "not utf-8" => new GgufBytes(0, 1).Key("a", GgufValueType.String).Number(2UL).Number((ushort)0xffff).Raw(),
        "long list" => new GgufBytes(0, 1).Key("a", GgufValueType.Array).Number((uint)GgufValueType.UInt8).Number(1UL << 62).Raw(),
        "deep list" => Nested(40),
        "alignment" => new GgufBytes(0, 1).Key("general.alignment", GgufValueType.UInt32).Number(24u).Raw(),
        "dimensions" => new GgufBytes(1, 0).Tensor("a", GgmlType.F32, 0, 1, 1, 1, 1, 1).File(4),
        "zero" => new GgufBytes(1, 0).Tensor("a", GgmlType.F32, 0, 0).File(4),
        "large shape" => new GgufBytes(1, 0).Tensor("a", GgmlType.F32, 0, 1UL << 40, 1UL << 40).File(4),
        "type" => new GgufBytes(1, 0).Tensor("a", (GgmlType)999, 0, 4).File(16),
        "row of half a block" => new GgufBytes(1, 0).Tensor("a", GgmlType.Q8_0, 0, 16, 2).File(64),
        "gap" => new GgufBytes(2, 0).Tensor("a", GgmlType.F32, 0, 4).Tensor("b", GgmlType.F32, 64, 4).File(128),
        "overlap" => new GgufBytes(2, 0).Tensor("a", GgmlType.F32, 0, 4).Tensor("b", GgmlType.F32, 0, 4).File(128),
        "double tensor" => new GgufBytes(2, 0).Tensor("a", GgmlType.F32, 0, 4).Tensor("a", GgmlType.F32, 32, 4).File(128),
        "no data" => new GgufBytes(1, 0).Tensor("a", GgmlType.F32, 0, 4).File(15),
        "boolean" => new GgufBytes(0, 1).Key("a", GgufValueType.Bool).Number((byte)2).Raw(),
        _ => throw new ArgumentOutOfRangeException(nameof(what)),
    };

    private static byte[] Nested(int depth)
    {
        GgufBytes bytes = new GgufBytes(0, 1).Key("a", GgufValueType.Array);
        for (int i = 0; i < depth; i++)
        {
            bytes.Number((uint)GgufValueType.Array).Number(1UL);
        }

        return bytes.Number((uint)GgufValueType.UInt8).Number(1UL).Number((byte)1).Raw();
    }

    private static GgufReader Open(TempFolder folder, byte[] bytes)
    {
        File.WriteAllBytes(folder["x.gguf"], bytes);
        return GgufReader.Open(folder["x.gguf"]);
    }
}
