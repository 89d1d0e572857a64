using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Models.Families;
using LoKr.Models.Loading;
using LoKr.Models.Tests.Support;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Models.Tests.Families;

/// <summary>Random small models against the decoder written out in float64, and rules that hold for every model of the family.</summary>
public sealed class LlamaModelTests
{
    private const int Length = 12;

    [Theory]
    [InlineData("llama", "{}", new int[0])]
    [InlineData("llama", """{"attention_bias": true, "mlp_bias": true, "num_key_value_heads": null, "rms_norm_eps": 0.01}""", new int[0])]
    [InlineData("llama", """{"num_key_value_heads": 1, "head_dim": 8, "tie_word_embeddings": true}""", new int[0])]
    [InlineData("mistral", """{"sliding_window": 3}""", new[] { 3, 3 })]
    [InlineData("mistral", """{"sliding_window": null}""", new int[0])]
    [InlineData("mistral", "{}", new int[0])]
    [InlineData("qwen2", """{"sliding_window": 3, "use_sliding_window": false, "max_window_layers": 0}""", new int[0])]
    [InlineData("qwen2", """{"sliding_window": 3, "use_sliding_window": true, "max_window_layers": 1}""", new[] { 0, 3 })]
    [InlineData("qwen2", """{"sliding_window": 4, "use_sliding_window": true, "layer_types": ["sliding_attention", "full_attention"]}""", new[] { 4, 0 })]
    [InlineData("qwen3", """{"attention_bias": true, "head_dim": 6}""", new int[0])]
    public void Logits_are_those_of_the_decoder_written_out(string modelType, string overlay, int[] windows)
    {
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGrad = no_grad();
        JsonObject config = TinyDecoder.Config(modelType, overlay);
        using LoKrModel model = TinyDecoder.Load(config);
        config["num_key_value_heads"] ??= (int)config["num_attention_heads"]!;
        ReferenceDecoder reference = new(config, Weights(model)) { Window = layer => windows.Length > 0 && windows[layer] > 0 ? windows[layer] : int.MaxValue };
        long[] first = [.. TinyDecoder.Prompt(Length).Select(id => (long)id)];
        long[] second = [.. first.Reverse()];

        Tensor alone = model.Language().Logits(tensor(first).unsqueeze(0));
        TensorAssert.Close(reference.Logits(first).unsqueeze(0), alone, TensorAssert.Layer, "one sequence");

        Tensor mask = ones(2, Length, ScalarType.Int64);
        mask[1, 9..] = 0;
        Tensor batch = model.Language().Logits(stack([tensor(first), tensor(second)]), mask);
        Tensor expected = stack([reference.Logits(first), reference.Logits(second, [.. Enumerable.Range(0, Length).Select(i => i < 9)])]);
        TensorAssert.Close(expected[0], batch[0], TensorAssert.Layer, "beside a padded sequence");
        TensorAssert.Close(expected[1, ..9], batch[1, ..9], TensorAssert.Layer, "padded sequence");
    }

    [Fact]
    public void Padding_on_the_left_gives_finite_logits()
    {
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGrad = no_grad();
        using LoKrModel model = TinyDecoder.Load(TinyDecoder.Config("llama"));
        Tensor logits = model.Language().Logits(tensor([0L, 0, 5, 6]).unsqueeze(0), tensor([0L, 0, 1, 1]).unsqueeze(0));
        Assert.True(logits.isfinite().all().item<bool>());
    }

    [Fact]
    public void One_token_and_all_tokens_real_need_no_mask()
    {
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGrad = no_grad();
        using LoKrModel model = TinyDecoder.Load(TinyDecoder.Config("mistral", """{"sliding_window": 3}"""));
        Tensor ids = tensor([4L, 8, 15]).unsqueeze(0);
        Tensor all = model.Language().Logits(ids);
        Assert.True(TensorAssert.Same(all, model.Language().Logits(ids, ones_like(ids))));
        TensorAssert.Close(all[0, 0], model.Language().Logits(ids[TensorIndex.Colon, ..1])[0, 0], TensorAssert.Layer, "first token alone");
    }

