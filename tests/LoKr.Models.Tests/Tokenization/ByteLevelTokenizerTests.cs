using System.Text.Json.Nodes;
using LoKr.Core.Nn;
using LoKr.Models.Tokenization;
using LoKr.Models.Tokenization.Models;
using Microsoft.ML.Tokenizers;
using Xunit;

namespace LoKr.Models.Tests.Tokenization;

public sealed class ByteLevelTokenizerTests
{
    private static readonly string s_llama3 = new JsonObject
    {
        ["type"] = "Sequence",
        ["pretokenizers"] = new JsonArray(
            new JsonObject
            {
                ["type"] = "Split",
                ["pattern"] = new JsonObject { ["Regex"] = TinyTokenizers.Llama3Pattern },
                ["behavior"] = "Isolated",
                ["invert"] = false,
            },
            new JsonObject { ["type"] = "ByteLevel", ["add_prefix_space"] = false, ["trim_offsets"] = true, ["use_regex"] = false }),
    }.ToJsonString();

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Every_text_comes_back(bool llama3)
    {
        ITextTokenizer tokenizer = TinyTokenizers.Load(llama3
            ? TinyTokenizers.ByteLevelJson(("pre_tokenizer", s_llama3))
            : TinyTokenizers.ByteLevelJson());
        foreach (string text in OddTexts.All)
        {
            Assert.Equal(text, tokenizer.Decode(tokenizer.Encode(text)));
        }
    }

    [Fact]
    public void Lone_surrogates_are_read_as_the_replacement_character()
    {
        ITextTokenizer tokenizer = TinyTokenizers.Load(TinyTokenizers.ByteLevelJson());
        string text = "a" + '\uD800' + "b" + '\uDC00';
        Assert.Equal(tokenizer.Encode("a\uFFFDb\uFFFD"), tokenizer.Encode(text));
    }

    [Fact]
    public void Merges_agree_with_another_implementation_on_random_words()
    {
        (Dictionary<string, int> vocabulary, List<(string Left, string Right)> merges) = TinyTokenizers.ByteLevel();
        BpeModel model = new(new BpeSettings { Vocabulary = new Vocabulary(vocabulary), Merges = merges }, "test");
        BpeTokenizer other = BpeTokenizer.Create(new BpeOptions(vocabulary) { Merges = merges.Select(merge => $"{merge.Left} {merge.Right}") });
        Random random = new(7);
        string letters = "  teandrohsk4\u00E9\u4F60";
        for (int i = 0; i < 3000; i++)
        {
            string word = ByteAlphabet.Encode(string.Concat(Enumerable.Range(0, random.Next(1, i < 2990 ? 40 : 2000)).Select(_ => letters[random.Next(letters.Length)])));
            List<Symbol> tokens = [];
            model.Encode(word, tokens);
            Assert.Equal(other.EncodeToIds(word, considerPreTokenization: false, considerNormalization: false), tokens.Select(token => token.Id));
        }
    }

    [Fact]
    public void Ignored_merges_take_a_known_word_whole()
    {
        JsonObject json = TinyTokenizers.ByteLevelJson();
        int id = json["model"]!["vocab"]!.AsObject().Count;
        json["model"]!["vocab"]!["qzqzq"] = id;
        Assert.True(TinyTokenizers.Load(json).Encode("qzqzq").Count > 1);
        json["model"]!["ignore_merges"] = true;
        Assert.Equal([id], TinyTokenizers.Load(json).Encode("qzqzq"));
    }

    [Fact]
    public void Merges_written_as_text_or_as_pairs_are_the_same()
    {
        JsonObject json = TinyTokenizers.ByteLevelJson();
        ITextTokenizer pairs = TinyTokenizers.Load(json);
        json["model"]!["merges"] = new JsonArray([.. json["model"]!["merges"]!.AsArray().Select(pair => (JsonNode)$"{pair![0]} {pair[1]}")]);
        ITextTokenizer texts = TinyTokenizers.Load(json);
        Assert.All(OddTexts.All, text => Assert.Equal(pairs.Encode(text), texts.Encode(text)));
    }

    [Fact]
    public void A_space_in_front_changes_nothing_where_one_is()
    {
        ITextTokenizer plain = TinyTokenizers.Load(TinyTokenizers.ByteLevelJson());
        ITextTokenizer prefixed = TinyTokenizers.Load(TinyTokenizers.ByteLevelJson(
            ("pre_tokenizer", """{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true}""")));
        Assert.Equal(plain.Encode(" the disk"), prefixed.Encode("the disk"));
        Assert.Equal(plain.Encode(" the disk"), prefixed.Encode(" the disk"));
        Assert.Empty(prefixed.Encode(""));
    }

    [Fact]
    public void Gpt2_configuration_overrules_the_space_in_front()
    {
        ITextTokenizer tokenizer = TinyTokenizers.Load(
            TinyTokenizers.ByteLevelJson(), """{"tokenizer_class":"GPT2TokenizerFast","add_prefix_space":true,"bos_token":null,"eos_token":null}""");
        Assert.Equal(tokenizer.Encode(" the disk"), tokenizer.Encode("the disk"));
    }

    [Fact]
    public void Many_threads_get_what_one_gets()
    {
        ITextTokenizer tokenizer = TinyTokenizers.Load(TinyTokenizers.ByteLevelJson());
        string[] texts = [.. Enumerable.Range(0, 400).Select(i => $"the node {i} reported {i * 31} errors {new string((char)('a' + i % 26), i % 17)}")];
        ITextTokenizer other = TinyTokenizers.Load(TinyTokenizers.ByteLevelJson());
        IReadOnlyList<int>[] serial = [.. texts.Select(text => other.Encode(text))];
        IReadOnlyList<int>[] parallel = new IReadOnlyList<int>[texts.Length];
        Parallel.For(0, texts.Length, i => parallel[i] = tokenizer.Encode(texts[i]));
        Assert.Equal(serial, parallel);
    }

    [Fact]
    public void Truncation_cuts_on_the_right_and_keeps_the_template()
    {
        ITextTokenizer tokenizer = TinyTokenizers.Load(TinyTokenizers.ByteLevelJson(
            ("added_tokens", """
                [{"id":1000,"content":"<b>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true},
                 {"id":1001,"content":"<e>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}]
                """),
            ("post_processor", """
                {"type":"Sequence","processors":[{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":false,"use_regex":true},
                 {"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<b>","type_id":0}},{"Sequence":{"id":"A","type_id":0}},{"SpecialToken":{"id":"<e>","type_id":0}}],
                  "pair":[],"special_tokens":{"<b>":{"id":"<b>","ids":[1000],"tokens":["<b>"]},"<e>":{"id":"<e>","ids":[1001],"tokens":["<e>"]}}}]}
                """)));
        IReadOnlyList<int> plain = tokenizer.Encode("the disk failed", addSpecialTokens: false);
        Assert.True(plain.Count > 4);
        Assert.Equal([1000, .. plain, 1001], tokenizer.Encode("the disk failed"));
        Assert.Equal([1000, plain[0], plain[1], 1001], tokenizer.Encode("the disk failed", maxLength: 4));
        Assert.Equal([1000, 1001], tokenizer.Encode("the disk failed", maxLength: 2));
        Assert.Equal(plain.Take(3), tokenizer.Encode("the disk failed", addSpecialTokens: false, maxLength: 3));
        Assert.Equal([1000, 1000, plain[0], 1001], tokenizer.Encode("<b>the disk failed", maxLength: 4));
    }
}
