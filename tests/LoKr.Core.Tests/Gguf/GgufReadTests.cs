using System.Text.Json;
using LoKr.Core.Gguf;
using LoKr.Testing;
using Xunit;

namespace LoKr.Core.Tests.Gguf;

/// <summary>Headers of files that llama.cpp wrote.</summary>
public sealed class GgufReadTests
{
    public static TheoryData<string> Models => Fixtures.Cases("gguf", static folder => File.Exists(Path.Combine(folder, "case.json")) && Directory.Exists(Path.Combine(folder, "hf")));

    [Theory]
    [MemberData(nameof(Models))]
    public void Tensors_and_metadata_are_those_that_llama_cpp_lists(string model)
    {
        string folder = Fixtures.Require("gguf", model);
        using JsonDocument json = JsonDocument.Parse(File.ReadAllText(Path.Combine(folder, "case.json")));
        int files = 0;
        foreach (JsonProperty type in json.RootElement.GetProperty("types").EnumerateObject().Where(static type => type.Value.GetProperty("stored").GetBoolean()))
        {
            Check(Path.Combine(folder, $"model-{type.Name}.gguf"), type.Value);
            files++;
        }

        foreach ((string name, string file) in (ReadOnlySpan<(string, string)>)[("fused", "model-Q8_0-fused.gguf"), ("align64", "model-Q8_0-align64.gguf")])
        {
            if (json.RootElement.TryGetProperty(name, out JsonElement described))
            {
                Check(Path.Combine(folder, file), described);
            }
        }

        if (json.RootElement.TryGetProperty("split", out JsonElement split))
        {
            foreach (JsonProperty part in split.EnumerateObject())
            {
                Check(Path.Combine(folder, "split", part.Name), part.Value);
            }
        }

        Assert.True(files > 0);
    }

    private static void Check(string path, JsonElement expected)
    {
        using GgufReader reader = GgufReader.Open(path);
        Assert.Equal(expected.GetProperty("data_start").GetInt64(), reader.Header.DataOffset);
        Assert.Equal(expected.GetProperty("kv").EnumerateObject().Select(static key => key.Name), reader.Metadata.Keys);
        foreach (JsonProperty key in expected.GetProperty("kv").EnumerateObject().Where(static key => key.Value.ValueKind == JsonValueKind.Array))
        {
            GgufValue value = reader.Metadata[key.Name];
            Assert.Equal(key.Value[0].GetString(), value.Type.ToString(), ignoreCase: true);
            Assert.Equal(key.Value[1].ValueKind == JsonValueKind.Number ? key.Value[1].GetDouble() : double.NaN,
                value.Scalar is string or bool ? double.NaN : Convert.ToDouble(value.Scalar, null), 1e-6);
        }

        Assert.Equal(
            expected.GetProperty("tensors").EnumerateArray().Select(static tensor => (tensor.GetProperty("name").GetString()!, tensor.GetProperty("type").GetString()!,
                string.Join(',', tensor.GetProperty("ne").EnumerateArray().Reverse().Select(static size => size.GetInt64())), tensor.GetProperty("offset").GetInt64(), tensor.GetProperty("bytes").GetInt64())),
            reader.Tensors.Select(static tensor => (tensor.Name, tensor.Type.ToString(), string.Join(',', tensor.Shape), tensor.Offset, tensor.ByteCount)));
    }
}