    [Fact]
    public void Tied_head_is_the_embedding_itself()
    {
        using LoKrModel model = TinyDecoder.Load(TinyDecoder.Config("qwen2", """{"tie_word_embeddings": true}"""));
        Assert.Equal(new Dictionary<string, string> { ["lm_head.weight"] = "model.embed_tokens.weight" }, model.Pretrained!.TiedParameters);
        Assert.Equal("lm_head", model.Pretrained.OutputEmbeddingsName);
        Assert.Same(model.Module.get_parameter("model.embed_tokens.weight"), model.Module.get_parameter("lm_head.weight"));
        Assert.DoesNotContain("lm_head.weight", model.Module.named_parameters().Select(item => item.name));
        Assert.DoesNotContain("lm_head.weight", model.GetBaseState().Keys);
        Assert.Equal(model.Module.parameters().Sum(parameter => parameter.numel()), model.CountParameters().Total);
    }

    [Fact]
    public void Tie_and_names_outlive_a_move_to_another_type()
    {
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGrad = no_grad();
        using LoKrModel model = TinyDecoder.Load(TinyDecoder.Config("qwen3", """{"tie_word_embeddings": true}"""));
        string[] names = [.. model.Module.named_parameters().Select(item => item.name)];
        Tensor ids = tensor([1L, 2, 3, 4]).unsqueeze(0);
        Tensor before = model.Language().Logits(ids);
        model.MoveTo(dtype: ScalarType.Float64);
        Tensor after = model.Language().Logits(ids);
        Assert.Equal(ScalarType.Float64, after.dtype);
        TensorAssert.Close(before, after, TensorAssert.Layer, "logits");
        Assert.Equal(names, model.Module.named_parameters().Select(item => item.name));
        Assert.Same(model.Module.get_parameter("model.embed_tokens.weight"), model.Module.get_parameter("lm_head.weight"));
        Assert.All(model.Module.parameters(), parameter => Assert.Equal(ScalarType.Float64, parameter.dtype));
        Assert.All(model.Module.parameters(), parameter => Assert.False(parameter.requires_grad));
        model.MoveTo(dtype: ScalarType.Float32);
        Assert.True(TensorAssert.Same(before, model.Language().Logits(ids)));
    }

    [Fact]
    public void Checkpoint_may_hold_the_tied_head_if_it_is_the_same()
    {
        using DisposeScope scope = NewDisposeScope();
        using TempFolder folder = new();
        JsonObject config = TinyDecoder.Config("llama", """{"tie_word_embeddings": true}""");
        TinyModel.Write(folder["same"], config, tensors => tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone());
        TinyModel.Write(folder["other"], config, tensors => tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + 1);
        ModelLoadOptions options = new() { WithTokenizer = false };
        ModelLoader.Load(folder["same"], options).Dispose();
        ErrorAssert.Throws(ErrorIds.CheckpointKeysMismatch, () => ModelLoader.Load(folder["other"], options), "lm_head.weight", "tie_word_embeddings");
    }

    [Fact]
    public void Untied_checkpoint_needs_its_head()
    {
        using TempFolder folder = new();
        using DisposeScope scope = NewDisposeScope();
        TinyModel.Write(folder.Path, TinyDecoder.Config("llama"), tensors => tensors.Remove("lm_head.weight"));
        ErrorAssert.Throws(ErrorIds.CheckpointKeysMismatch, () => ModelLoader.Load(folder.Path, new ModelLoadOptions { WithTokenizer = false }), "lm_head.weight");
    }

    [Fact]
    public void Frequencies_of_old_checkpoints_and_a_missing_prefix_are_understood()
    {
        using DisposeScope scope = NewDisposeScope();
        using TempFolder folder = new();
        TinyModel.Write(folder.Path, TinyDecoder.Config("llama", """{"tie_word_embeddings": true}"""), tensors =>
        {
            foreach ((string name, Tensor weight) in tensors.ToArray())
            {
                tensors.Remove(name);
                tensors.Add(name["model.".Length..], weight);
            }

            tensors.Add("layers.0.self_attn.rotary_emb.inv_freq", ones(2));
        });
        ModelLoadResult result = ModelLoader.LoadWithReport(folder.Path, new ModelLoadOptions { WithTokenizer = false });
        result.Model.Dispose();
        Assert.Empty(result.FreshParameters);
        Assert.Empty(result.SkippedKeys);
    }

