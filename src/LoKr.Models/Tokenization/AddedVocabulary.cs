using System.Buffers;
using System.Text;
using LoKr.Models.Tokenization.Patterns;
using Microsoft.ML.Tokenizers;

namespace LoKr.Models.Tokenization;

/// <summary>
/// Finds added tokens in a text: leftmost match first, the longest of those that begin at the same place, as the tokenizers
/// library of Hugging Face does. Tokens that are not normalized are looked for in the text as given, the others afterwards in
/// the normalized rest.
/// </summary>
internal sealed class AddedVocabulary
{
    private readonly Matcher _raw;
    private readonly Matcher _normalized;

    /// <param name="tokens">Tokens with their ids; special ones first, because the first of equal contents wins.</param>
    /// <param name="normalizer">Normalizes the contents of tokens that ask for it.</param>
    public AddedVocabulary(IEnumerable<(AddedToken Token, int Id)> tokens, Normalizer? normalizer)
    {
        List<Entry> raw = [];
        List<Entry> normalized = [];
        foreach ((AddedToken token, int id) in tokens)
        {
            if (token.Normalized)
            {
                string content = normalizer?.Normalize(token.Content) ?? token.Content;
                normalized.Add(new Entry(content, token, id));
            }
            else
            {
                raw.Add(new Entry(token.Content, token, id));
            }
        }

        _raw = new Matcher(raw);
        _normalized = new Matcher(normalized);
    }

    /// <summary>Splits the text as given.</summary>
    public List<Segment> SplitRaw(string text) => _raw.Split(text);

    /// <summary>Splits a normalized rest.</summary>
    public List<Segment> SplitNormalized(string text) => _normalized.Split(text);

    /// <summary>A part of the text: an added token (with its id) or something else (without).</summary>
    internal readonly record struct Segment(int Start, int Length, int? Id);

    private sealed record Entry(string Content, AddedToken Token, int Id);

    private sealed class Matcher
    {
        private readonly Dictionary<char, Entry[]> _byFirst;
        private readonly SearchValues<char>? _first;

        public Matcher(List<Entry> entries)
        {
            _byFirst = entries
                .Where(entry => entry.Content.Length > 0)
                .GroupBy(entry => entry.Content[0])
                .ToDictionary(group => group.Key, group => group.OrderByDescending(entry => entry.Content.Length).ToArray());
            _first = _byFirst.Count == 0 ? null : SearchValues.Create(_byFirst.Keys.ToArray());
        }

        public List<Segment> Split(string text)
        {
            List<Segment> segments = [];
            int done = 0;
            int position = 0;
            while (_first is not null && position < text.Length)
            {
                int offset = text.AsSpan(position).IndexOfAny(_first);
                if (offset < 0)
                {
                    break;
                }

                int start = position + offset;
                Entry? entry = Longest(text, start);
                if (entry is null)
                {
                    position = start + 1;
                    continue;
                }

                int stop = start + entry.Content.Length;
                position = stop;
                if (entry.Token.SingleWord && (WordBefore(text, start) || WordAfter(text, stop)))
                {
                    continue;
                }

                if (entry.Token.LeftStrip)
                {
                    int from = start;
                    while (from > 0 && char.IsWhiteSpace(text[from - 1]))
                    {
                        from--;
                    }

                    start = Math.Max(from, done);
                }

                while (entry.Token.RightStrip && stop < text.Length && char.IsWhiteSpace(text[stop]))
                {
                    stop++;
                }

                if (done < start)
                {
                    segments.Add(new Segment(done, start - done, null));
                }

                segments.Add(new Segment(start, stop - start, entry.Id));
                done = stop;
            }

            if (done < text.Length)
            {
                segments.Add(new Segment(done, text.Length - done, null));
            }

            return segments;
        }

        private Entry? Longest(string text, int start)
        {
            foreach (Entry entry in _byFirst[text[start]])
            {
                if (text.AsSpan(start).StartsWith(entry.Content, StringComparison.Ordinal))
                {
                    return entry;
                }
            }

            return null;
        }

        private static bool WordBefore(string text, int index) =>
            Rune.DecodeLastFromUtf16(text.AsSpan(0, index), out Rune rune, out _) == OperationStatus.Done && CharacterClass.IsWord(rune);

        private static bool WordAfter(string text, int index) =>
            Rune.DecodeFromUtf16(text.AsSpan(index), out Rune rune, out _) == OperationStatus.Done && CharacterClass.IsWord(rune);
    }
}
