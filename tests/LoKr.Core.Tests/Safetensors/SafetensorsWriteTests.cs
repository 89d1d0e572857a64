using System.Text;
using LoKr.Core.Errors;
using LoKr.Core.IO;
using LoKr.Core.Safetensors;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Safetensors;

public sealed class SafetensorsWriteTests : IDisposable
{
    private readonly TempFolder _folder = new();
    private readonly DisposeScope _scope = NewDisposeScope();

    public void Dispose()
    {
        _scope.Dispose();
        _folder.Dispose();
    }

    [Theory]
    [InlineData(ScalarType.Float64)]
    [InlineData(ScalarType.Float32)]
    [InlineData(ScalarType.Float16)]
    [InlineData(ScalarType.BFloat16)]
    [InlineData(ScalarType.Int64)]
    [InlineData(ScalarType.Int32)]
    [InlineData(ScalarType.Int16)]
    [InlineData(ScalarType.Int8)]
    [InlineData(ScalarType.Byte)]
    [InlineData(ScalarType.Bool)]
    public void Every_type_round_trips(ScalarType type)
    {
        Tensor matrix = (randn(5, 3) * 20).to(type);
        Tensor scalar = (randn(1) * 20).to(type).squeeze();
        Tensor none = zeros([0, 4], dtype: type);
        using SafetensorsReader reader = Save(new() { ["matrix"] = matrix, ["scalar"] = scalar, ["none"] = none });
        foreach ((string name, Tensor expected) in new Dictionary<string, Tensor> { ["matrix"] = matrix, ["scalar"] = scalar, ["none"] = none })
        {
            Tensor actual = reader.Read(name);
            Assert.Equal(type, actual.dtype);
            Assert.Equal(expected.shape, actual.shape);
            Assert.True(actual.equal(expected).all().ToBoolean());
        }

        Assert.Empty(reader.Read("scalar").shape);
    }

    [Fact]
    public void Tensors_are_ordered_by_descending_alignment_then_by_bytes_of_the_name()
    {
        using SafetensorsReader reader = Save(new()
        {
            ["b"] = ones(1),
            ["a"] = ones(1),
            ["B"] = ones(1),
            ["\U0001F600"] = ones(1),
            ["\uFFFD"] = ones(1),
            ["z.half"] = ones([1], dtype: ScalarType.BFloat16),
            ["y.int"] = ones([1], dtype: ScalarType.Int64),
            ["x.double"] = ones([1], dtype: ScalarType.Float64),
            ["w.bool"] = ones([1], dtype: ScalarType.Bool),
        });
        Assert.Equal(["y.int", "x.double", "B", "a", "b", "\uFFFD", "\U0001F600", "z.half", "w.bool"], reader.Entries.Keys);
        Assert.All(reader.Entries.Values, entry => Assert.Equal(0, entry.Offset % SafetensorsDTypes.Size(entry.DType)));
    }

    [Fact]
    public void Metadata_and_names_with_special_characters_survive()
    {
        Dictionary<string, string> metadata = new() { ["format"] = "pt", ["json"] = "{\n \"a\": \"\\\u0001é😀\"\t}" };
        string path = _folder["x.safetensors"];
        SafetensorsWriter.Write(path, new Dictionary<string, Tensor> { ["na\"me\\é"] = ones(1) }, metadata);
        using SafetensorsReader reader = SafetensorsReader.Open(path);
        Assert.Equal(metadata, reader.Metadata);
        Assert.Equal("na\"me\\é", Assert.Single(reader.Entries.Keys));
        Assert.Contains("""\n \"a\": \"\\\u0001é😀\"\t}""", Encoding.UTF8.GetString(File.ReadAllBytes(path)), StringComparison.Ordinal);
    }

    [Fact]
    public void Views_that_are_not_contiguous_are_written_as_they_read()
    {
        Tensor whole = randn(6, 8);
        Tensor parameter = whole.clone().requires_grad_();
        using SafetensorsReader reader = Save(new() { ["t"] = whole.t(), ["part"] = whole.slice(1, 1, 7, 2), ["grad"] = parameter });
        Assert.True(reader.Read("t").equal(whole.t()).all().ToBoolean());
        Assert.True(reader.Read("part").equal(whole.slice(1, 1, 7, 2)).all().ToBoolean());
        Assert.True(reader.Read("grad").equal(whole).all().ToBoolean());
    }

    [Fact]
    public void A_shorter_file_replaces_a_longer_one_completely()
    {
        string path = _folder["x.safetensors"];
        SafetensorsWriter.Write(path, new Dictionary<string, Tensor> { ["w"] = ones(1000) });
        SafetensorsWriter.Write(path, new Dictionary<string, Tensor> { ["v"] = ones(2) });
        using SafetensorsReader reader = SafetensorsReader.Open(path);
        Assert.Equal("v", Assert.Single(reader.Entries.Keys));
        Assert.Single(Directory.GetFileSystemEntries(_folder.Path));
    }

