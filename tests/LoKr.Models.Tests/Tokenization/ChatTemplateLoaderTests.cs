using LoKr.Core.Chat;
using LoKr.Core.Errors;
using LoKr.Models.Tokenization;
using LoKr.Testing;
using Xunit;

namespace LoKr.Models.Tests.Tokenization;

public sealed class ChatTemplateLoaderTests
{
    private static readonly Dictionary<string, object?>[] s_messages = [new() { ["role"] = "user", ["content"] = "hi" }];

    [Theory]
    [InlineData("""{"bos_token":"<s>","chat_template":"{{ bos_token }}old"}""", "{{ bos_token }}{{ messages[0].content }}", "<s>hi")]
    [InlineData("""{"bos_token":{"content":"<b>"},"chat_template":"{{ bos_token }}{{ messages[0]['role'] }}"}""", null, "<b>user")]
    [InlineData("""{"chat_template":[{"name":"tool_use","template":"t"},{"name":"default","template":"d{{ bos_token }}"}]}""", null, "d")]
    public void The_template_file_comes_before_the_configuration_and_the_default_one_before_others(string config, string? file, string expected)
    {
        using TempFolder folder = new TempFolder().Write("tokenizer_config.json", config);
        if (file is not null)
        {
            folder.Write("chat_template.jinja", file);
        }

        Assert.Equal(expected, ChatTemplateLoader.Load(folder.Path)!.Render(s_messages).Text);
    }

    [Theory]
    [InlineData("""{"chat_template":[{"name":"default","template":"plain"},{"name":"tool_use","template":"{{ tools | length }} tools"}]}""", false)]
    [InlineData("{}", true)]
    public void A_conversation_with_tools_gets_the_template_for_them(string config, bool asFiles)
    {
        using TempFolder folder = new TempFolder().Write("tokenizer_config.json", config);
        if (asFiles)
        {
            folder.Write("chat_template.jinja", "plain").Write("additional_chat_templates/tool_use.jinja", "{{ tools | length }} tools");
        }

        ChatTemplate template = ChatTemplateLoader.Load(folder.Path)!;
        Assert.Equal("2 tools", template.Render(s_messages, variables: new Dictionary<string, object?> { ["tools"] = new[] { "a", "b" } }).Text);
        Assert.Equal("0 tools", template.FindAnswers(s_messages, new Dictionary<string, object?> { ["tools"] = Array.Empty<string>() }).Text);
        Assert.Equal("plain", template.Render(s_messages, variables: new Dictionary<string, object?> { ["tools"] = null }).Text);
        Assert.Equal("plain", template.Render(s_messages).Text);
    }

    [Fact]
    public void A_folder_without_a_template_has_none()
    {
        using TempFolder folder = new();
        Assert.Null(ChatTemplateLoader.Load(folder.Path));
        folder.Write("tokenizer_config.json", "{}");
        Assert.Null(ChatTemplateLoader.Load(folder.Path));
    }

    [Fact]
    public void Several_templates_without_a_default_one_are_an_error()
    {
        using TempFolder folder = new TempFolder().Write("tokenizer_config.json", """{"chat_template":[{"name":"tool_use","template":"t"}]}""");
        Assert.Equal(ErrorIds.TokenizerInvalid, Assert.Throws<LoKrException>(() => ChatTemplateLoader.Load(folder.Path)).ErrorId);
    }

    [Fact]
    public void Answers_of_a_rendered_conversation_have_their_tokens()
    {
        // What is trained: the tokens whose places lie in the answers.
        Core.Nn.ITextTokenizer tokenizer = TinyTokenizers.Load(TinyTokenizers.ByteLevelJson());
        ChatTemplate template = ChatTemplate.Parse(
            "{% for m in messages %}{{ m.role ~ ':\\n' ~ m.content ~ '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant:\\n' }}{% endif %}");
        ChatAnswers answers = template.FindAnswers([.. s_messages, new Dictionary<string, object?> { ["role"] = "assistant", ["content"] = "na\u00EFve \U0001F680" }]);
        (int start, int end) = Assert.Single(answers.Spans);
        Assert.Equal("na\u00EFve \U0001F680\n", answers.Text[start..end]);
        Assert.Equal(
            answers.Text[start..end],
            tokenizer.Decode(tokenizer.Tokenize(answers.Text).Where(token => token.Start >= start && token.End <= end).Select(token => token.Id)));
    }
}
