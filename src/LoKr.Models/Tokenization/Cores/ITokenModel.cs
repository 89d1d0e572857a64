using System.Diagnostics.CodeAnalysis;

namespace LoKr.Models.Tokenization.Cores;

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
