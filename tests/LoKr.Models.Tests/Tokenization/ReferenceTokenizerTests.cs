using System.Text.Json.Nodes;
using LoKr.Core.Nn;
using LoKr.Models.Tokenization;
using LoKr.Testing;
using Xunit;

namespace LoKr.Models.Tests.Tokenization;

/// <summary>Ids and texts of transformers' own tokenizers, from the fixtures.</summary>
public sealed class ReferenceTokenizerTests
{
    public static TheoryData<string> Families => Fixtures.Cases("tokenizers");

    public static TheoryData<string> FamiliesWithPairs =>
        Fixtures.Cases("tokenizers", folder => File.Exists(Path.Combine(folder, "tokenizer_pairs.json")));

    [Theory]
    [MemberData(nameof(Families))]
    public void Family_gives_the_ids_and_texts_of_its_reference(string name)
    {
        string folder = Fixtures.Require("tokenizers", name);
        Check(TokenizerLoader.Load(folder), Path.Combine(folder, "tokenizer_cases.json"));
    }

    [Theory]
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
    [MemberData(nameof(FamiliesWithPairs))]
    public void Family_gives_the_ids_and_types_of_pairs(string name)
    {
        string folder = Fixtures.Require("tokenizers", name);
        CheckPairs(TokenizerLoader.Load(folder), Path.Combine(folder, "tokenizer_pairs.json"));
    }

    [Theory]
    [InlineData("bert-pairs")]
    [InlineData("roberta-pairs")]
    public void Pairs_are_cut_as_the_reference_cuts_them(string name)
    {
        string folder = Fixtures.Require("text", name);
        CheckPairs(TokenizerLoader.Load(folder), Path.Combine(folder, "pairs.json"));
    }

    [Theory]
    [InlineData("bert-tokens")]
    [InlineData("distilbert-tokens")]
    [InlineData("roberta-tokens")]
    [InlineData("modernbert-tokens")]
    public void Words_give_the_ids_and_the_words_of_tokens_of_the_reference(string name)
    {
        string folder = Fixtures.Require("text", name);
        JsonNode json = JsonNode.Parse(File.ReadAllText(Path.Combine(folder, "case.json")))!;
        CheckWords(TokenizerLoader.Load(folder), json["rows"]!.AsArray(), json["max_length"]!.GetValue<int>());
    }

    [Fact]
    public void Character_map_gives_the_texts_of_both_references()
    {
        string folder = Fixtures.Require("tokenizers", "xlm-roberta");
        JsonNode tokenizer = JsonNode.Parse(File.ReadAllText(Path.Combine(folder, "tokenizer.json")))!;
        CharacterMap map = new(Convert.FromBase64String(tokenizer["normalizer"]!["precompiled_charsmap"]!.GetValue<string>()), "test");
        PrecompiledNormalizer precompiled = new(map);
        SentencePieceNormalizer sentencePiece = new(map, [], addsPrefix: false, removesExtraSpaces: false);
        JsonArray rows = JsonNode.Parse(File.ReadAllText(Path.Combine(folder, "normalizer_cases.json")))!.AsArray();
        Assert.NotEmpty(rows);
        foreach (JsonNode? row in rows)
        {
            string text = row!["text"]!.GetValue<string>();
            Assert.Equal(row["precompiled"]!.GetValue<string>(), precompiled.Normalize(text));
            Assert.Equal(row["sentencepiece"]!.GetValue<string>(), sentencePiece.Normalize(text).Replace('\u2581', ' '));
        }
    }

    public static TheoryData<string> Templates => Fixtures.Cases("chat", folder => File.Exists(Path.Combine(folder, "training.json")));

    [Theory]
    [MemberData(nameof(Templates))]
    public void Places_of_tokens_give_the_masks_of_conversations(string name)
    {
        string folder = Fixtures.Require("chat", name);
        ITextTokenizer tokenizer = TokenizerLoader.Load(Fixtures.Require("chat", "tokenizer"));
        JsonArray rows = JsonNode.Parse(File.ReadAllText(Path.Combine(folder, "cases.json")))!["rows"]!.AsArray();
        int compared = 0;
        foreach (JsonNode? training in JsonNode.Parse(File.ReadAllText(Path.Combine(folder, "training.json")))!.AsArray())
        {
            string? text = rows.FirstOrDefault(row => row!["name"]!.GetValue<string>() == training!["name"]!.GetValue<string>()
                && !row["add_generation_prompt"]!.GetValue<bool>())?["text"]?.GetValue<string>();
            if (text is null || training!["ids"] is null)
            {
                continue;
            }

            IReadOnlyList<TextToken> tokens = tokenizer.Tokenize(text, addSpecialTokens: false);
            Assert.Equal(training["ids"]!.AsArray().Select(id => id!.GetValue<int>()), tokens.Select(token => token.Id));
            char[] mask = [.. tokens.Select(_ => '0')];
            foreach (JsonNode? span in training["spans_utf16"]!.AsArray())
            {
                (int start, int end) = (span![0]!.GetValue<int>(), span[1]!.GetValue<int>());
                int first = tokens.Index().First(token => token.Item.Start <= start && start < token.Item.End).Index;
                int last = tokens.Index().Last(token => token.Item.Start < end && end <= token.Item.End).Index;
                mask.AsSpan(first, last + 1 - first).Fill('1');
            }

            Assert.Equal(training["mask"]!.GetValue<string>(), new string(mask));
            compared++;
        }

        Assert.True(compared > 0);
    }

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

    private static void CheckPairs(ITextTokenizer tokenizer, string path)
    {
        JsonArray rows = JsonNode.Parse(File.ReadAllText(path))!.AsArray();
        Assert.NotEmpty(rows);
        foreach (JsonNode? row in rows)
        {
            string? truncation = row!["truncation"] is JsonValue value && value.TryGetValue(out string? strategy) ? strategy : null;
            if (truncation is not (null or "longest_first"))
            {
                continue;
            }

            string text = row["text"]!.GetValue<string>();
            int? longest = truncation is null ? null : row["max_length"]!.GetValue<int>();
            IReadOnlyList<TextToken> tokens = tokenizer.Tokenize(text, row["text_pair"]!.GetValue<string>(), maxLength: longest);
            Assert.True(
                row["ids"]!.AsArray().Select(id => id!.GetValue<int>()).SequenceEqual(tokens.Select(token => token.Id)),
                $"Ids of '{text}' and '{row["text_pair"]}' within {longest}: {string.Join(' ', tokens.Select(token => token.Id))} instead of {row["ids"]!.ToJsonString()}");
            if (row["token_type_ids"] is JsonArray types)
            {
                Assert.Equal(types.Select(type => type!.GetValue<int>()), tokens.Select(token => token.TypeId));
            }
        }
    }

    private static void CheckWords(ITextTokenizer tokenizer, JsonArray rows, int longest)
    {
        Assert.NotEmpty(rows);
        foreach (JsonNode? row in rows)
        {
            string[] words = [.. row!["words"]!.AsArray().Select(word => word!.GetValue<string>())];
            IReadOnlyList<TextToken> tokens = tokenizer.TokenizeWords(words, maxLength: longest);
            Assert.Equal(row["ids"]!.AsArray().Select(id => id!.GetValue<int>()), tokens.Select(token => token.Id));
            Assert.Equal(row["word_ids"]!.AsArray().Select(word => word?.GetValue<int>() ?? -1), tokens.Select(token => token.Word));
        }
    }
}
