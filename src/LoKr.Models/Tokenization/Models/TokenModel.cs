using System.Diagnostics.CodeAnalysis;

namespace LoKr.Models.Tokenization.Models;

/// <summary>The vocabulary of a tokenizer and how a piece of text is cut into its tokens. Safe to use from several threads.</summary>
internal interface ITokenModel
{
    /// <summary>Number of tokens, added tokens not included.</summary>
    int Count { get; }

    /// <summary>Adds the ids of one piece that is not empty.</summary>
    void Encode(string piece, List<int> ids);

    /// <summary>Id of a token, if the vocabulary has it.</summary>
    bool TryGetId(string token, out int id);

    /// <summary>Token of an id, if the vocabulary has it.</summary>
    bool TryGetToken(int id, [NotNullWhen(true)] out string? token);
}

/// <summary>Tokens and their ids in both directions.</summary>
internal sealed class Vocabulary
{
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

    public int Count => _ids.Count;

    /// <summary>Whether no two tokens have the same id.</summary>
    public bool IsOneToOne => _tokens.Count == _ids.Count;

    public IReadOnlyDictionary<string, int> Ids => _ids;

    public bool TryGetId(string token, out int id) => _ids.TryGetValue(token, out id);

    public bool TryGetId(ReadOnlySpan<char> token, out int id) => _bySpan.TryGetValue(token, out id);

    public bool TryGetToken(int id, [NotNullWhen(true)] out string? token) => _tokens.TryGetValue(id, out token);
}
