using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Errors;
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

public sealed class Gpt2Tests
{
    private const int Width = 4;

    private static readonly ModelLoadOptions s_noTokenizer = new() { WithTokenizer = false };

    [Fact]
    public void Logits_are_those_of_transformers_where_padded_too()
    {
        string folder = Fixtures.Require("transformers", "gpt2");
        using DisposeScope scope = NewDisposeScope();
        using LoKrModel model = ModelLoader.Load(folder, s_noTokenizer);
        using SafetensorsReader io = SafetensorsReader.Open(Path.Combine(folder, "io.safetensors"));
        using IDisposable noGrad = no_grad();
        TensorAssert.Close(io.Read("base_output"), ReferenceInput.Run(model, io), TensorAssert.Model, "gpt2");
        model.MoveTo(dtype: ScalarType.Float64);
        TensorAssert.Close(io.Read("base_output"), ReferenceInput.Run(model, io), TensorAssert.Model, "gpt2 in float64");
        Assert.All(model.Module.parameters(), parameter => Assert.Equal(ScalarType.Float64, parameter.dtype));
        Assert.Same(model.Module.get_parameter("transformer.wte.weight"), model.Module.get_parameter("lm_head.weight"));
    }

    [Fact]
    public void Greedy_ids_are_those_of_transformers()
    {
        string folder = Fixtures.Require("transformers", "gpt2");
        JsonNode expected = JsonNode.Parse(File.ReadAllText(Path.Combine(folder, "generate.json")))!;
        int[] prompt = [.. expected["prompt_ids"]!.AsArray().Select(id => (int)id!)];
        int[] all = [.. expected["greedy_ids"]!.AsArray().Select(id => (int)id!)];
        using LoKrModel model = ModelLoader.Load(folder, s_noTokenizer);
        var language = (ICausalLanguageModel)model.Module;
        IReadOnlyList<int> generated = language.Generate(
            prompt, new GenerationOptions { MaxNewTokens = all.Length - prompt.Length }, TestContext.Current.CancellationToken);

        // transformers also returns the id that ended the text.
        int length = language.EosIds.Contains(all[^1]) ? all.Length - 1 : all.Length;
        Assert.Equal(all[prompt.Length..length], generated);
    }

    [Fact]
    public void Published_checkpoint_without_a_prefix_and_with_masks_has_the_same_logits()
    {
        string source = Fixtures.Require("transformers", "gpt2");
        using TempFolder folder = new();
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGrad = no_grad();
        File.Copy(Path.Combine(source, "config.json"), folder["config.json"]);
        using (SafetensorsReader weights = SafetensorsReader.Open(Path.Combine(source, "model.safetensors")))
        {
            Dictionary<string, Tensor> tensors = weights.Entries.Keys.ToDictionary(key => key["transformer.".Length..], key => weights.Read(key), StringComparer.Ordinal);
            tensors["h.0.attn.bias"] = ones(1, 1, 16, 16).tril();
            tensors["h.0.attn.masked_bias"] = tensor(-1e4f);
            SafetensorsWriter.Write(folder["model.safetensors"], tensors, new Dictionary<string, string>());
        }

        ModelLoadResult result = ModelLoader.LoadWithReport(folder.Path, s_noTokenizer);
        using LoKrModel model = result.Model;
        Assert.Empty(result.Warnings);
        using SafetensorsReader io = SafetensorsReader.Open(Path.Combine(source, "io.safetensors"));
        TensorAssert.Close(io.Read("base_output"), ReferenceInput.Run(model, io), TensorAssert.Model, "gpt2");
    }

    [Theory]
    [InlineData("scale_attn_weights", false)]
    [InlineData("scale_attn_by_inverse_layer_idx", true)]
    public void Scaling_of_the_attention_is_that_of_the_configuration(string key, bool value)
    {
        using TempFolder folder = new();
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGrad = no_grad();
        JsonObject config = TinyModel.Gpt2Config();
        config[key] = value;
        TinyModel.Write(folder["option"], config);

        // The same by hand: the option multiplies all scores of a layer, as larger or smaller queries do.
        TinyModel.Write(folder["hand"], TinyModel.Gpt2Config(), tensors =>
        {
            for (int layer = 0; layer < 2; layer++)
            {
                double factor = key == "scale_attn_weights" ? Math.Sqrt(Width) : 1.0 / (layer + 1);
                tensors[$"transformer.h.{layer}.attn.c_attn.weight"].narrow(1, 0, 8).mul_(factor);
                tensors[$"transformer.h.{layer}.attn.c_attn.bias"].narrow(0, 0, 8).mul_(factor);
            }
        });
        using LoKrModel option = ModelLoader.Load(folder["option"], s_noTokenizer);
        using LoKrModel hand = ModelLoader.Load(folder["hand"], s_noTokenizer);
        (Tensor ids, Tensor mask) = TinyModel.Batch();
        TensorAssert.Close(Logits(hand), Logits(option), TensorAssert.Layer, key);
        using LoKrModel plain = Plain(folder);
        Assert.False(Logits(plain).allclose(Logits(option), 1e-3, 1e-3), "The option has no effect.");

        Tensor Logits(LoKrModel model) => ((ICausalLanguageModel)model.Module).Logits(ids, mask);
    }

