using LoKr.Core.Chat;
using LoKr.Core.Errors;
using LoKr.Core.Inference;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Core.Tests.Training;
using LoKr.Testing;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Inference;

public sealed class ChatGeneratorTests
{
    // One token a character; 'É' is a special token that ends a turn, 2 the end of a text.
    private const string Template = "{% for m in messages %}{{ m.role[0] ~ ':' ~ m.content ~ ' É\\n' }}{% endfor %}{% if add_generation_prompt %}a:{{ mood }}{% endif %}";

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Fact]
    public void An_answer_ends_with_the_special_token_that_the_template_writes_behind_one_and_the_conversation_goes_on()
    {
        ScriptedModel module = new("yo,É..");
        using LoKrModel model = new(module, tokenizer: new ScriptedTokenizer());
        LoKrConversation first = ChatGenerator.Answer(model, [Message("system", "s"), Message("user", "p")], cancellationToken: Token);
        Assert.Equal("s:s É\nu:p É\na:", module.Prompt);
        Assert.Equal(("yo,", true, 14, 3), (first.Answer, first.IsComplete, first.PromptTokenCount, first.TokenCount));
        Assert.Equal(["system: s", "user: p", "assistant: yo,"], first.Messages.Select(static message => message.ToString()));

        LoKrConversation second = ChatGenerator.Answer(
            model, [.. first.Messages, Message("user", "q")], new() { MaxNewTokens = 2, Variables = new Dictionary<string, object?> { ["mood"] = "!" } }, cancellationToken: Token);
        Assert.Equal("s:s É\nu:p É\na:yo, É\nu:q É\na:!", module.Prompt);
        Assert.Equal(("yo", false, 5), (second.Answer, second.IsComplete, second.Messages.Count));
    }

    [Fact]
    public void The_end_of_text_of_the_tokenizer_and_of_the_model_end_an_answer_too()
    {
        using LoKrModel model = new(new ScriptedModel("a\u0002b"), tokenizer: new ScriptedTokenizer());
        Assert.Equal("a", ChatGenerator.Answer(model, [Message("user", "p")], cancellationToken: Token).Answer);
        using LoKrModel other = new(new ScriptedModel("a\u0003b"), tokenizer: new ScriptedTokenizer());
        Assert.Equal("a", ChatGenerator.Answer(other, [Message("user", "p")], cancellationToken: Token).Answer);
    }

    [Fact]
    public void The_answer_comes_in_pieces_of_whole_characters()
    {
        // A rocket of two tokens, and half of one at the end.
        using LoKrModel model = new(new ScriptedModel("a<>b<"), tokenizer: new ScriptedTokenizer());
        List<string> pieces = [];
        LoKrConversation answer = ChatGenerator.Answer(model, [Message("user", "p")], onText: pieces.Add, cancellationToken: Token);
        Assert.Equal(["a", "\U0001F680", "b", "\uFFFD"], pieces);
        Assert.Equal(answer.Answer, string.Concat(pieces));
        Assert.Equal(answer.Answer, ChatGenerator.Answer(model, [Message("user", "p")], cancellationToken: Token).Answer);
    }

    [Fact]
    public void Settings_of_the_model_count_where_the_options_say_nothing()
    {
        GenerationSettings sampling = new() { DoSample = true, Temperature = 0.6, TopP = 0.9, RepetitionPenalty = 1.1, MaxNewTokens = 7 };
        GenerationOptions own = new ChatOptions { Seed = 3 }.Resolve(sampling, 10);
        Assert.Equal((7, 0.6, 50, 0.9, 1.1, 3L), (own.MaxNewTokens, own.Temperature, own.TopK, own.TopP, own.RepetitionPenalty, own.Seed));
        GenerationOptions over = new ChatOptions { MaxNewTokens = 9, Temperature = 0, TopK = 5, TopP = 1, RepetitionPenalty = 1 }.Resolve(sampling, 10);
        Assert.Equal((9, 0, 5, 1, 1), (over.MaxNewTokens, over.Temperature, over.TopK, over.TopP, over.RepetitionPenalty));

        // Without do_sample, the most likely token, whatever the temperature is.
        GenerationOptions greedy = new ChatOptions().Resolve(new() { Temperature = 0.6, TopK = 20, MaxLength = 30 }, 10);
        Assert.Equal((20, 0, 20), (greedy.MaxNewTokens, greedy.Temperature, greedy.TopK));
        Assert.Equal((ChatOptions.DefaultMaxNewTokens, 0), (new ChatOptions().Resolve(new() { MaxLength = 10 }, 10).MaxNewTokens, new ChatOptions().Resolve(new(), 10).Temperature));
        Assert.True(new ChatOptions().Samples(sampling));
        Assert.False(new ChatOptions { Temperature = 0 }.Samples(sampling));
    }

    [Fact]
    public void A_conversation_that_the_template_refuses_and_a_model_without_one_say_so()
    {
        using LoKrModel model = new(new ScriptedModel("a"), tokenizer: new ScriptedTokenizer { Template = "{{ raise_exception('no system message') }}" });
        ErrorAssert.Throws(ErrorIds.ChatTemplateFailed, () => ChatGenerator.Answer(model, [Message("user", "p")], cancellationToken: Token), "no system message");
        using LoKrModel plain = new(new ScriptedModel("a"), tokenizer: new TinyTokenizer());
        ErrorAssert.Throws(ErrorIds.ChatTemplateMissing, () => ChatGenerator.Answer(plain, [Message("user", "p")], cancellationToken: Token));
        using LoKrModel classifier = TinyClassifier.Create("a", "b");
        ErrorAssert.Throws(ErrorIds.TaskUnknown, () => ChatGenerator.Answer(classifier, [Message("user", "p")], cancellationToken: Token));
    }

    private static LoKrMessage Message(string role, string content) => new() { Role = role, Content = content };

    private sealed class ScriptedTokenizer : ITextTokenizer
    {
        public string Template { get; init; } = ChatGeneratorTests.Template;

        public int VocabularySize => 300;

        public int? MaxLength => 512;

        public int? PadId => 0;

        public int? BosId => 1;

        public int? EosId => 2;

        public IReadOnlyList<string> SourceFiles => [];

        public ChatTemplate? FindChatTemplate() => ChatTemplate.Parse(Template);

        public IReadOnlyList<int> Encode(string text, bool addSpecialTokens = true, int? maxLength = null) => [.. text.Select(static c => (int)c)];

        public IReadOnlyList<TextToken> Tokenize(string text, string? textPair = null, bool addSpecialTokens = true, int? maxLength = null) => throw new NotSupportedException();

        public IReadOnlyList<TextToken> TokenizeWords(IReadOnlyList<string> words, bool addSpecialTokens = true, int? maxLength = null) => throw new NotSupportedException();

        public IDecodeStream OpenDecodeStream(bool skipSpecialTokens = true) => new Characters(skipSpecialTokens);

        // '<' and '>' are the halves of a rocket.
        private sealed class Characters(bool skipsSpecialTokens) : IDecodeStream
        {
            private bool _half;

            public string Step(int id)
            {
                if (skipsSpecialTokens && (id <= 3 || id == 'É'))
                {
                    return "";
                }

                string text = (_half, id) switch { (true, '>') => "\U0001F680", (true, '<') => "\uFFFD", (true, _) => $"\uFFFD{(char)id}", (_, '<') => "", _ => ((char)id).ToString() };
                _half = id == '<';
                return text;
            }

            public string Complete() => _half ? "\uFFFD" : "";
        }
    }

    private sealed class ScriptedModel(string script) : Training.TinyModel(nameof(ScriptedModel)), ICausalLanguageModel
    {
        public string Prompt { get; private set; } = "";

        public IReadOnlyList<int> EosIds => [3];

        public new int MaxSequenceLength => 512;

        public Tensor HiddenStates(Tensor inputIds, Tensor? attentionMask = null, Tensor? places = null) => throw new NotSupportedException();

        public Tensor Project(Tensor hiddenStates) => throw new NotSupportedException();

        public Tensor Logits(Tensor inputIds, Tensor? attentionMask = null) => throw new NotSupportedException();

        public IReadOnlyList<int> Generate(IReadOnlyList<int> promptIds, GenerationOptions options, CancellationToken cancellationToken = default)
        {
            Prompt = string.Concat(promptIds.Select(static id => (char)id));
            List<int> generated = [];
            foreach (int id in script.Select(static c => (int)c).TakeWhile(id => !EosIds.Contains(id) && !options.StopIds.Contains(id)).Take(options.MaxNewTokens))
            {
                generated.Add(id);
                options.OnToken?.Invoke(id);
            }

            return generated;
        }
    }
}
