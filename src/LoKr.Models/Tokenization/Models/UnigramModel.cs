using System.Buffers;
using System.Runtime.InteropServices;
using System.Text;

namespace LoKr.Models.Tokenization.Models;

/// <summary>A piece that text may become.</summary>
/// <param name="Text">Its text.</param>
/// <param name="Id">Its id.</param>
/// <param name="Score">Its logarithmic probability.</param>
internal readonly record struct UnigramPiece(string Text, int Id, double Score);

/// <summary>A Unigram model as a tokenizer.json or a SentencePiece model defines it.</summary>
internal sealed record UnigramSettings
{
    /// <summary>Every token with its id, also those that no text becomes.</summary>
    public required Vocabulary Vocabulary { get; init; }

    public required IReadOnlyList<UnigramPiece> Pieces { get; init; }

    /// <summary>Lowest score of a normal piece; a character without a piece scores 10 less.</summary>
    public required double LowestScore { get; init; }

    public int? UnknownId { get; init; }

    /// <summary>Whether unknown characters become the tokens of their UTF-8 bytes.</summary>
    public bool ByteFallback { get; init; }

    /// <summary>Whether sums are rounded to float32 as SentencePiece does; Hugging Face's tokenizers sums in float64.</summary>
    public bool SinglePrecision { get; init; }
}

/// <summary>
/// The most probable way to cut a piece by a unigram language model (Kudo, arXiv:1804.10959), found from left to right (Viterbi). Takes time
/// in proportion to the text and the longest piece. Microsoft.ML.Tokenizers' SentencePieceTokenizer reads only .model files, and no character
/// maps of a tokenizer.json.
/// </summary>
internal sealed class UnigramModel : ITokenModel
{
    private const double UnknownPenalty = 10;
    private const int LongestOnStack = 128;

    private readonly UnigramSettings _settings;
    private readonly PrefixTree _tree;
    private readonly double[] _scores;
    private readonly int[] _ids;
    private readonly double _unknownScore;
    private readonly ByteTokens? _bytes;
    private readonly string _file;
    private readonly PieceCache _cache = new();

    /// <param name="settings">Pieces and options.</param>
    /// <param name="file">The file, for errors.</param>
    public UnigramModel(UnigramSettings settings, string file)
    {
        _settings = settings;
        _file = file;
        _tree = new PrefixTree([.. settings.Pieces.Select(piece => piece.Text)]);
        _scores = [.. settings.Pieces.Select(piece => piece.Score)];
        _ids = [.. settings.Pieces.Select(piece => piece.Id)];
        _unknownScore = settings.LowestScore - UnknownPenalty;
        _bytes = settings.ByteFallback ? new ByteTokens(name => settings.Vocabulary.TryGetId(name, out int id) ? id : -1) : null;
    }

    /// <inheritdoc/>
    public Vocabulary Vocabulary => _settings.Vocabulary;

    /// <inheritdoc/>
    public void Encode(string piece, List<Symbol> tokens)
    {
        if (_cache.TryGet(piece, tokens))
        {
            return;
        }

        int from = tokens.Count;
        int length = piece.Length + 1;
        Step[]? rented = length <= LongestOnStack ? null : ArrayPool<Step>.Shared.Rent(length);
        Span<Step> best = rented is null ? stackalloc Step[length] : rented.AsSpan(0, length);
        best.Fill(new Step(-1, 0, 0));
        FindBest(piece, best);
        Read(piece, best, tokens);
        CollectionsMarshal.AsSpan(tokens)[from..].Reverse();
        if (rented is not null)
        {
            ArrayPool<Step>.Shared.Return(rented);
        }

        _cache.Add(piece, CollectionsMarshal.AsSpan(tokens)[from..]);
    }

    /// <summary>Finds the best cut up to every place: where its last piece begins, and which it is.</summary>
    private void FindBest(string piece, Span<Step> best)
    {
        int width;
        for (int start = 0; start < piece.Length; start += width)
        {
            width = char.IsHighSurrogate(piece[start]) && start + 1 < piece.Length ? 2 : 1;
            double before = best[start].Score;
            bool single = false;
            int node = PrefixTree.Root;
            for (int end = start; end < piece.Length && _tree.TryStep(ref node, piece[end]); end++)
            {
                int found = _tree.EntryAt(node);
                if (found >= 0)
                {
                    Offer(ref best[end + 1], start, found, before + _scores[found]);
                    single |= end + 1 - start == width;
                }
            }

            if (!single)
            {
                Offer(ref best[start + width], start, -1, before + _unknownScore);
            }
        }
    }

