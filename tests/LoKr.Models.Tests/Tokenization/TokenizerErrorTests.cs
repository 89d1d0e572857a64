using System.Text.Json.Nodes;
using LoKr.Core.Errors;
using LoKr.Core.Nn;
using LoKr.Models.Tokenization;
using LoKr.Testing;
using Xunit;

namespace LoKr.Models.Tests.Tokenization;

public sealed class TokenizerErrorTests
{
    [Fact]
    public void A_missing_folder_is_an_error()
    {
        using TempFolder folder = new();
        Assert.Equal(ErrorIds.PathNotFound, Assert.Throws<LoKrException>(() => TokenizerLoader.Load(Path.Combine(folder.Path, "none"))).ErrorId);
        Assert.Equal(ErrorIds.PathNotFound, Assert.Throws<LoKrException>(() => TokenizerLoader.Find(Path.Combine(folder.Path, "none"))).ErrorId);
    }

    [Fact]
    public void A_folder_without_tokenizer_is_told_what_was_looked_for()
    {
        using TempFolder folder = new TempFolder().Write("config.json", "{}").Write("tokenizer_config.json", "{}");
        Assert.Null(TokenizerLoader.Find(folder.Path));
        LoKrException error = Assert.Throws<LoKrException>(() => TokenizerLoader.Load(folder.Path));
        Assert.Equal(ErrorIds.TokenizerNotFound, error.ErrorId);
        Assert.All(["tokenizer.json", "vocab.txt", "vocab.json", "tokenizer.model"], name => Assert.Contains(name, error.Message, StringComparison.Ordinal));
    }

