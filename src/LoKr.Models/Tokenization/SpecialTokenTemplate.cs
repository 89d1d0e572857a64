namespace LoKr.Models.Tokenization;

/// <summary>Ids that go before and after a text: the template of one sequence.</summary>
internal sealed record SpecialTokenTemplate(IReadOnlyList<int> Before, IReadOnlyList<int> After)
{
    public static SpecialTokenTemplate Empty { get; } = new([], []);

    /// <summary>The template that results when <paramref name="outer"/> is applied to the result of this one.</summary>
    public SpecialTokenTemplate Inside(SpecialTokenTemplate outer) =>
        new([.. outer.Before, .. Before], [.. After, .. outer.After]);
}
