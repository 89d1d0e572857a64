using System.Globalization;
using System.Runtime.InteropServices;
using LoKr.Core.Chat;
using LoKr.Core.Errors;
using LoKr.Core.Nn;
using LoKr.Models.Tokenization.Models;

namespace LoKr.Models.Tokenization;

/// <summary>
/// A tokenizer with the stages of Hugging Face's: added tokens, normalizer, pre-tokenizers, model and template to encode, and a decoder.
/// Immutable except for bounded caches, so it may be used from several threads.
/// </summary>
internal sealed class TextTokenizer : ITextTokenizer
{
    private readonly TokenizerParts _parts;
    private readonly TokenizerConfig _config;
    private readonly AddedTokenTable _added;
    private readonly AddedVocabulary _finder;
    private readonly SpecialTokenTemplate _template;
    private readonly ITokenDecoder _decoder;
    private readonly Lazy<ChatTemplate?> _chatTemplate;

    public TextTokenizer(TokenizerParts parts, TokenizerConfig config, IReadOnlyList<string> sourceFiles, Func<ChatTemplate?> chatTemplate)
    {
        _parts = parts;
        _config = config;
        _chatTemplate = new(chatTemplate);
        SourceFiles = sourceFiles;
        _added = new AddedTokenTable(parts, config);
        _finder = new AddedVocabulary(_added.ToMatch(config.SplitSpecialTokens), parts.Normalizer);
        _template = TemplateResolver.Resolve(parts, config, _added);
        _decoder = parts.Decoder ?? TokenDecoders.Spaces;
        if (parts.AllowsCleanUp && config.CleanUpSpaces)
        {
            _decoder = TokenDecoders.CleanUp(_decoder);
        }

        VocabularySize = _added.VocabularySize;
        MaxLength = config.ModelMaxLength;
        PadId = _added.NamedId("pad_token");
        BosId = _added.NamedId("bos_token");
        EosId = _added.NamedId("eos_token");

        // Byte-level tokenizers know every text; some name the end of a text as the unknown token.
        UnknownId = _added.NamedId("unk_token") is int unknown && unknown != EosId && unknown != BosId ? unknown : null;
    }

    /// <inheritdoc/>
    public int VocabularySize { get; }

    /// <inheritdoc/>
    public int? MaxLength { get; }

    /// <inheritdoc/>
    public int? PadId { get; }

    /// <inheritdoc/>
    public int? BosId { get; }

    /// <inheritdoc/>
    public int? EosId { get; }

    /// <inheritdoc/>
    public int? UnknownId { get; }

    /// <inheritdoc/>
    public bool MarksInsideOfWords => _parts.Model is WordPieceModel;

    /// <inheritdoc/>
    public IReadOnlyList<string> SourceFiles { get; }

    /// <inheritdoc/>
    public ChatTemplate? FindChatTemplate() => _chatTemplate.Value;

    /// <inheritdoc/>
    public override string ToString() => $"{VocabularySize} tokens";

    /// <inheritdoc/>
    public IReadOnlyList<int> Encode(string text, bool addSpecialTokens = true, int? maxLength = null)
    {
        ArgumentNullException.ThrowIfNull(text);
        SpecialTokenTemplate template = addSpecialTokens ? _template : SpecialTokenTemplate.Empty;
        int room = Room(maxLength, template.Before.Count + template.After.Count);
        TokenRun tokens = new(text.Length / 3, traces: false);
        AddText(text, tokens, room);
        ReadOnlySpan<Symbol> found = CollectionsMarshal.AsSpan(tokens.Tokens);
        found = found[..Math.Min(found.Length, room)];
        int[] ids = new int[template.Before.Count + found.Length + template.After.Count];
        int at = 0;
        foreach (int id in template.Before)
        {
            ids[at++] = id;
        }

        foreach (Symbol token in found)
        {
            ids[at++] = token.Id;
        }

        foreach (int id in template.After)
        {
            ids[at++] = id;
        }

        return ids;
    }

    /// <inheritdoc/>
    public IReadOnlyList<TextToken> Tokenize(string text, string? textPair = null, bool addSpecialTokens = true, int? maxLength = null)
    {
        ArgumentNullException.ThrowIfNull(text);
        SpecialTokenTemplate template = addSpecialTokens ? _template : SpecialTokenTemplate.Empty;
        if (textPair is null)
        {
            int room = Room(maxLength, template.Before.Count + template.After.Count);
            List<TextToken> tokens = Trace(text, sequence: 0, room);
            return Assemble(template.Single, tokens, Math.Min(tokens.Count, room), [], 0);
        }

        IReadOnlyList<TemplatePart> parts = template.Pair ?? throw TokenizerError.Unsupported(
            _parts.File, "a template for pairs of texts, which it lacks", "Use another tokenizer file of the same model, or one text a row.");
        int both = Room(maxLength, parts.Count(part => part.Id is not null));

        // Whole texts, because how they are cut depends on their lengths.
        List<TextToken> first = Trace(text, sequence: 0, int.MaxValue);
        List<TextToken> second = Trace(textPair, sequence: 1, int.MaxValue);
        (int a, int b) = LongestFirst(first.Count, second.Count, both);
        return Assemble(parts, first, a, second, b);
    }

