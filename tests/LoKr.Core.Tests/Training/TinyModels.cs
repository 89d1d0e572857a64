using System.Text.Json.Nodes;
using LoKr.Core.Chat;
using LoKr.Core.Configuration;
using LoKr.Core.Data;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Core.Training;
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Training;

/// <summary>One token per character: 0 is padding, 1 begins, 2 ends a text, then the code of the character.</summary>
internal sealed class TinyTokenizer : ITextTokenizer
{
    public int VocabularySize => 130;

    public int? MaxLength => 512;

    public int? PadId => 0;

    public int? BosId => 1;

    public int? EosId { get; init; } = 2;

    /// <summary>Joins "ab" into one token, so that a prompt may end inside one.</summary>
    public bool JoinsAb { get; init; }

    public IReadOnlyList<string> SourceFiles => [];

    /// <summary>The template of conversations; null for none.</summary>
    public string? Template { get; init; }

    public ChatTemplate? FindChatTemplate() => Template is null ? null : ChatTemplate.Parse(Template);

    public IReadOnlyList<int> Encode(string text, bool addSpecialTokens = true, int? maxLength = null)
    {
        List<int> ids = addSpecialTokens ? [1] : [];
        foreach (char c in JoinsAb ? text.Replace("ab", "\u007F", StringComparison.Ordinal) : text)
        {
            ids.Add(c % 128);
        }

        return maxLength is int limit && ids.Count > limit ? ids[..limit] : ids;
    }

    public IReadOnlyList<TextToken> Tokenize(string text, string? textPair = null, bool addSpecialTokens = true, int? maxLength = null) =>
        Places(Starts(text + textPair).Select(static part => (part.Start, part.Start, part.Length)), Encode(text + textPair, addSpecialTokens, maxLength), addSpecialTokens);

    private IEnumerable<(int Start, int Length)> Starts(string text)
    {
        for (int i = 0; i < text.Length;)
        {
            int length = JoinsAb && text.AsSpan(i).StartsWith("ab") ? 2 : 1;
            yield return (i, length);
            i += length;
        }
    }

    public IReadOnlyList<TextToken> TokenizeWords(IReadOnlyList<string> words, bool addSpecialTokens = true, int? maxLength = null) =>
        Places(words.SelectMany((word, index) => word.Select((_, place) => (index, place, 1))), Encode(string.Concat(words), addSpecialTokens, maxLength), addSpecialTokens);

    private static IReadOnlyList<TextToken> Places(IEnumerable<(int Word, int Place, int Length)> places, IReadOnlyList<int> ids, bool hasSpecial) =>
        [.. hasSpecial ? [new TextToken(ids[0], 0, -1, -1, 0, 0)] : Array.Empty<TextToken>(),
            .. ids.Skip(hasSpecial ? 1 : 0).Zip(places, static (id, at) => new TextToken(id, 0, 0, at.Word, at.Place, at.Place + at.Length))];

    public IDecodeStream OpenDecodeStream(bool skipSpecialTokens = true) => new Characters();

    private sealed class Characters : IDecodeStream
    {
        public string Step(int id) => id > 2 ? ((char)id).ToString() : "";

        public string Complete() => "";
    }
}

/// <summary>Embedding, one layer, and what the two kinds of model add to it.</summary>
internal abstract class TinyModel : nn.Module, IPretrainedModel
{
    private readonly TorchSharp.Modules.Embedding _embedding = nn.Embedding(130, 16);
    private readonly Linear _mix = nn.Linear(16, 16);

    protected TinyModel(string name)
        : base(name)
    {
        register_module("embedding", _embedding);
        register_module("mix", _mix);
    }

    public string ModelType => "tiny";

    public string Architecture => GetName();

    public JsonObject Config => [];

    public virtual string? OutputEmbeddingsName => null;

    public IReadOnlyDictionary<string, string> TiedParameters => new Dictionary<string, string>();

    public int MaxSequenceLength => 32;

    /// <summary>Whether layers are called so that hooks run.</summary>
    public bool CallsHooks { get; init; } = true;

    /// <summary>Running mean from the left: position i sees tokens 0 to i.</summary>
    protected Tensor Encode(Tensor inputIds)
    {
        Tensor hidden = Mix(inputIds);
        Tensor count = arange(1, inputIds.shape[1] + 1).to(ScalarType.Float32).view(1, -1, 1);
        return (hidden.cumsum(1) / count).tanh();
    }

