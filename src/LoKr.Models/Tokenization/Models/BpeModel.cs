using System.Runtime.InteropServices;
using System.Text;

namespace LoKr.Models.Tokenization.Models;

/// <summary>A BPE model as a tokenizer.json, or a vocab.json with its merges.txt, defines it.</summary>
internal sealed record BpeSettings
{
    public required Vocabulary Vocabulary { get; init; }

    /// <summary>Pairs in the order in which they are merged.</summary>
    public required IReadOnlyList<(string Left, string Right)> Merges { get; init; }

    public string? UnknownToken { get; init; }

    /// <summary>Put before every character of a word but the first.</summary>
    public string ContinuingPrefix { get; init; } = "";

    /// <summary>Put after the last character of a word.</summary>
    public string EndOfWordSuffix { get; init; } = "";

    /// <summary>Whether neighboring unknown characters become one unknown token.</summary>
    public bool FuseUnknown { get; init; }

    /// <summary>Whether an unknown character becomes the tokens of its UTF-8 bytes, such as <c>&lt;0xE4&gt;</c>.</summary>
    public bool ByteFallback { get; init; }

    /// <summary>Whether a piece that is in the vocabulary becomes that token, whatever the merges say.</summary>
    public bool IgnoreMerges { get; init; }
}

/// <summary>
/// BPE with a list of merges, as the tokenizers library of Hugging Face does it. Microsoft.ML.Tokenizers' BpeTokenizer lacks byte fallback
/// (Llama 2, Mistral) and merges of tokens that contain a space, and its time grows with the square of a piece's length.
/// </summary>
internal sealed class BpeModel : ITokenModel
{
    private readonly BpeSettings _settings;
    private readonly string _file;
    private readonly Dictionary<long, Merge> _merges;
    private readonly ByteTokens? _bytes;
    private readonly PieceCache _cache = new();

    /// <param name="settings">Vocabulary, merges and options.</param>
    /// <param name="file">The file, for errors.</param>
    public BpeModel(BpeSettings settings, string file)
    {
        _settings = settings;
        _file = file;
        _merges = new Dictionary<long, Merge>(settings.Merges.Count);
        uint rank = 0;
        foreach ((string left, string right) in settings.Merges)
        {
            if (right.Length < settings.ContinuingPrefix.Length)
            {
                throw TokenizerError.Invalid(file, $"the merge '{left} {right}' is shorter than the prefix of continued words");
            }

            // Of equal pairs the last one counts, as in the reference.
            string merged = left + right[settings.ContinuingPrefix.Length..];
            _merges[Key(Id(left), Id(right))] = new Merge(Id(merged), rank++);
        }

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
        if (_settings.IgnoreMerges && Vocabulary.TryGetId(piece, out int whole))
        {
            tokens.Add(new Symbol(whole, 0, piece.Length));
        }
        else
        {
            Span<Symbol> symbols = CollectionsMarshal.AsSpan(Symbols(piece));
            RankedMerges rule = new(_merges);
            tokens.AddRange(symbols[..PairMerger.Run(symbols, ref rule)]);
        }

        _cache.Add(piece, CollectionsMarshal.AsSpan(tokens)[from..]);
    }

    private static long Key(int left, int right) => ((long)left << 32) | (uint)right;

    private List<Symbol> Symbols(string piece)
    {
        List<Symbol> symbols = new(piece.Length);
        (int Start, int End)? unknown = null;
        int at = 0;
        foreach (Rune rune in piece.EnumerateRunes())
        {
            int start = at;
            at += rune.Utf16SequenceLength;
            ReadOnlySpan<char> symbol = Decorate(piece, start, at);
            if (Vocabulary.TryGetId(symbol, out int id))
            {
                FlushUnknown();
                symbols.Add(new Symbol(id, start, at - start));
            }
            else if (_bytes?.Encode(symbol) is int[] bytes)
            {
                // The reference leaves a pending unknown token pending here. Each byte stands for the whole character.
                symbols.AddRange(bytes.Select(value => new Symbol(value, start, at - start)));
            }
            else if (_settings.UnknownToken is not null)
            {
                if (!_settings.FuseUnknown)
                {
                    FlushUnknown();
                }

                unknown = (unknown?.Start ?? start, at);
            }
        }

        FlushUnknown();
        return symbols;

        void FlushUnknown()
        {
            if (unknown is (int first, int end))
            {
                symbols.Add(new Symbol(UnknownId(), first, end - first));
                unknown = null;
            }
        }
    }

    /// <summary>A character with the prefix and the suffix that its place in the word asks for.</summary>
    private ReadOnlySpan<char> Decorate(string piece, int start, int end)
    {
        ReadOnlySpan<char> character = piece.AsSpan(start, end - start);
        string prefix = start > 0 ? _settings.ContinuingPrefix : "";
        string suffix = end == piece.Length ? _settings.EndOfWordSuffix : "";
        return prefix.Length + suffix.Length == 0 ? character : $"{prefix}{character}{suffix}";
    }

    private int UnknownId() => Vocabulary.TryGetId(_settings.UnknownToken!, out int id)
        ? id
        : throw TokenizerError.Invalid(_file, $"its vocabulary lacks the unknown token '{_settings.UnknownToken}', which a text needs");

    private int Id(string token) => Vocabulary.TryGetId(token, out int id)
        ? id
        : throw TokenizerError.Invalid(_file, $"a merge needs the token '{token}', which its vocabulary lacks");

    /// <summary>Merges pairs of tokens in the order of the list.</summary>
    private readonly struct RankedMerges(Dictionary<long, Merge> merges) : IMergeRule
    {
        public bool TryGetMerge(Symbol left, Symbol right, out Merge merge) => merges.TryGetValue(Key(left.Id, right.Id), out merge);

        // As in the reference, another pair that gives the same token takes over the place in the queue.
        public bool IsCurrent(Symbol left, Symbol right, int id, int length) => TryGetMerge(left, right, out Merge merge) && merge.Id == id;
    }
}