    [Theory]
    [InlineData(ScalarType.BFloat16, 0.05)]
    [InlineData(ScalarType.Float16, 0.01)]
    public void Half_precision_weights_stay_as_they_are(ScalarType dtype, double tolerance)
    {
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGrad = no_grad();
        JsonObject config = TinyDecoder.Config("qwen3", """{"tie_word_embeddings": true}""");
        using LoKrModel exact = TinyDecoder.Load(config);
        using LoKrModel half = TinyDecoder.Load(config, new ModelLoadOptions { DType = dtype });
        Tensor ids = tensor(TinyDecoder.Prompt(Length).Select(id => (long)id).ToArray()).unsqueeze(0);
        Tensor logits = half.Language().Logits(ids);
        Assert.Equal(dtype, logits.dtype);
        Assert.All(half.Module.parameters(), parameter => Assert.Equal(dtype, parameter.dtype));
        TensorAssert.Close(exact.Language().Logits(ids), logits, tolerance, $"{dtype}");
    }

    [Fact]
    public void Every_layer_is_called_so_that_hooks_fire()
    {
        using DisposeScope scope = NewDisposeScope();
        using LoKrModel model = TinyDecoder.Load(TinyDecoder.Config("llama", """{"attention_bias": true}"""));
        List<string> called = [];
        List<string> linear = [];
        foreach ((string name, nn.Module module) in model.Module.named_modules())
        {
            if (module is TorchSharp.Modules.Linear layer)
            {
                linear.Add(name);
                layer.register_forward_hook((_, _, output) =>
                {
                    called.Add(name);
                    return output;
                });
            }
        }

        using IDisposable noGrad = no_grad();
        model.Language().Logits(tensor([1L, 2, 3]).unsqueeze(0));
        Assert.Equal(15, linear.Count);
        Assert.Equal(linear.Order(StringComparer.Ordinal), called.Order(StringComparer.Ordinal));
    }

    [Fact]
    public void Gradients_reach_every_adapted_layer_and_the_tensor_count_stays_flat()
    {
        using LoKrModel model = TinyDecoder.Load(TinyDecoder.Config("mistral", """{"sliding_window": 4}"""));
        LoKrAdapter adapter = model.AddAdapter(
            new LoKrConfig { R = 2, TargetModules = ModuleSelector.FromPattern("all-linear"), InitWeights = InitWeights.Random }, seed: 1);
        Assert.Equal(14, adapter.Layers.Count);
        long before = 0;
        for (int step = 0; step < 5; step++)
        {
            using (DisposeScope scope = NewDisposeScope())
            {
                Tensor ids = tensor(TinyDecoder.Prompt(Length).Select(id => (long)id).ToArray()).view(2, -1);
                Tensor mask = ones_like(ids);
                mask[1, 4..] = 0;
                nn.functional.cross_entropy(model.Language().Logits(ids, mask).flatten(0, 1), ids.flatten()).backward();
                Assert.All(adapter.FlatParameters, flat => Assert.True(flat.Gradient.abs().sum().item<float>() > 0));
            }

            before = step == 1 ? DisposeScopeManager.Statistics.ThreadTotalLiveCount : before;
        }

        Assert.Equal(before, DisposeScopeManager.Statistics.ThreadTotalLiveCount);
    }

    [Fact]
    public void Rotary_tables_made_in_inference_mode_serve_training()
    {
        using DisposeScope scope = NewDisposeScope();
        using LoKrModel model = TinyDecoder.Load(TinyDecoder.Config("llama"));
        model.AddAdapter(new LoKrConfig { R = 2, TargetModules = ModuleSelector.FromNames(["q_proj"]), InitWeights = InitWeights.Random }, seed: 1);
        using (inference_mode())
        {
            model.Language().Logits(tensor([1L, 2, 3]).unsqueeze(0));
        }

        model.Language().Logits(tensor([1L, 2, 3]).unsqueeze(0)).sum().backward();
    }

