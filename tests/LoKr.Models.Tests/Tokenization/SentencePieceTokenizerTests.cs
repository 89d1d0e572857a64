using System.Text.Json;
using System.Text.Json.Nodes;
using LoKr.Core.Nn;
using LoKr.Models.Tokenization;
using LoKr.Models.Tokenization.Models;
using LoKr.Testing;
using Xunit;

namespace LoKr.Models.Tests.Tokenization;

public sealed class SentencePieceTokenizerTests
{
    // The order of the scores makes different pairs compete: of equal ones the leftmost has to win.
    private static readonly (string Text, float Score)[] s_pieces =
    [
        ("\u2581\u2581", 0), ("aa", -1), ("ab", -2), ("\u2581a", -3), ("aab", -4), ("\u2581\u2581a", -5), ("ba", -6), ("baa", -6), ("bb", -7),
        ("\u2581", -8), ("a", -9), ("b", -10),
    ];

    [Fact]
    public void Random_texts_are_cut_as_by_the_definition()
    {
        List<SentencePiece> pieces = TinyTokenizers.LlamaPieces(s_pieces);
        using TempFolder folder = new TempFolder().Write("tokenizer.model", TinyTokenizers.SentencePieceModel(pieces));
        ITextTokenizer tokenizer = TokenizerLoader.Load(folder.Path);
        Random random = new(3);
        for (int i = 0; i < 3000; i++)
        {
            string text = string.Concat(Enumerable.Range(0, random.Next(1, 25)).Select(_ => "  aaabb\u00E9"[random.Next(8)]));
            Assert.Equal([1, .. ByDefinition("\u2581" + text.Replace(' ', '\u2581'), pieces)], tokenizer.Encode(text));
            Assert.Equal(text, tokenizer.Decode(tokenizer.Encode(text)));
        }
    }

    [Fact]
    public void Odd_texts_come_back()
    {
        using TempFolder folder = new TempFolder().Write("tokenizer.model", TinyTokenizers.SentencePieceModel(TinyTokenizers.LlamaPieces(s_pieces)));
        ITextTokenizer tokenizer = TokenizerLoader.Load(folder.Path);
        Assert.All(OddTexts.All, text => Assert.Equal(text, tokenizer.Decode(tokenizer.Encode(text))));
    }

    [Theory]
    [InlineData("{}", "a</s>a", "<s> \u2581a </s> a")]
    [InlineData("""{"legacy":true}""", "a</s>a", "<s> \u2581a </s> \u2581a")]
    [InlineData("""{"legacy":false}""", "</s>a", "<s> </s> a")]
    [InlineData("""{"add_bos_token":false,"add_eos_token":true}""", "a", "\u2581a </s>")]
    [InlineData("""{"add_prefix_space":false}""", "a a", "<s> a \u2581a")]
    [InlineData("""{"tokenizer_class":"LlamaTokenizerFast"}""", " a", "<s> \u2581\u2581a")]
    [InlineData("""{"tokenizer_class":"LlamaTokenizer"}""", "", "<s>")]
    public void Special_tokens_and_prefixes_follow_the_configuration(string config, string text, string expected)
    {
        List<SentencePiece> pieces = TinyTokenizers.LlamaPieces(s_pieces);
        using TempFolder folder = new TempFolder()
            .Write("tokenizer.model", TinyTokenizers.SentencePieceModel(pieces))
            .Write("tokenizer_config.json", config);
        ITextTokenizer tokenizer = TokenizerLoader.Load(folder.Path);
        Assert.Equal(expected, string.Join(' ', tokenizer.Encode(text).Select(id => pieces[id].Text)));
        Assert.Equal((pieces.Count, 1, 2), (tokenizer.VocabularySize, tokenizer.BosId, tokenizer.EosId));
    }

    [Fact]
    public void Unused_pieces_help_to_merge_but_do_not_come_out()
    {
        List<SentencePiece> pieces = TinyTokenizers.LlamaPieces(("\u2581", -5), ("a", -6), ("b", -7), ("aba", -2));
        pieces.Add(new SentencePiece("ab", -1, SentencePieceKind.Unused));
        using TempFolder folder = new TempFolder().Write("tokenizer.model", TinyTokenizers.SentencePieceModel(pieces));
        ITextTokenizer tokenizer = TokenizerLoader.Load(folder.Path);
        Assert.Equal("\u2581 aba \u2581 a b", string.Join(' ', tokenizer.Encode("aba ab", addSpecialTokens: false).Select(id => pieces[id].Text)));
    }

