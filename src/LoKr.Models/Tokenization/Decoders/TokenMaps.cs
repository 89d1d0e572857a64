namespace LoKr.Models.Tokenization.Decoders;

/// <summary>What the decoders that look at one token at a time do with it.</summary>
internal static class TokenMaps
{
    // In the order in which the reference replaces them.
    private static readonly (string From, string To)[] s_cleanUps =
    [
        (" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"),
        (" do not", " don't"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re"),
    ];

    /// <summary>WordPiece: tokens inside a word lose their prefix, others get a space in front.</summary>
    public static string WordPiece(string token, int index, string prefix, bool cleanUp)
    {
        string text = index == 0 ? token
            : token.StartsWith(prefix, StringComparison.Ordinal) ? token[prefix.Length..]
            : " " + token;
        return cleanUp ? s_cleanUps.Aggregate(text, (current, pair) => current.Replace(pair.From, pair.To, StringComparison.Ordinal)) : text;
    }

    /// <summary>
    /// The clean-up that transformers does on the whole text where <c>clean_up_tokenization_spaces</c> is true: the same list
    /// without the contraction of "do not".
    /// </summary>
    public static string CleanUp(string text) => s_cleanUps
        .Where(pair => pair.From != " do not")
        .Aggregate(text, (current, pair) => current.Replace(pair.From, pair.To, StringComparison.Ordinal));

    /// <summary>Metaspace: the replacement character becomes a space, or nothing in a first token that got one in front.</summary>
    public static string Metaspace(string token, int index, char replacement, bool dropsFirst) =>
        token.Replace(replacement.ToString(), index == 0 && dropsFirst ? "" : " ", StringComparison.Ordinal);

    /// <summary>Strip: up to so many of one character at either end.</summary>
    public static string Strip(string token, char content, int start, int stop)
    {
        int from = 0;
        while (from < start && from < token.Length && token[from] == content)
        {
            from++;
        }

        int to = token.Length;
        while (token.Length - to < stop && to > from && token[to - 1] == content)
        {
            to--;
        }

        return token[from..to];
    }
}
