namespace LoKr.Models.Tokenization.Patterns;

/// <summary>Something that is looked for in a text.</summary>
internal interface ITextPattern
{
    /// <summary>All matches from left to right that do not overlap, in UTF-16 units.</summary>
    List<(int Start, int Length)> Find(string text);
}
