using System.Globalization;
using System.Text.Json;
using System.Text.Json.Nodes;
using Google.Protobuf;
using LoKr.Core.Nn;
using LoKr.Models.Tokenization;
using LoKr.Models.Tokenization.Models;
using LoKr.Testing;

namespace LoKr.Models.Tests.Tokenization;

/// <summary>Small tokenizers made for a test.</summary>
internal static class TinyTokenizers
{
    public const string Llama3Pattern =
        @"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

    private const string Corpus =
        "the disk on node seven reported a read error and the array went into a degraded state; the network was slow, the mail was not sent, "
        + "   and the    printers printed nothing 1234 times. na\u00EFve caf\u00E9 \u4F60\u597D \u4F60\u597D";

    private static readonly Lazy<(Dictionary<string, int> Vocabulary, List<(string Left, string Right)> Merges)> s_byteLevel = new(() => Learn(merges: 120));

    /// <summary>A byte-level vocabulary with merges learned from a few words: 256 bytes first, then the merges in their order.</summary>
    public static (Dictionary<string, int> Vocabulary, List<(string Left, string Right)> Merges) ByteLevel() => s_byteLevel.Value;

    private static (Dictionary<string, int> Vocabulary, List<(string Left, string Right)> Merges) Learn(int merges)
    {
        Dictionary<string, int> vocabulary = [];
        for (int value = 0; value < 256; value++)
        {
            vocabulary[Byte(value)] = value;
        }

        List<List<string>> words = [.. Corpus.Split(' ').Select(word => ByteAlphabet.Encode(" " + word).Select(c => c.ToString()).ToList())];
        List<(string, string)> learned = [];
        while (learned.Count < merges)
        {
            (string Left, string Right)? best = words
                .SelectMany(word => word.Zip(word.Skip(1)))
                .GroupBy(pair => pair)
                .OrderByDescending(group => group.Count())
                .ThenBy(group => group.Key.First + group.Key.Second, StringComparer.Ordinal)
                .Select(group => ((string, string)?)(group.Key.First, group.Key.Second))
                .FirstOrDefault();
            if (best is not (string left, string right))
            {
                break;
            }

            learned.Add((left, right));
            vocabulary.TryAdd(left + right, vocabulary.Count);
            foreach (List<string> word in words)
            {
                for (int i = 0; i + 1 < word.Count; i++)
                {
                    if (word[i] == left && word[i + 1] == right)
                    {
                        word[i] += right;
                        word.RemoveAt(i + 1);
                    }
                }
            }
        }

        return (vocabulary, learned);
    }

    /// <summary>A tokenizer.json with the byte-level vocabulary; parts may be replaced.</summary>
    public static JsonObject ByteLevelJson(params (string Key, string Json)[] parts)
    {
        (Dictionary<string, int> vocabulary, List<(string Left, string Right)> merges) = ByteLevel();
        JsonObject json = Parse("""
            {"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,
             "pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true},
             "post_processor":null,"decoder":{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true},
             "model":{"type":"BPE","dropout":null,"unk_token":null,"continuing_subword_prefix":null,"end_of_word_suffix":null,
                      "fuse_unk":false,"byte_fallback":false,"ignore_merges":false}}
            """);
        json["model"]!["vocab"] = JsonSerializer.SerializeToNode(vocabulary);
        json["model"]!["merges"] = JsonSerializer.SerializeToNode(merges.Select(merge => new[] { merge.Left, merge.Right }));
        foreach ((string key, string part) in parts)
        {
            json[key] = JsonNode.Parse(part);
        }

        return json;
    }

    /// <summary>A WordPiece tokenizer.json with these tokens after the five special ones.</summary>
    public static JsonObject WordPieceJson(params string[] tokens)
    {
        JsonObject json = Parse("""
            {"version":"1.0","truncation":null,"padding":null,
             "added_tokens":[{"id":0,"content":"[PAD]","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true},
                             {"id":1,"content":"[UNK]","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true},
                             {"id":2,"content":"[CLS]","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true},
                             {"id":3,"content":"[SEP]","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true},
                             {"id":4,"content":"[MASK]","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}],
             "normalizer":{"type":"BertNormalizer","clean_text":true,"handle_chinese_chars":true,"strip_accents":null,"lowercase":true},
             "pre_tokenizer":{"type":"BertPreTokenizer"},
             "post_processor":{"type":"BertProcessing","sep":["[SEP]",3],"cls":["[CLS]",2]},
             "decoder":{"type":"WordPiece","prefix":"##","cleanup":true},
             "model":{"type":"WordPiece","unk_token":"[UNK]","continuing_subword_prefix":"##","max_input_chars_per_word":100}}
            """);
        string[] all = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", .. tokens];
        json["model"]!["vocab"] = JsonSerializer.SerializeToNode(all.Select((token, id) => (token, id)).ToDictionary(pair => pair.token, pair => pair.id));
        return json;
    }

