using LoKr.Core.Errors;
using LoKr.Core.Safetensors;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Safetensors;

public sealed class SafetensorsReadTests : IDisposable
{
    private readonly TempFolder _folder = new();
    private readonly DisposeScope _scope = NewDisposeScope();

    public void Dispose()
    {
        _scope.Dispose();
        _folder.Dispose();
    }

    [Fact]
    public void Eight_bit_floats_have_the_values_of_their_definition()
    {
        // Largest, smallest subnormal, one, minus two, NaN (arXiv 2209.05433, table 1).
        byte[] e4m3 = [0x7e, 0x01, 0x38, 0xc0, 0x7f, 0x80];
        byte[] e5m2 = [0x7b, 0x01, 0x3c, 0xc0, 0x7c, 0xfc];
        using SafetensorsReader reader = Open(
            """{"a":{"dtype":"F8_E4M3","shape":[6],"data_offsets":[0,6]},"b":{"dtype":"F8_E5M2","shape":[6],"data_offsets":[6,12]}}""",
            [.. e4m3, .. e5m2]);
        Tensor a = reader.Read("a");
        Assert.Equal(ScalarType.Float32, a.dtype);
        Assert.Equal([448f, MathF.Pow(2, -9), 1f, -2f, float.NaN, -0f], a.data<float>().ToArray());
        Assert.Equal([57344f, MathF.Pow(2, -16), 1f, -2f, float.PositiveInfinity, float.NegativeInfinity], reader.Read("b").data<float>().ToArray());
        Assert.Equal(ScalarType.BFloat16, reader.Read("a", ScalarType.BFloat16).dtype);
    }

    [Fact]
    public void Every_eight_bit_float_round_trips_through_its_bits()
    {
        byte[] all = [.. Enumerable.Range(0, 256).Select(value => (byte)value)];
        using SafetensorsReader reader = Open(
            """{"a":{"dtype":"F8_E4M3","shape":[256],"data_offsets":[0,256]},"b":{"dtype":"F8_E5M2","shape":[256],"data_offsets":[256,512]}}""",
            [.. all, .. all]);
        float[] e4m3 = reader.Read("a").data<float>().ToArray();
        float[] e5m2 = reader.Read("b").data<float>().ToArray();
        for (int bits = 0; bits < 256; bits++)
        {
            // E5M2 is the upper half of an IEEE half-precision number.
            float expected = (float)BitConverter.UInt16BitsToHalf((ushort)(bits << 8));
            Assert.Equal(expected, e5m2[bits]);
            // E4M3 grows with its bits within a sign, and the two signs mirror each other.
            if ((bits & 0x7f) is > 0 and < 0x7f)
            {
                Assert.True(Math.Abs(e4m3[bits]) > Math.Abs(e4m3[bits - 1]));
                Assert.Equal(-e4m3[bits & 0x7f], e4m3[bits | 0x80]);
            }
        }
    }

    [Fact]
    public void Unsigned_integers_are_widened()
    {
        using SafetensorsReader reader = Open(
            """{"a":{"dtype":"U16","shape":[2],"data_offsets":[0,4]},"b":{"dtype":"U32","shape":[1],"data_offsets":[4,8]},"c":{"dtype":"U64","shape":[1],"data_offsets":[8,16]}}""",
            [0xff, 0xff, 1, 0, 0xff, 0xff, 0xff, 0xff, 5, 0, 0, 0, 0, 0, 0, 0]);
        Assert.Equal([65535, 1], reader.Read("a").data<int>().ToArray());
        Assert.Equal(4294967295L, reader.Read("b").ToInt64());
        Assert.Equal(5L, reader.Read("c").ToInt64());
    }

