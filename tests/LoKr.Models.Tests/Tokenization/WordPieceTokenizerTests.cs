using System.Text.Json.Nodes;
using LoKr.Core.Nn;
using LoKr.Models.Tokenization;
using LoKr.Testing;
using Xunit;

namespace LoKr.Models.Tests.Tokenization;

public sealed class WordPieceTokenizerTests
{
    private static readonly string[] s_tokens = ["dis", "##k", "##s", "a", "##a", "e", "!", ",", "'", "\u4F60", "\u597D", "\U0001D7D8", "##\U0001D7D8", "\u0131", "Dis", "i"];

    [Theory]
    [InlineData("disk", "dis ##k")]
    [InlineData("Disks, disk!", "dis ##k ##s , dis ##k !")]
    [InlineData("diskx", "[UNK]")]
    [InlineData("d\u00EDsk", "dis ##k")]
    [InlineData("d\u0130sk", "dis ##k")]
    [InlineData("\u4F60\u597Da", "\u4F60 \u597D a")]
    [InlineData("d\u200Bi\u0000s\u00ADk", "dis ##k")]
    [InlineData("a\u00A0e\te\u2028e\u3000e", "a e e e e")]
    [InlineData("a\u0085e", "[UNK]")]
    [InlineData("", "")]
    [InlineData(" \r\n\u0001", "")]
    [InlineData("[SEP]a [MASK]", "[SEP] a [MASK]")]
    [InlineData("[sep]", "[UNK] [UNK] [UNK]")]
    public void Words_are_cut_as_bert_does(string text, string tokens) => Assert.Equal(tokens, Tokens(text, TinyTokenizers.WordPieceJson(s_tokens)));

    [Fact]
    public void Words_of_more_than_100_code_points_are_unknown()
    {
        JsonObject json = TinyTokenizers.WordPieceJson(s_tokens);
        Assert.Equal(100, Tokens(new string('a', 100), json).Split(' ').Length);
        Assert.Equal("[UNK]", Tokens(new string('a', 101), json));

        // 100 digits of two UTF-16 units each are still a word.
        Assert.Equal(100, Tokens(string.Concat(Enumerable.Repeat("\U0001D7D8", 100)), json).Split(' ').Length);
        Assert.Equal("[UNK]", Tokens(string.Concat(Enumerable.Repeat("\U0001D7D8", 101)), json));
    }

    [Theory]
    [InlineData("""{"tokenizer_class":"BertTokenizer","do_lower_case":false}""", "Disk", "Dis ##k")]
    [InlineData("""{"tokenizer_class":"BertTokenizer","do_lower_case":false}""", "d\u00EDsk", "dis ##k")]
    [InlineData("""{"tokenizer_class":"BertTokenizer","strip_accents":false}""", "d\u00EDsk", "[UNK]")]
    [InlineData("""{"tokenizer_class":"BertTokenizerFast","tokenize_chinese_chars":false}""", "\u4F60\u597D", "[UNK]")]
    [InlineData("""{"tokenizer_class":"PreTrainedTokenizerFast","do_lower_case":false}""", "Disk", "dis ##k")]
    public void Bert_configuration_overrules_the_file(string config, string text, string tokens)
    {
        JsonObject json = TinyTokenizers.WordPieceJson(s_tokens);
        if (text.Contains('\u00ED', StringComparison.Ordinal) && config.Contains("lower", StringComparison.Ordinal))
        {
            json["normalizer"]!["strip_accents"] = true;
        }

        Assert.Equal(tokens, Tokens(text, json, config));
    }

    [Fact]
    public void Decoding_joins_words_and_cleans_up_token_by_token()
    {
        ITextTokenizer tokenizer = TinyTokenizers.Load(TinyTokenizers.WordPieceJson(s_tokens));
        Assert.Equal("disk, a! ' a", tokenizer.Decode(tokenizer.Encode("disk , a ! ' a")));
        Assert.Equal("[CLS] disk [SEP]", tokenizer.Decode(tokenizer.Encode("disk"), skipSpecialTokens: false));
    }

    [Fact]
    public void The_clean_up_of_transformers_needs_its_option_and_no_bpe()
    {
        const string Config = """{"clean_up_tokenization_spaces":true}""";
        ITextTokenizer cleaning = TinyTokenizers.Load(TinyTokenizers.WordPieceJson(s_tokens), Config);
        Assert.Equal("disk'a", cleaning.Decode(cleaning.Encode("disk ' a")));
        ITextTokenizer bpe = TinyTokenizers.Load(TinyTokenizers.ByteLevelJson(), Config);
        Assert.Equal("disk ' a .", bpe.Decode(bpe.Encode("disk ' a .")));
    }

    [Fact]
    public void A_vocabulary_alone_is_bert_in_lower_case()
    {
        using TempFolder folder = new TempFolder().Write("vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\r\ndis\n##k\n");
        ITextTokenizer tokenizer = TokenizerLoader.Load(folder.Path);
        Assert.Equal([2, 5, 6, 1, 4, 3], tokenizer.Encode("DISK x [MASK]"));
        Assert.Equal((7, 0, null, null), (tokenizer.VocabularySize, tokenizer.PadId, tokenizer.BosId, tokenizer.EosId));
        Assert.Equal("vocab.txt", Path.GetFileName(TokenizerLoader.Find(folder.Path)));
    }

    [Fact]
    public void The_template_takes_its_tokens_from_the_configuration()
    {
        using TempFolder folder = new TempFolder()
            .Write("vocab.txt", "<s>\n<pad>\n</s>\n[UNK]\ndis\n##k\n<mask>")
            .Write("tokenizer_config.json", """{"tokenizer_class":"MPNetTokenizer","cls_token":"<s>","sep_token":"</s>","pad_token":"<pad>","mask_token":"<mask>","bos_token":"<s>","eos_token":"</s>"}""");
        ITextTokenizer tokenizer = TokenizerLoader.Load(folder.Path);
        Assert.Equal([0, 4, 5, 6, 2], tokenizer.Encode("disk<mask>"));
        Assert.Equal((1, 0, 2), (tokenizer.PadId, tokenizer.BosId, tokenizer.EosId));
    }

    private static string Tokens(string text, JsonObject json, string? config = null)
    {
        Dictionary<int, string> tokens = json["model"]!["vocab"]!.AsObject().ToDictionary(entry => entry.Value!.GetValue<int>(), entry => entry.Key);
        return string.Join(' ', TinyTokenizers.Load(json, config).Encode(text, addSpecialTokens: false).Select(id => tokens[id]));
    }
}
