using System.Buffers;
using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using System.Text;
using LoKr.Models.Tokenization.Models;
using LoKr.Models.Tokenization.Patterns;

namespace LoKr.Models.Tokenization;

/// <summary>A token that is matched in the text before the model stage.</summary>
/// <param name="Content">The text of the token.</param>
/// <param name="SingleWord">Matches only where no word character is its neighbor.</param>
/// <param name="LeftStrip">Also consumes the white space on its left.</param>
/// <param name="RightStrip">Also consumes the white space on its right.</param>
/// <param name="Normalized">Is normalized and matched in the normalized text instead of the raw text.</param>
/// <param name="Special">Is omitted when decoding skips special tokens.</param>
/// <param name="StatedId">Its id in the file, if any.</param>
internal sealed record AddedToken(
    string Content,
    bool SingleWord = false,
    bool LeftStrip = false,
    bool RightStrip = false,
    bool Normalized = false,
    bool Special = true,
    int? StatedId = null);

/// <summary>
/// The added tokens of a tokenizer with their ids, gathered as transformers does: those of
/// <c>added_tokens.json</c>, of the tokenizer's own file, of <c>added_tokens_decoder</c>, then special tokens that only the configuration names.
/// </summary>
internal sealed class AddedTokenTable
{
    private readonly Vocabulary _vocabulary;
    private readonly string _file;
    private readonly Dictionary<string, (AddedToken Token, int Id)> _byContent = new(StringComparer.Ordinal);
    private readonly Dictionary<int, string> _byId = [];
    private readonly List<string> _order = [];
    private readonly Dictionary<string, string> _named = new(StringComparer.Ordinal);

    public AddedTokenTable(TokenizerParts parts, TokenizerConfig config)
    {
        _vocabulary = parts.Model.Vocabulary;
        _file = parts.File;
        foreach (AddedToken token in config.LegacyAddedTokens.Concat(parts.AddedTokens).Concat(config.AddedTokens))
        {
            Add(token);
        }

        foreach (string name in TokenizerConfig.SpecialTokenNames)
        {
            AddedToken? own = parts.DefaultSpecialTokens.GetValueOrDefault(name);
            if (!config.Named.TryGetValue(name, out AddedToken? token))
            {
                token = own;
            }
            else if (token is not null && own is not null && config.IsPlain(name))
            {
                // A plain string inherits the options of the family's token, such as those of RoBERTa's <mask>.
                token = own with { Content = token.Content };
            }
            else if (token is not null && own?.StatedId is int stated && own.Content == token.Content)
            {
                token = token with { StatedId = stated };
            }

            if (token is not null)
            {
                AddNamed(name, token);
            }
        }

        foreach (AddedToken token in config.ExtraSpecialTokens)
        {
            AddNamed(null, token);
        }

        VocabularySize = _vocabulary.Count + _byContent.Keys.Count(content => !_vocabulary.TryGetId(content, out _));
    }

    /// <summary>Number of tokens, added ones included.</summary>
    public int VocabularySize { get; }

    /// <summary>Tokens to match in the text; special ones first, as in the reference.</summary>
    public IEnumerable<(AddedToken Token, int Id)> ToMatch(bool splitSpecialTokens) => _order
        .Select(content => _byContent[content])
        .Where(entry => !(splitSpecialTokens && entry.Token.Special))
        .OrderByDescending(entry => entry.Token.Special);

    /// <summary>Id of a special token by its key, such as <c>pad_token</c>, or null.</summary>
    public int? NamedId(string name) => _named.TryGetValue(name, out string? content) ? _byContent[content].Id : null;

    public bool IsSpecial(string token) => _byContent.TryGetValue(token, out (AddedToken Token, int Id) entry) && entry.Token.Special;

    public bool TryGetToken(int id, [NotNullWhen(true)] out string? token) =>
        _byId.TryGetValue(id, out token) || _vocabulary.TryGetToken(id, out token);

    private void AddNamed(string? name, AddedToken token)
    {
        // A known token keeps its options but becomes special.
        Add(_byContent.TryGetValue(token.Content, out (AddedToken Token, int Id) known)
            ? known.Token with { Special = true }
            : token with { Special = true });
        if (name is not null && token.Content.Length > 0)
        {
            _named[name] = token.Content;
        }
    }

    private void Add(AddedToken token)
    {
        if (token.Content.Length == 0)
        {
            return;
        }

        bool known = _byContent.TryGetValue(token.Content, out (AddedToken Token, int Id) entry);
        int id = known ? entry.Id
            : _vocabulary.TryGetId(token.Content, out int own) ? own
            : token.StatedId ?? NextId();
        if (token.StatedId is int stated && stated != id)
        {
            throw TokenizerError.Invalid(_file, string.Create(
                CultureInfo.InvariantCulture, $"the added token '{token.Content}' has id {stated}, but id {id} in the vocabulary"));
        }

        if (!known)
        {
            if (TryGetToken(id, out string? other) && other != token.Content)
            {
                throw TokenizerError.Invalid(_file, string.Create(
                    CultureInfo.InvariantCulture, $"the added token '{token.Content}' and the token '{other}' both have id {id}"));
            }

            _order.Add(token.Content);
        }

        _byContent[token.Content] = (token, id);
        _byId[id] = token.Content;
    }

    private int NextId() => Math.Max(_vocabulary.Count, _byId.Count == 0 ? 0 : _byId.Keys.Max() + 1);
}

/// <summary>
/// Finds added tokens in a text: leftmost match first, the longest of those that begin at the same place, as the tokenizers
/// library of Hugging Face does. Tokens that are not normalized are matched in the raw text, the others afterwards in the normalized rest.
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

    /// <summary>Splits the raw text.</summary>
    public List<Segment> SplitRaw(string text) => _raw.Split(text);

    /// <summary>Splits a normalized rest.</summary>
    public List<Segment> SplitNormalized(string text) => _normalized.Split(text);

    /// <summary>A part of the text: an added token with its id, or other text without one.</summary>
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
