using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Model;
using LoKr.Models.Families;
using LoKr.Models.Tests.Support;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Models.Tests.Families;

/// <summary>Frequencies of every kind of rotary embedding against the formulas of their papers in float64.</summary>
public sealed class RopeTests
{
    private const int Width = 16;
    private const int Positions = 64;

    [Fact]
    public void Default_is_powers_of_the_base()
    {
        Check("""{"rope_theta": 500000.0, "rope_type": "default"}""", 10, i => Plain(500000, i));
        Check("{}", 10, i => Plain(10000, i));
    }

    [Fact]
    public void Linear_divides_by_the_factor() =>
        Check("""{"rope_type": "linear", "factor": 4.0}""", 10, i => Plain(10000, i) / 4);

    [Theory]
    [InlineData(10)]
    [InlineData(64)]
    [InlineData(100)]
    public void Dynamic_raises_the_base_of_sequences_beyond_the_positions(int length)
    {
        double stretched = (2.0 * Math.Max(length, Positions) / Positions) - 1;
        double theta = 10000 * Math.Pow(stretched, Width / (Width - 2.0));
        Check("""{"rope_type": "dynamic", "factor": 2.0}""", length, i => Plain(theta, i));
    }

    [Fact]
    public void Llama3_stretches_long_waves_only()
    {
        double[] expected = new double[Width / 2];
        for (int i = 0; i < expected.Length; i++)
        {
            double plain = Plain(10000, i);
            double turns = 32 * plain / (2 * Math.PI);
            double blend = Math.Clamp((turns - 1) / (4 - 1), 0, 1);
            expected[i] = (blend * plain) + ((1 - blend) * plain / 8);
        }

        // All three cases are there: kept, blended, stretched.
        Assert.Equal(Plain(10000, 0), expected[0], 12);
        Assert.True(expected[1] < Plain(10000, 1) && expected[1] > Plain(10000, 1) / 8);
        Assert.Equal(Plain(10000, 7) / 8, expected[7], 12);
        Check("""{"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}""", 10, i => expected[i]);
    }

    [Theory]
    [InlineData("\"factor\": 4.0, \"original_max_position_embeddings\": 16", 32, 1, 16, 4, true, null)]
    [InlineData("\"factor\": 4.0, \"original_max_position_embeddings\": 16, \"truncate\": false", 32, 1, 16, 4, false, null)]
    [InlineData("\"original_max_position_embeddings\": 32, \"beta_fast\": 8, \"beta_slow\": 0.5", 8, 0.5, 32, 2, true, null)]
    [InlineData("\"factor\": 4.0", 32, 1, 64, 4, true, null)]
    [InlineData("\"factor\": 4.0, \"attention_factor\": 1.5", 32, 1, 64, 4, true, 1.5)]
    public void Yarn_blends_by_rotations_over_the_trained_length(string fields, double fast, double slow, int original, double factor, bool truncate, double? attention)
    {
        double low = Channel(fast);
        double high = Channel(slow);
        (low, high) = truncate ? (Math.Floor(low), Math.Ceiling(high)) : (low, high);
        (low, high) = (Math.Max(low, 0), Math.Min(high, Width - 1));
        Check(
            $$"""{"rope_type": "yarn", {{fields}}}""",
            10,
            i =>
            {
                double stretched = Math.Clamp((i - low) / (high - low), 0, 1);
                return (Plain(10000, i) / factor * stretched) + (Plain(10000, i) * (1 - stretched));
            },
            attention ?? ((0.1 * Math.Log(factor)) + 1));

        double Channel(double turns) => Width * Math.Log(original / (turns * 2 * Math.PI)) / (2 * Math.Log(10000));
    }

    [Fact]
    public void Yarn_weighs_two_magnitudes() =>
        Assert.Equal(
            ((0.1 * 0.7 * Math.Log(4)) + 1) / ((0.1 * 0.5 * Math.Log(4)) + 1),
            Compute("""{"rope_type": "yarn", "factor": 4.0, "mscale": 0.7, "mscale_all_dim": 0.5}""", 10).Factor,
            12);

    [Theory]
    [InlineData(16, "short")]
    [InlineData(17, "long")]
    public void Longrope_has_a_factor_for_every_pair_and_length(int length, string list)
    {
        double[] shorts = [1, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7];
        double[] longs = [1, 2, 3, 4, 5, 6, 7, 8];
        JsonObject fields = new()
        {
            ["rope_type"] = "longrope",
            ["original_max_position_embeddings"] = 16,
            ["short_factor"] = new JsonArray([.. shorts.Select(value => (JsonNode)value)]),
            ["long_factor"] = new JsonArray([.. longs.Select(value => (JsonNode)value)]),
        };
        Check(fields.ToJsonString(), length, i => Plain(10000, i) / (list == "long" ? longs : shorts)[i], Math.Sqrt(1 + (Math.Log(4) / Math.Log(16))));
    }

