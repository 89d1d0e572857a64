using Google.Protobuf;
using LoKr.Models.Tokenization.Cores;

namespace LoKr.Models.Tokenization.Readers;

/// <summary>
/// The fields of a SentencePiece model that matter. Microsoft.ML.Tokenizers keeps most of them to itself; field numbers and
/// defaults are those of sentencepiece_model.proto.
/// </summary>
internal sealed class SentencePieceFile
{
    private const int Bpe = 2;

    private readonly List<SentencePiece> _pieces = [];
    private int _modelType = 1;
    private bool _hasCharsMap;
    private bool _whiteSpaceIsSuffix;
    private bool _removesExtraSpaces = true;
    private bool _escapesSpaces = true;

    private SentencePieceFile()
    {
    }

    public IReadOnlyList<SentencePiece> Pieces => _pieces;

    public bool ByteFallback { get; private set; }

    public bool AddDummyPrefix { get; private set; } = true;

    public static SentencePieceFile Read(string path)
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

        file.CheckSupported(path);
        return file;
    }

    private void CheckSupported(string path)
    {
        string? problem = _modelType != Bpe ? "a SentencePiece model that is not BPE"
            : _hasCharsMap ? "a SentencePiece character map"
            : _whiteSpaceIsSuffix ? "SentencePiece's white space as suffix"
            : _removesExtraSpaces ? "SentencePiece's removal of extra white space"
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
                    _hasCharsMap = input.ReadBytes().Length > 0;
                    break;
                case 3:
                    AddDummyPrefix = input.ReadBool();
                    break;
                case 4:
                    _removesExtraSpaces = input.ReadBool();
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
