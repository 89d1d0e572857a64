using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Models.Families;
using LoKr.Models.Tests.Support;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Models.Tests.Families;

public sealed class TextGeneratorTests
{
    private const string Longer = "\"max_position_embeddings\": 200";

    public static TheoryData<string, string, int> Kinds() => new()
    {
        { "llama", "{" + Longer + "}", 5 },
        { "llama", "{" + Longer + ", \"num_key_value_heads\": 4}", 1 },
        { "mistral", "{" + Longer + ", \"sliding_window\": 6}", 3 },
        { "mistral", "{" + Longer + ", \"sliding_window\": 6}", 6 },
        { "mistral", "{" + Longer + ", \"sliding_window\": 6}", 23 },
        { "mistral", "{" + Longer + ", \"sliding_window\": 1}", 4 },
        { "qwen2", "{" + Longer + ", \"sliding_window\": 7, \"use_sliding_window\": true, \"max_window_layers\": 1}", 17 },
        { "qwen3", "{" + Longer + ", \"tie_word_embeddings\": true}", 9 },
        { "gemma3_text", "{" + Longer + ", \"sliding_window\": 5, \"sliding_window_pattern\": 2, \"final_logit_softcapping\": 3.0}", 7 },
        { "smollm3", "{" + Longer + ", \"no_rope_layers\": [0, 1]}", 5 },
        { "granite", "{" + Longer + ", \"residual_multiplier\": 0.3, \"logits_scaling\": 2.0}", 5 },
        { "olmo3", "{" + Longer + ", \"sliding_window\": 4}", 6 },
    };

    [Theory]
    [MemberData(nameof(Kinds))]
    public void Token_after_token_with_a_cache_gives_the_logits_of_the_whole_text(string modelType, string overlay, int promptLength)
    {
        const int length = 100;
        using LoKrModel model = TinyDecoder.Load(TinyDecoder.Config(modelType, overlay));
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGrad = no_grad();
        long[] ids = [.. TinyDecoder.Prompt(length).Select(id => (long)id)];
        Tensor whole = model.Language().Logits(tensor(ids).unsqueeze(0))[0];

        var language = (ICachedLanguageModel)model.Module;
        using KeyValueCache cache = language.CreateCache();
        List<Tensor> steps = [language.Project(language.HiddenStates(tensor(ids[..promptLength]).unsqueeze(0), cache))[0]];
        for (int i = promptLength; i < length; i++)
        {
            steps.Add(language.Project(language.HiddenStates(tensor(ids[i]).view(1, 1), cache))[0]);
        }

        Assert.Equal(length, cache.Length);
        TensorAssert.Close(whole, cat([.. steps]), TensorAssert.Layer, modelType);
    }

    [Theory]
    [MemberData(nameof(Kinds))]
    public void Greedy_with_a_cache_is_greedy_without(string modelType, string overlay, int promptLength)
    {
        using LoKrModel model = TinyDecoder.Load(TinyDecoder.Config(modelType, overlay));
        int[] prompt = TinyDecoder.Prompt(promptLength);
        Assert.Equal(WithoutCache(model, prompt, 30), Generate(model, prompt, new GenerationOptions { MaxNewTokens = 30 }));
    }

    [Fact]
    public void Adapter_takes_part_in_every_token()
    {
        using LoKrModel model = TinyDecoder.Load(TinyDecoder.Config("llama"));
        int[] prompt = TinyDecoder.Prompt(5);
        IReadOnlyList<int> before = Generate(model, prompt, new GenerationOptions { MaxNewTokens = 20 });
        LoKrAdapter adapter = model.AddAdapter(new LoKrConfig { R = 4, Alpha = 32, TargetModules = ModuleSelector.FromPattern("all-linear"), InitWeights = InitWeights.Random }, seed: 3);
        IReadOnlyList<int> after = Generate(model, prompt, new GenerationOptions { MaxNewTokens = 20 });
        Assert.NotEqual(before, after);
        Assert.Equal(WithoutCache(model, prompt, 20), after);
        Assert.All(adapter.Layers, layer => Assert.Equal(40, layer.CallCount));
    }

    [Fact]
    public void Ends_at_the_models_end_of_text_or_a_stop_id_and_leaves_it_out()
    {
        int[] prompt = TinyDecoder.Prompt(5);
        IReadOnlyList<int> free;
        using (LoKrModel model = TinyDecoder.Load(TinyDecoder.Config("llama")))
        {
            free = Generate(model, prompt, new GenerationOptions { MaxNewTokens = 20 });
            Assert.Equal(20, free.Count);
            int stop = free[6];
            IReadOnlyList<int> stopped = Generate(model, prompt, new GenerationOptions { MaxNewTokens = 20, StopIds = [stop] });
            Assert.Equal(free.TakeWhile(id => id != stop), stopped);
        }

        using LoKrModel ending = TinyDecoder.Load(TinyDecoder.Config("llama", $$"""{"eos_token_id": [49, {{free[4]}}]}"""));
        Assert.Equal(free.TakeWhile(id => id != free[4]), Generate(ending, prompt, new GenerationOptions { MaxNewTokens = 20 }));
    }

    [Fact]
    public void Ends_at_the_models_longest_sequence()
    {
        using LoKrModel model = TinyDecoder.Load(TinyDecoder.Config("llama", """{"max_position_embeddings": 10}"""));
        Assert.Equal(10, model.Language().MaxSequenceLength);
        Assert.Equal(3, Generate(model, TinyDecoder.Prompt(7), new GenerationOptions { MaxNewTokens = 20 }).Count);
        Assert.Single(Generate(model, TinyDecoder.Prompt(9), new GenerationOptions { MaxNewTokens = 20 }));
        ErrorAssert.Throws(ErrorIds.PromptTooLong, () => Generate(model, TinyDecoder.Prompt(10), new GenerationOptions()), "10 tokens");
    }

