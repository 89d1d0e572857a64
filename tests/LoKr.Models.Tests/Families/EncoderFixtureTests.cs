using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Core.Safetensors;
using LoKr.Models.Families;
using LoKr.Models.Loading;
using LoKr.Models.Tests.Support;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Models.Tests.Families;

/// <summary>The encoder folders that transformers wrote, against its outputs.</summary>
public sealed class EncoderFixtureTests
{
    [Theory]
    [InlineData("bert")]
    [InlineData("roberta")]
    [InlineData("distilbert")]
    public void Logits_are_those_of_transformers(string name)
    {
        string folder = Fixtures.Require("transformers", name);
        using DisposeScope scope = NewDisposeScope();
        using LoKrModel model = ModelLoader.Load(folder, new ModelLoadOptions { WithTokenizer = false });
        using SafetensorsReader io = SafetensorsReader.Open(Path.Combine(folder, "io.safetensors"));
        using IDisposable noGrad = no_grad();
        Tensor logits = ((ISequenceClassifier)model.Module).Classify(io.Read("in.input_ids"), io.Read("in.attention_mask"));
        TensorAssert.Close(io.Read("base_output"), logits, TensorAssert.Model, name);
    }

    public static TheoryData<string, string> Adapters() => AdapterCases.Of("transformers", ["bert", "roberta", "distilbert"]);

    [Theory]
    [MemberData(nameof(Adapters))]
    public void Adapter_has_the_logits_layers_and_counts_of_PEFT(string name, string adapterName) => AdapterCases.Check(name, adapterName);

    [Fact]
    public void Hidden_states_and_embeddings_of_a_plain_encoder_are_those_of_transformers()
    {
        string folder = Fixtures.RequireBeside("models", "minilm");
        using DisposeScope scope = NewDisposeScope();
        ModelLoadResult result = ModelLoader.LoadWithReport(folder, new ModelLoadOptions { Labels = ["a", "b", "c"], WithTokenizer = false, Seed = 1 });
        using LoKrModel model = result.Model;
        Assert.Equal(["classifier.weight", "classifier.bias"], result.FreshParameters);
        Assert.Empty(result.SkippedKeys);
        Assert.Contains("a, b, c", Assert.Single(result.Warnings), StringComparison.Ordinal);

        using SafetensorsReader io = SafetensorsReader.Open(Fixtures.Require("minilm", "embeddings.safetensors"));
        using IDisposable noGrad = no_grad();
        EncoderClassifier encoder = Assert.IsAssignableFrom<EncoderClassifier>(model.Module);
        Tensor ids = io.Read("input_ids");
        Tensor mask = io.Read("attention_mask");
        TensorAssert.Close(io.Read("last_hidden_state"), encoder.LastHiddenState(ids, mask), TensorAssert.Model, "last hidden state");
        TensorAssert.Close(io.Read("sentence_embedding"), encoder.Embed(ids, mask), TensorAssert.Model, "embedding");
    }
}
