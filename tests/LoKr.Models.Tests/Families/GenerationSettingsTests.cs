using LoKr.Core.Errors;
using LoKr.Core.Inference;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Models.Families;
using LoKr.Models.Loading;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Models.Tests.Families;

public sealed class GenerationSettingsTests
{
    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Fact]
    public void What_generation_config_says_is_read_and_what_it_asks_for_besides_is_said()
    {
        GenerationSettings settings = Read("""
            {"do_sample":true,"temperature":0.6,"top_k":20,"top_p":0.95,"repetition_penalty":1.05,"max_new_tokens":2048,"max_length":4096,
             "eos_token_id":[257,1],"pad_token_id":1,"bos_token_id":0,"transformers_version":"5.0","_from_model_config":true,"use_cache":true,
             "num_beams":1,"typical_p":1.0,"no_repeat_ngram_size":0,"penalty_alpha":null,"early_stopping":false,
             "min_p":0.1,"num_beams_":4,"suppress_tokens":[5]}
            """);
        Assert.Equal((true, 0.6, 20, 0.95, 1.05, 2048, 4096),
            (settings.DoSample, settings.Temperature, settings.TopK, settings.TopP, settings.RepetitionPenalty, settings.MaxNewTokens, settings.MaxLength));
        Assert.Equal(["min_p = 0.1", "num_beams_ = 4", "suppress_tokens = [5]"], settings.Ignored);
        Assert.Empty(Read("{}").Ignored);
        ErrorAssert.Throws(ErrorIds.ModelConfigInvalid, () => Read("""{"top_k":"many"}"""), "top_k");
    }

    [Theory]
    [InlineData(1.0, 1)]
    [InlineData(1.5, 2)]
    public void Tokens_that_occurred_are_less_likely_with_a_penalty_as_in_transformers(double penalty, int expected)
    {
        // 4 / 1.5 is less than 3, and -1 · 1.5 less than -1.
        using DisposeScope scope = NewDisposeScope();
        using TokenSampler sampler = new(new GenerationOptions { RepetitionPenalty = penalty });
        sampler.AddSeen([1, 0]);
        Assert.Equal(expected, sampler.Next(tensor([-1f, 4, 3, -1])));
        using TokenSampler negative = new(new GenerationOptions { RepetitionPenalty = penalty });
        negative.AddSeen([0]);
        Assert.Equal(penalty == 1 ? 0 : 1, negative.Next(tensor([-1f, -1.2f])));
        ErrorAssert.Throws(ErrorIds.GenerationOptionInvalid, () => new TokenSampler(new GenerationOptions { RepetitionPenalty = 0 }).Dispose(), "RepetitionPenalty");
    }

    [Fact]
    public void A_model_answers_in_pieces_that_are_its_answer_with_the_same_seed_the_same()
    {
        using TempFolder folder = new();
        TinyModel.WriteChat(folder.Path);
        folder.Write("generation_config.json", """{"do_sample":true,"temperature":1.5,"top_k":0,"max_new_tokens":20}""");
        using LoKrModel model = ModelLoader.Load(folder.Path);
        LoKrMessage[] messages = [new() { Role = "user", Content = "hi" }];
        List<string> pieces = [];
        LoKrConversation first = ChatGenerator.Answer(model, messages, new() { Seed = 4 }, pieces.Add, Token);
        Assert.Equal(first.Answer, string.Concat(pieces));
        Assert.Equal(first.Answer, ChatGenerator.Answer(model, messages, new() { Seed = 4 }, cancellationToken: Token).Answer);
        Assert.NotEqual(first.Answer, ChatGenerator.Answer(model, messages, new() { Temperature = 0 }, cancellationToken: Token).Answer);
        Assert.InRange(first.TokenCount, 1, 20);
    }

    private static GenerationSettings Read(string json)
    {
        using TempFolder folder = new();
        TinyModel.WriteLlama(folder.Path);
        folder.Write("generation_config.json", json);
        using LoKrModel model = ModelLoader.Load(folder.Path);
        return ((ICausalLanguageModel)model.Pretrained!).ReadGenerationSettings();
    }
}