    [Fact]
    public void Prompts_that_cannot_be_continued_are_errors()
    {
        using LoKrModel model = TinyDecoder.Load(TinyDecoder.Config("llama"));
        ErrorAssert.Throws(ErrorIds.PromptEmpty, () => Generate(model, [], new GenerationOptions()));
        ErrorAssert.Throws(ErrorIds.PromptInvalid, () => Generate(model, [1, 50], new GenerationOptions()), "50", "49");
        ErrorAssert.Throws(ErrorIds.PromptInvalid, () => Generate(model, [-1], new GenerationOptions()), "-1");
    }

    [Fact]
    public void Scores_that_are_not_numbers_are_an_error()
    {
        using LoKrModel model = TinyDecoder.Load(TinyDecoder.Config("llama"));
        using (no_grad())
        {
            model.Module.get_parameter("model.norm.weight")!.fill_(float.NaN);
        }

        string expected = ModelOutputs.NotFinite("The model's scores of the next token are", target: null).Message;
        ErrorAssert.Throws(ErrorIds.LogitsNotFinite, () => Generate(model, [1], new GenerationOptions()), expected);
        ErrorAssert.Throws(ErrorIds.LogitsNotFinite, () => Generate(model, [1], new GenerationOptions { Temperature = 1 }), expected);
    }

    [Fact]
    public void Cancellation_stops_between_tokens()
    {
        using LoKrModel model = TinyDecoder.Load(TinyDecoder.Config("llama"));
        using CancellationTokenSource source = new();
        int calls = 0;
        ((TorchSharp.Modules.Linear)model.Module.named_modules().Single(item => item.name == "lm_head").module).register_forward_hook((_, _, output) =>
        {
            if (++calls == 3)
            {
                source.Cancel();
            }

            return output;
        });
        Assert.Throws<OperationCanceledException>(() => model.Language().Generate([1, 2], new GenerationOptions(), source.Token));
        Assert.Equal(3, calls);
    }

    [Fact]
    public void Same_seed_gives_the_same_text_and_the_global_generator_is_left_alone()
    {
        using LoKrModel model = TinyDecoder.Load(TinyDecoder.Config("llama"));
        GenerationOptions options = new() { MaxNewTokens = 30, Temperature = 1.5, Seed = 11 };
        random.manual_seed(5);
        IReadOnlyList<int> first = Generate(model, [1, 2], options);
        double drawn = rand(1).ToDouble();
        Assert.Equal(first, Generate(model, [1, 2], options));
        Assert.NotEqual(first, Generate(model, [1, 2], options with { Seed = 12 }));
        Assert.NotEqual(Generate(model, [1, 2], options with { Seed = null }), Generate(model, [1, 2], options with { Seed = null }));
        random.manual_seed(5);
        Assert.Equal(drawn, rand(1).ToDouble());
    }

    [Theory]
    [InlineData(1.0, 1, 1.0)]
    [InlineData(1.0, 0, 1e-9)]
    [InlineData(1e-4, 0, 1.0)]
    public void Narrowest_sampling_is_greedy(double temperature, int topK, double topP)
    {
        using LoKrModel model = TinyDecoder.Load(TinyDecoder.Config("qwen2"));
        Assert.Equal(
            Generate(model, [3, 4], new GenerationOptions { MaxNewTokens = 25 }),
            Generate(model, [3, 4], new GenerationOptions { MaxNewTokens = 25, Temperature = temperature, TopK = topK, TopP = topP, Seed = 1 }));
    }

    [Fact]
    public void Training_mode_of_every_module_is_as_before()
    {
        using LoKrModel model = TinyDecoder.Load(TinyDecoder.Config("llama", """{"attention_dropout": 0.9}"""));
        IReadOnlyList<int> expected = Generate(model, [1, 2], new GenerationOptions { MaxNewTokens = 10 });
        model.Module.train();
        Assert.Equal(expected, Generate(model, [1, 2], new GenerationOptions { MaxNewTokens = 10 }));
        Assert.All(model.Module.modules(), module => Assert.True(module.training));
    }

    [Fact]
    public void Live_tensor_count_stays_flat()
    {
        using LoKrModel model = TinyDecoder.Load(TinyDecoder.Config("mistral", """{"sliding_window": 6}"""));
        model.AddAdapter(new LoKrConfig { R = 2, TargetModules = ModuleSelector.FromPattern("all-linear") }, seed: 1);
        GenerationOptions options = new() { MaxNewTokens = 40, Temperature = 1, TopK = 10, TopP = 0.9, Seed = 1 };
        Generate(model, [1, 2, 3], options);
        long before = DisposeScopeManager.Statistics.ThreadTotalLiveCount;
        Generate(model, [1, 2, 3], options);
        Generate(model, [1, 2, 3], options with { Temperature = 0 });
        Assert.Equal(before, DisposeScopeManager.Statistics.ThreadTotalLiveCount);
    }

    private static IReadOnlyList<int> Generate(LoKrModel model, int[] prompt, GenerationOptions options) =>
        model.Language().Generate(prompt, options, TestContext.Current.CancellationToken);

    private static List<int> WithoutCache(LoKrModel model, int[] prompt, int count)
    {
        using IDisposable noGrad = no_grad();
        List<int> ids = [.. prompt];
        for (int i = 0; i < count; i++)
        {
            using DisposeScope scope = NewDisposeScope();
            Tensor logits = model.Language().Logits(tensor(ids.Select(id => (long)id).ToArray()).unsqueeze(0));
            ids.Add((int)logits[0, -1].argmax().item<long>());
        }

        return ids[prompt.Length..];
    }
}
