using System.Runtime.InteropServices;
using System.Text;

namespace LoKr.Models.Tokenization.Models;

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

/// <summary>One entry of a SentencePiece model.</summary>
internal sealed record SentencePiece(string Text, float Score, SentencePieceKind Kind);

/// <summary>
/// BPE by piece scores as SentencePiece does it, on text whose spaces are already escaped. Microsoft.ML.Tokenizers' LlamaTokenizer takes the
/// rightmost of equal pairs first, where SentencePiece takes the leftmost, so it cuts for example runs of three spaces differently; and it finds
/// no byte tokens that are out of order.
/// </summary>
internal sealed class SentencePieceBpe : ITokenModel
{
    private readonly IReadOnlyList<SentencePiece> _pieces;
    private readonly int _unknownId;
    private readonly ByteTokens? _bytes;

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
                throw TokenizerError.Invalid(file, $"the piece '{pieces[id].Text}' is empty or occurs twice");
            }
        }

        _pieces = pieces;
        Vocabulary = new Vocabulary(ids);
        int[] unknown = [.. Enumerable.Range(0, pieces.Count).Where(id => pieces[id].Kind == SentencePieceKind.Unknown)];
        _unknownId = unknown.Length == 1 ? unknown[0] : throw TokenizerError.Invalid(file, "it has no single unknown piece");
        _bytes = byteFallback ? new ByteTokens(ByteId) : null;

        int ByteId(string name) => ids.TryGetValue(name, out int id) && pieces[id].Kind == SentencePieceKind.Byte
            ? id
            : throw TokenizerError.Invalid(file, $"it falls back to bytes, but lacks the piece '{name}'");
    }

    /// <inheritdoc/>
    public Vocabulary Vocabulary { get; }

    /// <inheritdoc/>
    public void Encode(string piece, List<Symbol> tokens)
    {
        int from = tokens.Count;
        Span<Symbol> symbols = CollectionsMarshal.AsSpan(Symbols(piece));
        ScoredMerges rule = new(this, piece);
        foreach (Symbol symbol in symbols[..PairMerger.Run(symbols, ref rule)])
        {
            Add(symbol.Start, symbol.Length, rule.UnusedCuts);
        }

        // Unused pieces help to merge, but are not tokens: they are cut again where they were joined.
        void Add(int start, int length, Dictionary<(int Start, int Length), int>? unusedCuts)
        {
            ReadOnlySpan<char> text = piece.AsSpan(start, length);
            if (!TryGetMergeable(text, out int id))
            {
                AddUnknown(text, start, tokens, from);
            }
            else if (_pieces[id].Kind == SentencePieceKind.Unused && unusedCuts?.TryGetValue((start, length), out int cut) == true)
            {
                Add(start, cut, unusedCuts);
                Add(start + cut, length - cut, unusedCuts);
            }
            else
            {
                tokens.Add(new Symbol(id, start, length));
            }
        }
    }

    /// <summary>Finds a piece that text may become; control, unknown and byte pieces never come from their own text.</summary>
    private bool TryGetMergeable(ReadOnlySpan<char> text, out int id) => Vocabulary.TryGetId(text, out id)
        && _pieces[id].Kind is SentencePieceKind.Normal or SentencePieceKind.UserDefined or SentencePieceKind.Unused;

    private static List<Symbol> Symbols(string piece)
    {
        // Which piece a symbol is does not matter before the end, as merges are looked up by their text.
        List<Symbol> symbols = new(piece.Length);
        int at = 0;
        foreach (Rune rune in piece.EnumerateRunes())
        {
            symbols.Add(new Symbol(-1, at, rune.Utf16SequenceLength));
            at += rune.Utf16SequenceLength;
        }

        return symbols;
    }

    private void AddUnknown(ReadOnlySpan<char> text, int start, List<Symbol> tokens, int from)
    {
        if (_bytes?.Encode(text) is int[] bytes)
        {
            int length = text.Length;
            tokens.AddRange(bytes.Select(id => new Symbol(id, start, length)));
        }
        else if (tokens.Count == from || tokens[^1].Id != _unknownId)
        {
            tokens.Add(new Symbol(_unknownId, start, text.Length));
        }
        else
        {
            // A run of unknown characters is one unknown token.
            tokens[^1] = tokens[^1] with { Length = tokens[^1].Length + text.Length };
        }
    }

    /// <summary>Merges what makes the piece with the highest score.</summary>
    private ref struct ScoredMerges(SentencePieceBpe model, ReadOnlySpan<char> text) : IMergeRule
    {
        private readonly ReadOnlySpan<char> _text = text;

        /// <summary>Where unused pieces were joined: the length of the left part by start and length of the piece.</summary>
        public Dictionary<(int Start, int Length), int>? UnusedCuts { get; private set; }

        public bool TryGetMerge(Symbol left, Symbol right, out Merge merge)
        {
            int length = left.Length + right.Length;
            if (!model.TryGetMergeable(_text.Slice(left.Start, length), out int id))
            {
                merge = default;
                return false;
            }

            if (model._pieces[id].Kind == SentencePieceKind.Unused)
            {
                UnusedCuts ??= [];
                UnusedCuts[(left.Start, length)] = left.Length;
            }

            merge = new Merge(id, Descending(model._pieces[id].Score));
            return true;
        }

        // The same text, however it was cut.
        public readonly bool IsCurrent(Symbol left, Symbol right, int id, int length) => left.Length + right.Length == length;

        /// <summary>An integer that is the smaller, the higher the score is. Adding zero makes both zeros the same.</summary>
        private static uint Descending(float score)
        {
            uint bits = BitConverter.SingleToUInt32Bits(-score + 0f);
            return (bits & 0x80000000) != 0 ? ~bits : bits | 0x80000000;
        }
    }
}
