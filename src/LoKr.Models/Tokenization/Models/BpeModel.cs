using System.Collections.Concurrent;
using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using System.Runtime.InteropServices;
using System.Text;
using Microsoft.ML.Tokenizers;

namespace LoKr.Models.Tokenization.Models;

/// <summary>
/// BPE: through Microsoft.ML.Tokenizers where it gives the exact result, through <see cref="BpeMerger"/> where not
/// (see there for what that is).
/// </summary>
internal sealed class BpeModel : ITokenModel
{
    // The package removes merged symbols one by one from an array, so its time grows with the square of a piece's length.
    private const int LongestPackagePiece = 512;

    private readonly Vocabulary _vocabulary;
    private readonly bool _ignoreMerges;
    private readonly BpeMerger _merger;
    private readonly BpeTokenizer? _package;
    private readonly PieceCache _cache = new();

    public BpeModel(BpeSettings settings, string file)
    {
        _vocabulary = settings.Vocabulary;
        _ignoreMerges = settings.IgnoreMerges;
        _merger = new BpeMerger(settings, file);
        _package = IsExactInPackage(settings) ? CreatePackage(settings) : null;
    }

    /// <inheritdoc/>
    public int Count => _vocabulary.Count;

    /// <summary>Whether pieces of ordinary length go through Microsoft.ML.Tokenizers.</summary>
    public bool UsesPackage => _package is not null;

    /// <inheritdoc/>
    public void Encode(string piece, List<int> ids)
    {
        if (_cache.TryGet(piece, ids))
        {
            return;
        }

        int from = ids.Count;
        if (_ignoreMerges && _vocabulary.TryGetId(piece, out int whole))
        {
            ids.Add(whole);
        }
        else if (_package is not null && piece.Length <= LongestPackagePiece)
        {
            ids.AddRange(_package.EncodeToIds(piece, considerPreTokenization: false, considerNormalization: false));
        }
        else
        {
            _merger.Encode(piece, ids);
        }

        _cache.Add(piece, CollectionsMarshal.AsSpan(ids)[from..]);
    }

    /// <inheritdoc/>
    public bool TryGetId(string token, out int id) => _vocabulary.TryGetId(token, out id);

    /// <inheritdoc/>
    public bool TryGetToken(int id, [NotNullWhen(true)] out string? token) => _vocabulary.TryGetToken(id, out token);

    private static bool IsExactInPackage(BpeSettings settings) =>
        !settings.ByteFallback
        && settings.ContinuingPrefix.Length == 0
        && settings.Vocabulary.IsOneToOne
        && settings.Vocabulary.Count > 0
        && (settings.UnknownToken is null || settings.Vocabulary.TryGetId(settings.UnknownToken, out _))
        && settings.Merges.All(merge => !merge.Left.Contains(' ', StringComparison.Ordinal) && !merge.Right.Contains(' ', StringComparison.Ordinal))
        && settings.Merges.Distinct().Count() == settings.Merges.Count;

    private static BpeTokenizer CreatePackage(BpeSettings settings) => BpeTokenizer.Create(new BpeOptions(settings.Vocabulary.Ids)
    {
        Merges = settings.Merges.Select(merge => $"{merge.Left} {merge.Right}"),
        UnknownToken = settings.UnknownToken,
        EndOfWordSuffix = settings.EndOfWordSuffix.Length == 0 ? null : settings.EndOfWordSuffix,
        FuseUnknownTokens = settings.FuseUnknown,
    });
}

/// <summary>
/// BPE as the tokenizers library of Hugging Face does it. It is needed beside Microsoft.ML.Tokenizers' BpeTokenizer because
/// that one knows no byte fallback (Llama 2, Mistral), no merges of tokens that contain a space, and is slow on long pieces,
/// which a tokenizer without pre-tokenizer makes of every text.
/// </summary>
internal sealed class BpeMerger
{
    private readonly BpeSettings _settings;
    private readonly string _file;
    private readonly Dictionary<long, (int Rank, int Id)> _merges;
    private readonly int[]? _bytes;

    public BpeMerger(BpeSettings settings, string file)
    {
        _settings = settings;
        _file = file;
        _merges = new Dictionary<long, (int, int)>(settings.Merges.Count);
        int rank = 0;
        foreach ((string left, string right) in settings.Merges)
        {
            if (right.Length < settings.ContinuingPrefix.Length)
            {
                throw TokenizerError.Invalid(file, $"the merge '{left} {right}' is shorter than the prefix of continued words");
            }

            // Of equal pairs the last one counts, as in the reference.
            string merged = left + right[settings.ContinuingPrefix.Length..];
            _merges[Key(Id(left), Id(right))] = (rank++, Id(merged));
        }

        _bytes = settings.ByteFallback ? ByteTokens(settings.Vocabulary) : null;
    }