    /// <summary>The same within the texts of a row.</summary>
    protected Tensor Encode(Tensor inputIds, Tensor positionIds)
    {
        Tensor texts = positionIds.eq(0).cumsum(1);
        Tensor seen = texts.unsqueeze(2).eq(texts.unsqueeze(1)).tril().to(ScalarType.Float32);
        return (seen.matmul(Mix(inputIds)) / (positionIds + 1).unsqueeze(2)).tanh();
    }

    private Tensor Mix(Tensor inputIds) => CallsHooks ? _mix.call(_embedding.call(inputIds)) : nn.functional.linear(_embedding.call(inputIds), _mix.weight!, _mix.bias);
}

internal sealed class TinyClassifier : TinyModel, ISequenceClassifier
{
    private readonly Linear _classifier;

    public TinyClassifier(params string[] labels)
        : base(nameof(TinyClassifier))
    {
        Labels = labels;
        _classifier = nn.Linear(16, labels.Length);
        register_module("classifier", _classifier);
    }

    public IReadOnlyList<string> Labels { get; }

    public Tensor Classify(Tensor inputIds, Tensor attentionMask, Tensor? tokenTypeIds = null)
    {
        Tensor last = attentionMask.sum(dim: 1L) - 1;
        return _classifier.call(Encode(inputIds)[arange(inputIds.shape[0]), last]);
    }

    public static LoKrModel Create(params string[] labels) => new(new TinyClassifier(labels), tokenizer: new TinyTokenizer());

    /// <summary>A model whose checkpoint lacked the head.</summary>
    public static LoKrModel CreateFresh(params string[] labels) =>
        new(new TinyClassifier(labels), tokenizer: new TinyTokenizer(), freshParameters: ["classifier.weight", "classifier.bias"]);
}

internal sealed class TinyTagger : TinyModel, ITokenClassifier
{
    private readonly Linear _classifier;

    public TinyTagger(params string[] labels)
        : base(nameof(TinyTagger))
    {
        Labels = labels;
        _classifier = nn.Linear(16, labels.Length);
        register_module("classifier", _classifier);
    }

    public IReadOnlyList<string> Labels { get; }

    /// <summary>Logits of a character, in the place of computed ones.</summary>
    public Func<char, double[]>? Scores { get; init; }

    public Tensor ClassifyTokens(Tensor inputIds, Tensor attentionMask, Tensor? tokenTypeIds = null)
    {
        if (Scores is null)
        {
            return _classifier.call(Encode(inputIds));
        }

        double[] logits = [.. inputIds.data<long>().ToArray().SelectMany(id => Scores((char)id))];
        return tensor(logits).view(inputIds.shape[0], inputIds.shape[1], Labels.Count);
    }

    public static LoKrModel Create(params string[] labels) => new(new TinyTagger(labels), tokenizer: new TinyTokenizer());
}

/// <summary>The mean over the tokens of a text.</summary>
internal sealed class TinyEncoder() : TinyModel(nameof(TinyEncoder)), ISentenceEncoder
{
    public int Dimension => 16;

    public SentenceSettings Sentences { get; } = new();

    public IReadOnlyList<string> IdleModules => [];

    public string Prepare(string text) => text;

    public Tensor Embed(Tensor inputIds, Tensor attentionMask, int promptLength = 0)
    {
        Tensor mask = attentionMask.unsqueeze(-1).to(ScalarType.Float32);
        return (Encode(inputIds) * mask).sum(1) / mask.sum(1);
    }

    public static LoKrModel Create() => new(new TinyEncoder(), tokenizer: new TinyTokenizer());
}

internal sealed class TinyLanguageModel : TinyModel, IPackedLanguageModel
{
    private readonly Linear _head = nn.Linear(16, 130);

    public TinyLanguageModel()
        : base(nameof(TinyLanguageModel)) => register_module("lm_head", _head);

    public override string? OutputEmbeddingsName => "lm_head";

    public IReadOnlyList<int> EosIds => [2];

    public Tensor HiddenStates(Tensor inputIds, Tensor? attentionMask = null, Tensor? places = null) => Read(Encode(inputIds), places);

    public Tensor PackedHiddenStates(Tensor inputIds, Tensor positionIds, Tensor? places = null) => Read(Encode(inputIds, positionIds), places);

    public Tensor Project(Tensor hiddenStates) => _head.call(hiddenStates);

    public Tensor Logits(Tensor inputIds, Tensor? attentionMask = null) => Project(HiddenStates(inputIds, attentionMask));

    public IReadOnlyList<int> Generate(IReadOnlyList<int> promptIds, GenerationOptions options, CancellationToken cancellationToken = default) =>
        throw new NotSupportedException("Tests of training do not generate.");

