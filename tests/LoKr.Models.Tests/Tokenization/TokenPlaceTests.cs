using System.Text.Json.Nodes;
using LoKr.Core.Nn;
using LoKr.Models.Tokenization;
using LoKr.Testing;
using Xunit;

namespace LoKr.Models.Tests.Tokenization;

public sealed class TokenPlaceTests
{
    [Fact]
    public void Pieces_of_a_word_stand_for_what_they_were_before_normalization()
    {
        ITextTokenizer tokenizer = TinyTokenizers.Load(TinyTokenizers.WordPieceJson("caf", "##e", "!", "\u4F60"));
        const string Text = " Cafe\u0301\u0000 \u4F60!";
        IReadOnlyList<TextToken> tokens = tokenizer.Tokenize(Text);
        Assert.Equal([2, 5, 6, 8, 7, 3], tokens.Select(token => token.Id));
        Assert.Equal(["", "Caf", "e", "\u4F60", "!", ""], tokens.Select(token => Text[token.Start..token.End]));
        Assert.Equal([-1, 0, 0, 1, 2, -1], tokens.Select(token => token.Word));
        Assert.Equal([true, false, false, false, false, true], tokens.Select(token => token.IsSpecial));
    }

    [Fact]
    public void Every_byte_of_a_character_stands_for_the_character()
    {
        ITextTokenizer tokenizer = TinyTokenizers.Load(TinyTokenizers.ByteLevelJson());
        const string Text = "\U0001F680 x";
        IReadOnlyList<TextToken> tokens = tokenizer.Tokenize(Text);
        Assert.Equal([(0, 2), (0, 2), (0, 2), (0, 2)], tokens.Take(4).Select(token => (token.Start, token.End)));
        Assert.Equal(Text.Length, tokens[^1].End);
    }

    [Theory]
    [InlineData(false, false, " the, the")]
    [InlineData(true, false, "the,the")]
    [InlineData(true, true, " the,the")]
    public void Spaces_are_left_out_where_the_file_says_so(bool trims, bool addsPrefix, string places)
    {
        string processor = $$"""{"type":"ByteLevel","trim_offsets":{{(trims ? "true" : "false")}},"add_prefix_space":{{(addsPrefix ? "true" : "false")}},"use_regex":true}""";
        ITextTokenizer tokenizer = TinyTokenizers.Load(TinyTokenizers.ByteLevelJson(("post_processor", processor)));
        const string Text = " the the";
        Assert.Equal(places.Split(','), tokenizer.Tokenize(Text).Select(token => Text[token.Start..token.End]));
    }

    [Fact]
    public void Words_have_tokens_with_places_in_their_word()
    {
        ITextTokenizer tokenizer = TinyTokenizers.Load(TinyTokenizers.WordPieceJson("re", "##set", "now"));
        IReadOnlyList<TextToken> tokens = tokenizer.TokenizeWords(["Reset", "\u200B", "now"]);
        Assert.Equal([(-1, 0, 0), (0, 0, 2), (0, 2, 5), (2, 0, 3), (-1, 0, 0)], tokens.Select(token => (token.Word, token.Start, token.End)));
        Assert.Equal([-1, 0, 0, -1], tokenizer.TokenizeWords(["reset", "now"], maxLength: 4).Select(token => token.Word));
    }

    [Theory]
    [InlineData(10, 2, 9, 4, 2)]
    [InlineData(2, 10, 9, 2, 4)]
    [InlineData(5, 5, 9, 3, 3)]
    [InlineData(6, 6, 10, 3, 4)]
    [InlineData(7, 6, 10, 4, 3)]
    [InlineData(3, 4, 100, 3, 4)]
    public void Pairs_lose_the_end_of_the_longer_text(int first, int second, int maxLength, int firstKept, int secondKept)
    {
        // Three of the tokens are special ones. The longer text keeps the odd token, of two of one length the second.
        ITextTokenizer tokenizer = TinyTokenizers.Load(TinyTokenizers.WordPieceJson("x"));
        IReadOnlyList<TextToken> tokens = tokenizer.Tokenize(string.Join(' ', Enumerable.Repeat("x", first)), string.Join(' ', Enumerable.Repeat("x", second)), maxLength: maxLength);
        Assert.Equal((firstKept, secondKept), (tokens.Count(token => token.Sequence == 0), tokens.Count(token => token.Sequence == 1)));
    }

    [Fact]
    public void A_pair_has_types_and_an_empty_second_text_is_one()
    {
        ITextTokenizer tokenizer = TinyTokenizers.Load(TinyTokenizers.WordPieceJson("x"));
        Assert.Equal([(2, 0), (5, 0), (3, 0), (5, 1), (3, 1)], tokenizer.Tokenize("x", "x").Select(token => (token.Id, token.TypeId)));
        Assert.Equal([2, 5, 3, 3], tokenizer.Tokenize("x", "").Select(token => token.Id));
        Assert.Equal([2, 5, 3], tokenizer.Tokenize("x").Select(token => token.Id));
    }

    [Fact]
    public void Unigram_takes_the_most_probable_pieces_and_joins_what_it_does_not_know()
    {
        JsonObject json = TinyTokenizers.ByteLevelJson(
            ("pre_tokenizer", """{"type":"Metaspace","replacement":"\u2581","prepend_scheme":"always","split":true}"""),
            ("decoder", """{"type":"Metaspace","replacement":"\u2581","prepend_scheme":"always","split":true}"""),
            ("model", """{"type":"Unigram","unk_id":0,"byte_fallback":false,"vocab":[["<unk>",0],["\u2581",-3],["\u2581a",-2],["b",-2.5],["ab",-4],["c",-3],["bc",-4.75]]}"""));
        ITextTokenizer tokenizer = TinyTokenizers.Load(json);
        IReadOnlyList<TextToken> tokens = tokenizer.Tokenize("abc xyb");
        Assert.Equal([2, 6, 1, 0, 3], tokens.Select(token => token.Id));
        Assert.Equal([(0, 1), (1, 3), (3, 4), (4, 6), (6, 7)], tokens.Select(token => (token.Start, token.End)));
        Assert.Equal("abc", tokenizer.Decode(tokenizer.Encode("abc")));
    }
}