    [Fact]
    public void Old_keys_give_the_same_frequencies()
    {
        const string values = "\"factor\": 8.0, \"low_freq_factor\": 1.0, \"high_freq_factor\": 4.0, \"original_max_position_embeddings\": 32";
        float[] today = Compute(Settings("{\"rope_parameters\": {\"rope_theta\": 500000.0, \"rope_type\": \"llama3\", " + values + "}}"), 10).Frequencies;
        Assert.Equal(today, Compute(Settings("{\"rope_theta\": 500000.0, \"rope_scaling\": {\"rope_type\": \"llama3\", " + values + "}}"), 10).Frequencies);
        Assert.Equal(today, Compute(Settings("{\"rope_theta\": 500000.0, \"rope_scaling\": {\"type\": \"llama3\", " + values + "}}"), 10).Frequencies);
        Assert.NotEqual(today, Compute(Settings("{\"rope_scaling\": {\"type\": \"llama3\", " + values + "}}"), 10).Frequencies);
    }

    [Theory]
    [InlineData("""{"rope_parameters": {"rope_type": "mrope"}}""", "mrope")]
    [InlineData("""{"rope_scaling": {"type": "su", "factor": 2.0}}""", "su")]
    [InlineData("""{"rope_parameters": {"full_attention": {"rope_type": "default"}, "sliding_attention": {"rope_type": "default"}}}""", "full_attention")]
    public void Unsupported_kind_is_an_error_that_lists_the_known_ones(string json, string names) =>
        ErrorAssert.Throws(ErrorIds.RopeUnsupported, () => Settings(json), names, "default, linear, dynamic, yarn, longrope, llama3");

    [Theory]
    [InlineData("""{"rope_parameters": {"rope_type": "linear"}}""", "factor")]
    [InlineData("""{"rope_parameters": {"rope_type": "linear", "factor": 0}}""", "factor")]
    [InlineData("""{"rope_theta": -1}""", "rope_theta")]
    [InlineData("""{"partial_rotary_factor": 0.1}""", "partial_rotary_factor")]
    [InlineData("""{"rope_parameters": {"rope_type": "llama3", "factor": 8}}""", "low_freq_factor")]
    [InlineData("""{"rope_parameters": {"rope_type": "longrope", "factor": 2, "short_factor": [1, 2]}}""", "short_factor")]
    public void Values_that_are_missing_or_impossible_are_errors(string json, string key) =>
        ErrorAssert.Throws(ErrorIds.ModelConfigInvalid, () => Compute(Settings(json), 10), key);

    [Theory]
    [InlineData("{}", 64)]
    [InlineData("""{"rope_parameters": {"rope_type": "linear", "factor": 4}}""", 256)]
    [InlineData("""{"rope_parameters": {"rope_type": "yarn", "factor": 4, "original_max_position_embeddings": 32}}""", 128)]
    [InlineData("""{"rope_parameters": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4, "original_max_position_embeddings": 16}}""", 64)]
    public void Longest_sequence_includes_scaling(string json, int expected) => Assert.Equal(expected, Settings(json).LongestSequence);

    [Fact]
    public void Tables_are_kept_and_follow_type_and_length()
    {
        using DisposeScope scope = NewDisposeScope();
        using RotaryEmbedding rotary = new(Settings("{}"));
        Rotation first = rotary.Get(0, 5, CPU, ScalarType.Float32);
        Rotation later = rotary.Get(3, 2, CPU, ScalarType.Float32);
        Assert.True(TensorAssert.Same(first.Cosine.narrow(0, 3, 2), later.Cosine));

        // Views of one table: what is written to one is seen in the other.
        Tensor sine = first.Sine.clone();
        later.Cosine.fill_(9);
        Assert.Equal(9, first.Cosine[4, 0].ToSingle());
        Assert.Equal(ScalarType.BFloat16, rotary.Get(0, 5, CPU, ScalarType.BFloat16).Sine.dtype);
        Rotation grown = rotary.Get(0, 1000, CPU, ScalarType.Float32);
        Assert.Equal([1000L, Width], grown.Cosine.shape);
        Assert.True(TensorAssert.Same(sine, grown.Sine.narrow(0, 0, 5)));
    }

