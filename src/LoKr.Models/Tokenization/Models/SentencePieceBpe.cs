using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using System.Text;

namespace LoKr.Models.Tokenization.Models;

/// <summary>
/// BPE by piece scores as SentencePiece does it, on text whose spaces are already escaped. Microsoft.ML.Tokenizers'
/// LlamaTokenizer takes the rightmost of equal pairs first, where SentencePiece takes the leftmost, so it cuts for example
/// runs of three spaces differently; and it finds no byte tokens that are out of order.
/// </summary>
internal sealed class SentencePieceBpe : ITokenModel
{
    private readonly Vocabulary _vocabulary;
    private readonly IReadOnlyList<SentencePiece> _pieces;
    private readonly int _unknownId;
    private readonly int[]? _bytes;

    /// <param name="pieces">The pieces of the model; their index is their id.</param>
    /// <param name="byteFallback">Whether unknown characters become byte pieces.</param>
    /// <param name="file">The file, for errors.</param>
    public SentencePieceBpe(IReadOnlyList<SentencePiece> pieces, bool byteFallback, string file)
    {
        Dictionary<string, int> ids = new(pieces.Count, StringComparer.Ordinal);
        for (int id = 0; id < pieces.Count; id++)
        {
            if (pieces[id].Text.Length == 0 || !ids.TryAdd(pieces[id].Text, id))
            {
                throw TokenizerError.Invalid(file, $"the piece '{pieces[id].Text}' is empty or there twice");
            }
        }

        _pieces = pieces;
        _vocabulary = new Vocabulary(ids);
        int[] unknown = [.. Enumerable.Range(0, pieces.Count).Where(id => pieces[id].Kind == SentencePieceKind.Unknown)];
        _unknownId = unknown.Length == 1 ? unknown[0] : throw TokenizerError.Invalid(file, "it has no single unknown piece");
        _bytes = byteFallback ? ByteTokens(file) : null;
    }

    /// <inheritdoc/>
    public int Count => _vocabulary.Count;

    /// <inheritdoc/>
    public void Encode(string piece, List<int> ids)
    {
        int from = ids.Count;
        List<Symbol> symbols = Symbols(piece);
        Dictionary<(int Start, int Length), int> unusedCuts = [];
        PriorityQueue<(int Left, int Right, int Length), (float Score, int Left)> agenda = new();
        for (int i = 1; i < symbols.Count; i++)
        {
            Offer(i - 1, i);
        }

        while (agenda.TryDequeue(out (int Left, int Right, int Length) top, out _))
        {
            Symbol left = symbols[top.Left];
            Symbol right = symbols[top.Right];
            if (left.Length == 0 || right.Length == 0 || left.Length + right.Length != top.Length)
            {
                continue;
            }

            symbols[top.Left] = left with { Length = top.Length, Next = right.Next };
            symbols[top.Right] = right with { Length = 0 };
            if (right.Next >= 0)
            {
                symbols[right.Next] = symbols[right.Next] with { Previous = top.Left };
            }

            Offer(left.Previous, top.Left);
            Offer(top.Left, right.Next);
        }

        for (int i = symbols.Count == 0 ? -1 : 0; i >= 0; i = symbols[i].Next)
        {
            Add(symbols[i].Start, symbols[i].Length);
        }

        // The highest score first; of equal scores the leftmost.
        void Offer(int left, int right)
        {
            if (left < 0 || right < 0)
            {
                return;
            }

            Symbol first = symbols[left];
            int length = first.Length + symbols[right].Length;
            if (!_vocabulary.TryGetId(piece.AsSpan(first.Start, length), out int id) || !CanMerge(_pieces[id].Kind))
            {
                return;
            }

            agenda.Enqueue((left, right, length), (-_pieces[id].Score, left));
            if (_pieces[id].Kind == SentencePieceKind.Unused)
            {
                unusedCuts[(first.Start, length)] = first.Length;
            }
        }

        // Unused pieces help to merge, but do not come out: they are cut again where they were joined.
        void Add(int start, int length)
        {
            ReadOnlySpan<char> text = piece.AsSpan(start, length);
            if (!_vocabulary.TryGetId(text, out int id) || !CanMerge(_pieces[id].Kind))
            {
                AddUnknown(text, ids, from);
            }
            else if (_pieces[id].Kind == SentencePieceKind.Unused && unusedCuts.TryGetValue((start, length), out int cut))
            {
                Add(start, cut);
                Add(start + cut, length - cut);
            }
            else
            {
                ids.Add(id);
            }
        }
    }

    /// <inheritdoc/>
    public bool TryGetId(string token, out int id) => _vocabulary.TryGetId(token, out id);

    /// <inheritdoc/>
    public bool TryGetToken(int id, [NotNullWhen(true)] out string? token) => _vocabulary.TryGetToken(id, out token);

    // Control, unknown and byte pieces never come from their own text.
    private static bool CanMerge(SentencePieceKind kind) =>
        kind is SentencePieceKind.Normal or SentencePieceKind.UserDefined or SentencePieceKind.Unused;

    private static List<Symbol> Symbols(string piece)
    {
        List<Symbol> symbols = new(piece.Length);
        int at = 0;
        foreach (Rune rune in piece.EnumerateRunes())
        {
            int length = rune.Utf16SequenceLength;
            symbols.Add(new Symbol(at, length, symbols.Count - 1, at + length == piece.Length ? -1 : symbols.Count + 1));
            at += length;
        }

        return symbols;
    }

    private void AddUnknown(ReadOnlySpan<char> text, List<int> ids, int from)
    {
        if (_bytes is null)
        {
            // A run of unknown characters is one unknown token.
            if (ids.Count == from || ids[^1] != _unknownId)
            {
                ids.Add(_unknownId);
            }

            return;
        }

        byte[] utf8 = new byte[Encoding.UTF8.GetByteCount(text)];
        Encoding.UTF8.GetBytes(text, utf8);
        foreach (byte value in utf8)
        {
            ids.Add(_bytes[value]);
        }
    }

    private int[] ByteTokens(string file)
    {
        int[] ids = new int[256];
        for (int value = 0; value < ids.Length; value++)
        {
            string name = string.Create(CultureInfo.InvariantCulture, $"<0x{value:X2}>");
            ids[value] = _vocabulary.TryGetId(name, out int id) && _pieces[id].Kind == SentencePieceKind.Byte
                ? id
                : throw TokenizerError.Invalid(file, $"it falls back to bytes, but lacks the piece '{name}'");
        }

        return ids;
    }

    private readonly record struct Symbol(int Start, int Length, int Previous, int Next);
}

/// <summary>One entry of a SentencePiece model.</summary>
internal sealed record SentencePiece(string Text, float Score, SentencePieceKind Kind);

/// <summary>Kinds of pieces, numbered as in sentencepiece_model.proto.</summary>
internal enum SentencePieceKind
{
    Normal = 1,
    Unknown = 2,
    Control = 3,
    UserDefined = 4,
    Unused = 5,
    Byte = 6,
}