    private void Offer(ref Step step, int start, int entry, double score)
    {
        score = _settings.SinglePrecision ? (float)score : score;
        if (step.Start < 0 || score > step.Score)
        {
            step = new Step(start, entry, score);
        }
    }

    // From the end to the start: the tokens are in the wrong order.
    private void Read(string piece, ReadOnlySpan<Step> best, List<Symbol> tokens)
    {
        int end = piece.Length;
        while (end > 0)
        {
            Step step = best[end];
            if (IsUnknown(step))
            {
                // Neighboring unknown characters are one token.
                int start = step.Start;
                while (start > 0 && IsUnknown(best[start]))
                {
                    start = best[start].Start;
                }

                AddUnknown(piece, start, end - start, tokens);
                end = start;
            }
            else
            {
                tokens.Add(new Symbol(_ids[step.Entry], step.Start, end - step.Start));
                end = step.Start;
            }
        }
    }

    // The unknown token may have a text of its own, such as <unk>.
    private bool IsUnknown(Step step) => step.Entry < 0 || _ids[step.Entry] == _settings.UnknownId;

    private void AddUnknown(string piece, int start, int length, List<Symbol> tokens)
    {
        if (_bytes?.Encode(piece.AsSpan(start, length)) is not int[] bytes)
        {
            tokens.Add(new Symbol(
                _settings.UnknownId ?? throw TokenizerError.Invalid(_file, $"it names no unknown token, which the text '{piece.Substring(start, length)}' needs"),
                start,
                length));
            return;
        }

        // Each byte stands for its character.
        int at = bytes.Length;
        int end = start + length;
        while (end > start)
        {
            Rune.DecodeLastFromUtf16(piece.AsSpan(start, end - start), out Rune rune, out int width);
            end -= width;
            for (int i = 0; i < rune.Utf8SequenceLength; i++)
            {
                tokens.Add(new Symbol(bytes[--at], end, width));
            }
        }
    }

    /// <summary>The best cut up to a place: where its last piece begins (negative for none), its entry (negative for unknown), its score.</summary>
    private readonly record struct Step(int Start, int Entry, double Score);
}

/// <summary>Finds which entries a text begins with. The children of a node are neighbors in one array, in the order of their characters.</summary>
internal sealed class PrefixTree
{
    public const int Root = 0;

    private readonly char[] _characters;
    private readonly int[] _entries;
    private readonly int[] _firstChild;
    private readonly int[] _fromRoot = new int[char.MaxValue + 1];

    /// <param name="entries">The entries; of equal ones the last counts.</param>
    public PrefixTree(string[] entries)
    {
        int[] order = [.. Enumerable.Range(0, entries.Length).OrderBy(i => entries[i], StringComparer.Ordinal)];
        List<char> characters = ['\0'];
        List<int> entryAt = [];
        List<int> firstChild = [];
        Queue<(int First, int End, int Depth)> open = new([(0, order.Length, 0)]);
        while (open.TryDequeue(out (int First, int End, int Depth) range))
        {
            firstChild.Add(characters.Count);
            int entry = -1;
            int first = range.First;
            while (first < range.End && entries[order[first]].Length == range.Depth)
            {
                entry = order[first++];
            }

            entryAt.Add(entry);
            while (first < range.End)
            {
                char character = entries[order[first]][range.Depth];
                int end = first;
                while (end < range.End && entries[order[end]][range.Depth] == character)
                {
                    end++;
                }

                if (range.Depth == 0)
                {
                    _fromRoot[character] = characters.Count;
                }

                characters.Add(character);
                open.Enqueue((first, end, range.Depth + 1));
                first = end;
            }
        }

        firstChild.Add(characters.Count);
        (_characters, _entries, _firstChild) = ([.. characters], [.. entryAt], [.. firstChild]);
    }

    /// <summary>Goes on by one character.</summary>
    /// <param name="node">The place so far, and the next one where there is one.</param>
    /// <param name="character">The next character.</param>
    /// <returns>Whether any entry goes on so.</returns>
    public bool TryStep(ref int node, char character)
    {
        if (node == Root)
        {
            node = _fromRoot[character];
            return node != Root;
        }

        int first = _firstChild[node];
        node = Array.BinarySearch(_characters, first, _firstChild[node + 1] - first, character);
        return node >= 0;
    }

    /// <summary>Index of the entry that ends at a place, or -1.</summary>
    public int EntryAt(int node) => _entries[node];
}
