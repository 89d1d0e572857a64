using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Core.Safetensors;
using LoKr.Models.Families;
using LoKr.Models.Loading;
using LoKr.Models.Tests.Support;
using LoKr.Models.Tests.Training;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Models.Tests.Families;

public sealed class ClipTextTests
{
    private static readonly ModelLoadOptions s_noTokenizer = new() { WithTokenizer = false };

    [Fact]
    public void Hidden_states_are_those_of_transformers()
    {
        string folder = Fixtures.Require("transformers", "clip-text");
        using DisposeScope scope = NewDisposeScope();
        using LoKrModel model = ModelLoader.Load(folder, s_noTokenizer);
        using SafetensorsReader io = SafetensorsReader.Open(Path.Combine(folder, "io.safetensors"));
        using IDisposable noGrad = no_grad();
        TensorAssert.Close(io.Read("base_output"), ReferenceInput.Run(model, io), TensorAssert.Model, "clip-text");
        model.MoveTo(dtype: ScalarType.Float64);
        TensorAssert.Close(io.Read("base_output"), ReferenceInput.Run(model, io), TensorAssert.Model, "clip-text in float64");
    }

    [Theory]
    [MemberData(nameof(AdapterCases.Of), "clip-text", MemberType = typeof(AdapterCases))]
    public void Adapter_has_the_hidden_states_layers_and_counts_of_PEFT(string adapter) => AdapterCases.Check("clip-text", adapter);

    [Fact]
    public void Text_encoder_of_a_pipeline_gives_its_hidden_states_with_and_without_adapter()
    {
        string pipeline = Fixtures.Require("diffusers", "tiny-sd");
        using DisposeScope scope = NewDisposeScope();
        using LoKrModel model = ModelLoader.Load(Path.Combine(pipeline, "text_encoder"), s_noTokenizer);
        using SafetensorsReader io = SafetensorsReader.Open(Path.Combine(pipeline, "io.safetensors"));
        using IDisposable noGrad = no_grad();
        var encoder = (ITextEncoder)model.Module;
        TensorAssert.Close(io.Read("text_hidden"), encoder.Encode(io.Read("prompt_ids")).LastHiddenState, TensorAssert.Model, "text_hidden");
        PeftStart.Load(model, Path.Combine(pipeline, "adapters", "text_encoder"));
        TensorAssert.Close(io.Read("text_hidden_adapter"), encoder.Encode(io.Read("prompt_ids")).LastHiddenState, TensorAssert.Model, "text_hidden_adapter");
    }

    [Theory]
    [InlineData(39, new long[] { 2, 0, 0, 1 })]
    [InlineData(4, new long[] { 0, 1, 0, 3 })]
    [InlineData(2, new long[] { 2, 0, 4, 1 })]
    public void Pooled_vector_is_that_of_the_token_that_ends_the_text(int eosId, long[] expected)
    {
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGrad = no_grad();
        using TempFolder folder = new();
        JsonObject config = TinyModel.ClipTextConfig();
        config["eos_token_id"] = eosId;
        TinyModel.Write(folder.Path, config);
        using LoKrModel model = ModelLoader.Load(folder.Path, s_noTokenizer);
        Tensor ids = tensor(new long[,]
        {
            { 3, 5, 39, 39, 7 },
            { 39, 4, 6, 39, 0 },
            { 3, 5, 7, 8, 9 },
            { 1, 39, 2, 4, 5 },
        });

        // With 2 the largest id ends a text, with any other that id; the first of several counts, and the first token where there is none.
        TextEncoderOutput output = ((ITextEncoder)model.Module).Encode(ids);
        for (int row = 0; row < expected.Length; row++)
        {
            Assert.True(TensorAssert.Same(output.LastHiddenState[row, expected[row]], output.Pooled[row]), $"row {row}");
        }
    }

    [Fact]
    public void Projection_belongs_to_its_own_architecture()
    {
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGrad = no_grad();
        using TempFolder folder = new();
        JsonObject config = TinyModel.ClipTextConfig();
        config["architectures"] = new JsonArray("CLIPTextModelWithProjection");
        TinyModel.Write(folder["in"], config);
        using LoKrModel projecting = ModelLoader.Load(folder["in"], s_noTokenizer);
        Assert.Equal("CLIPTextModelWithProjection", projecting.Name);

        config["architectures"] = new JsonArray("CLIPTextModel");
        Directory.CreateDirectory(folder["plain"]);
        File.WriteAllText(folder["plain", "config.json"], config.ToJsonString());
        File.Copy(folder["in", "model.safetensors"], folder["plain", "model.safetensors"]);
        ModelLoadResult result = ModelLoader.LoadWithReport(folder["plain"], s_noTokenizer);
        using LoKrModel plain = result.Model;
        Assert.Equal(["text_projection.weight"], result.SkippedKeys);

        Tensor ids = tensor(new long[,] { { 3, 5, 39, 7 } });
        TextEncoderOutput expected = ((ITextEncoder)plain.Module).Encode(ids);
        TextEncoderOutput actual = ((ITextEncoder)projecting.Module).Encode(ids);
        TensorAssert.Close(expected.LastHiddenState, actual.LastHiddenState, TensorAssert.Layer, "hidden state");
        Tensor weight = projecting.Module.get_parameter("text_projection.weight")!;
        TensorAssert.Close(expected.Pooled.matmul(weight.t()), actual.Pooled, TensorAssert.Layer, "projected vector");
        Assert.Equal([1, 6], actual.Pooled.shape);
    }

    [Fact]
    public void Sequence_longer_than_the_positions_is_refused()
    {
        using DisposeScope scope = NewDisposeScope();
        using nn.Module module = ModelLoader.Build(new ModelConfig(TinyModel.ClipTextConfig()), new ModelBuildOptions { Device = CPU });
        ErrorAssert.Throws(ErrorIds.ModelInputInvalid, () => ((ITextEncoder)module).Encode(zeros(1, 13, ScalarType.Int64)), "13", "12");
    }

    [Fact]
    public void Encoding_leaves_no_tensors_behind()
    {
        using DisposeScope scope = NewDisposeScope();
        JsonObject config = TinyModel.ClipTextConfig();
        config["architectures"] = new JsonArray("CLIPTextModelWithProjection");
        using nn.Module module = ModelLoader.Build(new ModelConfig(config), new ModelBuildOptions { Device = CPU });
        (Tensor ids, Tensor mask) = TinyModel.Batch();
        LiveTensors.AssertFlat(() =>
        {
            (Tensor hidden, Tensor pooled) = ((ITextEncoder)module).Encode(ids, mask);
            hidden.Dispose();
            pooled.Dispose();
        });
    }
}