    public static LoKrModel Create(TinyTokenizer? tokenizer = null) => new(new TinyLanguageModel(), tokenizer: tokenizer ?? new TinyTokenizer());

    private static Tensor Read(Tensor hidden, Tensor? places) => places is null ? hidden : hidden.flatten(0, 1).index_select(0, places);
}

/// <summary>Tasks of small models.</summary>
public enum TinyKind
{
    /// <summary>Labels of texts.</summary>
    Classifier,

    /// <summary>The next token.</summary>
    Language,

    /// <summary>Tags of words.</summary>
    Tagger,

    /// <summary>How well two texts fit.</summary>
    Reranker,

    /// <summary>Vectors, from texts with their partners and a wrong answer: the partners of a batch are compared.</summary>
    Encoder,

    /// <summary>Vectors, from pairs with scores: the pairs of a batch are compared.</summary>
    ScoredEncoder,
}

internal static class TinyKinds
{
    private static readonly string[] s_tags = ["O", "B-X", "I-X"];

    /// <summary>A random model of a kind.</summary>
    public static LoKrModel Create(this TinyKind kind) => kind switch
    {
        TinyKind.Language => TinyLanguageModel.Create(),
        TinyKind.Tagger => TinyTagger.Create(s_tags),
        TinyKind.Reranker => TinyClassifier.Create("relevance"),
        TinyKind.Encoder or TinyKind.ScoredEncoder => TinyEncoder.Create(),
        _ => TinyClassifier.Create("odd", "even"),
    };

    /// <summary>The task of the head that is trained whole; null without a head.</summary>
    public static TaskType? HeadTask(this TinyKind kind) => kind switch
    {
        TinyKind.Classifier or TinyKind.Reranker => TaskType.SequenceClassification,
        TinyKind.Tagger => TaskType.TokenClassification,
        _ => null,
    };

    /// <summary>A task on as many rows, which are the same for the same number.</summary>
    public static ITrainingTask TaskOn(this TinyKind kind, LoKrModel model, int rows, TrainingOptions options)
    {
        IEnumerable<int> numbers = Enumerable.Range(1, rows);
        return kind switch
        {
            TinyKind.Language => new CausalLanguageTask(model, [.. numbers.Select(static i => Rows.Text(Text(i), i))]),
            TinyKind.Tagger => new TokenClassificationTask(model, [.. numbers.Select(static i => Rows.Tagged($"{Text(i)} b {Text(i + 7)}", i % 3 == 0 ? "B-X I-X O" : "O O B-X", i))]),

            // Four texts a query, the last of which is right.
            TinyKind.Reranker => new TextClassificationTask(model, [.. numbers.Select(static i => Rows.Of(i, ("text", Text(i / 4)), ("text_pair", Text(i + 5)), ("label", i % 4 == 3 ? 1 : 0)))]),
            TinyKind.Encoder => new EmbeddingTask(
                model, [.. numbers.Select(static i => Rows.Of(i, ("query", Text(i)), ("positive", Text(i) + Text(i + 3)), ("negative", Text(i + 8) + "z")))], options),
            TinyKind.ScoredEncoder => new EmbeddingTask(
                model, [.. numbers.Select(static i => Rows.Of(i, ("sentence1", Text(i)), ("sentence2", Text(2 * i)), ("score", i % 5 / 5.0)))], options),
            _ => new TextClassificationTask(model, [.. numbers.Select(static i => Rows.Labeled(Text(i), Text(i).Length % 2 == 1 ? "odd" : "even", i))]),
        };
    }

    private static string Text(int i) => new((char)('a' + (i % 20)), 1 + (i % 9));
}

internal static class Rows
{
    public static DataRow Of(int line, params (string Name, object Value)[] fields) =>
        new(fields.ToDictionary(static field => field.Name, static field => (object?)field.Value), $"t.jsonl:{line}");

    public static DataRow Labeled(string text, object? label, int line = 1) =>
        new(new Dictionary<string, object?> { ["text"] = text, ["label"] = label }, $"t.jsonl:{line}");

    public static DataRow Tagged(string words, string tags, int line = 1) =>
        new(new Dictionary<string, object?> { ["tokens"] = words.Split(' '), ["ner_tags"] = tags.Split(' ') }, $"t.jsonl:{line}");

    public static DataRow Text(string text, int line = 1) => new(new Dictionary<string, object?> { ["text"] = text }, $"t.jsonl:{line}");

    public static DataRow Pair(string prompt, string completion, int line = 1) =>
        new(new Dictionary<string, object?> { ["prompt"] = prompt, ["completion"] = completion }, $"t.jsonl:{line}");
}