    /// <inheritdoc/>
    public IReadOnlyList<TextToken> TokenizeWords(IReadOnlyList<string> words, bool addSpecialTokens = true, int? maxLength = null)
    {
        ArgumentNullException.ThrowIfNull(words);
        SpecialTokenTemplate template = addSpecialTokens ? _template : SpecialTokenTemplate.Empty;
        int room = Room(maxLength, template.Before.Count + template.After.Count);
        List<TextToken> tokens = [];
        for (int word = 0; word < words.Count && tokens.Count < room; word++)
        {
            int index = word;
            tokens.AddRange(Trace(words[word], sequence: 0, room).Select(token => token with { Word = index }));
        }

        return Assemble(template.Single, tokens, Math.Min(tokens.Count, room), [], 0);
    }

    /// <inheritdoc/>
    public IDecodeStream OpenDecodeStream(bool skipSpecialTokens = true) => new DecodeStream(_decoder, _added, skipSpecialTokens);

    /// <summary>The number of tokens that a limit leaves to the texts.</summary>
    private static int Room(int? maxLength, int special)
    {
        if (maxLength is not int limit)
        {
            return int.MaxValue;
        }

        if (limit < Math.Max(1, special))
        {
            throw new LoKrException(
                ErrorIds.InvalidArgument,
                LoKrErrorKind.InvalidArgument,
                string.Create(CultureInfo.InvariantCulture, $"The maximum length {limit} leaves no room: the tokenizer adds {special} special tokens to every text."),
                string.Create(CultureInfo.InvariantCulture, $"Ask for at least {special + 1}."))
            {
                Target = limit,
            };
        }

        return limit - special;
    }

    /// <summary>
    /// How many tokens two texts keep where both together have too many, as the tokenizers library of Hugging Face cuts them: the longer text
    /// is cut to the length of the other; where that is not enough, both to half of the room, the longer one to the half that is rounded up.
    /// </summary>
    private static (int First, int Second) LongestFirst(int first, int second, int room)
    {
        if ((long)first + second <= room)
        {
            return (first, second);
        }

        bool swapped = first > second;
        (int shorter, int longer) = swapped ? (second, first) : (first, second);
        longer = shorter > room ? shorter : Math.Max(shorter, room - shorter);
        if (shorter + (long)longer > room)
        {
            shorter = room / 2;
            longer = shorter + (room % 2);
        }

        return swapped ? (longer, shorter) : (shorter, longer);
    }

    private static List<TextToken> Assemble(
        IReadOnlyList<TemplatePart> template, List<TextToken> first, int firstCount, List<TextToken> second, int secondCount)
    {
        List<TextToken> tokens = new(firstCount + secondCount + template.Count);
        foreach (TemplatePart part in template)
        {
            if (part.Id is int id)
            {
                tokens.Add(new TextToken(id, part.TypeId, -1, -1, 0, 0));
                continue;
            }

            ReadOnlySpan<TextToken> own = CollectionsMarshal.AsSpan(part.Text == 0 ? first : second);
            foreach (TextToken token in own[..(part.Text == 0 ? firstCount : secondCount)])
            {
                tokens.Add(token with { TypeId = part.TypeId });
            }
        }

        return tokens;
    }

    /// <summary>The tokens of one text with their places.</summary>
    private List<TextToken> Trace(string text, int sequence, int limit)
    {
        TokenRun run = new(text.Length / 3, traces: true);
        AddText(text, run, limit);
        List<TextToken> tokens = new(run.Tokens.Count);
        for (int i = 0; i < run.Tokens.Count; i++)
        {
            Symbol token = run.Tokens[i];
            (int start, int end) = (token.Start, token.Start + token.Length);
            if (_parts.Trimming is SpaceTrimming trimming && _added.TryGetToken(token.Id, out string? name))
            {
                (start, end) = trimming.Trim(name, start, end, isFirst: i == 0);
            }

            tokens.Add(new TextToken(token.Id, 0, sequence, run.Words[i], start, end));
        }

        return tokens;
    }

