using System.Runtime.InteropServices;
using System.Text;
using Microsoft.ML.Tokenizers;

namespace LoKr.Models.Tokenization.Models;

/// <summary>WordPiece through Microsoft.ML.Tokenizers.</summary>
internal sealed class WordPieceModel : ITokenModel
{
    private const int LongestWord = 1 << 20;

    private readonly WordPieceTokenizer _tokenizer;
    private readonly int _unknownId;
    private readonly int _longestWord;
    private readonly PieceCache _cache = new();

    /// <param name="vocabulary">Tokens and ids.</param>
    /// <param name="unknownToken">The token for words that cannot be built.</param>
    /// <param name="prefix">Prefix of a token inside a word, such as <c>##</c>.</param>
    /// <param name="longestWord">Words of more code points are unknown.</param>
    /// <param name="file">The file, for errors.</param>
    public WordPieceModel(Vocabulary vocabulary, string unknownToken, string prefix, int longestWord, string file)
    {
        if (!vocabulary.TryGetId(unknownToken, out _unknownId))
        {
            throw TokenizerError.Invalid(file, $"its vocabulary lacks the unknown token '{unknownToken}'");
        }

        // The package allocates as much for every word.
        if (longestWord is < 1 or > LongestWord)
        {
            throw TokenizerError.Invalid(file, $"max_input_chars_per_word is {longestWord}; {LongestWord} is the largest that is read");
        }

        Vocabulary = vocabulary;
        _longestWord = longestWord;
        using Stream lines = Lines(vocabulary, file);
        _tokenizer = WordPieceTokenizer.Create(lines, new WordPieceOptions
        {
            UnknownToken = unknownToken,
            ContinuingSubwordPrefix = prefix,

            // The package counts UTF-16 units, the reference code points: Encode checks the limit, and this one never applies.
            MaxInputCharsPerWord = 2 * longestWord,
        });
    }

    /// <inheritdoc/>
    public Vocabulary Vocabulary { get; }

    /// <inheritdoc/>
    public void Encode(string piece, List<Symbol> tokens)
    {
        if (_cache.TryGet(piece, tokens))
        {
            return;
        }

        if (piece.Length > _longestWord && CodePoints(piece) > _longestWord)
        {
            tokens.Add(new Symbol(_unknownId, 0, piece.Length));
            return;
        }

        int from = tokens.Count;
        foreach (EncodedToken token in _tokenizer.EncodeToTokens(piece, out _, considerPreTokenization: false, considerNormalization: false))
        {
            (int start, int length) = token.Offset.GetOffsetAndLength(piece.Length);
            tokens.Add(new Symbol(token.Id, start, length));
        }

        _cache.Add(piece, CollectionsMarshal.AsSpan(tokens)[from..]);
    }

    private static int CodePoints(string text)
    {
        int count = 0;
        foreach (char c in text)
        {
            count += char.IsLowSurrogate(c) ? 0 : 1;
        }

        return count;
    }

    // The package reads its vocabulary only from lines; the id of a token is the number of its line.
    private static MemoryStream Lines(Vocabulary vocabulary, string file)
    {
        string?[] byId = new string?[vocabulary.Ids.Values.Max() + 1];
        foreach ((string token, int id) in vocabulary.Ids)
        {
            if (token.AsSpan().ContainsAny('\r', '\n'))
            {
                throw TokenizerError.Unsupported(file, "a WordPiece token that contains a line break");
            }

            if (byId[id] is not null)
            {
                throw TokenizerError.Invalid(file, $"the tokens '{byId[id]}' and '{token}' have the same id {id}");
            }

            byId[id] = token;
        }

        return new MemoryStream(Encoding.UTF8.GetBytes(string.Join('\n', byId)));
    }
}
