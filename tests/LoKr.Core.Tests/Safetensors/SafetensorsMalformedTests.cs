using System.Buffers.Binary;
using System.Text;
using LoKr.Core.Errors;
using LoKr.Core.Safetensors;
using LoKr.Testing;
using Xunit;

namespace LoKr.Core.Tests.Safetensors;

public sealed class SafetensorsMalformedTests
{
    [Theory]
    // Overlaps, holes, lengths.
    [InlineData("""{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}""", 12, ErrorIds.SafetensorsOverlap)]
    [InlineData("""{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}""", 8, ErrorIds.SafetensorsOverlap)]
    [InlineData("""{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[0],"data_offsets":[4,4]}}""", 8, ErrorIds.SafetensorsOverlap)]
    [InlineData("""{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[12,20]}}""", 20, ErrorIds.SafetensorsHole)]
    [InlineData("""{"a":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}""", 12, ErrorIds.SafetensorsHole)]
    [InlineData("""{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}""", 7, ErrorIds.SafetensorsTruncated)]
    [InlineData("""{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}""", 9, ErrorIds.SafetensorsTrailingData)]
    [InlineData("{}", 1, ErrorIds.SafetensorsTrailingData)]
    // Offsets.
    [InlineData("""{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}""", 8, ErrorIds.SafetensorsOffsetsInvalid)]
    [InlineData("""{"a":{"dtype":"F32","shape":[2],"data_offsets":[0]}}""", 8, ErrorIds.SafetensorsOffsetsInvalid)]
    [InlineData("""{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8,8]}}""", 8, ErrorIds.SafetensorsOffsetsInvalid)]
    [InlineData("""{"a":{"dtype":"F32","shape":[2],"data_offsets":[-8,0]}}""", 8, ErrorIds.SafetensorsOffsetsInvalid)]
    [InlineData("""{"a":{"dtype":"F32","shape":[2],"data_offsets":"0,8"}}""", 8, ErrorIds.SafetensorsOffsetsInvalid)]
    [InlineData("""{"a":{"dtype":"F32","shape":[0],"data_offsets":[9223372036854775807,9223372036854775807]}}""", 0, ErrorIds.SafetensorsOffsetsInvalid)]
    // Shapes.
    [InlineData("""{"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}""", 8, ErrorIds.SafetensorsShapeInvalid)]
    [InlineData("""{"a":{"dtype":"F32","shape":[2.5],"data_offsets":[0,8]}}""", 8, ErrorIds.SafetensorsShapeInvalid)]
    [InlineData("""{"a":{"dtype":"F32","shape":["2"],"data_offsets":[0,8]}}""", 8, ErrorIds.SafetensorsShapeInvalid)]
    [InlineData("""{"a":{"dtype":"F32","shape":[[2]],"data_offsets":[0,8]}}""", 8, ErrorIds.SafetensorsShapeInvalid)]
    [InlineData("""{"a":{"dtype":"F32","shape":2,"data_offsets":[0,8]}}""", 8, ErrorIds.SafetensorsShapeInvalid)]
    [InlineData("""{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}""", 0, ErrorIds.SafetensorsShapeInvalid)]
    [InlineData("""{"a":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0]}}""", 0, ErrorIds.SafetensorsShapeInvalid)]
    [InlineData("""{"a":{"dtype":"F32","shape":[18446744073709551616],"data_offsets":[0,0]}}""", 0, ErrorIds.SafetensorsShapeInvalid)]
    [InlineData("""{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}""", 8, ErrorIds.SafetensorsSizeMismatch)]
    [InlineData("""{"a":{"dtype":"F16","shape":[2],"data_offsets":[0,8]}}""", 8, ErrorIds.SafetensorsSizeMismatch)]
    [InlineData("""{"a":{"dtype":"F32","shape":[],"data_offsets":[0,0]}}""", 0, ErrorIds.SafetensorsSizeMismatch)]
    // Types.
    [InlineData("""{"a":{"dtype":"F99","shape":[2],"data_offsets":[0,8]}}""", 8, ErrorIds.SafetensorsDTypeUnknown)]
    [InlineData("""{"a":{"dtype":"f32","shape":[2],"data_offsets":[0,8]}}""", 8, ErrorIds.SafetensorsDTypeUnknown)]
    [InlineData("""{"a":{"dtype":4,"shape":[2],"data_offsets":[0,8]}}""", 8, ErrorIds.SafetensorsDTypeUnknown)]
    // Keys.
    [InlineData("""{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}""", 16, ErrorIds.SafetensorsDuplicateKey)]
    [InlineData("""{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"\u0061":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}""", 16, ErrorIds.SafetensorsDuplicateKey)]
    [InlineData("""{"a":{"dtype":"F32","dtype":"I32","shape":[2],"data_offsets":[0,8]}}""", 8, ErrorIds.SafetensorsDuplicateKey)]
    [InlineData("""{"__metadata__":{"x":"1","x":"2"}}""", 0, ErrorIds.SafetensorsDuplicateKey)]
    [InlineData("""{"__metadata__":{},"__metadata__":{}}""", 0, ErrorIds.SafetensorsDuplicateKey)]
    // Metadata.
    [InlineData("""{"__metadata__":{"x":1}}""", 0, ErrorIds.SafetensorsMetadataInvalid)]
    [InlineData("""{"__metadata__":{"x":null}}""", 0, ErrorIds.SafetensorsMetadataInvalid)]
    [InlineData("""{"__metadata__":"x"}""", 0, ErrorIds.SafetensorsMetadataInvalid)]
    // Form.
    [InlineData("""[{"dtype":"F32"}]""", 0, ErrorIds.SafetensorsHeaderInvalid)]
    [InlineData("""  {}""", 0, ErrorIds.SafetensorsHeaderInvalid)]
    [InlineData("""{"a":1}""", 0, ErrorIds.SafetensorsHeaderInvalid)]
    [InlineData("""{"a":{"dtype":"F32","shape":[2]}}""", 0, ErrorIds.SafetensorsHeaderInvalid)]
    [InlineData("""{"a":{"shape":[2],"data_offsets":[0,8]}}""", 8, ErrorIds.SafetensorsHeaderInvalid)]
    [InlineData("""{"a":{"dtype":"F32","data_offsets":[0,8]}}""", 8, ErrorIds.SafetensorsHeaderInvalid)]
    [InlineData("""{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]""", 8, ErrorIds.SafetensorsHeaderInvalid)]
    [InlineData("""{} x""", 0, ErrorIds.SafetensorsHeaderInvalid)]
    [InlineData("""{"\ud800":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}""", 8, ErrorIds.SafetensorsHeaderInvalid)]
    public void A_malformed_file_is_refused(string header, int dataBytes, string errorId)
    {
        using TempFolder folder = new();
        LoKrException exception = Refused(folder, SafetensorsBytes.Make(header, dataBytes));
        Assert.Equal(errorId, exception.ErrorId);
        Assert.Contains(folder["x.safetensors"], exception.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_deeply_nested_header_is_refused()
    {
        using TempFolder folder = new();
        string nested = "{\"a\":{\"x\":" + new string('[', 100_000) + new string(']', 100_000) + "}}";
        Assert.Equal(ErrorIds.SafetensorsHeaderInvalid, Refused(folder, SafetensorsBytes.Make(nested, 0)).ErrorId);
    }

    [Fact]
    public void A_header_that_is_not_UTF8_is_refused()
    {
        using TempFolder folder = new();
        byte[] header = Encoding.Latin1.GetBytes("{\"\xff\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}}");
        Assert.Equal(ErrorIds.SafetensorsHeaderInvalid, Refused(folder, SafetensorsBytes.Make(header, [])).ErrorId);
    }

    [Fact]
    public void A_header_of_more_than_100_MB_is_refused_without_reading_it()
    {
        using TempFolder folder = new();
        byte[] file = new byte[64];
        BinaryPrimitives.WriteUInt64LittleEndian(file, 100_000_001);
        Assert.Equal(ErrorIds.SafetensorsHeaderTooLarge, Refused(folder, file).ErrorId);
        BinaryPrimitives.WriteUInt64LittleEndian(file, ulong.MaxValue);
        Assert.Equal(ErrorIds.SafetensorsHeaderTooLarge, Refused(folder, file).ErrorId);
    }

    [Theory]
    [InlineData(0)]
    [InlineData(7)]
    [InlineData(8)]
    [InlineData(40)]
    public void A_file_cut_inside_the_header_is_truncated(int length)
    {
        using TempFolder folder = new();
        byte[] file = SafetensorsBytes.Make("""{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}""", 8);
        Assert.Equal(ErrorIds.SafetensorsTruncated, Refused(folder, file[..length]).ErrorId);
    }

    [Fact]
    public void Every_cut_of_a_good_file_is_refused()
    {
        using TempFolder folder = new();
        byte[] file = SafetensorsBytes.Make("""{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"U8","shape":[3],"data_offsets":[8,11]}}""", 11);
        for (int length = 0; length < file.Length; length++)
        {
            Assert.StartsWith("LoKr.Safetensors", Refused(folder, file[..length]).ErrorId, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void Random_damage_to_the_header_never_escapes_as_another_exception()
    {
        using TempFolder folder = new();
        byte[] good = SafetensorsBytes.Make("""{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"U8","shape":[3],"data_offsets":[8,11]}}""", 11);
        Random random = new(7);
        string path = folder["x.safetensors"];
        int refused = 0;
        for (int round = 0; round < 2000; round++)
        {
            byte[] file = (byte[])good.Clone();
            for (int change = random.Next(1, 4); change > 0; change--)
            {
                file[random.Next(file.Length - 11)] = (byte)random.Next(256);
            }

            File.WriteAllBytes(path, file);
            try
            {
                using SafetensorsReader reader = SafetensorsReader.Open(path);
                Assert.True(reader.Entries.Values.Sum(entry => entry.ByteCount) <= file.Length);
            }
            catch (LoKrException exception)
            {
                Assert.True(exception.ErrorId.StartsWith("LoKr.Safetensors", StringComparison.Ordinal) || exception.ErrorId == ErrorIds.PickleRefused, exception.ErrorId);
                refused++;
            }
        }

        Assert.True(refused > 1000, $"Only {refused} of 2000 were refused.");
    }

    [Fact]
    public void A_boolean_that_is_neither_0_nor_1_is_refused()
    {
        using TempFolder folder = new();
        string path = folder["x.safetensors"];
        File.WriteAllBytes(path, SafetensorsBytes.Make("""{"a":{"dtype":"BOOL","shape":[3],"data_offsets":[0,3]}}""", [0, 1, 2]));
        using SafetensorsReader reader = SafetensorsReader.Open(path);
        Assert.Equal(ErrorIds.SafetensorsValueInvalid, Assert.Throws<LoKrException>(() => reader.Read("a")).ErrorId);
    }

    [Fact]
    public void A_file_that_shrinks_after_it_was_opened_is_truncated()
    {
        using TempFolder folder = new();
        string path = folder["x.safetensors"];
        byte[] file = SafetensorsBytes.Make("""{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}""", 8);
        File.WriteAllBytes(path, file);
        using SafetensorsReader reader = SafetensorsReader.Open(path);
        Assert.SkipWhen(OperatingSystem.IsWindows(), "Windows does not let an open file shrink.");
        using (FileStream other = new(path, FileMode.Open, FileAccess.Write, FileShare.ReadWrite | FileShare.Delete))
        {
            other.SetLength(file.Length - 2);
        }

        Assert.Equal(ErrorIds.SafetensorsTruncated, Assert.Throws<LoKrException>(() => reader.Read("a")).ErrorId);
    }

    private static LoKrException Refused(TempFolder folder, byte[] file)
    {
        string path = folder["x.safetensors"];
        File.WriteAllBytes(path, file);
        return Assert.Throws<LoKrException>(() => SafetensorsReader.Open(path).Dispose());
    }
}