    [Fact]
    public void An_unsigned_integer_that_no_torch_type_holds_is_refused()
    {
        using SafetensorsReader reader = Open("""{"a":{"dtype":"U64","shape":[1],"data_offsets":[0,8]}}""", [0, 0, 0, 0, 0, 0, 0, 0x80]);
        LoKrException exception = Assert.Throws<LoKrException>(() => reader.Read("a"));
        Assert.Equal(ErrorIds.TensorDTypeUnsupported, exception.ErrorId);
        Assert.Contains("'a'", exception.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Reading_into_memory_converts_types_and_keeps_the_memory()
    {
        Tensor source = randn(33, 7);
        using SafetensorsReader reader = Save(new() { ["w"] = source });
        Tensor same = empty(33, 7);
        nint before = Address(same);
        reader.ReadInto("w", same);
        Assert.True(same.equal(source).all().ToBoolean());
        Assert.Equal(before, Address(same));
        foreach (ScalarType type in (ScalarType[])[ScalarType.Float64, ScalarType.BFloat16, ScalarType.Float16])
        {
            Tensor other = empty([33, 7], dtype: type);
            reader.ReadInto("w", other);
            Assert.True(other.equal(source.to(type)).all().ToBoolean());
        }
    }

    [Fact]
    public void Reading_into_a_view_or_a_parameter_fills_exactly_that()
    {
        Tensor source = randn(4, 3);
        using SafetensorsReader reader = Save(new() { ["w"] = source });
        Tensor flat = zeros(20);
        reader.ReadInto("w", flat.narrow(0, 5, 12).view(4, 3));
        Assert.True(flat.narrow(0, 5, 12).view(4, 3).equal(source).all().ToBoolean());
        Assert.Equal(0, flat.narrow(0, 0, 5).abs().sum().ToSingle() + flat.narrow(0, 17, 3).abs().sum().ToSingle());

        Tensor transposed = zeros(3, 4).t();
        reader.ReadInto("w", transposed);
        Assert.True(transposed.equal(source).all().ToBoolean());

        using TorchSharp.Modules.Parameter parameter = new(zeros(4, 3));
        reader.ReadInto("w", parameter);
        Assert.True(parameter.requires_grad);
        Assert.True(parameter.is_leaf);
        Assert.True(parameter.detach().equal(source).all().ToBoolean());
    }

    [Fact]
    public void A_tensor_larger_than_one_chunk_is_converted_whole()
    {
        Tensor source = arange(9_000_001, dtype: ScalarType.Float32);
        using SafetensorsReader reader = Save(new() { ["w"] = source });
        Assert.True(reader.Read("w", ScalarType.Float64).equal(source.to(ScalarType.Float64)).all().ToBoolean());
    }

    [Theory]
    [InlineData(ScalarType.Int8, ScalarType.Float32)]
    [InlineData(ScalarType.Int64, ScalarType.Float32)]
    [InlineData(ScalarType.Float32, ScalarType.Int64)]
    [InlineData(ScalarType.Int64, ScalarType.Int32)]
    [InlineData(ScalarType.Byte, ScalarType.Int8)]
    [InlineData(ScalarType.Int32, ScalarType.Bool)]
    public void A_conversion_that_loses_the_meaning_is_refused(ScalarType stored, ScalarType wanted)
    {
        using SafetensorsReader reader = Save(new() { ["w"] = ones([3], dtype: stored) });
        LoKrException exception = Assert.Throws<LoKrException>(() => reader.Read("w", wanted));
        Assert.Equal(ErrorIds.TensorDTypeMismatch, exception.ErrorId);
        using Tensor destination = zeros([3], dtype: wanted);
        Assert.Equal(ErrorIds.TensorDTypeMismatch, Assert.Throws<LoKrException>(() => reader.ReadInto("w", destination)).ErrorId);
    }

    [Fact]
    public void Wrong_names_and_shapes_are_named()
    {
        using SafetensorsReader reader = Save(new() { ["layer.weight"] = ones(2, 3) });
        LoKrException missing = Assert.Throws<LoKrException>(() => reader.Read("other.weight"));
        Assert.Equal(ErrorIds.TensorNotFound, missing.ErrorId);
        Assert.Contains("layer.weight", missing.Message, StringComparison.Ordinal);
        using Tensor wrong = zeros(3, 2);
        LoKrException shape = Assert.Throws<LoKrException>(() => reader.ReadInto("layer.weight", wrong));
        Assert.Equal(ErrorIds.TensorShapeMismatch, shape.ErrorId);
        Assert.Contains("[2, 3]", shape.Message, StringComparison.Ordinal);
        Assert.Contains("[3, 2]", shape.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Reading_leaves_no_tensors_behind()
    {
        using SafetensorsReader reader = Save(new() { ["w"] = randn(50, 50), ["h"] = randn(50, 50).to(ScalarType.Float16) });
        using Tensor destination = empty(50, 50);
        using Tensor transposed = empty(50, 50).t();
        long before = TensorCount.Settled();
        for (int i = 0; i < 20; i++)
        {
            reader.Read("w").Dispose();
            reader.Read("h", ScalarType.Float32).Dispose();
            reader.ReadInto("h", destination);
            reader.ReadInto("w", transposed);
            Assert.Throws<LoKrException>(() => reader.Read("w", ScalarType.Int32));
        }

        Assert.Equal(before, TensorCount.Settled());
    }

    [Fact]
    public void Others_may_read_the_file_meanwhile_and_several_threads_read_tensors()
    {
        Tensor source = randn(64, 64);
        using SafetensorsReader first = Save(new() { ["w"] = source });
        using SafetensorsReader second = SafetensorsReader.Open(first.FilePath);
        bool[] equal = new bool[8];
        Parallel.For(0, equal.Length, i =>
        {
            using Tensor read = (i % 2 == 0 ? first : second).Read("w");
            equal[i] = read.data<float>().ToArray().AsSpan().SequenceEqual(source.data<float>().ToArray());
        });
        Assert.DoesNotContain(false, equal);
    }

    [Fact]
    public void A_header_of_many_megabytes_is_read()
    {
        string big = new('x', 20_000_000);
        string path = _folder["big.safetensors"];
        SafetensorsWriter.Write(path, new Dictionary<string, Tensor> { ["w"] = ones(1) }, new Dictionary<string, string> { ["notes"] = big });
        using SafetensorsReader reader = SafetensorsReader.Open(path);
        Assert.Equal(big, reader.Metadata["notes"]);
        Assert.Equal(1f, reader.Read("w").ToSingle());
    }

    private static nint Address(Tensor tensor)
    {
        unsafe
        {
            fixed (byte* start = tensor.bytes)
            {
                return (nint)start;
            }
        }
    }

    private SafetensorsReader Save(Dictionary<string, Tensor> tensors)
    {
        string path = _folder[$"{Guid.NewGuid():N}.safetensors"];
        SafetensorsWriter.Write(path, tensors);
        return SafetensorsReader.Open(path);
    }

    private SafetensorsReader Open(string header, byte[] data)
    {
        string path = _folder[$"{Guid.NewGuid():N}.safetensors"];
        File.WriteAllBytes(path, SafetensorsBytes.Make(header, data));
        return SafetensorsReader.Open(path);
    }
}
