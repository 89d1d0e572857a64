using LoKr.Core.Nn;
using LoKr.Models.Tokenization;
using LoKr.Testing;
using Xunit;

namespace LoKr.Models.Tests.Tokenization;

/// <summary>Ids and texts of transformers' own tokenizers, from the fixtures.</summary>
public sealed class ReferenceTokenizerTests
{
    [Theory]
    [InlineData("tokenizers/llama3")]
    [InlineData("tokenizers/qwen2")]
    [InlineData("tokenizers/roberta")]
    [InlineData("tokenizers/sentencepiece-llama")]
    [InlineData("transformers/bert")]
    [InlineData("transformers/llama")]
    [InlineData("transformers/gpt2")]
    public void Folder_gives_the_ids_and_texts_of_transformers(string name)
    {
        string folder = Fixtures.Require(name.Split('/'));
        Check(TokenizerLoader.Load(folder), Path.Combine(folder, "tokenizer_cases.json"));
    }

    [Fact]
    public void Clip_folder_gives_the_ids_and_texts_of_transformers() =>
        Check(TokenizerLoader.Load(Fixtures.Require("diffusers", "tiny-sd", "tokenizer")), Fixtures.Require("diffusers", "tiny-sd", "tokenizer_cases.json"));

    [Theory]
    [InlineData("tokenizers/roberta", "vocab.json", "merges.txt", "tokenizer_config.json")]
    [InlineData("transformers/bert", "vocab.txt", "tokenizer_config.json", null)]
    public void Files_without_tokenizer_json_give_the_same(string name, string first, string second, string? third)
    {
        string folder = Fixtures.Require(name.Split('/'));
        using TempFolder copy = new TempFolder().Copy(folder, [.. new[] { first, second, third }.OfType<string>()]);
        ITextTokenizer tokenizer = TokenizerLoader.Load(copy.Path);
        Check(tokenizer, Path.Combine(folder, "tokenizer_cases.json"));
        ITextTokenizer other = TokenizerLoader.Load(folder);
        Assert.Equal(other.VocabularySize, tokenizer.VocabularySize);
        Assert.Equal((other.PadId, other.BosId, other.EosId, other.MaxLength), (tokenizer.PadId, tokenizer.BosId, tokenizer.EosId, tokenizer.MaxLength));
        foreach (string text in OddTexts.All)
        {
            Assert.Equal(other.Encode(text), tokenizer.Encode(text));
        }
    }

    [Fact]
    public void Clip_files_without_tokenizer_json_give_the_same()
    {
        string folder = Fixtures.Require("diffusers", "tiny-sd", "tokenizer");
        using TempFolder copy = new TempFolder().Copy(folder, "vocab.json", "merges.txt", "tokenizer_config.json");
        Check(TokenizerLoader.Load(copy.Path), Fixtures.Require("diffusers", "tiny-sd", "tokenizer_cases.json"));
    }

    [Fact]
    public void Clip_files_with_the_configuration_of_older_pipelines_give_the_same()
    {
        string folder = Fixtures.Require("diffusers", "tiny-sd", "tokenizer");
        const string Start = """{ "__type": "AddedToken", "content": "<|startoftext|>", "lstrip": false, "normalized": true, "rstrip": false, "single_word": false }""";
        string end = Start.Replace("start", "end", StringComparison.Ordinal);
        using TempFolder copy = new TempFolder().Copy(folder, "vocab.json", "merges.txt")
            .Write("tokenizer_config.json", $$"""
                { "add_prefix_space": false, "bos_token": {{Start}}, "do_lower_case": true, "eos_token": {{end}}, "errors": "replace", "model_max_length": 77,
                  "name_or_path": "openai/clip-vit-large-patch14", "pad_token": "<|endoftext|>", "special_tokens_map_file": "./special_tokens_map.json",
                  "tokenizer_class": "CLIPTokenizer", "unk_token": {{end}} }
                """)
            .Write("special_tokens_map.json", $$"""{ "bos_token": {{Start}}, "eos_token": {{end}}, "pad_token": "<|endoftext|>", "unk_token": {{end}} }""");
        ITextTokenizer tokenizer = TokenizerLoader.Load(copy.Path);
        Check(tokenizer, Fixtures.Require("diffusers", "tiny-sd", "tokenizer_cases.json"));
        ITextTokenizer current = TokenizerLoader.Load(folder);
        Assert.Equal((current.PadId, current.BosId, current.EosId, current.MaxLength), (tokenizer.PadId, tokenizer.BosId, tokenizer.EosId, tokenizer.MaxLength));
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Minilm_gives_the_ids_of_every_row(bool fromVocabTxt)
    {
        string folder = Fixtures.RequireBeside("models", "minilm");
        TokenizerCase[] rows = TokenizerCase.Read(Fixtures.Require("minilm", "tokens.json"));
        using TempFolder copy = new TempFolder().Copy(folder, fromVocabTxt ? ["vocab.txt"] : ["tokenizer.json", "tokenizer_config.json"]);
        ITextTokenizer tokenizer = TokenizerLoader.Load(copy.Path);
        Assert.NotEmpty(rows);
        Assert.All(rows, row => Assert.Equal(row.Ids, tokenizer.Encode(row.Text)));
    }

    [Fact]
    public void Minilm_ignores_the_truncation_and_padding_of_its_file()
    {
        ITextTokenizer tokenizer = TokenizerLoader.Load(Fixtures.RequireBeside("models", "minilm"));
        string text = string.Join(' ', Enumerable.Repeat("network", 300));
        IReadOnlyList<int> all = tokenizer.Encode(text);
        Assert.Equal(302, all.Count);
        IReadOnlyList<int> cut = tokenizer.Encode(text, maxLength: 16);
        Assert.Equal([all[0], .. all.Skip(1).Take(14), all[^1]], cut);
        Assert.Equal(3, tokenizer.Encode("network").Count);
    }

    [Theory]
    [InlineData("models/minilm")]
    [InlineData("models/debian-lm")]
    public void Source_files_are_all_that_an_export_needs(string name)
    {
        string folder = Fixtures.RequireBeside(name.Split('/'));
        string[] names = [.. Directory.GetFiles(folder).Where(file => Path.GetFileName(file).Contains("tok", StringComparison.Ordinal) || file.EndsWith(".txt", StringComparison.Ordinal)).Order(StringComparer.Ordinal)];
        Assert.Equal(names, TokenizerLoader.Load(folder).SourceFiles.Order(StringComparer.Ordinal));
    }

    private static void Check(ITextTokenizer tokenizer, string casesPath)
    {
        TokenizerCase[] cases = TokenizerCase.Read(casesPath);
        Assert.NotEmpty(cases);
        foreach (TokenizerCase row in cases)
        {
            Assert.True(row.Ids.SequenceEqual(tokenizer.Encode(row.Text)), $"Ids of '{row.Text}': {string.Join(' ', tokenizer.Encode(row.Text))} instead of {string.Join(' ', row.Ids)}");
            Assert.Equal(row.Decoded, tokenizer.Decode(row.Ids));
        }
    }
}
