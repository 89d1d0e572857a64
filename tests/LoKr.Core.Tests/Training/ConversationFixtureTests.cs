using System.Text.Json;
using System.Text.Json.Nodes;
using LoKr.Core.Chat;
using LoKr.Core.Data;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Core.Training;
using LoKr.Models.Tokenization;
using LoKr.Testing;
using Xunit;

namespace LoKr.Core.Tests.Training;

/// <summary>Conversations of the reference numbers as rows: their ids, and which of them are trained.</summary>
public sealed class ConversationFixtureTests
{
    public static TheoryData<string> Templates => Fixtures.Cases("chat", folder => File.Exists(Path.Combine(folder, "training.json")));

    [Theory]
    [MemberData(nameof(Templates))]
    public void Rows_have_the_ids_and_the_masks_of_transformers(string name)
    {
        string folder = Fixtures.Require("chat", name);
        JsonNode cases = JsonNode.Parse(File.ReadAllText(Path.Combine(folder, "cases.json")))!;
        Dictionary<string, string> special = cases["special_tokens"]!.AsObject().ToDictionary(static token => token.Key, static token => token.Value!.GetValue<string>());
        ReferenceTokenizer tokenizer = new(TokenizerLoader.Load(Fixtures.Require("chat", "tokenizer")), ChatTemplate.Parse(File.ReadAllText(Path.Combine(folder, "template.jinja")), special));
        using LoKrModel model = new(new TinyLanguageModel(), tokenizer: tokenizer);
        LanguageEncoder encoder = new(model, (ICausalLanguageModel)model.Pretrained!, new() { Day = cases["now"]!.GetValue<DateTime>() });
        int compared = 0;
        foreach (JsonNode? expected in JsonNode.Parse(File.ReadAllText(Path.Combine(folder, "training.json")))!.AsArray())
        {
            JsonNode? row = cases["rows"]!.AsArray().First(row => row!["name"]!.GetValue<string>() == expected!["name"]!.GetValue<string>() && !row["add_generation_prompt"]!.GetValue<bool>());
            if (row!["text"] is null || expected!["ids"] is null)
            {
                continue;
            }

            EncodedText text = encoder.Encode(LanguageRow.Of(ToRow(row)));
            Assert.Equal(expected["ids"]!.AsArray().Select(static id => id!.GetValue<int>()), text.Ids);
            char[] mask = [.. text.Ids.Select(static _ => '0')];
            foreach (LossSpan span in text.Loss)
            {
                mask.AsSpan(span.Start, span.End - span.Start).Fill('1');
            }

            Assert.Equal(expected["mask"]!.GetValue<string>(), new string(mask));
            Assert.Equal(expected["without_span"]!.AsArray().Select(static answer => answer!["why"]!.GetValue<string>()), text.Unplaced);
            compared++;
        }

        Assert.True(compared > 0);
    }

    private static DataRow ToRow(JsonNode row)
    {
        Dictionary<string, object?> fields = new() { ["messages"] = JsonSerializer.SerializeToElement(row["messages"]) };
        JsonObject others = [];
        foreach ((string name, JsonNode? value) in row["variables"] as JsonObject ?? [])
        {
            if (name is "tools" or "documents")
            {
                fields[name] = JsonSerializer.SerializeToElement(value);
            }
            else
            {
                others[name] = value?.DeepClone();
            }
        }

        fields["chat_template_kwargs"] = JsonSerializer.SerializeToElement(others);
        return new(fields, row["name"]!.GetValue<string>());
    }

    private sealed class ReferenceTokenizer(ITextTokenizer inner, ChatTemplate template) : ITextTokenizer
    {
        public int VocabularySize => inner.VocabularySize;

        public int? MaxLength => inner.MaxLength;

        public int? PadId => inner.PadId;

        public int? BosId => inner.BosId;

        public int? EosId => inner.EosId;

        public IReadOnlyList<string> SourceFiles => inner.SourceFiles;

        public ChatTemplate? FindChatTemplate() => template;

        public IReadOnlyList<int> Encode(string text, bool addSpecialTokens = true, int? maxLength = null) => inner.Encode(text, addSpecialTokens, maxLength);

        public IReadOnlyList<TextToken> Tokenize(string text, string? textPair = null, bool addSpecialTokens = true, int? maxLength = null) =>
            inner.Tokenize(text, textPair, addSpecialTokens, maxLength);

        public IReadOnlyList<TextToken> TokenizeWords(IReadOnlyList<string> words, bool addSpecialTokens = true, int? maxLength = null) =>
            inner.TokenizeWords(words, addSpecialTokens, maxLength);

        public IDecodeStream OpenDecodeStream(bool skipSpecialTokens = true) => inner.OpenDecodeStream(skipSpecialTokens);
    }
}