    [Fact]
    public void Cached_passes_give_the_logits_of_one_pass()
    {
        using TempFolder folder = new();
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGrad = no_grad();
        using LoKrModel model = Plain(folder);
        var language = (ICausalLanguageModel)model.Module;
        List<int> ids = [3, 17, 5];
        IReadOnlyList<int> generated = language.Generate(ids, new GenerationOptions { MaxNewTokens = 100 }, TestContext.Current.CancellationToken);
        List<int> expected = [];
        while (ids.Count < language.MaxSequenceLength)
        {
            int next = (int)language.Logits(tensor(ids.Select(id => (long)id).ToArray()).unsqueeze(0))[0, -1].argmax().item<long>();
            if (language.EosIds.Contains(next))
            {
                break;
            }

            expected.Add(next);
            ids.Add(next);
        }

        Assert.NotEmpty(expected);
        Assert.Equal(expected, generated);
    }

    [Fact]
    public void Sequence_longer_than_the_positions_is_refused()
    {
        using DisposeScope scope = NewDisposeScope();
        using TempFolder folder = new();
        using LoKrModel model = Plain(folder);
        var language = (ICausalLanguageModel)model.Module;
        ErrorAssert.Throws(ErrorIds.ModelInputInvalid, () => language.Logits(zeros(1, 13, ScalarType.Int64)), "13", "12");
        ErrorAssert.Throws(ErrorIds.ModelInputInvalid, () => language.Logits(full(1, 2, 40, ScalarType.Int64)), "39");
    }

    [Fact]
    public void Untied_output_embeddings_are_read_from_the_checkpoint_and_tied_ones_shared()
    {
        using TempFolder folder = new();
        using DisposeScope scope = NewDisposeScope();
        JsonObject config = TinyModel.Gpt2Config();
        config["tie_word_embeddings"] = false;
        IReadOnlyDictionary<string, Tensor> written = TinyModel.Write(folder["untied"], config);
        using LoKrModel untied = ModelLoader.Load(folder["untied"], s_noTokenizer);
        Assert.True(TensorAssert.Same(written["lm_head.weight"], untied.Module.get_parameter("lm_head.weight")!));
        using LoKrModel tied = Plain(folder);
        Assert.True(TensorAssert.Same(tied.Module.get_parameter("transformer.wte.weight")!, tied.Module.get_parameter("lm_head.weight")!));
        Assert.DoesNotContain("lm_head.weight", tied.GetBaseState().Keys);
    }

    [Fact]
    public void Cross_attention_is_refused()
    {
        JsonObject config = TinyModel.Gpt2Config();
        config["add_cross_attention"] = true;
        ErrorAssert.Throws(ErrorIds.ModelConfigUnsupported, () => ModelLoader.Build(new ModelConfig(config)), "add_cross_attention");
    }

    [Fact]
    public void Forward_passes_leave_no_tensors_behind()
    {
        using DisposeScope scope = NewDisposeScope();
        using TempFolder folder = new();
        using LoKrModel model = Plain(folder);
        (Tensor ids, Tensor mask) = TinyModel.Batch();
        LiveTensors.AssertFlat(() => ((ICausalLanguageModel)model.Module).Logits(ids, mask).Dispose());
        LiveTensors.AssertFlat(() => ((ICausalLanguageModel)model.Module).Generate([4, 5], new GenerationOptions { MaxNewTokens = 3 }));
    }

    private static LoKrModel Plain(TempFolder folder)
    {
        TinyModel.Write(folder["plain"], TinyModel.Gpt2Config());
        return ModelLoader.Load(folder["plain"], s_noTokenizer);
    }
}
