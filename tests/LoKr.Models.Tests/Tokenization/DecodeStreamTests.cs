using System.Text;
using System.Text.Json.Nodes;
using LoKr.Core.Nn;
using LoKr.Models.Tokenization;
using LoKr.Testing;
using Xunit;

namespace LoKr.Models.Tests.Tokenization;

/// <summary>Texts whose tokens come one after another, beside the whole texts of transformers and of Hugging Face's own library.</summary>
public sealed class DecodeStreamTests
{
    // Steps that published tokenizers have, and chains of them that none has.
    private static readonly string[] s_decoders =
    [
        """{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true}""",
        """{"type":"Metaspace","replacement":"▁","prepend_scheme":"always","split":true}""",
        """{"type":"Metaspace","replacement":"▁","prepend_scheme":"never","split":true}""",
        """{"type":"WordPiece","prefix":"##","cleanup":true}""",
        """{"type":"WordPiece","prefix":"##","cleanup":false}""",
        """{"type":"BPEDecoder","suffix":"</w>"}""",
        """{"type":"ByteFallback"}""",
        """{"type":"Strip","content":"b","start":1,"stop":0}""",
        """{"type":"Replace","pattern":{"Regex":"[abc]+"},"content":"x"}""",
        """{"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},{"type":"ByteFallback"},{"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":0}]}""",
        """{"type":"Sequence","decoders":[{"type":"Fuse"},{"type":"Replace","pattern":{"String":"abab"},"content":"<"},{"type":"Replace","pattern":{"Regex":"b+"},"content":"B"}]}""",
        """{"type":"Sequence","decoders":[{"type":"Fuse"},{"type":"Replace","pattern":{"String":"aa"},"content":"a"},{"type":"Strip","content":"a","start":2,"stop":0}]}""",
        """{"type":"Sequence","decoders":[{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true},{"type":"Metaspace","replacement":"▁","prepend_scheme":"first","split":true}]}""",
        """{"type":"Sequence","decoders":[{"type":"Fuse"},{"type":"BPEDecoder","suffix":"</w>"},{"type":"WordPiece","prefix":"##","cleanup":true}]}""",
        """{"type":"Sequence","decoders":[{"type":"Fuse"},{"type":"ByteFallback"},{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true}]}""",
    ];

    // Of each kind that a decoder looks at: ends and insides of words, spaces, bytes of characters and of none, parts of clean-ups.
    private static readonly string[] s_tokens =
    [
        "a", "b", "c", "ab", "aba", "bb", "##a", "##b", "a</w>", "b</w>", "▁", "▁a", "▁▁", "a▁b", " ", ".", ",", "?", "'", "n't", "'s", "do", "not", "é", "你", "\U0001F680",
        "<0x0A>", "<0xE4>", "<0xBD>", "<0xA0>", "<0xF0>", "<0x9F>", "<0x9A>", "<0x80>", "<0x41>", "<0x4", "Ġa", "Ġ", "ð", "Ł", "ļ", "Ģ", "ä", "½", "ł", "Ċ", "Ã", "©",
    ];

    public static TheoryData<string> Folders
    {
        get
        {
            TheoryData<string> folders = ["diffusers/tiny-sd"];
            foreach (string kind in new[] { "tokenizers", "transformers" })
            {
                foreach (TheoryDataRow<string> row in Fixtures.Cases(kind, static folder => File.Exists(Path.Combine(folder, "tokenizer_cases.json"))))
                {
                    folders.Add($"{kind}/{row.Data}");
                }
            }

            return folders;
        }
    }

    public static TheoryData<int> Decoders => [.. Enumerable.Range(0, s_decoders.Length)];

    [Theory]
    [MemberData(nameof(Folders))]
    public void Pieces_are_together_the_text_of_the_reference_and_come_early(string name)
    {
        (ITextTokenizer tokenizer, TokenizerCase[] cases) = Load(name);
        Assert.NotEmpty(cases);
        foreach (TokenizerCase row in cases)
        {
            (string early, string left) = Pieces(tokenizer, row.Ids);
            Assert.Equal(row.Decoded, early + left);

            // A few spaces and quotation marks, or a run of bytes, which an invalid one would change from its beginning; but no words.
            Assert.True(left.Trim().Length <= 4 || left.All(static character => character > '\u007F'), $"'{left}' is left of '{row.Decoded}'.");
        }
    }

    [Theory]
    [MemberData(nameof(Folders))]
    public void A_step_costs_the_same_after_thousands_of_tokens(string name)
    {
        (ITextTokenizer tokenizer, TokenizerCase[] cases) = Load(name);
        int[] ids = [.. cases.SelectMany(static row => row.Ids).Take(200)];
        IDecodeStream stream = tokenizer.OpenDecodeStream();
        Allocated(stream, ids);
        long first = Allocated(stream, ids);
        for (int i = 0; i < 50; i++)
        {
            Allocated(stream, ids);
        }

        Assert.InRange(Allocated(stream, ids), 0, first + (first / 4));
    }