    [Fact]
    public void A_write_that_fails_leaves_the_former_file_and_nothing_else()
    {
        string path = _folder["x.safetensors"];
        SafetensorsWriter.Write(path, new Dictionary<string, Tensor> { ["w"] = ones(3) });
        byte[] before = File.ReadAllBytes(path);
        Tensor disposed = ones(3);
        Dictionary<string, Tensor> tensors = new() { ["a"] = ones(3), ["bad"] = zeros([2], dtype: ScalarType.ComplexFloat32) };
        Assert.Equal(ErrorIds.TensorDTypeUnsupported, Assert.Throws<LoKrException>(() => SafetensorsWriter.Write(path, tensors)).ErrorId);
        Assert.Throws<InvalidOperationException>(() => AtomicFile.Write(path, stream =>
        {
            stream.WriteByte(1);
            throw new InvalidOperationException("stopped half way");
        }));
        Assert.Equal(before, File.ReadAllBytes(path));
        Assert.Single(Directory.GetFileSystemEntries(_folder.Path));
        disposed.Dispose();
    }

    [Fact]
    public void Names_that_a_file_cannot_hold_are_refused()
    {
        // A lone surrogate is not valid text; an attribute could not hold it.
        foreach (string name in (string[])["__metadata__", new string('\ud800', 1)])
        {
            Dictionary<string, Tensor> tensors = new() { [name] = ones(1) };
            Assert.Equal(ErrorIds.SafetensorsNameInvalid, Assert.Throws<LoKrException>(() => SafetensorsWriter.Write(_folder["x"], tensors)).ErrorId);
        }

        Assert.Empty(Directory.GetFileSystemEntries(_folder.Path));
    }

    [Fact]
    public void A_missing_folder_is_named()
    {
        Dictionary<string, Tensor> tensors = new() { ["w"] = ones(1) };
        LoKrException exception = Assert.Throws<LoKrException>(() => SafetensorsWriter.Write(_folder["no/x.safetensors"], tensors));
        Assert.Equal(ErrorIds.PathNotFound, exception.ErrorId);
    }

    [Fact]
    public void Files_of_the_reference_implementation_are_rewritten_byte_for_byte()
    {
        string root = Fixtures.Require();
        int rewritten = 0;
        foreach (string path in Directory.EnumerateFiles(root, "*.safetensors", SearchOption.AllDirectories))
        {
            using SafetensorsReader reader = SafetensorsReader.Open(path);
            byte[] original = File.ReadAllBytes(path);
            // Empty metadata and none are the same to a reader; only the second is written.
            if (reader.Metadata.Count == 0 && original.AsSpan(8).StartsWith("{\"__metadata__\""u8))
            {
                continue;
            }

            // TorchSharp has no 8-bit floats, and reading widens them: such files are rewritten from their bytes, as a merge on disk does.
            byte[] copy = reader.Entries.Values.All(entry => SafetensorsDTypes.IsSameLayout(entry.DType)) ? RewriteTensors(reader) : RewriteBytes(reader);
            Assert.True(original.AsSpan().SequenceEqual(copy), path);
            rewritten++;
        }

        Assert.True(rewritten > 50, $"Only {rewritten} files were compared.");
    }

    [Fact]
    public void Writing_leaves_no_tensors_behind()
    {
        Dictionary<string, Tensor> tensors = new() { ["w"] = randn(40, 40), ["t"] = randn(40, 40).t() };
        string path = _folder["x.safetensors"];
        long before = TensorCount.Settled();
        for (int i = 0; i < 20; i++)
        {
            SafetensorsWriter.Write(path, tensors);
        }

        Assert.Equal(before, TensorCount.Settled());
    }

    private byte[] RewriteTensors(SafetensorsReader reader)
    {
        using var scope = NewDisposeScope();
        string copy = _folder["copy.safetensors"];
        SafetensorsWriter.Write(copy, reader.Entries.Keys.Reverse().ToDictionary(name => name, name => reader.Read(name)), reader.Metadata);
        return File.ReadAllBytes(copy);
    }

    private static byte[] RewriteBytes(SafetensorsReader reader)
    {
        List<SafetensorsHeaderItem> items = [.. reader.Entries.Values.Reverse().Select(entry => new SafetensorsHeaderItem(entry.Name, entry.DType, entry.Shape))];
        items.Sort(SafetensorsHeaderWriter.Compare);
        using MemoryStream copy = new();
        copy.Write(SafetensorsHeaderWriter.Build(items, reader.Metadata, reader.FilePath));
        foreach (SafetensorsEntry entry in items.Select(item => reader.Entries[item.Name]))
        {
            byte[] bytes = new byte[entry.ByteCount];
            reader.ReadBytes(entry, 0, bytes);
            copy.Write(bytes);
        }

        return copy.ToArray();
    }

    private SafetensorsReader Save(Dictionary<string, Tensor> tensors)
    {
        string path = _folder[$"{Guid.NewGuid():N}.safetensors"];
        SafetensorsWriter.Write(path, tensors);
        return SafetensorsReader.Open(path);
    }
}
