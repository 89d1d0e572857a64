namespace LoKr.Models.Tokenization.PreTokenizers;

/// <summary>A part of the text on its way to the model.</summary>
/// <param name="Text">The text of the part.</param>
/// <param name="AtStart">Whether it begins where the whole input begins.</param>
internal readonly record struct Piece(string Text, bool AtStart);
