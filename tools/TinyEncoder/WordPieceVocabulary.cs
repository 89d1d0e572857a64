using System.Text.RegularExpressions;

namespace TinyEncoder;

/// <summary>
/// A WordPiece vocabulary: pieces are learned by merging the most frequent neighbors (Sennrich et al., arXiv:1508.07909) and
/// applied by longest match first (Wu et al., arXiv:1609.08144), as BERT's tokenizer does.
/// </summary>
internal sealed partial class WordPieceVocabulary
{
    private readonly Dictionary<string, int> _ids;

    private WordPieceVocabulary(IReadOnlyList<string> pieces)
    {
        Pieces = pieces;
        _ids = pieces.Select((piece, id) => (piece, id)).ToDictionary(item => item.piece, item => item.id, StringComparer.Ordinal);
    }

    /// <summary>The pieces in the order of their ids.</summary>
    public IReadOnlyList<string> Pieces { get; }

    /// <summary>Id of a piece that is certainly there.</summary>
    public int this[string piece] => _ids[piece];

    /// <summary>Learns at most <paramref name="size"/> pieces from texts; ties are broken by the alphabet, so that the result is always the same.</summary>
    public static WordPieceVocabulary Learn(IEnumerable<string> texts, int size)
    {
        Dictionary<string, int> counts = texts.SelectMany(Words).CountBy(word => word, StringComparer.Ordinal).ToDictionary(StringComparer.Ordinal);
        List<(List<string> Pieces, int Count)> words = [.. counts
            .OrderBy(item => item.Key, StringComparer.Ordinal)
            .Select(item => (item.Key.Select((letter, index) => index == 0 ? $"{letter}" : $"##{letter}").ToList(), item.Value))];

        // Every letter in both places, so that no word of plain English is unknown.
        const string Letters = "abcdefghijklmnopqrstuvwxyz0123456789";
        List<string> pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", .. Letters.Select(letter => $"{letter}"), .. Letters.Select(letter => $"##{letter}")];
        HashSet<string> known = [.. pieces];
        pieces.AddRange(words.SelectMany(word => word.Pieces).Distinct().Where(known.Add).Order(StringComparer.Ordinal));
        while (pieces.Count < size && MostFrequentPair(words) is (string left, string right))
        {
            string merged = left + right[2..];
            if (known.Add(merged))
            {
                pieces.Add(merged);
            }

            foreach ((List<string> word, _) in words)
            {
                for (int i = 0; i + 1 < word.Count; i++)
                {
                    if (word[i] == left && word[i + 1] == right)
                    {
                        word[i] = merged;
                        word.RemoveAt(i + 1);
                    }
                }
            }
        }

        return new WordPieceVocabulary(pieces);
    }

    /// <summary>Ids of a text with [CLS] and [SEP].</summary>
    public int[] Encode(string text) => [_ids["[CLS]"], .. Words(text).SelectMany(Split), _ids["[SEP]"]];

    private static IEnumerable<string> Words(string text) => WordPattern().Matches(text.ToLowerInvariant()).Select(match => match.Value);

    private static (string Left, string Right)? MostFrequentPair(List<(List<string> Pieces, int Count)> words)
    {
        Dictionary<(string, string), int> pairs = [];
        foreach ((List<string> word, int count) in words)
        {
            for (int i = 0; i + 1 < word.Count; i++)
            {
                pairs[(word[i], word[i + 1])] = pairs.GetValueOrDefault((word[i], word[i + 1])) + count;
            }
        }

        return pairs.Count == 0
            ? null
            : pairs.OrderByDescending(item => item.Value)
                .ThenBy(item => item.Key.Item1, StringComparer.Ordinal).ThenBy(item => item.Key.Item2, StringComparer.Ordinal).First().Key;
    }

    private IEnumerable<int> Split(string word)
    {
        List<int> ids = [];
        for (int start = 0; start < word.Length;)
        {
            int end = word.Length;
            int id = -1;
            while (end > start && !_ids.TryGetValue((start == 0 ? "" : "##") + word[start..end], out id))
            {
                end--;
            }

            if (end == start)
            {
                return [_ids["[UNK]"]];
            }

            ids.Add(id);
            start = end;
        }

        return ids;
    }

    // Words and single punctuation marks, as BERT's basic tokenizer splits plain text.
    [GeneratedRegex(@"[\p{L}\p{N}]+|[^\s\p{L}\p{N}]")]
    private static partial Regex WordPattern();
}