    [Fact]
    public void Model_releases_all_its_tensors()
    {
        using DisposeScope scope = NewDisposeScope();
        long before = DisposeScopeManager.Statistics.ThreadTotalLiveCount;
        using (LoKrModel model = TinyDecoder.Load(TinyDecoder.Config("qwen3", """{"tie_word_embeddings": true}""")))
        {
            using IDisposable noGrad = no_grad();
            model.Language().Generate([1, 2], new GenerationOptions { MaxNewTokens = 3 }, TestContext.Current.CancellationToken);
        }

        Assert.Equal(before, DisposeScopeManager.Statistics.ThreadTotalLiveCount);
    }

    [Theory]
    [InlineData("llama", """{"head_dim": 5}""", "head_dim")]
    [InlineData("llama", """{"num_key_value_heads": 3}""", "num_key_value_heads")]
    [InlineData("llama", """{"head_dim": null, "num_attention_heads": 7, "num_key_value_heads": 7}""", "num_attention_heads")]
    [InlineData("qwen2", """{"layer_types": ["full_attention"]}""", "layer_types")]
    [InlineData("qwen2", """{"layer_types": ["full_attention", "sliding_attention"]}""", "sliding window")]
    [InlineData("mistral", """{"sliding_window": 0}""", "sliding_window")]
    public void Impossible_configuration_is_an_error_that_names_the_key(string modelType, string overlay, string says) =>
        ErrorAssert.Throws(ErrorIds.ModelConfigInvalid, () => ModelLoader.Build(new ModelConfig(TinyDecoder.Config(modelType, overlay))), says);

    [Fact]
    public void Unsupported_layer_type_is_an_error() =>
        ErrorAssert.Throws(
            ErrorIds.ModelConfigUnsupported,
            () => ModelLoader.Build(new ModelConfig(TinyDecoder.Config("qwen3", """{"layer_types": ["full_attention", "linear_attention"]}"""))),
            "linear_attention");

    [Fact]
    public void Batch_that_does_not_fit_is_an_error()
    {
        using DisposeScope scope = NewDisposeScope();
        using LoKrModel model = TinyDecoder.Load(TinyDecoder.Config("llama"));
        ErrorAssert.Throws(ErrorIds.ModelInputInvalid, () => model.Language().Logits(tensor([1L, 2])), "int64 [batch, length]");
        ErrorAssert.Throws(ErrorIds.ModelInputInvalid, () => model.Language().HiddenStates(tensor([1, 2]).unsqueeze(0)), "Int32");
        ErrorAssert.Throws(ErrorIds.ModelInputInvalid, () => model.Language().Logits(tensor([1L, 50]).unsqueeze(0)), "49");
        ErrorAssert.Throws(ErrorIds.ModelInputInvalid, () => model.Language().Logits(zeros(1, 0, ScalarType.Int64)), "empty");
        ErrorAssert.Throws(ErrorIds.ModelInputInvalid, () => model.Language().Logits(tensor([1L, 2]).unsqueeze(0), ones(1, 3, ScalarType.Int64)), "[1, 3]");
    }

    [Theory]
    [InlineData("""{"eos_token_id": 7}""", null, new[] { 7 })]
    [InlineData("""{"eos_token_id": [7, 8]}""", "{}", new[] { 7, 8 })]
    [InlineData("""{"eos_token_id": 7}""", """{"eos_token_id": [9, 10]}""", new[] { 9, 10 })]
    [InlineData("""{"eos_token_id": null}""", null, new int[0])]
    public void Ends_of_text_come_from_the_generation_configuration_first(string overlay, string? generation, int[] expected)
    {
        ModelConfig? given = generation is null ? null : new ModelConfig(JsonNode.Parse(generation)!.AsObject());
        using nn.Module module = ModelLoader.Build(new ModelConfig(TinyDecoder.Config("llama", overlay), "config.json", given));
        Assert.Equal(expected, ((ICausalLanguageModel)module).EosIds);
    }

    private static Dictionary<string, Tensor> Weights(LoKrModel model) =>
        model.GetBaseState().ToDictionary(item => item.Key, item => item.Value, StringComparer.Ordinal);
}
