using System.Text.Json;
using LoKr.Core.Nn;
using LoKr.Models.Tokenization;
using LoKr.Testing;
using Xunit;

namespace LoKr.Models.Tests.Tokenization;

public sealed class AddedTokenTests
{
    [Theory]
    [InlineData("a  <m>  b", false, false, "a  |<m>|  b")]
    [InlineData("a \t<m>  b", true, false, "a|<m>|  b")]
    [InlineData("a <m> \u2003b", false, true, "a |<m>|b")]
    [InlineData("<m> <m>", true, true, "<m>|<m>")]
    public void Tokens_take_the_white_space_beside_them(string text, bool left, bool right, string parts) =>
        Assert.Equal(parts.Split('|'), Raw(text, new AddedToken("<m>", LeftStrip: left, RightStrip: right)));

    [Theory]
    [InlineData("<m> a", "<m>| a")]
    [InlineData("a<m> b<m>c -<m>-", "a<m> b<m>c -|<m>|-")]
    [InlineData("\u0301<m>", "\u0301<m>")]
    public void Single_words_have_no_word_beside_them(string text, string parts) =>
        Assert.Equal(parts.Split('|'), Raw(text, new AddedToken("<m>", SingleWord: true)));

    [Fact]
    public void The_longest_of_the_tokens_that_begin_first_is_taken() =>
        Assert.Equal(["x", "<aa>", "<aab", "<a"], Raw("x<aa><aab<a", new AddedToken("<a"), new AddedToken("<aa>"), new AddedToken("<aab")));

    [Fact]
    public void Normalized_tokens_are_found_in_the_normalized_text()
    {
        AddedVocabulary vocabulary = new([(new AddedToken("Yes", Normalized: true), 7), (new AddedToken("NO"), 8)], new LowercaseNormalizer());
        Assert.Equal([8], vocabulary.SplitRaw("yes NO no").Select(segment => segment.Id).OfType<int>());
        Assert.Equal([7], vocabulary.SplitNormalized("oh yes").Select(segment => segment.Id).OfType<int>());
    }

    [Fact]
    public void Tokens_that_are_only_named_get_ids_behind_the_vocabulary_and_are_special()
    {
        ITextTokenizer tokenizer = TinyTokenizers.Load(
            TinyTokenizers.ByteLevelJson(), """{"pad_token":"<pad>","eos_token":{"content":"<end>","lstrip":true},"extra_special_tokens":["<x>"],"image_token":"<img>"}""");
        int size = TinyTokenizers.ByteLevel().Vocabulary.Count;
        Assert.Equal((size + 4, size, size + 1), (tokenizer.VocabularySize, tokenizer.EosId, tokenizer.PadId));
        Assert.Null(tokenizer.BosId);
        Assert.Equal([size], tokenizer.Encode("  <end>"));
        Assert.Equal([size + 1, size + 2, size + 3], tokenizer.Encode("<pad><x><img>").Order());
        Assert.Equal("", tokenizer.Decode([size, size + 1, size + 2, size + 3]));
        Assert.Equal("<end><pad>", tokenizer.Decode([size, size + 1], skipSpecialTokens: false));
        Assert.Equal("", tokenizer.Decode([size + 100]));
    }

    [Fact]
    public void Added_tokens_decoder_overrules_the_options_of_the_file_and_other_files()
    {
        string Token(bool strip) => JsonSerializer.Serialize(
            new { content = "<m>", lstrip = strip, rstrip = false, single_word = false, normalized = false, special = true });
        using TempFolder folder = new TempFolder()
            .Write("tokenizer.json", TinyTokenizers.ByteLevelJson(("added_tokens", $"[{Token(false)[..^1]},\"id\":900}}]")).ToJsonString())
            .Write("special_tokens_map.json", """{"pad_token":"<other>"}""");
        Assert.Equal(2, TokenizerLoader.Load(folder.Path).Encode(" <m>").Count);
        Assert.NotNull(TokenizerLoader.Load(folder.Path).PadId);
        folder.Write("tokenizer_config.json", $$$"""{"mask_token":"<m>","added_tokens_decoder":{"900":{{{Token(true)}}}}}""");
        Assert.Equal([900], TokenizerLoader.Load(folder.Path).Encode(" <m>"));
        Assert.Null(TokenizerLoader.Load(folder.Path).PadId);
    }

    [Fact]
    public void Old_files_for_added_tokens_are_read()
    {
        using TempFolder folder = new TempFolder()
            .Write("tokenizer.json", TinyTokenizers.ByteLevelJson().ToJsonString())
            .Write("special_tokens_map.json", """{"pad_token":"<p>"}""")
            .Write("added_tokens.json", """{"<p>":800,"Word":801}""");
        ITextTokenizer tokenizer = TokenizerLoader.Load(folder.Path);
        Assert.Equal(800, tokenizer.PadId);
        Assert.Equal([801, 800], tokenizer.Encode("Word<p>"));
        Assert.Equal("Word", tokenizer.Decode([801, 800]));
    }

    [Theory]
    [InlineData("""{"add_bos_token":true,"bos_token":"<s>","eos_token":"</s>"}""", true, false)]
    [InlineData("""{"add_bos_token":true,"add_eos_token":true,"bos_token":"<s>","eos_token":"</s>"}""", true, true)]
    [InlineData("""{"add_bos_token":true,"bos_token":null,"eos_token":"</s>"}""", false, false)]
    [InlineData("""{"bos_token":"<s>","eos_token":"</s>"}""", false, false)]
    public void Bos_and_eos_are_added_where_the_configuration_says_so(string config, bool bos, bool eos)
    {
        ITextTokenizer tokenizer = TinyTokenizers.Load(TinyTokenizers.ByteLevelJson(), config);
        IReadOnlyList<int> plain = tokenizer.Encode("the disk", addSpecialTokens: false);
        int[] before = bos ? [tokenizer.BosId!.Value] : [];
        int[] after = eos ? [tokenizer.EosId!.Value] : [];
        Assert.Equal([.. before, .. plain, .. after], tokenizer.Encode("the disk"));
    }

    [Theory]
    [InlineData("512", 512)]
    [InlineData("1000000000000000019884624838656", null)]
    [InlineData("1e30", null)]
    [InlineData("null", null)]
    public void Huge_lengths_mean_none(string value, int? length) => Assert.Equal(
        length, TinyTokenizers.Load(TinyTokenizers.ByteLevelJson(), $$"""{"model_max_length":{{value}}}""").MaxLength);

    [Fact]
    public void Special_tokens_stay_text_where_the_configuration_splits_them()
    {
        ITextTokenizer tokenizer = TinyTokenizers.Load(TinyTokenizers.ByteLevelJson(), """{"eos_token":"</s>","split_special_tokens":true}""");
        Assert.DoesNotContain(tokenizer.EosId!.Value, tokenizer.Encode("a</s>"));
    }

    private static IEnumerable<string> Raw(string text, params AddedToken[] tokens) =>
        new AddedVocabulary(tokens.Select((token, id) => (token, id)), null)
            .SplitRaw(text)
            .Select(segment => segment.Id is int id ? tokens[id].Content : text.Substring(segment.Start, segment.Length));
}
