namespace LoKr.Models.Tokenization.PreTokenizers;

/// <summary>
/// One pre-tokenizer of a tokenizer.json. Microsoft.ML.Tokenizers' PreTokenizer only says where to split;
/// ByteLevel and Metaspace also change the text, so the chain is over pieces.
/// </summary>
internal interface IPieceStep
{
    /// <summary>Splits or changes one piece, which is not empty, and adds what results to the list.</summary>
    void Apply(Piece piece, List<Piece> result);
}