    public void Encode(string piece, List<int> ids)
    {
        List<int> symbols = Symbols(piece);
        int count = symbols.Count;
        int[] next = new int[count];
        int[] previous = new int[count];
        PriorityQueue<(int Position, int Id), long> queue = new();
        for (int i = 0; i < count; i++)
        {
            next[i] = i + 1;
            previous[i] = i - 1;
        }

        for (int i = 0; i + 1 < count; i++)
        {
            Offer(i, i + 1);
        }

        while (queue.TryDequeue(out (int Position, int Id) top, out _))
        {
            int at = top.Position;
            if (symbols[at] < 0 || next[at] == count)
            {
                continue;
            }

            // The pair may have changed since it was queued.
            int right = next[at];
            if (!_merges.TryGetValue(Key(symbols[at], symbols[right]), out (int Rank, int Id) merge) || merge.Id != top.Id)
            {
                continue;
            }

            symbols[at] = top.Id;
            symbols[right] = -1;
            next[at] = next[right];
            if (next[at] < count)
            {
                previous[next[at]] = at;
                Offer(at, next[at]);
            }

            if (previous[at] >= 0)
            {
                Offer(previous[at], at);
            }
        }

        for (int i = 0; i < count; i = next[i])
        {
            ids.Add(symbols[i]);
        }

        // The lowest rank first; of equal ranks the leftmost.
        void Offer(int left, int right)
        {
            if (_merges.TryGetValue(Key(symbols[left], symbols[right]), out (int Rank, int Id) merge))
            {
                queue.Enqueue((left, merge.Id), ((long)merge.Rank << 32) | (uint)left);
            }
        }
    }

    private static long Key(int left, int right) => ((long)left << 32) | (uint)right;

    private List<int> Symbols(string piece)
    {
        List<int> symbols = new(piece.Length);
        bool unknown = false;
        int at = 0;
        foreach (Rune rune in piece.EnumerateRunes())
        {
            int length = rune.Utf16SequenceLength;
            ReadOnlySpan<char> symbol = piece.AsSpan(at, length);
            bool first = at == 0;
            at += length;
            bool last = at == piece.Length;
            if ((!first && _settings.ContinuingPrefix.Length > 0) || (last && _settings.EndOfWordSuffix.Length > 0))
            {
                symbol = $"{(first ? "" : _settings.ContinuingPrefix)}{symbol}{(last ? _settings.EndOfWordSuffix : "")}";
            }

            if (_settings.Vocabulary.TryGetId(symbol, out int id))
            {
                FlushUnknown();
                symbols.Add(id);
            }
            else if (TryAddBytes(symbol, symbols))
            {
                // The reference leaves a pending unknown token pending here.
                continue;
            }
            else if (_settings.UnknownToken is not null)
            {
                if (!_settings.FuseUnknown)
                {
                    FlushUnknown();
                }

                unknown = true;
            }
        }

        FlushUnknown();
        return symbols;

        void FlushUnknown()
        {
            if (unknown)
            {
                symbols.Add(UnknownId());
                unknown = false;
            }
        }
    }

    private int UnknownId() => _settings.Vocabulary.TryGetId(_settings.UnknownToken!, out int id)
        ? id
        : throw TokenizerError.Invalid(_file, $"its vocabulary lacks the unknown token '{_settings.UnknownToken}', which a text needs");

    private bool TryAddBytes(ReadOnlySpan<char> symbol, List<int> symbols)
    {
        if (_bytes is null)
        {
            return false;
        }

        byte[] utf8 = new byte[Encoding.UTF8.GetByteCount(symbol)];
        Encoding.UTF8.GetBytes(symbol, utf8);
        if (Array.Exists(utf8, value => _bytes[value] < 0))
        {
            return false;
        }

        symbols.AddRange(utf8.Select(value => _bytes[value]));
        return true;
    }

    private int Id(string token) => _settings.Vocabulary.TryGetId(token, out int id)
        ? id
        : throw TokenizerError.Invalid(_file, $"a merge needs the token '{token}', which its vocabulary lacks");

    private static int[] ByteTokens(Vocabulary vocabulary)
    {
        int[] ids = new int[256];
        for (int value = 0; value < ids.Length; value++)
        {
            ids[value] = vocabulary.TryGetId(string.Create(CultureInfo.InvariantCulture, $"<0x{value:X2}>"), out int id) ? id : -1;
        }

        return ids;
    }
}

/// <summary>The BPE model of a tokenizer.json.</summary>
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

    /// <summary>Whether a piece that is in the vocabulary is taken whole, whatever the merges say.</summary>
    public bool IgnoreMerges { get; init; }
}

/// <summary>Remembers the ids of short pieces, because words repeat. Bounded: it starts anew when it is full.</summary>
internal sealed class PieceCache
{
    private const int Capacity = 32768;
    private const int LongestPiece = 64;

    private readonly ConcurrentDictionary<string, int[]> _ids = new(StringComparer.Ordinal);
    private int _count;

    public bool TryGet(string piece, List<int> ids)
    {
        if (piece.Length > LongestPiece || !_ids.TryGetValue(piece, out int[]? known))
        {
            return false;
        }

        ids.AddRange(known);
        return true;
    }

    public void Add(string piece, ReadOnlySpan<int> ids)
    {
        if (piece.Length > LongestPiece)
        {
            return;
        }

        if (Interlocked.Increment(ref _count) > Capacity)
        {
            _ids.Clear();
            Interlocked.Exchange(ref _count, 0);
        }

        _ids.TryAdd(piece, ids.ToArray());
    }
}
