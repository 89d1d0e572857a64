namespace LoKr.Models.Tokenization.Cores;

/// <summary>One entry of a SentencePiece model.</summary>
internal sealed record SentencePiece(string Text, float Score, SentencePieceKind Kind);
