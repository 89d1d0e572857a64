using System.Collections.Concurrent;
using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using System.Text;
using LoKr.Core.IO;

namespace LoKr.Models.Tokenization.Models;

/// <summary>The model stage: the vocabulary, and how a piece of text is cut into its tokens. Safe to use from several threads.</summary>
internal interface ITokenModel
{
    /// <summary>The tokens, without added ones.</summary>
    Vocabulary Vocabulary { get; }

    /// <summary>Adds the tokens of one piece that is not empty, each with the part of the piece that it stands for.</summary>
    void Encode(string piece, List<Symbol> tokens);
}

/// <summary>Tokens and their ids in both directions.</summary>
internal sealed class Vocabulary
{
    // Tables by id are as long as the largest one; published vocabularies end below 2²⁰.
    private const int LargestId = (1 << 24) - 1;

    private readonly Dictionary<string, int> _ids;
    private readonly Dictionary<string, int>.AlternateLookup<ReadOnlySpan<char>> _bySpan;
    private readonly Dictionary<int, string> _tokens;

    public Vocabulary(Dictionary<string, int> ids)
    {
        _ids = ids;
        _bySpan = ids.GetAlternateLookup<ReadOnlySpan<char>>();
        _tokens = new Dictionary<int, string>(ids.Count);
        foreach ((string token, int id) in ids)
        {
            _tokens[id] = token;
        }
    }

    /// <summary>Refuses an id of a file that is too large for a table by id.</summary>
    /// <param name="json">The object that holds the id.</param>
    /// <param name="key">Its key.</param>
    /// <param name="id">The id.</param>
    public static int CheckId(JsonFields json, string key, int id) => id <= LargestId
        ? id
        : throw json.Invalid(key, string.Create(CultureInfo.InvariantCulture, $"is the token id {id}; ids are at most {LargestId}"));

    public int Count => _ids.Count;

    public IReadOnlyDictionary<string, int> Ids => _ids;

    public bool TryGetId(string token, out int id) => _ids.TryGetValue(token, out id);

    public bool TryGetId(ReadOnlySpan<char> token, out int id) => _bySpan.TryGetValue(token, out id);

    public bool TryGetToken(int id, [NotNullWhen(true)] out string? token) => _tokens.TryGetValue(id, out token);
}

/// <summary>The tokens of single bytes, such as <c>&lt;0xE4&gt;</c>, that a character without a token of its own falls back to.</summary>
internal sealed class ByteTokens
{
    private readonly int[] _ids = new int[256];

    /// <param name="idOf">The id of a byte's token; negative for none.</param>
    public ByteTokens(Func<string, int> idOf)
    {
        for (int value = 0; value < _ids.Length; value++)
        {
            _ids[value] = idOf(string.Create(CultureInfo.InvariantCulture, $"<0x{value:X2}>"));
        }
    }

    /// <summary>The ids of the UTF-8 bytes of a text, or null where one has no token.</summary>
    public int[]? Encode(ReadOnlySpan<char> text)
    {
        byte[] utf8 = new byte[Encoding.UTF8.GetByteCount(text)];
        Encoding.UTF8.GetBytes(text, utf8);
        int[] ids = Array.ConvertAll(utf8, value => _ids[value]);
        return Array.Exists(ids, id => id < 0) ? null : ids;
    }
}

/// <summary>Remembers the tokens of short pieces, because words repeat. Bounded: a full cache is cleared.</summary>
internal sealed class PieceCache
{
    private const int Capacity = 32768;
    private const int LongestPiece = 64;

    private readonly ConcurrentDictionary<string, Symbol[]> _tokens = new(StringComparer.Ordinal);
    private int _count;

    public bool TryGet(string piece, List<Symbol> tokens)
    {
        if (piece.Length > LongestPiece || !_tokens.TryGetValue(piece, out Symbol[]? known))
        {
            return false;
        }

        tokens.AddRange(known);
        return true;
    }

    public void Add(string piece, ReadOnlySpan<Symbol> tokens)
    {
        if (piece.Length > LongestPiece)
        {
            return;
        }

        if (Interlocked.Increment(ref _count) > Capacity)
        {
            _tokens.Clear();
            Interlocked.Exchange(ref _count, 0);
        }

        _tokens.TryAdd(piece, tokens.ToArray());
    }
}