    public static ITextTokenizer Load(JsonObject json, string? config = null)
    {
        using TempFolder folder = new();
        folder.Write("tokenizer.json", json.ToJsonString());
        if (config is not null)
        {
            folder.Write("tokenizer_config.json", config);
        }

        return TokenizerLoader.Load(folder.Path);
    }

    /// <summary>A SentencePiece model; the trainer's and normalizer's fields by number.</summary>
    public static byte[] SentencePieceModel(
        IEnumerable<SentencePiece> pieces, IReadOnlyDictionary<int, int>? trainer = null, IReadOnlyDictionary<int, int>? normalizer = null, bool charsMap = false)
    {
        using MemoryStream stream = new();
        using CodedOutputStream output = new(stream, leaveOpen: true);
        foreach (SentencePiece piece in pieces)
        {
            Message(output, 1, inner =>
            {
                inner.WriteTag(1, WireFormat.WireType.LengthDelimited);
                inner.WriteString(piece.Text);
                inner.WriteTag(2, WireFormat.WireType.Fixed32);
                inner.WriteFloat(piece.Score);
                inner.WriteTag(3, WireFormat.WireType.Varint);
                inner.WriteInt32((int)piece.Kind);
            });
        }

        Message(output, 2, inner => Numbers(inner, trainer ?? new Dictionary<int, int> { [3] = 2, [35] = 1 }));
        Message(output, 3, inner =>
        {
            if (charsMap)
            {
                inner.WriteTag(2, WireFormat.WireType.LengthDelimited);
                inner.WriteBytes(ByteString.CopyFrom(1, 2, 3));
            }

            Numbers(inner, normalizer ?? new Dictionary<int, int> { [3] = 1, [4] = 0 });
        });
        output.Flush();
        return stream.ToArray();
    }

    /// <summary>The three special pieces, the 256 bytes, then these.</summary>
    public static List<SentencePiece> LlamaPieces(params (string Text, float Score)[] pieces) =>
    [
        new("<unk>", 0, SentencePieceKind.Unknown),
        new("<s>", 0, SentencePieceKind.Control),
        new("</s>", 0, SentencePieceKind.Control),
        .. Enumerable.Range(0, 256).Select(value => new SentencePiece(string.Create(CultureInfo.InvariantCulture, $"<0x{value:X2}>"), 0, SentencePieceKind.Byte)),
        .. pieces.Select(piece => new SentencePiece(piece.Text, piece.Score, SentencePieceKind.Normal)),
    ];

    /// <summary>The character of a byte: the one that decodes to it.</summary>
    public static string Byte(int value) => Enumerable.Range(0x21, 0x144 - 0x21).Where(code => code != 0x7F)
        .Select(code => ((char)code).ToString())
        .Single(text => ByteAlphabet.Decode(text) is [byte only] && only == value);

    public static JsonObject Parse(string json) => JsonNode.Parse(json)!.AsObject();

    private static void Numbers(CodedOutputStream output, IReadOnlyDictionary<int, int> fields)
    {
        foreach ((int number, int value) in fields)
        {
            output.WriteTag(number, WireFormat.WireType.Varint);
            output.WriteInt32(value);
        }
    }

    private static void Message(CodedOutputStream output, int number, Action<CodedOutputStream> write)
    {
        using MemoryStream stream = new();
        using CodedOutputStream inner = new(stream, leaveOpen: true);
        write(inner);
        inner.Flush();
        output.WriteTag(number, WireFormat.WireType.LengthDelimited);
        output.WriteBytes(ByteString.CopyFrom(stream.ToArray()));
    }
}