    [Theory]
    [InlineData("vocab.txt")]
    [InlineData("tokenizer_config.json")]
    [InlineData("chat_template.jinja")]
    public void A_file_that_links_to_a_place_outside_the_folder_is_refused(string name)
    {
        using TempFolder folder = new TempFolder().Write("secret", "[UNK]").Write("model/vocab.txt", "[UNK]\n[CLS]\n[SEP]\n[PAD]\n[MASK]\nx\n");
        string link = folder["model", name];
        File.Delete(link);
        SymbolicLink.ToFile(link, "../secret");
        File.WriteAllText(folder["model", "tokenizer.json"], TinyTokenizers.ByteLevelJson().ToJsonString());
        LoKrException error = Assert.Throws<LoKrException>(() => TokenizerLoader.Load(folder["model"]));
        Assert.Equal(ErrorIds.LinkOutsideFolder, error.ErrorId);
        Assert.Contains(name, error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("normalizer", """{"type":"NFC","new_option":1}""", "new_option")]
    [InlineData("normalizer", """{"type":"Sequence","normalizers":[{"type":"Nmt"}]}""", "Nmt")]
    [InlineData("pre_tokenizer", """{"type":"UnicodeScripts"}""", "UnicodeScripts")]
    [InlineData("pre_tokenizer", """{"type":"Split","pattern":{"Regex":"\\w+"},"behavior":"Isolated","invert":false}""", "\\w")]
    [InlineData("pre_tokenizer", """{"type":"Split","pattern":{"String":"a"},"behavior":"Doubled","invert":false}""", "Doubled")]
    [InlineData("pre_tokenizer", """{"type":"Metaspace","replacement":"_","prepend_scheme":"second"}""", "second")]
    [InlineData("post_processor", """{"type":"Other"}""", "Other")]
    [InlineData("post_processor", """{"type":"TemplateProcessing","single":[{"Sequence":{"id":"B","type_id":0}}],"pair":[],"special_tokens":{}}""", "second text")]
    [InlineData("decoder", """{"type":"CTC"}""", "CTC")]
    [InlineData("model", """{"type":"Unigram","vocab":[["a",0]],"unk_id":0,"new_option":1}""", "new_option")]
    [InlineData("model", """{"type":"WordLevel","vocab":{"a":0},"unk_token":"a"}""", "WordLevel")]
    [InlineData("model", """{"type":"BPE","dropout":0.1,"vocab":{"a":0},"merges":[]}""", "dropout")]
    [InlineData("new_part", "{}", "new_part")]
    [InlineData("version", "\"2.0\"", "2.0")]
    public void What_cannot_be_done_exactly_is_named(string key, string json, string named)
    {
        LoKrException error = Fails(TinyTokenizers.ByteLevelJson((key, json)));
        Assert.Equal(ErrorIds.TokenizerUnsupported, error.ErrorId);
        Assert.Contains(named, error.Message, StringComparison.Ordinal);
        Assert.NotNull(error.Advice);
    }

    [Theory]
    [InlineData("normalizer", "[]")]
    [InlineData("normalizer", "{}")]
    [InlineData("normalizer", """{"type":"Precompiled","precompiled_charsmap":"AA=="}""")]
    [InlineData("normalizer", """{"type":"Precompiled","precompiled_charsmap":"CAAAAAAAAAA="}""")]
    [InlineData("normalizer", """{"type":"Precompiled","precompiled_charsmap":"?"}""")]
    [InlineData("model", """{"type":"Unigram","vocab":[],"unk_id":0}""")]
    [InlineData("model", """{"type":"Unigram","vocab":[["a",0]],"unk_id":1}""")]
    [InlineData("model", """{"type":"Unigram","vocab":[["a"]],"unk_id":0}""")]
    [InlineData("pre_tokenizer", """{"type":"ByteLevel"}""")]
    [InlineData("pre_tokenizer", """{"type":"Metaspace","replacement":"_","prepend_scheme":"first","add_prefix_space":false}""")]
    [InlineData("added_tokens", """[{"id":5,"content":"<x>","special":true}]""")]
    [InlineData("added_tokens", """[{"id":-1,"content":"<x>","special":true}]""")]
    [InlineData("post_processor", """{"type":"BertProcessing","sep":["a"],"cls":["b",1]}""")]
    [InlineData("post_processor", """{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"x","type_id":0}}],"pair":[],"special_tokens":{}}""")]
    [InlineData("model", """{"type":"BPE","vocab":{"a":0},"merges":["a b"]}""")]
    [InlineData("model", """{"type":"BPE","vocab":{"a":0},"merges":["a"]}""")]
    [InlineData("model", """{"type":"BPE","vocab":{},"merges":[]}""")]
    [InlineData("model", """{"type":"BPE","vocab":{"a":"x"},"merges":[]}""")]
    [InlineData("model", """{"type":"WordPiece","vocab":{"a":0},"unk_token":"[UNK]","continuing_subword_prefix":"##","max_input_chars_per_word":100}""")]
    [InlineData("model", """{"type":"WordPiece","vocab":{"a":0,"b":0},"unk_token":"a","continuing_subword_prefix":"##","max_input_chars_per_word":100}""")]
    [InlineData("model", """{"type":"WordPiece","vocab":{"a":0,"b":2147483647},"unk_token":"a","continuing_subword_prefix":"##","max_input_chars_per_word":100}""")]
    [InlineData("model", """{"type":"WordPiece","vocab":{"a":0,"b":100000000},"unk_token":"a","continuing_subword_prefix":"##","max_input_chars_per_word":100}""")]
    [InlineData("added_tokens", """[{"id":2147483647,"content":"<x>","special":true}]""")]
    [InlineData("model", "null")]
    public void Damaged_parts_are_an_error(string key, string json) =>
        Assert.Equal(ErrorIds.TokenizerInvalid, Fails(TinyTokenizers.ByteLevelJson((key, json))).ErrorId);

    [Fact]
    public void A_longest_word_that_takes_gigabytes_is_an_error()
    {
        LoKrException error = Fails(TinyTokenizers.ByteLevelJson(("model", """{"type":"WordPiece","vocab":{"a":0},"unk_token":"a","continuing_subword_prefix":"##","max_input_chars_per_word":268435456}""")));
        Assert.Equal(ErrorIds.TokenizerInvalid, error.ErrorId);
        Assert.Contains("max_input_chars_per_word is 268435456", error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("tokenizer.json", "{\"version\":")]
    [InlineData("tokenizer.json", "[]")]
    [InlineData("tokenizer.json", """{"model":{"type":"BPE","vocab":{"\ud800":0},"merges":[]}}""")]
    [InlineData("tokenizer.json", """{"normalizer":{"type":"Prepend","prepend":"\udc00"},"model":{"type":"BPE","vocab":{"a":0},"merges":[]}}""")]
    [InlineData("vocab.txt", "")]
    [InlineData("vocab.txt", "no unknown token")]
    [InlineData("tokenizer.model", "IQ== 0\nIg== 1\n")]
    [InlineData("tokenizer.model", "")]
    public void Damaged_files_are_an_error(string name, string content)
    {
        using TempFolder folder = new TempFolder().Write(name, content);
        LoKrException error = Assert.Throws<LoKrException>(() => TokenizerLoader.Load(folder.Path));
        Assert.Equal(ErrorIds.TokenizerInvalid, error.ErrorId);
        Assert.Contains(name, error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("""{"model_max_length":"long"}""")]
    [InlineData("""{"model_max_length":0}""")]
    [InlineData("""{"add_bos_token":"yes"}""")]
    [InlineData("""{"pad_token":5}""")]
    [InlineData("""{"added_tokens_decoder":{"x":{"content":"a"}}}""")]
    [InlineData("""{"added_tokens_decoder":{"7":{"content":"<new>","special":true}}}""")]
    [InlineData("nonsense")]
    public void A_damaged_configuration_is_an_error(string config)
    {
        LoKrException error = Assert.Throws<LoKrException>(() => TinyTokenizers.Load(TinyTokenizers.ByteLevelJson(), config));
        Assert.Equal(ErrorIds.TokenizerInvalid, error.ErrorId);
    }

    [Theory]
    [InlineData("a b\na", "line 2", ErrorIds.TokenizerInvalid)]
    [InlineData(null, "merges.txt", ErrorIds.TokenizerInvalid)]
    [InlineData("a b", "family", ErrorIds.TokenizerUnsupported)]
    public void Bpe_files_need_merges_and_a_known_family(string? merges, string named, string id)
    {
        using TempFolder folder = new TempFolder().Write("vocab.json", """{"a":0,"b":1,"ab":2}""");
        if (id == ErrorIds.TokenizerInvalid)
        {
            folder.Write("tokenizer_config.json", """{"tokenizer_class":"GPT2Tokenizer"}""");
        }

        if (merges is not null)
        {
            folder.Write("merges.txt", merges);
        }

        LoKrException error = Assert.Throws<LoKrException>(() => TokenizerLoader.Load(folder.Path));
        Assert.Equal(id, error.ErrorId);
        Assert.Contains(named, error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("vocab.txt", "[UNK]", "JumanppTokenizer")]
    [InlineData("vocab.json", "{}", "OtherTokenizer")]
    [InlineData("tokenizer.model", "x", "T5Tokenizer")]
    public void Unknown_tokenizer_classes_are_refused_without_tokenizer_json(string name, string content, string className)
    {
        using TempFolder folder = new TempFolder()
            .Write(name, content)
            .Write("merges.txt", "")
            .Write("tokenizer_config.json", new JsonObject { ["tokenizer_class"] = className }.ToJsonString());
        LoKrException error = Assert.Throws<LoKrException>(() => TokenizerLoader.Load(folder.Path));
        Assert.Equal(ErrorIds.TokenizerUnsupported, error.ErrorId);
        Assert.Contains(className, error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(3, 1, "not BPE")]
    [InlineData(24, 1, "suffix")]
    [InlineData(-4, 1, "extra white space")]
    [InlineData(-5, 0, "escaped")]
    [InlineData(0, 0, "character map")]
    public void Sentencepiece_options_that_are_not_llamas_are_refused(int field, int value, string named)
    {
        Dictionary<int, int> trainer = new() { [3] = 2, [35] = 1 };
        Dictionary<int, int> normalizer = new() { [3] = 1, [4] = 0 };
        (field > 0 ? trainer : normalizer)[Math.Abs(field)] = value;
        normalizer.Remove(0);
        using TempFolder folder = new TempFolder().Write("tokenizer.model", TinyTokenizers.SentencePieceModel(
            TinyTokenizers.LlamaPieces(("a", 0)), trainer, normalizer, charsMap: field == 0));
        LoKrException error = Assert.Throws<LoKrException>(() => TokenizerLoader.Load(folder.Path));
        Assert.Equal(ErrorIds.TokenizerUnsupported, error.ErrorId);
        Assert.Contains(named, error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(0)]
    [InlineData(-1)]
    [InlineData(1)]
    public void A_length_without_room_for_the_template_is_refused(int length)
    {
        ITextTokenizer tokenizer = TinyTokenizers.Load(TinyTokenizers.WordPieceJson("a"));
        LoKrException error = Assert.Throws<LoKrException>(() => tokenizer.Encode("a", maxLength: length));
        Assert.Equal(ErrorIds.InvalidArgument, error.ErrorId);
    }

    private static LoKrException Fails(JsonObject json) => Assert.Throws<LoKrException>(() => TinyTokenizers.Load(json));
}