    [Fact]
    public void Dynamic_rotations_follow_the_length_of_the_sequence()
    {
        using DisposeScope scope = NewDisposeScope();
        RopeSettings settings = Settings("""{"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}""");
        using RotaryEmbedding rotary = new(settings);
        float[] frequencies = Compute(settings, 100).Frequencies;
        Tensor last = rotary.Get(0, 100, CPU, ScalarType.Float32).Cosine[99];
        TensorAssert.Close(tensor(frequencies.Select(frequency => (float)Math.Cos(99 * (double)frequency)).ToArray()), last[..(Width / 2)], 1e-4, "cosines of the last position");
        Assert.True(TensorAssert.Same(last, rotary.Get(99, 1, CPU, ScalarType.Float32).Cosine[0]));
        Assert.False(TensorAssert.Same(rotary.Get(5, 1, CPU, ScalarType.Float32).Cosine[0], rotary.Get(0, 100, CPU, ScalarType.Float32).Cosine[5]));
    }

    [Fact]
    public void Longrope_changes_its_table_with_the_length_and_back()
    {
        using DisposeScope scope = NewDisposeScope();
        using RotaryEmbedding rotary = new(Settings(
            """{"rope_parameters": {"rope_type": "longrope", "original_max_position_embeddings": 16, "short_factor": [1, 1, 1, 1, 1, 1, 1, 1], "long_factor": [2, 2, 2, 2, 2, 2, 2, 2]}}"""));
        Tensor brief = rotary.Get(0, 16, CPU, ScalarType.Float32).Cosine.clone();
        Tensor extended = rotary.Get(0, 17, CPU, ScalarType.Float32).Cosine.clone();
        TensorAssert.Close(brief[1], extended[2], 1e-6, "half as fast");
        Assert.True(TensorAssert.Same(brief, rotary.Get(0, 16, CPU, ScalarType.Float32).Cosine));
    }

    [Fact]
    public void Partial_rotation_leaves_the_last_channels_alone()
    {
        using DisposeScope scope = NewDisposeScope();
        using RotaryEmbedding rotary = new(Settings("""{"partial_rotary_factor": 0.5}"""));
        Tensor x = rand(2, 7, 3, Width);
        Tensor turned = rotary.Get(0, 7, CPU, ScalarType.Float32).Apply(x);
        Assert.True(TensorAssert.Same(x.narrow(-1, 8, 8), turned.narrow(-1, 8, 8)));
        TensorAssert.Close(x.norm(-1), turned.norm(-1), TensorAssert.Layer, "length of the vectors");
        Assert.True((x - turned).narrow(1, 1, 6).abs().max().item<float>() > 0.01f);
    }

    [Fact]
    public void Scaled_model_gives_the_logits_of_the_decoder_written_out()
    {
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGrad = no_grad();
        JsonObject config = TinyDecoder.Config("llama", """{"head_dim": 8, "rope_parameters": {"rope_type": "yarn", "factor": 4.0, "attention_factor": 1.25, "original_max_position_embeddings": 16}}""");
        using LoKrModel model = TinyDecoder.Load(config);
        (float[] frequencies, double factor) = Compute(new RopeSettings(new ModelConfig(config), 8, 64), 10);
        ReferenceDecoder reference = new(config, model.GetBaseState()) { Frequencies = [.. frequencies], AttentionFactor = factor };
        long[] ids = [.. TinyDecoder.Prompt(12).Select(id => (long)id)];
        TensorAssert.Close(reference.Logits(ids), model.Language().Logits(tensor(ids).unsqueeze(0))[0], TensorAssert.Layer, "yarn");
    }

    private static double Plain(double theta, int i) => Math.Pow(theta, -2.0 * i / Width);

    private static void Check(string parameters, int length, Func<int, double> expected, double factor = 1)
    {
        (float[] frequencies, double actual) = Compute(parameters, length);
        Assert.Equal(Width / 2, frequencies.Length);
        for (int i = 0; i < frequencies.Length; i++)
        {
            TensorAssert.Close(expected(i), frequencies[i], 1e-6, $"pair {i}");
        }

        TensorAssert.Close(factor, actual, 1e-12, "attention factor");
    }

    private static (float[] Frequencies, double Factor) Compute(string parameters, int length) =>
        Compute(Settings("{\"rope_parameters\": " + parameters + "}"), length);

    private static (float[] Frequencies, double Factor) Compute(RopeSettings settings, int length)
    {
        (Tensor frequencies, double factor) = RopeFrequencies.Compute(settings, length);
        using (frequencies)
        {
            Assert.Equal(ScalarType.Float32, frequencies.dtype);
            return (frequencies.data<float>().ToArray(), factor);
        }
    }

    private static RopeSettings Settings(string json) => new(new ModelConfig(JsonNode.Parse(json)!.AsObject()), Width, Positions);
}
