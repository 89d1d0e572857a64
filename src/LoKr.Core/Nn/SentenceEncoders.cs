using LoKr.Core.IO;
using static TorchSharp.torch;

namespace LoKr.Core.Nn;

/// <summary>A model that turns a text into one vector, so that texts that mean the same have similar ones (sentence-transformers' <c>SentenceTransformer</c>).</summary>
public interface ISentenceEncoder : IPretrainedModel
{
    /// <summary>Longest sequence that the model has positions for, special tokens included.</summary>
    int MaxSequenceLength { get; }

    /// <summary>Numbers in a vector.</summary>
    int Dimension { get; }

    /// <summary>How texts become vectors and vectors are compared.</summary>
    SentenceSettings Sentences { get; }

    /// <summary>
    /// Full names of modules that come with the checkpoint and take no part in a vector: the pooler of BERT, which targets may name, as in PEFT,
    /// but which never runs.
    /// </summary>
    IReadOnlyList<string> IdleModules { get; }

    /// <summary>A text as the tokenizer gets it: lower-cased where <see cref="SentenceSettings.LowerCase"/> says so.</summary>
    /// <param name="text">The text.</param>
    string Prepare(string text);

    /// <summary>Vectors of a batch.</summary>
    /// <param name="inputIds">Token ids, int64 [batch, length].</param>
    /// <param name="attentionMask">1 for tokens, 0 for padding on either side, int64 [batch, length].</param>
    /// <param name="promptLength">Number of tokens at the start of every text that are read but do not count in its vector.</param>
    /// <returns>Vectors [batch, <see cref="Dimension"/>].</returns>
    Tensor Embed(Tensor inputIds, Tensor attentionMask, int promptLength = 0);
}

/// <summary>How texts become vectors and vectors are compared: what the files of a sentence-transformers folder say beside the model.</summary>
public sealed record SentenceSettings
{
    /// <summary>How the vectors of tokens become one; of several kinds the results follow each other.</summary>
    public IReadOnlyList<SentencePooling> Pooling { get; init => field = ValueList.Of(value); } = ValueList.Of([SentencePooling.Mean]);

    /// <summary>Whether the tokens of a prompt count in the vector (<c>include_prompt</c>).</summary>
    public bool IncludePrompt { get; init; } = true;

    /// <summary>Whether vectors are scaled to length one.</summary>
    public bool Normalize { get; init; }

    /// <summary>Longest sequence, special tokens included (<c>max_seq_length</c>); null for the limit of model and tokenizer.</summary>
    public int? MaxSequenceLength { get; init; }

    /// <summary>Whether texts are lower-cased before the tokenizer reads them (<c>do_lower_case</c>).</summary>
    public bool LowerCase { get; init; }

    /// <summary>Texts that are put in front of every text of a kind, by name (<c>prompts</c>).</summary>
    public IReadOnlyDictionary<string, string> Prompts { get; init => field = ValueList.Of(value); } = ValueList.Of(new Dictionary<string, string>());

    /// <summary>Name of the prompt of texts of no kind (<c>default_prompt_name</c>); null for none.</summary>
    public string? DefaultPromptName { get; init; }

    /// <summary>How vectors are compared (<c>similarity_fn_name</c>).</summary>
    public SimilarityFunction Similarity { get; init; }

    /// <summary>The prompt of texts of no kind; empty without one.</summary>
    public string DefaultPrompt => DefaultPromptName is null ? "" : Prompts[DefaultPromptName];

    /// <summary>The prompt of what is searched for: <c>query</c>, else that of texts of no kind.</summary>
    public string QueryPrompt => Prompts.GetValueOrDefault("query", DefaultPrompt);

    /// <summary>The prompt of what is searched: <c>document</c>, <c>passage</c> or <c>corpus</c>, else that of texts of no kind.</summary>
    public string DocumentPrompt => Prompts.GetValueOrDefault("document") ?? Prompts.GetValueOrDefault("passage") ?? Prompts.GetValueOrDefault("corpus") ?? DefaultPrompt;
}

/// <summary>How the vectors of a text's tokens become one.</summary>
public enum SentencePooling
{
    /// <summary>The first token.</summary>
    Cls,

    /// <summary>The largest value of each place.</summary>
    Max,

    /// <summary>The mean.</summary>
    Mean,

    /// <summary>The sum, divided by the root of the number of tokens.</summary>
    MeanSqrtLen,

    /// <summary>The mean, with weights 1, 2, 3 and so on.</summary>
    WeightedMean,

    /// <summary>The last token.</summary>
    LastToken,
}

/// <summary>How two vectors are compared; higher is more similar.</summary>
public enum SimilarityFunction
{
    /// <summary>Cosine of their angle.</summary>
    Cosine,

    /// <summary>Inner product.</summary>
    Dot,

    /// <summary>The distance, negative.</summary>
    Euclidean,

    /// <summary>The sum of the absolute differences, negative.</summary>
    Manhattan,
}

/// <summary>Compares vectors, as sentence-transformers' <c>util</c> does.</summary>
public static class Similarity
{
    /// <summary>Compares every vector with every other.</summary>
    /// <param name="function">How.</param>
    /// <param name="first">[n, dimension].</param>
    /// <param name="second">[m, dimension].</param>
    /// <returns>[n, m].</returns>
    public static Tensor All(this SimilarityFunction function, Tensor first, Tensor second)
    {
        using var scope = NewDisposeScope();
        return (function switch
        {
            SimilarityFunction.Cosine => Unit(first).mm(Unit(second).t()),
            SimilarityFunction.Dot => first.mm(second.t()),
            SimilarityFunction.Euclidean => cdist(first, second, 2).neg(),
            _ => cdist(first, second, 1).neg(),
        }).MoveToOuterDisposeScope();
    }

    /// <summary>Compares vectors row by row.</summary>
    /// <param name="function">How.</param>
    /// <param name="first">[n, dimension].</param>
    /// <param name="second">[n, dimension].</param>
    /// <returns>[n].</returns>
    public static Tensor Pairs(this SimilarityFunction function, Tensor first, Tensor second)
    {
        ArgumentNullException.ThrowIfNull(first);
        using var scope = NewDisposeScope();
        return (function switch
        {
            SimilarityFunction.Cosine => (Unit(first) * Unit(second)).sum(-1),
            SimilarityFunction.Dot => (first * second).sum(-1),
            SimilarityFunction.Euclidean => (first - second).square().sum(-1).sqrt().neg(),
            _ => (first - second).abs().sum(-1).neg(),
        }).MoveToOuterDisposeScope();
    }

    private static Tensor Unit(Tensor vectors) => nn.functional.normalize(vectors, 2, 1);
}
