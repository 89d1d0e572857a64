using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Models.Loading;
using LoKr.Testing;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Models.Tests;

public sealed class ModelConfigTests
{
    [Fact]
    public void Missing_folder_is_an_error() =>
        ErrorAssert.Throws(ErrorIds.PathNotFound, () => ModelConfig.Load("no-such-folder"), "no-such-folder");

    [Fact]
    public void Folder_without_config_is_an_error()
    {
        using TempFolder folder = new();
        ErrorAssert.Throws(ErrorIds.ModelConfigNotFound, () => ModelConfig.Load(folder.Path), folder.Path);
    }

    [Theory]
    [InlineData("{\"model_type\": ")]
    [InlineData("[1]")]
    [InlineData("{\"model_type\": \"bert\", \"model_type\": \"roberta\"}")]
    [InlineData("")]
    public void Config_that_is_not_a_JSON_object_is_an_error(string text)
    {
        using TempFolder folder = new();
        File.WriteAllText(folder["config.json"], text);
        ErrorAssert.Throws(ErrorIds.ModelConfigInvalid, () => ModelConfig.Load(folder.Path), "config.json");
    }

    [Theory]
    [InlineData("{}")]
    [InlineData("{\"model_type\": null}")]
    public void Missing_model_type_is_an_error(string json) =>
        ErrorAssert.Throws(ErrorIds.ModelTypeMissing, () => ModelLoader.Build(Parse(json)), "model_type");

    [Fact]
    public void Unknown_model_type_is_an_error_that_lists_the_known_ones() =>
        ErrorAssert.Throws(ErrorIds.ModelTypeUnknown, () => ModelLoader.Build(Parse("{\"model_type\": \"mamba\"}")), "mamba", "bert, ", "distilbert", "roberta");

    [Theory]
    [InlineData("""{"model_type": "gemma2"}""", "'gemma3_text'")]
    [InlineData("""{"model_type": "qwen2_moe", "architectures": ["Qwen2MoeForCausalLM"]}""", "'qwen2'")]
    [InlineData("""{"model_type": "deberta"}""", "'deberta-v2'")]
    [InlineData("""{"model_type": "mamba", "architectures": ["MambaForCausalLM"]}""", "'llama'")]
    [InlineData("""{"model_type": "funnel", "architectures": ["FunnelForMaskedLM"]}""", "'bert'")]
    [InlineData("""{"model_type": "funnel", "architectures": ["FunnelForSequenceClassification"]}""", "'bert'")]
    public void Unknown_model_type_names_the_nearest_and_what_works_without_it(string json, string nearest)
    {
        LoKrException error = Assert.Throws<LoKrException>(() => ModelLoader.Build(Parse(json)));
        Assert.Equal(ErrorIds.ModelTypeUnknown, error.ErrorId);
        Assert.Contains($"nearest is {nearest}", error.Message + error.Advice, StringComparison.Ordinal);
        Assert.Contains("Merging, converting and inspecting", error.Message + error.Advice, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("\"many\"", "hidden_size")]
    [InlineData("7.5", "hidden_size")]
    [InlineData("0", "hidden_size")]
    [InlineData("null", "hidden_size")]
    [InlineData("99999999999", "hidden_size")]
    public void Sizes_that_cannot_be_used_are_errors_that_name_file_and_key(string value, string key) =>
        ErrorAssert.Throws(ErrorIds.ModelConfigInvalid, () => Parse($"{{\"{key}\": {value}}}").GetSize(key), "'a/config.json'", $"'{key}'");

    [Fact]
    public void Values_are_read_with_their_types()
    {
        ModelConfig config = Parse("""
            {"a": 12, "b": 1e-12, "c": true, "d": "gelu", "e": [1, 2], "f": 3, "g": ["x"], "h": {"i": 4}, "j": null, "k": 2048.0}
            """);
        Assert.Equal(12, config.GetSize("a"));
        Assert.Equal(1e-12, config.GetDouble("b", 0));
        Assert.True(config.GetBool("c", false));
        Assert.Equal("gelu", config.GetString("d"));
        Assert.Equal([1, 2], config.GetInts("e"));
        Assert.Equal([3], config.GetInts("f"));
        Assert.Equal(["x"], config.GetStrings("g"));
        Assert.Equal(4, config.FindObject("h")!.GetSize("i"));
        Assert.Equal(2048, config.GetSize("k"));
        Assert.Equal(5, config.GetSize("j", 5));
        Assert.False(config.Has("j"));
        Assert.Null(config.FindObject("missing"));
        Assert.Empty(config.GetInts("missing"));
    }

    [Theory]
    [InlineData("{\"x\": 1}", "GetString")]
    [InlineData("{\"x\": \"1\"}", "GetBool")]
    [InlineData("{\"x\": \"1\"}", "GetDouble")]
    [InlineData("{\"x\": \"1\"}", "GetObject")]
    [InlineData("{\"x\": [\"1\"]}", "GetInts")]
    [InlineData("{\"x\": [1]}", "GetStrings")]
    [InlineData("{\"x\": 2}", "GetProbability")]
    public void Values_of_another_type_are_errors(string json, string getter)
    {
        ModelConfig config = Parse(json);
        ErrorAssert.Throws(ErrorIds.ModelConfigInvalid, () => _ = getter switch
        {
            "GetString" => config.GetString("x"),
            "GetBool" => config.GetBool("x", false),
            "GetDouble" => config.FindDouble("x"),
            "GetObject" => config.FindObject("x"),
            "GetInts" => config.GetInts("x"),
            "GetStrings" => config.GetStrings("x"),
            _ => (object)config.GetProbability("x", 0),
        }, "'x'");
    }

    [Theory]
    [InlineData("{\"dtype\": \"bfloat16\"}", ScalarType.BFloat16)]
    [InlineData("{\"torch_dtype\": \"float16\"}", ScalarType.Float16)]
    [InlineData("{\"dtype\": \"float32\", \"torch_dtype\": \"float16\"}", ScalarType.Float32)]
    [InlineData("{\"dtype\": null, \"torch_dtype\": \"torch.bfloat16\"}", ScalarType.BFloat16)]
    public void Element_type_is_read_under_both_names(string json, ScalarType expected) => Assert.Equal(expected, Parse(json).DType);

    [Fact]
    public void Unknown_element_type_is_an_error() =>
        ErrorAssert.Throws(ErrorIds.ModelConfigInvalid, () => _ = Parse("{\"torch_dtype\": \"int4\"}").DType, "torch_dtype", "int4");

    private static ModelConfig Parse(string json) => new(JsonNode.Parse(json)!.AsObject(), "a/config.json");
}
