using Google.Protobuf;
using LoKr.Models.Tokenization.Models;

namespace LoKr.Models.Tokenization.Readers;

/// <summary>
/// The relevant fields of a SentencePiece model. Microsoft.ML.Tokenizers does not expose most of them; field numbers and defaults are those of
/// sentencepiece_model.proto.
/// </summary>
internal sealed class SentencePieceFile
{
    private const int Unigram = 1;
    private const int Bpe = 2;

    private readonly List<SentencePiece> _pieces = [];
    private int _modelType = Unigram;
    private byte[] _charsMap = [];
    private bool _whiteSpaceIsSuffix;
    private bool _escapesSpaces = true;

    private SentencePieceFile()
    {
    }

    public IReadOnlyList<SentencePiece> Pieces => _pieces;

    public bool ByteFallback { get; private set; }

    public bool AddDummyPrefix { get; private set; } = true;

    /// <summary>Whether white space at the ends and in runs is removed.</summary>
    public bool RemovesExtraSpaces { get; private set; } = true;

    /// <summary>The character map; empty for none.</summary>
    public ReadOnlyMemory<byte> CharsMap => _charsMap;

    /// <summary>Reads a BPE model whose text is only escaped.</summary>
    public static SentencePieceFile ReadBpe(string path)
    {
        SentencePieceFile file = Read(path);
        file.Refuse(
            path,
            file._modelType != Bpe ? "a SentencePiece model that is not BPE"
            : file._charsMap.Length > 0 ? "a SentencePiece character map"
            : file.RemovesExtraSpaces ? "SentencePiece's removal of extra white space"
            : null);
        return file;
    }

    /// <summary>Reads a Unigram model.</summary>
    public static SentencePieceFile ReadUnigram(string path)
    {
        SentencePieceFile file = Read(path);
        file.Refuse(path, file._modelType != Unigram ? "a SentencePiece model that is not Unigram" : null);
        return file;
    }

    private static SentencePieceFile Read(string path)
    {
        SentencePieceFile file = new();
        try
        {
            CodedInputStream input = new(File.ReadAllBytes(path));
            file.ReadModel(input);
        }
        catch (Exception exception) when (exception is InvalidProtocolBufferException or InvalidDataException)
        {
            throw TokenizerError.Invalid(
                path, "it is not a SentencePiece model", exception, "Files of the same name with base64 lines are tiktoken's: use the model's tokenizer.json.");
        }

        if (file._pieces.Count == 0)
        {
            throw TokenizerError.Invalid(path, "it holds no pieces");
        }

        return file;
    }

    private void Refuse(string path, string? problem)
    {
        problem ??= _whiteSpaceIsSuffix ? "SentencePiece's white space as suffix"
            : !_escapesSpaces ? "SentencePiece without escaped white space"
            : null;
        if (problem is not null)
        {
            throw TokenizerError.Unsupported(path, problem, "Use a folder that also holds tokenizer.json.");
        }
    }

    private void ReadModel(CodedInputStream input)
    {
        while (input.ReadTag() is uint tag and not 0)
        {
            switch (WireFormat.GetTagFieldNumber(tag))
            {
                case 1:
                    _pieces.Add(ReadPiece(Message(input, tag)));
                    break;
                case 2:
                    ReadTrainer(Message(input, tag));
                    break;
                case 3:
                    ReadNormalizer(Message(input, tag));
                    break;
                default:
                    input.SkipLastField();
                    break;
            }
        }
    }

    private static CodedInputStream Message(CodedInputStream input, uint tag) =>
        WireFormat.GetTagWireType(tag) == WireFormat.WireType.LengthDelimited
            ? input.ReadBytes().CreateCodedInput()
            : throw new InvalidDataException("A field has the wrong wire type.");

    private static SentencePiece ReadPiece(CodedInputStream input)
    {
        string text = "";
        float score = 0;
        SentencePieceKind kind = SentencePieceKind.Normal;
        while (input.ReadTag() is uint tag and not 0)
        {
            switch (WireFormat.GetTagFieldNumber(tag))
            {
                case 1:
                    text = input.ReadString();
                    break;
                case 2:
                    score = input.ReadFloat();
                    break;
                case 3:
                    kind = (SentencePieceKind)input.ReadEnum();
                    break;
                default:
                    input.SkipLastField();
                    break;
            }
        }

        return new SentencePiece(text, score, kind);
    }

    private void ReadTrainer(CodedInputStream input)
    {
        while (input.ReadTag() is uint tag and not 0)
        {
            switch (WireFormat.GetTagFieldNumber(tag))
            {
                case 3:
                    _modelType = input.ReadEnum();
                    break;
                case 24:
                    _whiteSpaceIsSuffix = input.ReadBool();
                    break;
                case 35:
                    ByteFallback = input.ReadBool();
                    break;
                default:
                    input.SkipLastField();
                    break;
            }
        }
    }

    private void ReadNormalizer(CodedInputStream input)
    {
        while (input.ReadTag() is uint tag and not 0)
        {
            switch (WireFormat.GetTagFieldNumber(tag))
            {
                case 2:
                    _charsMap = input.ReadBytes().ToByteArray();
                    break;
                case 3:
                    AddDummyPrefix = input.ReadBool();
                    break;
                case 4:
                    RemovesExtraSpaces = input.ReadBool();
                    break;
                case 5:
                    _escapesSpaces = input.ReadBool();
                    break;
                default:
                    input.SkipLastField();
                    break;
            }
        }
    }
}

/// <summary>Reads the SentencePiece BPE tokenizer of Llama 2 and Mistral from <c>tokenizer.model</c>.</summary>
internal static class SentencePieceReader
{
    private const char Space = '\u2581';

    private static readonly Dictionary<string, AddedToken> s_specialTokens = new()
    {
        ["bos_token"] = new("<s>"),
        ["eos_token"] = new("</s>"),
        ["unk_token"] = new("<unk>"),
    };

    public static TokenizerParts Read(string path, TokenizerConfig config)
    {
        if (config.TokenizerClass is not (null or "LlamaTokenizer" or "TokenizersBackend" or "PreTrainedTokenizer"))
        {
            throw TokenizerError.Unsupported(path, $"the tokenizer class '{config.TokenizerClass}'", "Use a folder that also holds tokenizer.json.");
        }

        SentencePieceFile file = SentencePieceFile.ReadBpe(path);
        bool prefix = config.AddPrefixSpace ?? file.AddDummyPrefix;
        return new TokenizerParts
        {
            File = path,
            Model = new SentencePieceBpe(file.Pieces, file.ByteFallback, path),
            PreTokenizers =
            [
                new SentencePiecePreTokenizer(Space, !prefix ? PrependScheme.Never
                    : config.Legacy == true ? PrependScheme.Always
                    : PrependScheme.First),
            ],
            Decoder = TokenDecoders.SentencePiece(Space, new StripDecoder(static character => character == ' ', start: prefix ? 1 : 0, stop: 0)),
            AddedTokens = [.. AddedTokens(file)],
            DefaultSpecialTokens = s_specialTokens,
            AddsBosByDefault = true,
        };
    }

    // transformers makes added tokens of the pieces that SentencePiece never splits; control pieces become special ones.
    private static IEnumerable<AddedToken> AddedTokens(SentencePieceFile file) => file.Pieces
        .Where(piece => piece.Kind is SentencePieceKind.Unknown or SentencePieceKind.Control or SentencePieceKind.UserDefined)
        .Select(piece => new AddedToken(piece.Text, Special: piece.Kind != SentencePieceKind.UserDefined));
}
