using System.Diagnostics;
using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Models.Loading;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Models.Tests.Loading;

/// <summary>Counts and sizes of a hostile config.json are errors at once, with a checkpoint and without.</summary>
public sealed class ConfigSizesTests
{
    private static readonly ModelLoadOptions s_noTokenizer = new() { WithTokenizer = false };

    [Theory]
    [InlineData("num_hidden_layers", 100_000)]
    [InlineData("num_hidden_layers", 2_000)]
    [InlineData("num_hidden_layers", int.MaxValue)]
    [InlineData("vocab_size", int.MaxValue)]
    [InlineData("hidden_size", int.MaxValue)]
    [InlineData("intermediate_size", int.MaxValue)]
    [InlineData("max_position_embeddings", int.MaxValue)]
    [InlineData("num_attention_heads", 1 << 30)]
    public void Counts_that_the_checkpoint_cannot_have_are_errors_before_anything_is_built(string key, int value)
    {
        using TempFolder folder = new();
        using DisposeScope scope = NewDisposeScope();
        JsonObject config = TinyModel.BertConfig("x", "y");
        TinyModel.Write(folder.Path, config);
        config[key] = value;
        folder.Write("config.json", config.ToJsonString());
        Stopwatch watch = Stopwatch.StartNew();
        LoKrException error = Assert.Throws<LoKrException>(() => ModelLoader.Load(folder.Path, s_noTokenizer));
        Assert.Equal(ErrorIds.ModelConfigInvalid, error.ErrorId);
        Assert.Contains($"'{key}'", error.Message, StringComparison.Ordinal);
        Assert.Contains("config.json", error.Message, StringComparison.Ordinal);
        Assert.InRange(watch.Elapsed.TotalSeconds, 0, 5);
    }

    [Fact]
    public void More_layers_than_the_checkpoint_has_tensors_are_refused_with_both_numbers()
    {
        using TempFolder folder = new();
        using DisposeScope scope = NewDisposeScope();
        JsonObject config = TinyModel.BertConfig("x", "y");
        int count = TinyModel.Write(folder.Path, config).Count;
        config["num_hidden_layers"] = count + 1;
        folder.Write("config.json", config.ToJsonString());
        ErrorAssert.Throws(ErrorIds.ModelConfigInvalid, () => ModelLoader.Load(folder.Path, s_noTokenizer), "num_hidden_layers", $"{count} tensors");
    }

    [Theory]
    [InlineData("""{"layers_per_block": 1000}""", "64 layers are the most that are built in one block")]
    [InlineData("""{"layers_per_block": [2, 1000]}""", "64 layers are the most that are built in one block")]
    [InlineData("""{"transformer_layers_per_block": 65}""", "64 layers are the most that are built in one block")]
    [InlineData("""{"layers_per_block": 30, "transformer_layers_per_block": [1, 30]}""", "makes 1800 layers of all blocks")]
    public void Layers_of_blocks_have_a_limit_that_their_product_keeps_too(string changes, string says)
    {
        JsonObject config = TinyPipeline.UNet();
        foreach ((string key, JsonNode? value) in JsonNode.Parse(changes)!.AsObject())
        {
            config[key] = value!.DeepClone();
        }

        ErrorAssert.Throws(ErrorIds.ModelConfigInvalid, () => ModelLoader.Build(new ModelConfig(config)), says);
    }

    public static TheoryData<string, string, string> Hostile
    {
        get
        {
            TheoryData<string, string, string> rows = [];
            foreach ((string name, JsonObject config) in new[] { ("bert", TinyModel.BertConfig("x")), ("vit", TinyModel.VitConfig()), ("clip", TinyModel.ClipTextConfig()), ("gpt2", TinyModel.Gpt2Config()) })
            {
                foreach ((string key, JsonNode? value) in config)
                {
                    if (value is JsonValue number && number.GetValueKind() == System.Text.Json.JsonValueKind.Number)
                    {
                        rows.Add(name, key, config.ToJsonString());
                    }
                }
            }

            return rows;
        }
    }

    [Theory]
    [MemberData(nameof(Hostile))]
    public void Every_number_of_a_configuration_may_be_hostile(string name, string key, string json)
    {
        foreach (string value in new[] { "2147483647", "1073741824", "65536", "16777216", "1e300", "-1", "0", "9223372036854775807" })
        {
            JsonObject config = JsonNode.Parse(json)!.AsObject();
            config[key] = JsonNode.Parse(value);
            Stopwatch watch = Stopwatch.StartNew();
            try
            {
                using nn.Module module = ModelLoader.Build(new ModelConfig(config, name));
            }
            catch (LoKrException error)
            {
                Assert.NotEmpty(error.Message);
            }

            Assert.True(watch.Elapsed.TotalSeconds < 10, $"{key} = {value} took {watch.Elapsed}.");
        }
    }
}
