using System.Text.Json;
using LoKr.Core.Errors;
using LoKr.Core.Safetensors;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Safetensors;

public sealed class CheckpointTests : IDisposable
{
    private readonly TempFolder _folder = new();
    private readonly DisposeScope _scope = NewDisposeScope();

    public void Dispose()
    {
        _scope.Dispose();
        _folder.Dispose();
    }

    [Fact]
    public void Small_weights_are_one_file_with_the_metadata_of_PyTorch()
    {
        Dictionary<string, Tensor> tensors = Weights();
        CheckpointWriter.Write(_folder.Path, tensors);
        Assert.Equal(["model.safetensors"], Files());
        using CheckpointReader reader = CheckpointReader.Open(_folder.Path);
        Same(tensors, reader);
        Assert.Equal("pt", reader.Metadata["format"]);
    }

    [Fact]
    public void Large_weights_are_shards_with_an_index()
    {
        Dictionary<string, Tensor> tensors = Weights();
        CheckpointWriter.Write(_folder.Path, tensors, maxShardBytes: 450);
        Assert.Equal(
            ["model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors", "model-00003-of-00003.safetensors", "model.safetensors.index.json"],
            Files());
        using JsonDocument index = JsonDocument.Parse(File.ReadAllText(_folder["model.safetensors.index.json"]));
        Assert.Equal(tensors.Values.Sum(tensor => tensor.numel() * tensor.ElementSize), index.RootElement.GetProperty("metadata").GetProperty("total_size").GetInt64());
        Assert.Equal(tensors.Count, index.RootElement.GetProperty("weight_map").EnumerateObject().Count());
        // 400 bytes; 800 bytes alone; 80 and 8 bytes together.
        Assert.Equal("model-00002-of-00003.safetensors", index.RootElement.GetProperty("weight_map").GetProperty("b").GetString());
        using CheckpointReader reader = CheckpointReader.Open(_folder.Path);
        Same(tensors, reader);
        Assert.Equal(3, reader.Files.Count);
        Tensor destination = zeros(10, 20);
        reader.ReadInto("b", destination);
        Assert.True(destination.equal(tensors["b"]).all().ToBoolean());
    }

    [Fact]
    public void Rewriting_in_another_form_leaves_nothing_of_the_former_one()
    {
        CheckpointWriter.Write(_folder.Path, Weights(), maxShardBytes: 450);
        CheckpointWriter.Write(_folder.Path, Weights(), maxShardBytes: 1200);
        Assert.Equal(3, Files().Length);
        CheckpointWriter.Write(_folder.Path, Weights());
        Assert.Equal(["model.safetensors"], Files());
        CheckpointWriter.Write(_folder.Path, Weights(), maxShardBytes: 450);
        Assert.Equal(4, Files().Length);
    }

    [Fact]
    public void Damage_to_the_index_is_named()
    {
        CheckpointWriter.Write(_folder.Path, Weights(), maxShardBytes: 450);
        string path = _folder["model.safetensors.index.json"];
        string good = File.ReadAllText(path);
        foreach ((string json, string id) in new (string, string)[]
        {
            ("not json", ErrorIds.CheckpointIndexInvalid),
            ("[]", ErrorIds.CheckpointIndexInvalid),
            ("{}", ErrorIds.CheckpointIndexInvalid),
            ("""{"weight_map":{}}""", ErrorIds.CheckpointIndexInvalid),
            ("""{"weight_map":{"a":1}}""", ErrorIds.CheckpointIndexInvalid),
            ("""{"weight_map":{"a":"../model-00001-of-00003.safetensors"}}""", ErrorIds.CheckpointIndexInvalid),
            ("""{"weight_map":{"a":"pytorch_model-00001-of-00003.bin"}}""", ErrorIds.PickleRefused),
            (good.Replace("\"c\": \"model-00003", "\"c\": \"model-00001", StringComparison.Ordinal), ErrorIds.CheckpointTensorMisplaced),
            (good.Replace("\"a\":", "\"zz\":", StringComparison.Ordinal), ErrorIds.CheckpointTensorMissing),
            (good.Replace("00003.safetensors\"", "00004.safetensors\"", StringComparison.Ordinal), ErrorIds.CheckpointShardMissing),
        })
        {
            File.WriteAllText(path, json);
            LoKrException exception = Assert.Throws<LoKrException>(() => CheckpointReader.Open(_folder.Path).Dispose());
            Assert.Equal(id, exception.ErrorId);
        }

        File.WriteAllText(path, good);
        File.Copy(_folder["model-00001-of-00003.safetensors"], _folder["model-00002-of-00003.safetensors"], overwrite: true);
        Assert.Equal(ErrorIds.CheckpointTensorMisplaced, Assert.Throws<LoKrException>(() => CheckpointReader.Open(_folder.Path).Dispose()).ErrorId);
    }