    [Theory]
    [MemberData(nameof(Decoders))]
    public void Random_tokens_give_the_text_of_the_other_library(int index)
    {
        Assert.SkipUnless(OperatingSystem.IsLinux(), "The other library's native code is there for Linux only.");
        JsonObject json = TinyTokenizers.ByteLevelJson(("decoder", s_decoders[index]));
        JsonObject vocabulary = [.. s_tokens.Select(static (token, id) => KeyValuePair.Create<string, JsonNode?>(token, id))];
        json["model"]!["vocab"] = vocabulary;
        json["model"]!["merges"] = new JsonArray();
        using TempFolder folder = new();
        folder.Write("tokenizer.json", json.ToJsonString());
        ITextTokenizer ours = TokenizerLoader.Load(folder.Path);
        using Tokenizers.DotNet.Tokenizer other = new(Path.Combine(folder.Path, "tokenizer.json"));
        Random random = new(index);
        for (int i = 0; i < 500; i++)
        {
            int[] ids = [.. Enumerable.Range(0, random.Next(1, 12)).Select(_ => random.Next(s_tokens.Length))];
            (string early, string left) = Pieces(ours, ids);
            string theirs = other.Decode([.. ids.Select(static id => (uint)id)]);
            Assert.True(theirs == early + left, $"{string.Join(" | ", ids.Select(static id => s_tokens[id]))}: '{early}' and '{left}' instead of '{theirs}'.");
        }
    }

    [Fact]
    public void The_clean_up_of_spaces_is_that_of_the_whole_text()
    {
        string[] words = ["disk", ".", "?", "!", ",", "'", "n't", "'m", "'s", "'ve", "'re", "do", "not", "##n", "##'", "##s"];
        ITextTokenizer tokenizer = TinyTokenizers.Load(
            TinyTokenizers.WordPieceJson(words) is JsonObject json && json.Remove("decoder") ? json : throw new InvalidOperationException(),
            """{"clean_up_tokenization_spaces": true}""");
        Random random = new(1);
        for (int i = 0; i < 500; i++)
        {
            int[] chosen = [.. Enumerable.Range(0, random.Next(1, 10)).Select(_ => random.Next(words.Length))];

            // As transformers writes it: one replacement after another on the whole text.
            string expected = string.Join(' ', chosen.Select(index => words[index]));
            foreach ((string from, string to) in new[]
            {
                (" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re"),
            })
            {
                expected = expected.Replace(from, to, StringComparison.Ordinal);
            }

            (string early, string left) = Pieces(tokenizer, chosen.Select(static index => index + 5));
            Assert.Equal(expected, early + left);
        }
    }

    // The other library fails on texts that are shorter than what it may strip.
    [Theory]
    [InlineData("", 2, 3, "")]
    [InlineData("aaa", 2, 0, "a")]
    [InlineData("aaa", 0, 2, "a")]
    [InlineData("aaaa", 2, 3, "")]
    [InlineData("aaaba", 2, 3, "ab")]
    [InlineData("abaaaa", 2, 3, "ba")]
    [InlineData("baab", 2, 3, "baab")]
    public void Ends_are_stripped_wherever_the_text_is_cut(string text, int start, int stop, string expected)
    {
        for (int cuts = 0; cuts < 1 << Math.Max(0, text.Length - 1); cuts++)
        {
            TextFlow stripped = new();
            TokenFlow flow = new StripDecoder(static character => character == 'a', start, stop).Begin(stripped, joined: true);
            for (int from = 0, to = 1; from < text.Length; to++)
            {
                if (to == text.Length || (cuts >> (to - 1) & 1) == 1)
                {
                    flow.Add(text[from..to]);
                    from = to;
                }
            }

            flow.Complete();
            Assert.Equal(expected, stripped.Take());
        }
    }

    private static (ITextTokenizer Tokenizer, TokenizerCase[] Cases) Load(string name)
    {
        string folder = Fixtures.Require(name.Split('/'));
        string files = Path.Combine(folder, "tokenizer");
        return (TokenizerLoader.Load(Directory.Exists(files) ? files : folder), TokenizerCase.Read(Path.Combine(folder, "tokenizer_cases.json")));
    }

    private static (string Early, string Left) Pieces(ITextTokenizer tokenizer, IEnumerable<int> ids)
    {
        IDecodeStream stream = tokenizer.OpenDecodeStream();
        StringBuilder early = new();
        foreach (int id in ids)
        {
            string piece = stream.Step(id);

            // Whole characters: no half of a surrogate pair.
            Assert.True(piece.Length == 0 || (!char.IsLowSurrogate(piece[0]) && !char.IsHighSurrogate(piece[^1])), $"'{piece}' cuts a character.");
            early.Append(piece);
        }

        return (early.ToString(), stream.Complete());
    }

    private static long Allocated(IDecodeStream stream, int[] ids)
    {
        long before = GC.GetAllocatedBytesForCurrentThread();
        foreach (int id in ids)
        {
            stream.Step(id);
        }

        return GC.GetAllocatedBytesForCurrentThread() - before;
    }
}
