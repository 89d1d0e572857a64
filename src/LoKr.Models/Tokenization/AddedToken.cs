namespace LoKr.Models.Tokenization;

/// <summary>A token that is found in the text before the model of the tokenizer sees it.</summary>
/// <param name="Content">The text of the token.</param>
/// <param name="SingleWord">Matches only where no word character is its neighbour.</param>
/// <param name="LeftStrip">Takes the white space on its left with it.</param>
/// <param name="RightStrip">Takes the white space on its right with it.</param>
/// <param name="Normalized">Is looked for, normalized, in the normalized text instead of in the text as given.</param>
/// <param name="Special">Is left out when decoding skips special tokens.</param>
/// <param name="StatedId">The id that the file gives it, where it gives one.</param>
internal sealed record AddedToken(
    string Content,
    bool SingleWord = false,
    bool LeftStrip = false,
    bool RightStrip = false,
    bool Normalized = false,
    bool Special = true,
    int? StatedId = null);