    [Fact]
    public void Without_byte_fallback_a_run_of_unknown_characters_is_one_token()
    {
        List<SentencePiece> pieces = TinyTokenizers.LlamaPieces(s_pieces);
        using TempFolder folder = new TempFolder().Write("tokenizer.model", TinyTokenizers.SentencePieceModel(pieces, new Dictionary<int, int> { [3] = 2 }));
        Assert.Equal("\u2581a <unk> b", string.Join(' ', TokenizerLoader.Load(folder.Path).Encode("a\u4F60\U0001F680b", addSpecialTokens: false).Select(id => pieces[id].Text)));
    }

    [Fact]
    public void The_same_model_as_tokenizer_json_gives_the_same()
    {
        List<SentencePiece> pieces = TinyTokenizers.LlamaPieces(("\u2581a", -1), ("ab", -2), ("\u2581ab", -3), ("\u2581", -4), ("a", -5), ("b", -6));
        using TempFolder folder = new TempFolder().Write("tokenizer.model", TinyTokenizers.SentencePieceModel(pieces));
        ITextTokenizer model = TokenizerLoader.Load(folder.Path);
        JsonObject json = TinyTokenizers.Parse("""
            {"version":"1.0","truncation":null,"padding":null,
             "added_tokens":[{"id":0,"content":"<unk>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true},
                             {"id":1,"content":"<s>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true},
                             {"id":2,"content":"</s>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}],
             "normalizer":{"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"\u2581"},{"type":"Replace","pattern":{"String":" "},"content":"\u2581"}]},
             "pre_tokenizer":null,
             "post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>","type_id":0}},{"Sequence":{"id":"A","type_id":0}}],"pair":[],
                               "special_tokens":{"<s>":{"id":"<s>","ids":[1],"tokens":["<s>"]}}},
             "decoder":{"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"\u2581"},"content":" "},{"type":"ByteFallback"},{"type":"Fuse"},
                                                      {"type":"Strip","content":" ","start":1,"stop":0}]},
             "model":{"type":"BPE","dropout":null,"unk_token":"<unk>","continuing_subword_prefix":null,"end_of_word_suffix":null,"fuse_unk":true,"byte_fallback":true}}
            """);
        json["model"]!["vocab"] = JsonSerializer.SerializeToNode(pieces.Select((piece, id) => (piece.Text, id)).ToDictionary(pair => pair.Text, pair => pair.id));
        json["model"]!["merges"] = new JsonArray("\u2581 a", "a b", "\u2581 ab", "\u2581a b");
        ITextTokenizer other = TinyTokenizers.Load(json);
        foreach (string text in OddTexts.All.Append("ab aba b ab"))
        {
            Assert.Equal(model.Encode(text), other.Encode(text));
            Assert.Equal(text, other.Decode(other.Encode(text)));
        }

        Assert.Equal("a\uFFFD\uFFFDb", other.Decode([pieces.Count - 2, 3 + 0xE4, 3 + 0xBD, pieces.Count - 1]));
    }

    // SentencePiece's BPE word for word: of all neighbors whose join is a piece, join the best one, and again.
    private static IEnumerable<int> ByDefinition(string text, List<SentencePiece> pieces)
    {
        List<string> symbols = [.. text.Select(c => c.ToString())];
        while (true)
        {
            int best = -1;
            float score = float.NegativeInfinity;
            for (int i = 0; i + 1 < symbols.Count; i++)
            {
                SentencePiece? joined = pieces.Find(piece => piece.Text == symbols[i] + symbols[i + 1] && piece.Kind == SentencePieceKind.Normal);
                if (joined is not null && joined.Score > score)
                {
                    (best, score) = (i, joined.Score);
                }
            }

            if (best < 0)
            {
                break;
            }

            symbols[best] += symbols[best + 1];
            symbols.RemoveAt(best + 1);
        }

        return symbols.SelectMany(symbol => pieces.FindIndex(piece => piece.Text == symbol) is var id and >= 0
            ? [id]
            : System.Text.Encoding.UTF8.GetBytes(symbol).Select(value => 3 + value));
    }
}