    [Fact]
    public void Folders_without_weights_say_so()
    {
        Assert.Equal(ErrorIds.PathNotFound, Assert.Throws<LoKrException>(() => CheckpointReader.Open(_folder["absent"])).ErrorId);
        Assert.Equal(ErrorIds.CheckpointNotFound, Assert.Throws<LoKrException>(() => CheckpointReader.Open(_folder.Path)).ErrorId);
    }

    [Theory]
    [InlineData("pytorch_model.bin")]
    [InlineData("pytorch_model.bin.index.json")]
    [InlineData("model.pt")]
    public void A_folder_with_pickles_only_is_refused_with_advice(string name)
    {
        File.WriteAllText(_folder[name], "x");
        LoKrException exception = Assert.Throws<LoKrException>(() => CheckpointReader.Open(_folder.Path));
        Assert.Equal(ErrorIds.PickleRefused, exception.ErrorId);
        Assert.Contains("safe_serialization", exception.Advice, StringComparison.Ordinal);
    }

    [Fact]
    public void A_pickle_is_refused_by_name_and_by_content()
    {
        foreach ((string name, byte[] content) in new (string, byte[])[]
        {
            ("a.bin", [1, 2, 3]),
            ("b.ckpt", [1, 2, 3]),
            ("c.safetensors", [0x50, 0x4b, 3, 4, 0x14, 0, 0, 8, 8, 0, 0, 0]),
            ("d.safetensors", [0x80, 2, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8]),
        })
        {
            File.WriteAllBytes(_folder[name], content);
            Assert.Equal(ErrorIds.PickleRefused, Assert.Throws<LoKrException>(() => SafetensorsReader.Open(_folder[name])).ErrorId);
        }
    }

    [Fact]
    public void A_real_model_is_rewritten_in_shards_without_a_difference()
    {
        string model = Fixtures.RequireBeside("models", "minilm");
        using CheckpointReader original = CheckpointReader.Open(model);
        Dictionary<string, Tensor> tensors = original.Entries.Keys.ToDictionary(name => name, name => original.Read(name));
        CheckpointWriter.Write(_folder.Path, tensors, maxShardBytes: 20_000_000);
        using CheckpointReader copy = CheckpointReader.Open(_folder.Path);
        Assert.True(copy.Files.Count > 1);
        Same(tensors, copy);
    }

    private static Dictionary<string, Tensor> Weights() => new()
    {
        ["a"] = randn(10, 10),
        ["b"] = randn(10, 20),
        ["c"] = randn(20),
        ["d"] = arange(1),
    };

    private static void Same(Dictionary<string, Tensor> expected, ITensorSource actual)
    {
        Assert.Equal(expected.Keys.Order(StringComparer.Ordinal), actual.Entries.Keys.Order(StringComparer.Ordinal));
        foreach ((string name, Tensor tensor) in expected)
        {
            Assert.True(actual.Read(name).equal(tensor).all().ToBoolean(), name);
        }
    }

    private string[] Files() => [.. Directory.GetFileSystemEntries(_folder.Path).Select(path => Path.GetFileName(path)!).Order(StringComparer.Ordinal)];
}
