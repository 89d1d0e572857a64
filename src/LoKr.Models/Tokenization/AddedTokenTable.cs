using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using LoKr.Models.Tokenization.Cores;

namespace LoKr.Models.Tokenization;

/// <summary>
/// The added tokens of a tokenizer with their ids, gathered as transformers does: those of
/// <c>added_tokens.json</c>, of the tokenizer's own file, of <c>added_tokens_decoder</c>, then special tokens that are only named.
/// </summary>
internal sealed class AddedTokenTable
{
    private readonly ITokenModel _model;
    private readonly string _file;
    private readonly Dictionary<string, (AddedToken Token, int Id)> _byContent = new(StringComparer.Ordinal);
    private readonly Dictionary<int, string> _byId = [];
    private readonly List<string> _order = [];
    private readonly Dictionary<string, string> _named = new(StringComparer.Ordinal);

    public AddedTokenTable(TokenizerParts parts, TokenizerConfig config)
    {
        _model = parts.Model;
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
                // A plain string takes the options that the family gives this token, such as those of RoBERTa's <mask>.
                token = own with { Content = token.Content };
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

        VocabularySize = _model.Count + _byContent.Keys.Count(content => !_model.TryGetId(content, out _));
    }

    /// <summary>Number of tokens, added ones included.</summary>
    public int VocabularySize { get; }

    /// <summary>Tokens to look for in the text; special ones first, as the reference has them.</summary>
    public IEnumerable<(AddedToken Token, int Id)> ToMatch(bool splitSpecialTokens) => _order
        .Select(content => _byContent[content])
        .Where(entry => !(splitSpecialTokens && entry.Token.Special))
        .OrderByDescending(entry => entry.Token.Special);

    /// <summary>Id of a special token by its key, such as <c>pad_token</c>, or null.</summary>
    public int? NamedId(string name) => _named.TryGetValue(name, out string? content) ? _byContent[content].Id : null;

    public bool IsSpecial(string token) => _byContent.TryGetValue(token, out (AddedToken Token, int Id) entry) && entry.Token.Special;

    public bool TryGetToken(int id, [NotNullWhen(true)] out string? token) =>
        _byId.TryGetValue(id, out token) || _model.TryGetToken(id, out token);

    private void AddNamed(string? name, AddedToken token)
    {
        // The options of a token that is there already stay; that it is special is news.
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
            : _model.TryGetId(token.Content, out int own) ? own
            : token.StatedId ?? NextId();
        if (token.StatedId is int stated && stated != id)
        {
            throw TokenizerError.Invalid(_file, string.Create(
                CultureInfo.InvariantCulture, $"the added token '{token.Content}' is said to have id {stated}, but the vocabulary gives it {id}"));
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

    private int NextId() => Math.Max(_model.Count, _byId.Count == 0 ? 0 : _byId.Keys.Max() + 1);
}
