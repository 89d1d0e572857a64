using LoKr.Models.Tokenization.Decoders;
using LoKr.Models.Tokenization.Normalizers;
using LoKr.Models.Tokenization.Patterns;
using LoKr.Models.Tokenization.PreTokenizers;

namespace LoKr.Models.Tokenization.Readers;

/// <summary>Reads the decoder of a tokenizer.json.</summary>
internal static class DecoderReader
{
    public static ITokenDecoder Read(JsonComponent json)
    {
        switch (json.Type)
        {
            case "Sequence":
                json.Allow("decoders");
                return new SequenceDecoder([.. json.Objects("decoders").Select(Read)]);
            case "ByteLevel":
                json.Allow("add_prefix_space", "trim_offsets", "use_regex");
                return new ByteLevelDecoder();
            case "ByteFallback":
                json.Allow();
                return new ByteFallbackDecoder();
            case "Fuse":
                json.Allow();
                return new FuseDecoder();
            case "WordPiece":
                json.Allow("prefix", "cleanup");
                return WordPiece(json.Text("prefix"), json.Flag("cleanup"));
            case "Metaspace":
                json.Allow("replacement", "add_prefix_space", "prepend_scheme", "split", "str_rep");
                char replacement = PatternReader.Character(json, "replacement");
                bool dropsFirst = PatternReader.Scheme(json) != PrependScheme.Never;
                return new MapDecoder((token, index) => TokenMaps.Metaspace(token, index, replacement, dropsFirst));
            case "Strip":
                json.Allow("content", "start", "stop");
                char content = PatternReader.Character(json, "content");
                (int start, int stop) = (json.Number("start"), json.Number("stop"));
                return new MapDecoder((token, _) => TokenMaps.Strip(token, content, start, stop));
            case "Replace":
                json.Allow("pattern", "content");
                ITextPattern pattern = PatternReader.Read(json);
                string text = json.Text("content");
                return new MapDecoder((token, _) => ReplaceNormalizer.Replace(token, pattern, text));
            case "BPEDecoder":
                json.Allow("suffix");
                return new WordEndDecoder(json.Text("suffix"));
            default:
                throw json.UnsupportedType();
        }
    }

    public static ITokenDecoder WordPiece(string prefix, bool cleanUp) =>
        new MapDecoder((token, index) => TokenMaps.WordPiece(token, index, prefix, cleanUp));
}
