using System.Globalization;
using LoKr.Core.Data;
using LoKr.Core.Errors;
using LoKr.Core.Model;
using LoKr.Core.Nn;

namespace LoKr.Core.Inference;

/// <summary>How a model answers texts.</summary>
public sealed record TextAnswerOptions
{
    /// <summary>Longest sequence, special tokens included; null for the model's limit.</summary>
    public int? MaxLength { get; init; }

    /// <summary>How the tokens of a word are one word where entities are found.</summary>
    public EntityAggregation Aggregation { get; init; }

    /// <summary>Name of a sentence encoder's prompt that is put in front of every text; null for the model's default.</summary>
    public string? PromptName { get; init; }
}

/// <summary>A text that was cut.</summary>
/// <param name="Used">Tokens that were used.</param>
/// <param name="TokenCount">Tokens of the whole text.</param>
public readonly record struct CutLength(int Used, int TokenCount)
{
    /// <summary>The lengths of a text in tokens.</summary>
    /// <param name="text">The text.</param>
    public static CutLength Of(CutText text)
    {
        ArgumentNullException.ThrowIfNull(text);
        return new(text.Ids.Length, text.TokenCount);
    }

    /// <summary>Tells in a sentence how much was cut.</summary>
    /// <param name="cut">The texts that were cut, at least one.</param>
    /// <param name="what">What a text is: text, prompt.</param>
    public static string Describe(IReadOnlyCollection<CutLength> cut, string what)
    {
        int used = cut.Min(static text => text.Used);
        int longest = cut.Max(static text => text.TokenCount);
        return cut.Count == 1
            ? string.Create(CultureInfo.InvariantCulture, $"The {what} has {longest} tokens; the first {used} are used.")
            : string.Create(CultureInfo.InvariantCulture, $"{cut.Count} {what}s are cut to {used} tokens; the longest has {longest}.");
    }
}

/// <summary>The answers of a model to a batch of texts, whatever its task. Serializable, so that it goes from one process to another.</summary>
public sealed record TextAnswers
{
    /// <summary>One for each text of a sequence classifier.</summary>
    public IReadOnlyList<LoKrClassification> Classifications { get; init; } = [];

    /// <summary>Those of all texts, of a token classifier.</summary>
    public IReadOnlyList<LoKrEntity> Entities { get; init; } = [];

    /// <summary>One for each text of a sentence encoder.</summary>
    public IReadOnlyList<LoKrEmbedding> Embeddings { get; init; } = [];

    /// <summary>That of one text of a language model.</summary>
    public LoKrCompletion? Completion { get; init; }

    /// <summary>The texts that were cut.</summary>
    public IReadOnlyList<CutLength> Cut { get; init; } = [];

    /// <summary>All results, in the order of the texts.</summary>
    public IEnumerable<object> Results() => [.. Classifications, .. Embeddings, .. Entities, .. Completion is null ? (object[])[] : [Completion]];

    /// <summary>The answers of several batches as those of one.</summary>
    /// <param name="parts">The batches, in order.</param>
    internal static TextAnswers Join(IReadOnlyCollection<TextAnswers> parts) => new()
    {
        Classifications = [.. parts.SelectMany(static part => part.Classifications)],
        Entities = [.. parts.SelectMany(static part => part.Entities)],
        Embeddings = [.. parts.SelectMany(static part => part.Embeddings)],
        Cut = [.. parts.SelectMany(static part => part.Cut)],
    };

    /// <summary>Runs a classifier, a tagger or a sentence encoder on one batch, as <see cref="TextClassifier"/>, <see cref="EntityTagger"/> and <see cref="TextEmbedder"/> do.</summary>
    /// <param name="model">The model, with a tokenizer.</param>
    /// <param name="texts">The texts of the batch.</param>
    /// <param name="first">Number of the first text, from which entities are numbered.</param>
    /// <param name="options">How it answers.</param>
    /// <exception cref="LoKrException">As the class of its task says.</exception>
    public static TextAnswers Of(LoKrModel model, IReadOnlyList<TextInput> texts, int first, TextAnswerOptions options)
    {
        ArgumentNullException.ThrowIfNull(model);
        ArgumentNullException.ThrowIfNull(texts);
        ArgumentNullException.ThrowIfNull(options);
        List<CutLength> cut = [];
        if (model.Pretrained is ITokenClassifier)
        {
            IReadOnlyList<IReadOnlyList<LoKrEntity>> entities = EntityTagger.Find(model, texts, options.Aggregation, options.MaxLength, (used, all) => cut.Add(new(used, all)));
            return new() { Entities = [.. entities.SelectMany((found, text) => found.Select(entity => entity with { Index = first + text }))], Cut = cut };
        }

        void OnCut(CutText text) => cut.Add(CutLength.Of(text));
        return model.Pretrained is ISentenceEncoder
            ? new() { Embeddings = TextEmbedder.Embed(model, [.. texts.Select(static text => text.Text)], options.PromptName, options.MaxLength, OnCut), Cut = cut }
            : new() { Classifications = TextClassifier.Classify(model, texts, options.MaxLength, OnCut), Cut = cut };
    }
}
