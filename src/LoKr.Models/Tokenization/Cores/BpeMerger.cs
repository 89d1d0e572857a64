using System.Globalization;
using System.Text;

namespace LoKr.Models.Tokenization.Cores;

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