    private void AddText(string given, TokenRun run, int limit)
    {
        string text = WellFormed(given);
        MappedText whole = new(text, run.Traces ? SourceMap.Of(text) : null);
        foreach (AddedVocabulary.Segment raw in _finder.SplitRaw(text))
        {
            if (run.Tokens.Count >= limit)
            {
                return;
            }

            if (raw.Id is int rawId)
            {
                run.Add(rawId, whole, raw.Start, raw.Length);
                continue;
            }

            MappedText part = whole.Slice(raw.Start, raw.Length);
            MappedText normalized = _parts.Normalizer?.Normalize(part) ?? part;
            foreach (AddedVocabulary.Segment segment in _finder.SplitNormalized(normalized.Text))
            {
                if (segment.Id is int id)
                {
                    run.Add(id, normalized, segment.Start, segment.Length);
                    continue;
                }

                AddPieces(new Piece(normalized.Slice(segment.Start, segment.Length), raw.Start == 0 && segment.Start == 0), run, limit);
            }
        }
    }

    private void AddPieces(Piece piece, TokenRun run, int limit)
    {
        List<Piece> pieces = [piece];
        foreach (IPreTokenizer preTokenizer in _parts.PreTokenizers)
        {
            List<Piece> result = new(pieces.Count + 16);
            foreach (Piece current in pieces)
            {
                preTokenizer.Apply(current, result);
            }

            pieces = result;
        }

        foreach (Piece current in pieces)
        {
            if (run.Tokens.Count >= limit)
            {
                return;
            }

            run.Add(_parts.Model, current.Content);
        }
    }

    /// <summary>The text with U+FFFD in place of lone surrogates, which UTF-8 cannot encode.</summary>
    private static string WellFormed(string text)
    {
        if (text.AsSpan().IndexOfAnyInRange('\uD800', '\uDFFF') < 0)
        {
            return text;
        }

        return string.Concat(text.EnumerateRunes().Select(rune => rune.ToString()));
    }
}

/// <summary>The tokens of a text so far: where they come from only where that is asked for.</summary>
internal sealed class TokenRun(int capacity, bool traces)
{
    private int _word;

    public bool Traces => traces;

    /// <summary>Ids; where <see cref="Traces"/> with their places in the text that was given, else with those in their pieces.</summary>
    public List<Symbol> Tokens { get; } = new(capacity);

    /// <summary>Where <see cref="Traces"/>, the part of the text that each token is of.</summary>
    public List<int> Words { get; } = [];

    /// <summary>Adds an added token.</summary>
    public void Add(int id, MappedText text, int start, int length)
    {
        Tokens.Add(new Symbol(id, start, length));
        Place(text, Tokens.Count - 1, start: start, length);
        Words.AddRange(Enumerable.Repeat(_word++, traces ? 1 : 0));
    }

    /// <summary>Adds the tokens of a piece.</summary>
    public void Add(ITokenModel model, MappedText piece)
    {
        int from = Tokens.Count;
        model.Encode(piece.Text, Tokens);
        if (!traces)
        {
            return;
        }

        for (int i = from; i < Tokens.Count; i++)
        {
            Place(piece, i, Tokens[i].Start, Tokens[i].Length);
            Words.Add(_word);
        }

        _word++;
    }

    private void Place(MappedText text, int index, int start, int length)
    {
        if (text.Source is SourceMap source)
        {
            (int first, int end) = source.Range(start, length);
            Tokens[index] = new Symbol(Tokens[index].Id, first, Math.Max(0, end - first));
        }
    }
}

/// <summary>One text on its way through the decoder of a tokenizer.</summary>
internal sealed class DecodeStream : IDecodeStream
{
    private readonly AddedTokenTable _vocabulary;
    private readonly bool _skipsSpecialTokens;
    private readonly TextFlow _text = new();
    private readonly TokenFlow _tokens;

    public DecodeStream(ITokenDecoder decoder, AddedTokenTable vocabulary, bool skipsSpecialTokens)
    {
        _vocabulary = vocabulary;
        _skipsSpecialTokens = skipsSpecialTokens;
        _tokens = decoder.Begin(_text, joined: false);
    }

    /// <inheritdoc/>
    public string Step(int id)
    {
        // As in the reference, ids without a token (padding rows of an embedding) have no text.
        if (!_vocabulary.TryGetToken(id, out string? token) || (_skipsSpecialTokens && _vocabulary.IsSpecial(token)))
        {
            return "";
        }

        _tokens.Add(token);
        return _text.Take();
    }

    /// <inheritdoc/>
    public string Complete()
    {
        _tokens.Complete();
        return _text.Take();
    }
}
