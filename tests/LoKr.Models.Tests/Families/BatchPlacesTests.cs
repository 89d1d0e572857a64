using LoKr.Core.Errors;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Models.Families;
using LoKr.Models.Loading;
using LoKr.Models.Tests.Support;
using LoKr.Testing;
using TorchSharp;
using TorchSharp.Modules;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Models.Tests.Families;

/// <summary>A head that reads few places of a batch gets their values, and the last layer's feed-forward block runs for these alone.</summary>
public sealed class BatchPlacesTests
{
    public static TheoryData<string, string> Decoders => new()
    {
        { "llama", "{}" },
        { "llama", "{\"num_hidden_layers\": 1}" },
        { "mistral", "{\"sliding_window\": 3}" },
        { "qwen3", "{\"tie_word_embeddings\": true}" },
        { "gemma3_text", "{\"sliding_window\": 5, \"sliding_window_pattern\": 2}" },
        { "smollm3", "{\"no_rope_layers\": [0, 1]}" },
        { "granite", "{\"residual_multiplier\": 0.3, \"logits_scaling\": 2.0}" },
        { "olmo3", "{\"sliding_window\": 4}" },
    };

    public static TheoryData<string, string> Classifiers => new()
    {
        { "bert", "output.dense" }, { "roberta", "output.dense" }, { "distilbert", "ffn.lin2" }, { "albert", "ffn_output" }, { "electra", "output.dense" },
        { "mpnet", "output.dense" }, { "deberta-v2", "output.dense" },
    };

    [Theory]
    [MemberData(nameof(Decoders))]
    public void Places_of_a_decoder_have_the_hidden_states_that_they_have_among_all(string modelType, string overlay)
    {
        using LoKrModel model = TinyDecoder.Load(TinyDecoder.Config(modelType, overlay));
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGrad = no_grad();
        var language = (IPackedLanguageModel)model.Module;
        Tensor ids = Ids(rows: 3, length: 11);
        Tensor positions = tensor(new long[] { 0, 1, 2, 3, 0, 1, 2, 3, 4, 5, 6 }).expand(3, -1);
        Tensor places = tensor(new long[] { 32, 0, 7, 7, 12 });
        List<long> rows = CountRows(model.Module, "mlp.down_proj");
        int layers = model.Module.named_modules().Count(static item => item.name.EndsWith("mlp.down_proj", StringComparison.Ordinal));
        long[] expected = [.. Enumerable.Repeat(33L, layers - 1), 5];

        Tensor all = language.HiddenStates(ids).flatten(0, 1).index_select(0, places);
        Tensor packed = language.PackedHiddenStates(ids, positions).flatten(0, 1).index_select(0, places);
        rows.Clear();
        TensorAssert.Close(all, language.HiddenStates(ids, places: places), TensorAssert.Layer, modelType);
        TensorAssert.Close(packed, language.PackedHiddenStates(ids, positions, places), TensorAssert.Layer, modelType);
        Assert.Equal([.. expected, .. expected], rows);
    }

    [Fact]
    public void Gradients_through_places_are_those_through_all()
    {
        using LoKrModel model = TinyDecoder.Load(TinyDecoder.Config("llama"));
        using DisposeScope scope = NewDisposeScope();
        ICausalLanguageModel language = model.Language();
        Parameter embeddings = ((LoKr.Core.Nn.Embedding)model.Module.named_modules().Single(static item => item.name == "model.embed_tokens").module).Weight;
        embeddings.requires_grad = true;
        Tensor ids = Ids(rows: 2, length: 9);
        Tensor places = tensor(new long[] { 3, 8, 17 });

        language.HiddenStates(ids).flatten(0, 1).index_select(0, places).square().sum().backward();
        Tensor expected = embeddings.grad!.clone();
        embeddings.grad!.zero_();
        language.HiddenStates(ids, places: places).square().sum().backward();
        TensorAssert.Close(expected, embeddings.grad!, 1e-5, "gradient");
    }

    [Fact]
    public void A_prompt_is_computed_to_its_last_token_only()
    {
        using LoKrModel model = TinyDecoder.Load(TinyDecoder.Config("llama"));
        List<long> rows = CountRows(model.Module, "mlp.down_proj");
        model.Language().Generate(TinyDecoder.Prompt(7), new GenerationOptions { MaxNewTokens = 2 });
        Assert.Equal([7, 1, 1, 1], rows);
    }

    [Theory]
    [InlineData(new long[] { 18 })]
    [InlineData(new long[] { 0, -1 })]
    public void A_place_outside_the_batch_is_refused(long[] places)
    {
        using LoKrModel model = TinyDecoder.Load(TinyDecoder.Config("llama"));
        using DisposeScope scope = NewDisposeScope();
        ErrorAssert.Throws(ErrorIds.ModelInputInvalid, () => model.Language().HiddenStates(Ids(rows: 2, length: 9), places: tensor(places)), "0 and 17");
        ErrorAssert.Throws(ErrorIds.ModelInputInvalid, () => model.Language().HiddenStates(Ids(rows: 2, length: 9), places: tensor(places).to(ScalarType.Int32)), "Int32");
    }

    [Theory]
    [MemberData(nameof(Classifiers))]
    public void A_classifier_reads_the_first_token_alone(string family, string lastProjection)
    {
        using DisposeScope scope = NewDisposeScope();
        using nn.Module module = EncoderClassifierTests.Build(family);
        using IDisposable noGrad = no_grad();
        var model = (EncoderClassifier)module;
        List<long> rows = CountRows(module, lastProjection);
        Tensor ids = Ids(rows: 3, length: 9);
        model.Classify(ids, ones_like(ids));
        Assert.Equal(3, rows[^1]);
        Assert.All(rows.SkipLast(1), static count => Assert.Equal(27, count));
        rows.Clear();
        model.LastHiddenState(ids);
        Assert.All(rows, static count => Assert.Equal(27, count));
    }

    private static Tensor Ids(int rows, int length) => tensor(TinyDecoder.Prompt(rows * length)).to(ScalarType.Int64).remainder(20).add(5).view(rows, length);

    // The number of vectors that each call of the modules with such a name gets, in their order.
    private static List<long> CountRows(nn.Module model, string ending)
    {
        List<long> rows = [];
        foreach ((string name, nn.Module module) in model.named_modules())
        {
            if (name.EndsWith("." + ending, StringComparison.Ordinal) && !name.EndsWith("attention." + ending, StringComparison.Ordinal))
            {
                ((Linear)module).register_forward_hook((_, input, output) =>
                {
                    rows.Add(input.numel() / input.shape[^1]);
                    return output;
                });
            }
        }

        return rows;
    }
}
